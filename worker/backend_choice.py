"""Registration's choice of a backend: convert the estimator, check the answers, measure both, keep one.

One backend runs all rows of a version, so that an answer never depends on the rows beside it. An exact program may have
two ways of adding up its trees, for small and for large calls: their answers are the same bits, which is tried here, on
the sample and beside the trees' own thresholds.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from shared.backend import GRAPH_FILE, Backend, GraphFile, Speed
from shared.signature import Column
from shared.values import Matrix, Values
from worker.array_steps import Step
from worker.backend_checks import Disagreement, check_answers, make_probes, probe_thresholds
from worker.backend_speeds import find_switch, keep_fastest, measure_speeds
from worker.backends import EstimatorRunner, GraphRunner, ProgramRunner, Runner
from worker.direct import LinearHead, Program, TreesHead, read_head, split_pipeline
from worker.onnx_session import GraphRefused, OnnxGraph
from worker.onnx_trees import write_tree_graph
from worker.onnx_whole import convert_whole
from worker.threads import one_thread
from worker.tree_ensembles import NotConvertible, TreeEnsemble

#: Relative differences that are allowed. Programs of trees must give the same bits.
DIRECT_TOLERANCE = 1e-6
GRAPH_TOLERANCE = 1e-5
#: A conversion is kept if it is never slower than this times the estimator, and for some size of call as fast as that.
_NEVER_BELOW = 0.9
_SOMEWHERE = 1.1
#: Before it is refused for its speed it is measured so often, unless it is far too slow.
_TRIES = 3
_HOPELESS = 0.6


@dataclass(frozen=True)
class Choice:
    """The backend of a version, and its graph's bytes if it has one."""

    backend: Backend
    graph: bytes | None = None


@dataclass(frozen=True)
class _Candidate:
    backend: Backend
    runner: Runner
    graph: bytes | None = None


def choose_backend(own: EstimatorRunner, sample: Values, columns: Sequence[Column], *, labels_follow: bool) -> Choice:
    """Choose the way in which a version's rows are run.

    Parameters
    ----------
    own : EstimatorRunner
        Of the fitted estimator.
    sample : Values
        Rows as they will come.
    columns : sequence of Column
        What they are; a nullable one may be without a value.
    labels_follow : bool
        Whether a classifier's labels are those of its highest probabilities.
    """
    if own.gives_probabilities and not labels_follow and len(own.outputs) == 1:
        return Choice(Backend(reason="it is not converted: its labels are not those of its highest probabilities"))
    with one_thread(own.estimator), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an estimator may warn of rows that are tried here and never came
        candidate = _convert(own, sample, columns)
        try:
            return _compare_speeds(own, candidate, sample)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; a worker that loads it will say so too
            return Choice(Backend(reason=f"it could not be measured: a call failed ({type(error).__name__})"))


def _convert(own: EstimatorRunner, sample: Values, columns: Sequence[Column]) -> _Candidate | str:
    """Return the first conversion that answers as the estimator does, or why there is none."""
    if len(own.outputs) > 1:
        return "it is not converted: it has several outputs"
    counts = [len(column.categories) if column.is_coded else np.inf for column in columns]
    # Values that are no categories are the estimator's to decide in any case.
    known = sample[np.flatnonzero(~(sample.matrix >= counts).any(axis=1))]
    if not len(known):
        return "it is not converted: the sample has no row of categories that it knows"
    probes = make_probes(known, columns)
    reasons: list[str] = []
    for convert in (_convert_directly, _convert_whole):
        try:
            return convert(own, known.matrix, columns, probes)
        except (NotConvertible, GraphRefused, Disagreement) as error:
            reasons.append(str(error))
    return "it is not converted: " + "; ".join(reasons)


def _compare_speeds(own: EstimatorRunner, candidate: _Candidate | str, sample: Values) -> Choice:
    if isinstance(candidate, str):
        return Choice(Backend(reason=candidate, measured=measure_speeds([own], sample)))
    measured: tuple[Speed, ...] = ()
    for _ in range(_TRIES):  # on a busy machine one figure may be far too low
        measured = keep_fastest(measured, measure_speeds([own, candidate.runner], sample))
        ratios = {speed.rows: (speed.converted or 0) / speed.estimator for speed in measured}
        slowest = min(ratios, key=ratios.__getitem__)
        if ratios[slowest] >= _NEVER_BELOW and max(ratios.values()) >= _SOMEWHERE:
            return Choice(msgspec.structs.replace(candidate.backend, measured=measured), candidate.graph)
        if ratios[slowest] < _HOPELESS:
            break
    reason = f"as {candidate.backend.name} it is only {ratios[slowest]:.2f} times as fast, in calls of {slowest} row(s)"
    return Choice(Backend(reason=reason, measured=measured))


