"""From an estimator and a sample of its data to the signature: what it reads and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier, is_regressor

from shared.signature import INTEGER_LIMIT, Column, Signature
from worker.outputs import derive_outputs
from worker.unseen import MOST_CATEGORIES, add_known_categories

Rows = Any  # an ndarray or a pandas DataFrame; both are sliced by rows and handed to the estimator

#: Rows of the sample that are asked for what the estimator answers.
ASKED_ROWS = 100
#: A frame may declare so many.
_MOST_DECLARED = 100_000
_TEXT_TYPES = ("str", "string", "object")


def derive_signature(
    estimator: Any, sample: Rows, columns: Sequence[str] | None = None, outputs: Sequence[str] = ()
) -> Signature:
    """Describe what an estimator reads and answers; `columns` and `outputs` are names for both.

    Raises
    ------
    ValueError
        The sample is empty, does not fit the estimator or has a column of a type that is not served, or the estimator
        has no single task.
    """
    if not hasattr(estimator, "predict") or not hasattr(estimator, "__sklearn_tags__"):
        raise ValueError(f"{type(estimator).__name__} is neither a classifier nor a regressor of scikit-learn's kind")
    if not is_classifier(estimator) and not is_regressor(estimator):
        raise ValueError(f"{type(estimator).__name__} is neither a classifier nor a regressor")
    described = add_known_categories(_describe_columns(estimator, sample, columns), estimator)
    task: Literal["classification", "regression"] = "classification" if is_classifier(estimator) else "regression"
    found = derive_outputs(estimator, sample[:ASKED_ROWS], outputs)
    if len(found) > 1:
        return Signature(described, task, outputs=found)
    labels_only = task == "classification" and not found[0].gives_probabilities
    return Signature(described, task, found[0].classes, found if labels_only else ())


def _describe_columns(estimator: Any, sample: Rows, columns: Sequence[str] | None) -> tuple[Column, ...]:
    shape = np.shape(sample)
    if len(shape) != 2 or not shape[0]:
        raise ValueError(f"the sample must have rows and columns; its shape is {shape}")
    names = _name_columns(estimator, sample, columns, shape[1])
    if hasattr(sample, "iloc"):
        return tuple(_describe_series(name, sample.iloc[:, index]) for index, name in enumerate(names))
    rows = np.asarray(sample)
    if rows.dtype.kind in "OUS":
        import pandas as pd

        # Each column by itself: an array of objects says nothing of their types.
        return tuple(
            _describe_objects(name, pd.Series(rows[:, index], dtype=object)) for index, name in enumerate(names)
        )
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"the sample must hold numbers, truth values or texts; it is of type {rows.dtype}")
    rows = rows.astype(np.float64)
    return tuple(_describe_numbers(name, rows[:, index]) for index, name in enumerate(names))


def _name_columns(estimator: Any, sample: Rows, columns: Sequence[str] | None, count: int) -> list[str]:
    fitted = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    own = [str(name) for name in getattr(sample, "columns", ())]
    names = [str(name) for name in columns or ()] or own or fitted or [f"x{i}" for i in range(count)]
    if len(names) != count:
        raise ValueError(f"{len(names)} column names for a sample of {count} columns")
    # LightGBM writes spaces in another way.
    if fitted and names != fitted and [name.replace(" ", "_") for name in names] != fitted:
        raise ValueError(f"the estimator was fitted on the columns {fitted}; the sample has {names}")
    expected = getattr(estimator, "n_features_in_", count)
    if expected != count:
        raise ValueError(f"the estimator was fitted on {expected} columns; the sample has {count}")
    return names


def _describe_series(name: str, series: Any) -> Column:
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _describe_categories(name, series)
    if pd.api.types.is_bool_dtype(dtype):
        return Column(name, "boolean", nullable=bool(series.isna().any()), dtype=str(dtype), missing="na")
    if pd.api.types.is_integer_dtype(dtype):
        return _describe_numbers(name, _read_numbers(series), "long", str(dtype))
    if pd.api.types.is_float_dtype(dtype):
        return _describe_numbers(name, _read_numbers(series), "double", "" if dtype == np.float64 else str(dtype))
    if pd.api.types.is_string_dtype(dtype) or dtype == np.object_:
        return _describe_objects(name, series)
    raise ValueError(
        f"column {name!r} of the sample is of type {dtype}; expected numbers, truth values, texts or categories"
    )


def _describe_objects(name: str, series: Any) -> Column:
    """Describe a column of Python objects, or of texts."""
    present, missing = series.dropna(), _name_missing(series)
    kinds = {_name_kind(value) for value in present}
    nullable = len(present) < len(series)
    if kinds <= {"text"}:
        labels = sorted(map(str, present.unique()))
        known = tuple(labels) if len(labels) <= MOST_CATEGORIES else ()
        return Column(name, "string", nullable, categories=known, dtype=str(series.dtype), missing=missing)
    if kinds == {"boolean"}:
        return Column(name, "boolean", nullable, dtype="object", missing=missing)
    if kinds <= {"whole", "number"} and missing == "nan":
        numbers = _read_numbers(series)
        # As Python objects whole numbers stay whole only if nothing is missing among them.
        kind = "whole" if kinds == {"whole"} else "number"
        return _describe_numbers(name, numbers, "long" if kind == "whole" else "double", "object")
    raise ValueError(
        f"column {name!r} of the sample holds objects of several or other types ({', '.join(sorted(kinds))}); expected"
        " numbers, truth values or texts"
    )


def _describe_categories(name: str, series: Any) -> Column:
    dtype = series.dtype
    labels = dtype.categories.tolist()
    kinds = {_name_kind(label) for label in labels}
    if len(kinds) > 1 and not kinds <= {"whole", "number"}:
        raise ValueError(f"the categories of column {name!r} are of several types; expected one")
    if kinds - {"text", "boolean", "whole", "number"} or not 0 < len(labels) <= _MOST_DECLARED:
        raise ValueError(
            f"column {name!r} has {len(labels)} categories of type {dtype.categories.dtype}; expected 1 to"
            f" {_MOST_DECLARED} numbers, truth values or texts"
        )
    return Column(
        name,
        "category",
        nullable=bool(series.isna().any()),
        categories=tuple(labels),
        dtype=f"{'ordered' if dtype.ordered else 'category'}[{dtype.categories.dtype}]",
    )


def _describe_numbers(name: str, values: npt.NDArray[np.float64], kind: Any = "double", dtype: str = "") -> Column:
    finite = values[np.isfinite(values)]
    if kind == "long" and finite.size and np.abs(finite).max() >= INTEGER_LIMIT:
        raise ValueError(f"column {name!r} has whole numbers of 2^53 or more, which JSON cannot carry exactly")
    return Column(
        name,
        kind,
        nullable=bool(np.isnan(values).any()),
        min=float(finite.min()) if finite.size else None,
        max=float(finite.max()) if finite.size else None,
        dtype=dtype,
    )


def _read_numbers(series: Any) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = series.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def _name_kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, int | np.integer):
        return "whole"
    if isinstance(value, float | np.floating):
        return "number"
    return "text" if isinstance(value, str) else type(value).__name__


def _name_missing(series: Any) -> Any:
    """Tell what a missing value is in a column; where several are, the one that scikit-learn takes for missing."""
    if series.dtype != np.object_:
        return "nan"
    found = {type(value).__name__ for value in series[series.isna()]}
    return "nan" if "float" in found or not found else "none" if "NoneType" in found else "na"
