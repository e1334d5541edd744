"""A fitted pipeline as a program on arrays: its steps, then its trees or its linear model.

It computes what the estimator computes, in the same order and precision, without the checks and copies of each call.
Where rows leave the domain in which that is so, it refuses them, and the estimator itself decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.linear_model import (
    ElasticNet,
    ElasticNetCV,
    HuberRegressor,
    Lasso,
    LassoCV,
    LassoLars,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    SGDRegressor,
)
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.utils.extmath import softmax

from shared.signature import Column
from worker.array_steps import Step, compile_steps, join_steps
from worker.onnx_session import OnnxGraph
from worker.onnx_trees import has_leaf_vectors
from worker.tree_ensembles import Array, NotConvertible, Numbers, OutOfDomain, TreeEnsemble, read_trees

_LOGISTIC = (LogisticRegression, LogisticRegressionCV)
_DECIDING = (LinearSVC, Perceptron, RidgeClassifier, RidgeClassifierCV)
_LINEAR = (
    ElasticNet, ElasticNetCV, HuberRegressor, Lasso, LassoCV, LassoLars, LinearRegression, LinearSVR, Ridge, RidgeCV,
    SGDRegressor,
)  # fmt: skip
_COEFFICIENTS = (*_LOGISTIC, *_DECIDING, *_LINEAR)


class LinearHead:
    """A linear model: one product, one addition, and what makes answers of it.

    Parameters
    ----------
    estimator : object
        Fitted, of a kind that is known here.

    Raises
    ------
    NotConvertible
        It has several outputs.
    """

    def __init__(self, estimator: Any) -> None:
        kind = type(estimator)
        coefficients = np.asarray(estimator.coef_)
        if kind in _LINEAR and coefficients.ndim != 1:
            raise NotConvertible("it has several outputs")
        self._coefficients = coefficients.T
        self._intercept = estimator.intercept_
        self._single = coefficients.ndim == 2 and coefficients.shape[0] == 1
        self._finish: Callable[[Array], Array] = _keep_scores
        if kind in _LOGISTIC:
            self._finish = _squash_two if len(estimator.classes_) == 2 else _squash_many
        elif kind in _DECIDING:
            self._finish = _Decision(estimator.classes_).choose

    def answer(self, rows: Array) -> Array:
        """Answer rows, shape (n_rows, n_columns).

        Raises
        ------
        OutOfDomain
            A score is not finite: some number was not, or the product overflowed.
        """
        scores = rows @ self._coefficients + self._intercept
        if not np.isfinite(scores).all():
            raise OutOfDomain("a score is not finite")
        return self._finish(scores.reshape(-1) if self._single else scores)


class TreesHead:
    """An ensemble of trees, run by its graph in small calls and by its own trees in large ones.

    Parameters
    ----------
    ensemble : TreeEnsemble
    graph : OnnxGraph or None
        None: by its own trees in all calls.
    graph_rows : int or None
        Rows of a call up to which the graph runs it; None: all.
    allow_missing : bool
        Whether NaN is in the domain.
    """

    def __init__(
        self, ensemble: TreeEnsemble, graph: OnnxGraph | None, graph_rows: int | None, *, allow_missing: bool
    ) -> None:
        self._ensemble = ensemble
        self._graph = graph
        self._graph_rows = graph_rows
        self._allow_missing = allow_missing
        # What leaves are worth, in the order of their numbers in the graph.
        self._leaves = ensemble.nodes.value[ensemble.nodes.left < 0] if has_leaf_vectors(ensemble) else None

    def answer(self, rows: Array) -> Numbers:
        """Answer rows, shape (n_rows, n_columns).

        Raises
        ------
        OutOfDomain
            A number is missing, infinite, or too large for the trees' precision.
        """
        rounded = self.round_rows(rows)
        if self._graph is not None and (self._graph_rows is None or len(rows) <= self._graph_rows):
            return self._ensemble.finish(self.add_in_graph(rounded))
        return self._ensemble.finish(self.add_in_trees(rounded))

    def round_rows(self, rows: Array) -> Array:
        """Round rows to the trees' precision, as the estimator does."""
        with np.errstate(over="ignore"):
            rounded = np.ascontiguousarray(rows, dtype=self._ensemble.precision)
        if not np.isfinite(rounded).all() and (not self._allow_missing or np.isinf(rounded).any()):
            raise OutOfDomain("a number is missing, infinite or too large")
        return rounded

    def add_in_trees(self, rounded: Array) -> Numbers:
        """Add up the leaves' values by the estimator's own trees."""
        return self._ensemble.add_trees(rounded)

    def add_in_graph(self, rounded: Array) -> Numbers:
        """Add up the leaves' values by the graph; the same bits."""
        assert self._graph is not None
        answers = self._graph.run(rounded.astype(np.float64, copy=False))
        if self._leaves is None:
            return answers
        # Along an axis that is not the last, numpy adds one after the other: in the order of the trees.
        total: Numbers = np.add.reduce(self._leaves.take(answers.astype(np.intp), axis=0), axis=1)
        return total


class Program:
    """The steps of a pipeline and its head.

    Parameters
    ----------
    step : callable
    head : LinearHead or TreesHead
    """

    def __init__(self, step: Step, head: LinearHead | TreesHead) -> None:
        self.step = step
        self.head = head

    def answer(self, rows: Array) -> Array:
        """Answer rows: probabilities, numbers, or labels where the model gives no probabilities.

        Raises
        ------
        OutOfDomain
            The estimator itself must decide on these rows.
        """
        return self.head.answer(self.step(rows))


def split_pipeline(estimator: Any, columns: Sequence[Column]) -> tuple[Step, Any]:
    """Take a pipeline apart: its steps as one function, and its last estimator.

    Parameters
    ----------
    estimator : object
        Fitted.
    columns : sequence of Column
        What it reads.

    Raises
    ------
    NotConvertible
        A step is not known, or none makes numbers of texts.
    """
    steps: list[Any] = []
    while type(estimator) is Pipeline:
        steps += [step for _, step in estimator.steps[:-1]]
        estimator = estimator.steps[-1][1]
    if not steps and any(column.is_coded for column in columns):
        raise NotConvertible("it reads texts or categories itself")
    return (compile_steps(steps, columns) if steps else join_steps([])), estimator


def read_head(last: Any) -> LinearHead | TreeEnsemble:
    """Read the last estimator of a pipeline.

    Raises
    ------
    NotConvertible
        It is neither linear nor an ensemble of trees, as far as is known here.
    """
    return LinearHead(last) if type(last) in _COEFFICIENTS else read_trees(last)


class _Decision:
    """Labels from scores, for those that give no probabilities."""

    def __init__(self, classes: Array) -> None:
        self._classes = classes

    def choose(self, scores: Array) -> Array:
        chosen = (scores > 0).astype(np.intp) if scores.ndim == 1 else np.argmax(scores, axis=1)
        return self._classes.take(chosen)


def _keep_scores(scores: Array) -> Array:
    return scores


def _squash_two(scores: Array) -> Array:
    answers = np.empty((len(scores), 2))
    answers[:, 1] = expit(scores)
    np.subtract(1, answers[:, 1], out=answers[:, 0])
    return answers


def _squash_many(scores: Array) -> Array:
    answers: Array = softmax(scores, copy=False)
    return answers
