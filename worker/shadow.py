"""Shadows: a version that scores the rows of another, unseen; only how its answers differ is counted.

It comes when nothing else waits, after the commit, with nothing claimed, and for a small share of the time: it can
neither delay a job for long nor fail one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shared import metrics
from shared.references import BrokenManifest, UnknownModel
from shared.registry import Registry
from shared.signature import Signature
from shared.values import Values, recode_values
from worker.models import LoadedModel
from worker.scoring import Outcome, score_values

#: Share of a process's time that goes to shadows, at most.
TIME_SHARE = 0.1
#: Rows that are kept for a shadow until nothing else waits.
MOST_ROWS = 4096
#: Regressions agree if their answers differ by no more than this share.
AGREEMENT = 0.01
_PATIENCE_SECONDS = 1.0


class Scored(NamedTuple):
    """A micro-batch that was committed."""

    values: Values
    outcome: Outcome


class ShadowScorer:
    """Scores committed rows again with the shadow of their version, if an alias names one.

    Parameters
    ----------
    registry : Registry
    peek : callable
        Name and version to a model that is warm, or None: a shadow is never loaded while jobs may come.
    clock : callable
        Gives seconds.
    """

    def __init__(
        self,
        registry: Registry,
        peek: Callable[[str, int], LoadedModel | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._peek = peek
        self._clock = clock
        self._not_before = 0.0

    def find_shadow(self, name: str, version: int) -> int | None:
        """Return the shadow of a version; None if it has none, or that cannot be told."""
        try:
            return self._registry.find_shadow(name, version)
        except BrokenManifest:  # of the aliases; whoever uses one of them is told
            return None

    def score(self, name: str, version: int, shadow: int, batches: list[Scored], *, is_idle: bool) -> None:
        """Score micro-batches again and count how the answers differ.

        Parameters
        ----------
        name, version
            Of what scored them.
        shadow : int
            Version of what scores them now.
        batches : list of Scored
        is_idle : bool
            Whether nothing else waits; otherwise they are counted as skipped.
        """
        labels = (name, str(version), str(shadow))
        model, signature = self._peek(name, shadow), self._find_signature(name, version)
        for values, outcome in batches:
            began = self._clock()
            if model is None or signature is None or not is_idle or began < self._not_before:
                metrics.SHADOW_ROWS.labels(*labels, "skipped").inc(len(values))
                continue
            own_values = recode_values(values, signature, model.manifest.signature)
            own = score_values(model, own_values, MOST_ROWS, patience_seconds=_PATIENCE_SECONDS)
            taken = self._clock() - began
            self._not_before = self._clock() + taken * (1 / TIME_SHARE - 1)
            _count(labels, outcome, own, comparable=signature.answers == model.manifest.signature.answers)

    def _find_signature(self, name: str, version: int) -> Signature | None:
        with contextlib.suppress(UnknownModel, BrokenManifest):  # it was removed or damaged since
            return self._registry.manifest(name, version).signature
        return None


def compare(outcome: Outcome, own: Outcome, *, comparable: bool = True) -> tuple[npt.NDArray[np.bool_], float | None]:
    """Compare two answers to the same rows; those that failed in either are left out.

    Returns
    -------
    ndarray of bool, shape (n_compared,)
        Whether they agree: the same label, or numbers that differ by at most `AGREEMENT`.
    float or None
        Mean over the rows of the largest difference of a probability, or of the relative difference of a number; None
        if there is nothing to measure.
    """
    failed = sorted({*outcome.errors, *own.errors})
    both = np.setdiff1d(np.arange(len(outcome)), np.array(failed, dtype=np.int64))
    if not len(both):
        return np.zeros(0, dtype=bool), None
    theirs, ours = _flatten(outcome.predictions[both]), _flatten(own.predictions[both])
    if outcome.probabilities is None and theirs.dtype.kind == "f" and ours.dtype.kind == "f":
        scale = np.maximum(np.maximum(np.abs(theirs), np.abs(ours)), np.finfo(np.float64).tiny)
        difference = (np.abs(theirs - ours) / scale).max(axis=1)
        return difference <= AGREEMENT, float(difference.mean())
    agree = np.asarray((theirs == ours).all(axis=1), dtype=bool)
    if not comparable or outcome.probabilities is None or own.probabilities is None:
        return agree, None
    gaps = np.abs(_flatten(outcome.probabilities[both]) - _flatten(own.probabilities[both]))
    return agree, float(gaps.max(axis=1).mean())


def _count(labels: tuple[str, str, str], outcome: Outcome, own: Outcome, *, comparable: bool) -> None:
    agree, difference = compare(outcome, own, comparable=comparable)
    metrics.SHADOW_ROWS.labels(*labels, "agreed").inc(int(agree.sum()))
    metrics.SHADOW_ROWS.labels(*labels, "disagreed").inc(int((~agree).sum()))
    metrics.SHADOW_ROWS.labels(*labels, "failed").inc(len(outcome) - len(agree))
    if difference is not None:
        metrics.SHADOW_DIFFERENCE.labels(*labels).observe(difference)


def _flatten(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.reshape(len(values), -1)