def _convert_directly(
    own: EstimatorRunner, sample: Matrix, columns: Sequence[Column], probes: Sequence[Values]
) -> _Candidate:
    """Convert to a program: of arrays alone, or with a graph for small calls of its trees."""
    step, last = split_pipeline(own.estimator, columns)
    head = read_head(last)
    if isinstance(head, LinearHead):
        runner = ProgramRunner(Program(step, head), own)
        exact, rows = check_answers(own, runner, probes, DIRECT_TOLERANCE)
        reason = "its own arithmetic, without the checks of each call, gives " + _describe_check(exact, rows)
        backend = Backend(name="direct", reason=reason, exact=exact, tolerance=DIRECT_TOLERANCE, checked_rows=rows)
        return _Candidate(backend, runner)
    return _convert_trees(own, step, head, sample, probes)


def _convert_trees(
    own: EstimatorRunner, step: Step, ensemble: TreeEnsemble, sample: Matrix, probes: Sequence[Values]
) -> _Candidate:
    allow_missing = bool(np.isnan(sample).any())
    reached = step(sample)  # the rows as they come to the trees
    content = write_tree_graph(ensemble, reached.shape[1])
    graph = OnnxGraph(content)
    both = TreesHead(ensemble, graph, None, allow_missing=allow_missing)
    beside = probe_thresholds(ensemble, reached)
    for rows in (*(step(probe.matrix) for probe in probes), beside):
        rounded = both.round_rows(rows)
        if not np.array_equal(both.add_in_graph(rounded), both.add_in_trees(rounded)):
            raise Disagreement("the graph of its trees adds up to other bits than the trees")
    graph_rows = find_switch(both, reached)
    head = TreesHead(ensemble, graph, graph_rows, allow_missing=allow_missing)
    runner = ProgramRunner(Program(step, head), own)
    exact, checked = check_answers(own, runner, probes, DIRECT_TOLERANCE)
    if not exact:
        raise Disagreement("its trees, called directly, answer with other bits than the estimator")
    same = f"its {len(ensemble.nodes.roots)} tree(s) gives {_describe_check(exact, checked)}"
    backend = Backend(reason="", exact=True, checked_rows=checked + len(beside))
    if graph_rows == 0:
        reason = f"calling {same}, and is faster than a graph"
        return _Candidate(msgspec.structs.replace(backend, name="direct", reason=reason), runner)
    larger = "" if graph_rows is None else f"; larger calls than {graph_rows} rows go to the trees, faster there"
    backend = msgspec.structs.replace(
        backend,
        name="onnx",
        reason=f"a graph of {same}{larger}",
        graph=_describe_graph(content, "trees"),
        graph_rows=graph_rows,
    )
    return _Candidate(backend, runner, content)


def _convert_whole(
    own: EstimatorRunner, sample: Matrix, columns: Sequence[Column], probes: Sequence[Values]
) -> _Candidate:
    """Convert to one graph of everything, by skl2onnx."""
    if any(column.is_coded for column in columns):
        raise NotConvertible("with texts or categories a whole graph is not tried")
    if np.isnan(sample).any():
        raise NotConvertible("with missing values a whole graph is not tried")
    content = convert_whole(own.estimator, sample.shape[1])
    runner = GraphRunner(content, own)
    exact, rows = check_answers(own, runner, probes, GRAPH_TOLERANCE)
    backend = Backend(
        name="onnx",
        reason="a graph of the whole model gives " + _describe_check(exact, rows),
        exact=exact,
        tolerance=GRAPH_TOLERANCE,
        checked_rows=rows,
        graph=_describe_graph(content, "whole"),
    )
    return _Candidate(backend, runner, content)


def _describe_check(exact: bool, rows: int) -> str:
    return f"the same answers{', bit for bit,' if exact else ''} on {rows:,} rows"


def _describe_graph(content: bytes, part: Literal["trees", "whole"]) -> GraphFile:
    return GraphFile(part, GRAPH_FILE, hashlib.sha256(content).hexdigest(), len(content))
