"""Whether a conversion answers as its estimator does: on the sample, between and around its rows, and at thresholds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.signature import Column
from shared.values import Values
from worker.backends import Answers, Runner
from worker.tree_ensembles import Array, TreeEnsemble

#: Rows of each kind that are tried.
TRIED_ROWS = 2_000


class Disagreement(ValueError):
    """A conversion does not answer as the estimator does; the message says how."""


def make_probes(sample: Values, columns: Sequence[Column]) -> list[Values]:
    """Make rows to try: of the sample, half-way between them (where classes meet), and anywhere in their ranges."""
    generator = np.random.default_rng(0)
    rows = sample.matrix
    rows = rows if len(rows) <= TRIED_ROWS else rows[generator.permutation(len(rows))[:TRIED_ROWS]]
    between = mix_rows(Values(rows, sample.others), columns)
    known = np.where(np.isfinite(rows), rows, np.nan)
    empty = np.isnan(known).all(axis=0)
    least, most = (np.where(empty, 0.0, find(np.where(empty, 0.0, known), axis=0)) for find in (np.nanmin, np.nanmax))
    around = least + generator.random((TRIED_ROWS, rows.shape[1])) * (most - least)
    # As often as values are missing in a column of the sample, they are missing here.
    around[generator.random(around.shape) < np.isnan(rows).mean(axis=0)] = np.nan
    whole = [index for index, column in enumerate(columns) if column.type != "double"]
    around[:, whole] = np.round(around[:, whole])
    return [Values(np.ascontiguousarray(rows), sample.others), between, Values(around, sample.others)]


def mix_rows(values: Values, columns: Sequence[Column]) -> Values:
    """Make rows half-way between those given, where classes meet; what has no half is taken from either."""
    generator = np.random.default_rng(0)
    one, other = values.matrix, generator.permutation(values.matrix)
    mixed = one / 2 + other / 2
    for index, column in enumerate(columns):
        if column.type == "long":
            mixed[:, index] = np.floor(mixed[:, index])
        elif column.type != "double":
            either = generator.random(len(one)) < 0.5
            mixed[:, index] = np.where(either, one[:, index], other[:, index])
    return Values(mixed, values.others)


def probe_thresholds(ensemble: TreeEnsemble, rows: Array) -> Array:
    """Make rows that lie on thresholds of trees and a rounding error beside them.

    Parameters
    ----------
    rows : ndarray of float64, shape (n_rows, n_columns)
        As they reach the trees.
    """
    nodes = ensemble.nodes
    generator = np.random.default_rng(1)
    asked = np.flatnonzero((nodes.left >= 0) & np.isfinite(nodes.threshold))
    if not len(asked):
        return rows[:1]
    chosen = generator.choice(asked, TRIED_ROWS)
    probes = rows[generator.integers(len(rows), size=TRIED_ROWS)].astype(np.float64)
    exact = nodes.threshold[chosen]
    rounded = exact.astype(ensemble.precision)
    beside = np.where(generator.random(TRIED_ROWS) < 0.5, -np.inf, np.inf).astype(rounded.dtype)
    values = np.choose(generator.integers(3, size=TRIED_ROWS), [exact, rounded, np.nextafter(rounded, beside)])
    probes[np.arange(TRIED_ROWS), nodes.feature[chosen]] = values
    return probes


def check_answers(own: Runner, other: Runner, probes: Sequence[Values], tolerance: float) -> tuple[bool, int]:
    """Compare a conversion's answers with the estimator's.

    Returns
    -------
    tuple of bool and int
        Whether all are the same bits, and on how many rows.

    Raises
    ------
    Disagreement
        An answer is further off than the tolerance, or another label; or one refuses rows that the other answers.
    """
    exact, rows = True, 0
    for probe in probes:
        expected, given = _try_answer(own, probe), _try_answer(other, probe)
        if isinstance(expected, Exception) and isinstance(given, Exception):
            continue
        if isinstance(expected, Exception):
            raise Disagreement(f"it refuses rows ({type(expected).__name__}) that the conversion answers")
        if isinstance(given, Exception):
            raise Disagreement(f"its conversion refuses rows ({type(given).__name__}) that it answers itself")
        wrong = _count_wrong(expected, given, tolerance)
        if wrong:
            raise Disagreement(f"its conversion is off by more than {tolerance:g} on {wrong} of {len(probe)} rows")
        exact &= np.array_equal(expected, given)
        rows += len(probe)
    return exact, rows


def _try_answer(runner: Runner, probe: Values) -> Answers | Exception:
    try:
        return runner.answer(probe)
    except Exception as error:  # noqa: BLE001 - a model may raise anything; the caller compares who raises
        return error


def _count_wrong(expected: Answers, given: Answers, tolerance: float) -> int:
    if expected.shape != given.shape:
        return len(expected)
    if expected.dtype.kind != "f":
        return int((expected != given).sum())
    far = ~np.isclose(given, expected, rtol=tolerance, atol=0)
    if expected.ndim == 1:
        return int(far.sum())
    # Labels are the classes of the highest probabilities: they may differ only where the two best are as good as equal.
    here = np.arange(len(expected))
    best, other = (expected[here, answers.argmax(axis=1)] for answers in (expected, given))
    return int((far.any(axis=1) | (best - other > tolerance * best)).sum())
