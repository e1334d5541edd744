"""Backends: the ways in which a version's rows can be run. Registration chooses one; here they are run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shared.backend import Backend
from shared.signature import Column, Output
from shared.values import Values
from worker.direct import LinearHead, Program, TreesHead, read_head, split_pipeline
from worker.frames import Framer
from worker.onnx_session import OnnxGraph
from worker.outputs import join_probabilities
from worker.tree_ensembles import OutOfDomain

Answers = npt.NDArray[Any]


class Runner(Protocol):
    """Runs rows: to probabilities if the model gives them, else to labels or numbers."""

    def answer(self, values: Values) -> Answers:
        """Answer every row in one call; may raise anything."""


class EstimatorRunner:
    """Runs the estimator itself.

    Parameters
    ----------
    estimator : object
        Fitted.
    columns : sequence of Column
        What it reads.
    outputs : sequence of Output
        What it answers.
    """

    def __init__(self, estimator: Any, columns: Sequence[Column], outputs: Sequence[Output] = (Output(),)) -> None:
        self.estimator = estimator
        self.outputs = outputs
        self.gives_probabilities = hasattr(estimator, "classes_") and hasattr(estimator, "predict_proba")
        self.framer = Framer(columns, named=hasattr(estimator, "feature_names_in_"))

    def answer(self, values: Values) -> Answers:
        """Answer with `predict_proba`, or with `predict` where there is none."""
        if not self.gives_probabilities:
            return self.predict(values)
        return join_probabilities(self.estimator.predict_proba(self.framer.make(values)), self.outputs)

    def predict(self, values: Values) -> Answers:
        """Answer with `predict`."""
        return np.asarray(self.estimator.predict(self.framer.make(values)))


class ProgramRunner:
    """Runs a program that computes what the estimator computes; rows outside of its domain go to the estimator.

    Parameters
    ----------
    program : Program
    estimator : EstimatorRunner
    """

    def __init__(self, program: Program, estimator: EstimatorRunner) -> None:
        self.program = program
        self._estimator = estimator

    def answer(self, values: Values) -> Answers:
        """Answer as the estimator does, with its errors too."""
        try:
            return self.program.answer(values.matrix)
        except OutOfDomain:
            return self._estimator.answer(values)


class GraphRunner:
    """Runs a graph of the whole model, made by skl2onnx.

    Parameters
    ----------
    content : bytes
        The graph's.
    estimator : EstimatorRunner
        Says what the answers are, and runs rows that are not finite: a graph would not complain of them.
    """

    def __init__(self, content: bytes, estimator: EstimatorRunner) -> None:
        self._graph = OnnxGraph(content, output=1 if estimator.gives_probabilities else 0)
        self._estimator = estimator
        classes = getattr(estimator.estimator, "classes_", None)
        labels = classes is not None and not estimator.gives_probabilities
        self._kind = np.asarray(classes).dtype if labels else np.dtype(np.float64)

    def answer(self, values: Values) -> Answers:
        """Answer as the estimator does, within the tolerance."""
        if not np.isfinite(values.matrix).all():
            return self._estimator.answer(values)
        answers = self._graph.run(np.ascontiguousarray(values.matrix)).astype(self._kind, copy=False)
        return answers if self._estimator.gives_probabilities else answers.reshape(-1)


def open_runner(backend: Backend, own: EstimatorRunner, columns: Sequence[Column], content: bytes | None) -> Runner:
    """Make the runner of a version.

    Parameters
    ----------
    backend : Backend
        As registration chose it.
    own : EstimatorRunner
        Of the version.
    columns : sequence of Column
        What it reads.
    content : bytes or None
        The graph's, if the backend has one.

    Raises
    ------
    NotConvertible, GraphRefused
        What could be converted at registration cannot be run in this process.
    """
    if backend.name == "scikit-learn":
        return own
    if content is not None and backend.graph is not None and backend.graph.part == "whole":
        return GraphRunner(content, own)
    graph = None if content is None else OnnxGraph(content)
    allow_missing = any(column.nullable for column in columns)
    program = make_program(own.estimator, columns, graph, backend.graph_rows, allow_missing=allow_missing)
    return ProgramRunner(program, own)


def make_program(
    estimator: Any,
    columns: Sequence[Column],
    graph: OnnxGraph | None,
    graph_rows: int | None,
    *,
    allow_missing: bool,
) -> Program:
    """Make the program of an estimator that reads such columns.

    Raises
    ------
    NotConvertible
        It has none.
    """
    step, last = split_pipeline(estimator, columns)
    head = read_head(last)
    if isinstance(head, LinearHead):
        return Program(step, head)
    return Program(step, TreesHead(head, graph, graph_rows, allow_missing=allow_missing))
