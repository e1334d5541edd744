"""Trees of fitted scikit-learn ensembles, in one form: arrays of nodes, a base to add to, and how to finish.

An answer is ``finish(base + the values of the leaves, added in the order of the trees)``. It is the estimator's own bit
for bit if additions come in the same order and thresholds are compared with rows of the same precision; so the order
and the precision are part of the form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.ensemble._gradient_boosting import predict_stages
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.float64]

_TREES = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor)
_FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
_BOOSTED = (GradientBoostingClassifier, GradientBoostingRegressor)
_HISTOGRAM = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)


class NotConvertible(ValueError):
    """An estimator cannot be run in another way than its own; the message says why."""


class OutOfDomain(ValueError):
    """Among the rows are values of which the estimator would complain, or might."""


@dataclass(frozen=True)
class Nodes:
    """The nodes of all trees, one after the other.

    Parameters
    ----------
    left, right : ndarray of int, shape (n_nodes,)
        The next node if the comparison holds, and if not; -1 in a leaf.
    feature : ndarray of int, shape (n_nodes,)
    threshold : ndarray of float64, shape (n_nodes,)
        A row goes left if its value is at most this.
    missing_left : ndarray of bool, shape (n_nodes,)
        Whether a row without a value goes left.
    value : ndarray of float64, shape (n_nodes, n_values)
    roots : ndarray of int, shape (n_trees,)
    """

    left: Array
    right: Array
    feature: Array
    threshold: Numbers
    missing_left: Array
    value: Numbers
    roots: Array

    def __len__(self) -> int:
        return len(self.left)


@dataclass(frozen=True)
class TreeEnsemble:
    """What an ensemble of trees computes.

    Parameters
    ----------
    nodes : Nodes
        With one value a node, or one for each target.
    targets : ndarray of int, shape (n_trees,)
        To which target a tree's value is added, if nodes have one value; with several, each goes to its own.
    base : ndarray of float64, shape (n_targets,)
        What is added to first.
    precision : dtype
        To which rows are rounded before they are compared.
    add_trees : callable
        Rows to sums, shape (n_rows, n_targets), by the estimator's own trees: the fastest way for many rows.
    finish : callable
        Sums to probabilities, shape (n_rows, n_classes), or to numbers, shape (n_rows,).
    """

    nodes: Nodes
    targets: Array
    base: Numbers
    precision: npt.DTypeLike
    add_trees: Callable[[Array], Numbers]
    finish: Callable[[Numbers], Numbers]


def read_trees(estimator: Any) -> TreeEnsemble:
    """Bring a fitted estimator's trees into the common form.

    Raises
    ------
    NotConvertible
        It is no ensemble of trees that is known here, or its answers are no mere sums.
    """
    kind = type(estimator)  # a subclass may predict in its own way
    if kind in _TREES:
        return _read_forest(estimator, [estimator])
    if kind in _FORESTS:
        return _read_forest(estimator, list(estimator.estimators_))
    if kind in _BOOSTED:
        return _read_boosted(estimator)
    if kind in _HISTOGRAM:
        return _read_histogram(estimator)
    raise NotConvertible(f"{kind.__name__} is not known")


def _read_forest(estimator: Any, members: list[Any]) -> TreeEnsemble:
    if estimator.n_outputs_ != 1:
        raise NotConvertible("it has several outputs")
    trees = [member.tree_ for member in members]
    nodes = _join_trees([_read_tree(tree, tree.value[:, 0, :]) for tree in trees])
    targets = nodes.value.shape[1]
    count = len(members)
    classifies = hasattr(estimator, "classes_")

    def add_trees(rows: Array) -> Numbers:
        total = np.zeros((len(rows), targets))
        for tree in trees:
            total += tree.predict(rows).reshape(total.shape)
        return total

    def finish(total: Numbers) -> Numbers:
        mean = total / count
        return mean if classifies else mean[:, 0]

    return TreeEnsemble(nodes, np.zeros(count, dtype=np.int64), np.zeros(targets), np.float32, add_trees, finish)


def _read_boosted(estimator: Any) -> TreeEnsemble:
    width = estimator.n_trees_per_iteration_
    members = estimator.estimators_.ravel()  # by iteration, then by target: the order of their addition
    rate = estimator.learning_rate
    nodes = _join_trees([_read_tree(m.tree_, rate * m.tree_.value[:, 0, :]) for m in members])
    base = _read_base(estimator)

    def add_trees(rows: Array) -> Numbers:
        raw = np.tile(base, (len(rows), 1))
        predict_stages(estimator.estimators_, rows, rate, raw)
        return raw

    def finish(raw: Numbers) -> Numbers:
        return estimator._loss.predict_proba(raw) if hasattr(estimator, "classes_") else raw[:, 0]

    targets = np.tile(np.arange(width), len(members) // width)
    return TreeEnsemble(nodes, targets, base, np.float32, add_trees, finish)


def _read_base(estimator: Any) -> Numbers:
    """Return what boosting begins with, if that is the same for all rows."""
    start = estimator.init_
    if not isinstance(start, str) and type(start) not in (DummyClassifier, DummyRegressor):
        raise NotConvertible(f"its boosting begins with the answers of a {type(start).__name__}")
    return np.array(estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_)))[0], dtype=np.float64)


def _read_histogram(estimator: Any) -> TreeEnsemble:
    if estimator._preprocessor is not None or estimator.is_categorical_ is not None:
        raise NotConvertible("its trees ask for sets of categories")
    predictors = [p for iteration in estimator._predictors for p in iteration]
    nodes = _join_trees([_read_histogram_tree(p.nodes) for p in predictors])
    base = np.array(estimator._baseline_prediction, dtype=np.float64).reshape(-1)
    classifies = hasattr(estimator, "classes_")

    def add_trees(rows: Array) -> Numbers:
        raw = np.zeros((len(rows), len(base)), order="F")
        raw += base
        estimator._predict_iterations(rows, estimator._predictors, raw, False, 1)
        return raw

    def finish(raw: Numbers) -> Numbers:
        answers: Numbers = estimator._loss.predict_proba(raw) if classifies else estimator._loss.link.inverse(raw[:, 0])
        return answers

    targets = np.tile(np.arange(len(base)), len(estimator._predictors))
    return TreeEnsemble(nodes, targets, base, np.float64, add_trees, finish)


def _read_tree(tree: Any, value: Numbers) -> Nodes:
    return Nodes(
        tree.children_left, tree.children_right, tree.feature, tree.threshold,
        tree.missing_go_to_left.astype(bool), value, np.zeros(1, dtype=np.int64),
    )  # fmt: skip


def _read_histogram_tree(nodes: Array) -> Nodes:
    leaf = nodes["is_leaf"].astype(bool)
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    return Nodes(
        left, right, nodes["feature_idx"].astype(np.int64), nodes["num_threshold"],
        nodes["missing_go_to_left"].astype(bool), nodes["value"][:, None], np.zeros(1, dtype=np.int64),
    )  # fmt: skip


def _join_trees(trees: Iterable[Nodes]) -> Nodes:
    parts = list(trees)
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])])

    def move(children: Array, start: int) -> Array:
        return np.where(children < 0, -1, children + start)

    return Nodes(
        np.concatenate([move(part.left, start) for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([move(part.right, start) for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([part.feature for part in parts]),
        np.concatenate([part.threshold for part in parts]),
        np.concatenate([part.missing_left for part in parts]),
        np.concatenate([part.value for part in parts]),
        starts,
    )
