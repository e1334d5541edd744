"""Threads of models: one a process, since N processes on N cores must not fight."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import threadpoolctl

from worker.nested import walk_estimators


def use_one_thread(estimator: Any) -> list[tuple[Any, Any]]:
    """Set `n_jobs` to 1 on an estimator and all those inside it, fitted ones included.

    `set_params` would miss the fitted copies that meta-estimators keep.

    Returns
    -------
    list of tuple
        What was changed: the estimator inside, and its `n_jobs` before.
    """
    changed = [(inner, inner.n_jobs) for inner in walk_estimators(estimator) if getattr(inner, "n_jobs", 1) != 1]
    for inner, _ in changed:
        inner.n_jobs = 1
    return changed


@contextlib.contextmanager
def one_thread(estimator: Any) -> Iterator[None]:
    """Let an estimator and the libraries below it use one thread, as in a worker, and then as many as before."""
    changed = use_one_thread(estimator)
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        for inner, threads in changed:
            inner.n_jobs = threads
