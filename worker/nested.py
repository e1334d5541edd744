"""Estimators inside estimators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def walk_estimators(estimator: Any) -> Iterator[Any]:
    """Yield an estimator and all those inside it, fitted copies included, each once."""
    yield from _walk(estimator, set())


def _walk(value: Any, seen: set[int]) -> Iterator[Any]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        children = list(np.ravel(value)) if isinstance(value, np.ndarray) else list(value)
    elif hasattr(value, "get_params") and not isinstance(value, type):
        yield value
        children = list(vars(value).values())
    else:
        return
    for child in children:
        yield from _walk(child, seen)
