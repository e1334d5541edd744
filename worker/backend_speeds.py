"""How fast the ways of running a model are, on this machine and with one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from shared.backend import Speed
from shared.values import Values
from worker.backends import Runner
from worker.direct import TreesHead
from worker.tree_ensembles import Array

#: Rows of the calls that are measured.
MEASURED_ROWS = (1, 16, 256, 4096)
#: Sizes of calls at one of which the trees themselves may become faster than their graph.
SWITCH_ROWS = (1, 16, 64, 128, 256, 512, 1024, 2048, 4096)
#: Seconds for one figure, and in how many turns: what else the machine does then slows them all.
_FIGURE_SECONDS = 0.02
_TURNS = 4
#: A call that would take longer is not made: the smaller ones tell enough of such a model.
_CALL_SECONDS_MAX = 2.0


def measure_speeds(runners: Sequence[Runner], sample: Values) -> tuple[Speed, ...]:
    """Measure the estimator, and its conversion if there is one, beside each other.

    Parameters
    ----------
    runners : sequence of Runner
        One or two.
    sample : Values

    Returns
    -------
    tuple of Speed
        Without the sizes of which one call would take too long.
    """
    found: list[Speed] = []
    for rows in MEASURED_ROWS:
        values = Values(repeat_rows(sample.matrix, rows), sample.others)
        seconds = time_calls([partial(runner.answer, values) for runner in runners])
        found.append(Speed(rows, *(round(rows / value, 1) for value in seconds)))
        if 16 * max(seconds) > _CALL_SECONDS_MAX:
            break
    return tuple(found)


def keep_fastest(one: Sequence[Speed], other: Sequence[Speed]) -> tuple[Speed, ...]:
    """Join two measurements of the same runners: of each figure the better."""
    known = {speed.rows: speed for speed in one}
    pairs = [(known.get(speed.rows, speed), speed) for speed in other]
    return tuple(
        Speed(b.rows, max(a.estimator, b.estimator), max(a.converted or 0, b.converted or 0)) for a, b in pairs
    )


def find_switch(head: TreesHead, sample: Array) -> int | None:
    """Find up to how many rows of a call the graph of trees is faster than the trees themselves.

    Returns
    -------
    int or None
        0: at no size. None: at all sizes.
    """
    slower, faster = -1, len(SWITCH_ROWS)
    while faster - slower > 1:  # places in SWITCH_ROWS: up to `slower` the trees are slower, from `faster` on faster
        middle = (slower + faster) // 2
        rows = head.round_rows(repeat_rows(sample, SWITCH_ROWS[middle]))
        by_graph, by_trees = time_calls([partial(head.add_in_graph, rows), partial(head.add_in_trees, rows)])
        if by_graph <= by_trees:
            slower = middle
        else:
            faster = middle
    if faster == len(SWITCH_ROWS):
        return None
    return 0 if slower < 0 else SWITCH_ROWS[slower]


def repeat_rows(sample: Array, rows: int) -> Array:
    """Repeat a sample until it has so many rows, and cut it there."""
    return np.ascontiguousarray(sample.take(np.arange(rows) % len(sample), axis=0))


def time_calls(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Time calls in turn; return the seconds of each one's fastest."""
    best = [np.inf] * len(calls)
    for _ in range(_TURNS):
        for place, call in enumerate(calls):
            call()  # the one before has filled the caches with what is its own
            until = time.perf_counter() + _FIGURE_SECONDS / _TURNS
            while (began := time.perf_counter()) < until or best[place] == np.inf:
                call()
                best[place] = min(best[place], time.perf_counter() - began)
    return best
