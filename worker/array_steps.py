"""Steps of fitted scikit-learn pipelines as functions of arrays: the same arithmetic, without the checks of each call.

The operations and their order are scikit-learn's own, so the numbers are the same bit for bit. What is not known here
is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import (
    RFE,
    RFECV,
    SelectFdr,
    SelectFpr,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    VarianceThreshold,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from shared.signature import Column
from worker.category_steps import ENCODERS, FILLERS, CategoryTables
from worker.tree_ensembles import Array, NotConvertible

#: Rows in, rows out, each of shape (n_rows, n_columns); the rows that come in are not written to.
Step = Callable[[Array], Array]

_SELECTORS = (
    RFE, RFECV, SelectFdr, SelectFpr, SelectFromModel, SelectFwe, SelectKBest, SelectPercentile, VarianceThreshold,
)  # fmt: skip


def compile_steps(transformers: Sequence[Any], columns: Sequence[Column]) -> Step:
    """Make a function of fitted transformers that are called one after the other.

    Parameters
    ----------
    transformers : sequence of object
        Pipelines among them are looked into.
    columns : sequence of Column
        What the first of them reads.

    Raises
    ------
    NotConvertible
        One is none that is known here, or set in a way that is not.
    """
    steps = [step for transformer in transformers for step in _list_steps(transformer)]
    if not steps:
        if any(column.is_coded for column in columns):
            raise NotConvertible("it passes texts or categories on")
        return _keep_rows
    if type(steps[0]) is ColumnTransformer:
        return join_steps([_compile_columns(steps[0], columns), *map(_compile_step, steps[1:])])
    encoding = _count_encoding(steps)
    if encoding:
        return join_steps([CategoryTables(steps[:encoding], columns), *map(_compile_step, steps[encoding:])])
    if any(column.is_coded for column in columns):
        raise NotConvertible(f"its step {type(steps[0]).__name__} reads texts or categories")
    return join_steps([*map(_compile_step, steps)])


def _list_steps(transformer: Any) -> list[Any]:
    if transformer is None or (isinstance(transformer, str) and transformer == "passthrough"):
        return []
    if type(transformer) is Pipeline:
        return [step for _, inner in transformer.steps for step in _list_steps(inner)]
    return [transformer]


def _count_encoding(steps: Sequence[Any]) -> int:
    """Return how many of the first steps make numbers of categories; 0 if they do not."""
    for place, step in enumerate(steps):
        if type(step) in ENCODERS:
            return place + 1
        if type(step) not in FILLERS:
            return 0
    return 0


def _compile_step(transformer: Any) -> Step:
    """Make a function of one transformer, that reads numbers."""
    kind = type(transformer)  # a subclass may transform in its own way
    compile_one = _COMPILERS.get(kind)
    if compile_one is None:
        raise NotConvertible(f"its step {kind.__name__} is not known")
    return compile_one(transformer)


def join_steps(steps: Sequence[Step]) -> Step:
    """Make one function of several, called one after the other."""
    steps = [step for step in steps if step is not _keep_rows]
    if not steps:
        return _keep_rows
    return steps[0] if len(steps) == 1 else lambda rows: reduce(lambda done, step: step(done), steps, rows)


def _keep_rows(rows: Array) -> Array:
    return rows


def _compile_standard_scaler(scaler: StandardScaler) -> Step:
    steps: list[Step] = []
    if scaler.with_mean:
        mean = scaler.mean_
        steps.append(lambda rows: rows - mean)
    if scaler.with_std:
        scale = scaler.scale_
        steps.append(lambda rows: rows / scale)
    return join_steps(steps)


def _compile_robust_scaler(scaler: RobustScaler) -> Step:
    steps: list[Step] = []
    if scaler.with_centering:
        center = scaler.center_
        steps.append(lambda rows: rows - center)
    if scaler.with_scaling:
        scale = scaler.scale_
        steps.append(lambda rows: rows / scale)
    return join_steps(steps)


def _compile_range_scaler(scaler: MinMaxScaler) -> Step:
    scale, least, (low, high) = scaler.scale_, scaler.min_, scaler.feature_range
    if scaler.clip:
        return lambda rows: np.clip(rows * scale + least, low, high)
    return lambda rows: rows * scale + least


def _compile_largest_scaler(scaler: MaxAbsScaler) -> Step:
    if getattr(scaler, "clip", False):
        raise NotConvertible("its step MaxAbsScaler clips")
    scale = scaler.scale_
    return lambda rows: rows / scale


def _compile_imputer(imputer: SimpleImputer) -> Step:
    marker = imputer.missing_values
    if imputer.add_indicator or not isinstance(marker, float) or not np.isnan(marker):
        raise NotConvertible("its step SimpleImputer adds an indicator, or replaces something else than NaN")
    filler = imputer.statistics_
    if filler.dtype.kind != "f" or np.isnan(filler).any():
        raise NotConvertible("its step SimpleImputer has no number to put in for some column")
    return lambda rows: np.where(np.isnan(rows), filler, rows)


def _compile_function(transformer: FunctionTransformer) -> Step:
    if transformer.func is not None:
        raise NotConvertible("its step FunctionTransformer calls a function of its own")
    return _keep_rows


def _compile_selector(selector: Any) -> Step:
    kept = selector.get_support(indices=True)
    return lambda rows: rows.take(kept, axis=1)


def _compile_columns(transformer: ColumnTransformer, columns: Sequence[Column]) -> Step:
    parts: list[tuple[Array, Step]] = []
    for name, step, _ in transformer.transformers_:
        positions = np.asarray(transformer._transformer_to_input_indices[name])
        if (isinstance(step, str) and step == "drop") or not len(positions):
            continue
        parts.append((positions, compile_steps([step], [columns[position] for position in positions])))
    if transformer.transformer_weights:
        raise NotConvertible("its step ColumnTransformer weighs its parts")
    if not parts:
        raise NotConvertible("its step ColumnTransformer drops every column")
    return lambda rows: np.concatenate([step(rows.take(positions, axis=1)) for positions, step in parts], axis=1)


def _compile_later_columns(transformer: ColumnTransformer) -> Step:
    """Make a function of one that reads what another step made: numbers."""
    return _compile_columns(transformer, [Column(str(place)) for place in range(transformer.n_features_in_)])


_COMPILERS: dict[type, Callable[[Any], Step]] = {
    ColumnTransformer: _compile_later_columns,
    FunctionTransformer: _compile_function,
    MaxAbsScaler: _compile_largest_scaler,
    MinMaxScaler: _compile_range_scaler,
    RobustScaler: _compile_robust_scaler,
    SimpleImputer: _compile_imputer,
    StandardScaler: _compile_standard_scaler,
    **dict.fromkeys(_SELECTORS, _compile_selector),
}
