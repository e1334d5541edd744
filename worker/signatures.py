"""From an estimator and a sample of its data to the signature: what it reads and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier, is_regressor

from shared.signature import Column, Label, Signature

Rows = Any  # an ndarray or a pandas DataFrame; both are sliced by rows and handed to the estimator


def derive_signature(estimator: Any, sample: Rows, columns: Sequence[str] | None = None) -> Signature:
    """Describe what an estimator reads and answers.

    Raises
    ------
    ValueError
        The sample is empty, not numeric or does not fit the estimator, or the estimator has no single task.
    """
    if not hasattr(estimator, "predict") or not hasattr(estimator, "__sklearn_tags__"):
        raise ValueError(f"{type(estimator).__name__} is neither a classifier nor a regressor of scikit-learn's kind")
    values = _read_values(sample)
    names = _name_columns(estimator, sample, columns, values.shape[1])
    described = tuple(_describe_column(name, values[:, i]) for i, name in enumerate(names))
    if is_classifier(estimator):
        return Signature(described, "classification", _list_classes(estimator))
    if is_regressor(estimator):
        return Signature(described, "regression")
    raise ValueError(f"{type(estimator).__name__} is neither a classifier nor a regressor")


def _read_values(sample: Rows) -> npt.NDArray[np.float64]:
    try:
        values = np.asarray(sample, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the sample must hold numbers only: {error}") from error
    if values.ndim != 2 or not len(values):
        raise ValueError(f"the sample must have rows and columns; its shape is {values.shape}")
    return values


def _name_columns(estimator: Any, sample: Rows, columns: Sequence[str] | None, count: int) -> list[str]:
    fitted = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    own = [str(name) for name in getattr(sample, "columns", ())]
    names = [str(name) for name in columns or ()] or own or fitted or [f"x{i}" for i in range(count)]
    if len(names) != count:
        raise ValueError(f"{len(names)} column names for a sample of {count} columns")
    if fitted and names != fitted:
        raise ValueError(f"the estimator was fitted on the columns {fitted}; the sample has {names}")
    expected = getattr(estimator, "n_features_in_", count)
    if expected != count:
        raise ValueError(f"the estimator was fitted on {expected} columns; the sample has {count}")
    return names


def _describe_column(name: str, values: npt.NDArray[np.float64]) -> Column:
    finite = values[np.isfinite(values)]
    return Column(
        name,
        nullable=bool(np.isnan(values).any()),
        min=float(finite.min()) if finite.size else None,
        max=float(finite.max()) if finite.size else None,
    )


def _list_classes(estimator: Any) -> tuple[Label, ...]:
    classes = estimator.classes_
    if not isinstance(classes, np.ndarray):
        raise ValueError("a classifier with several outputs cannot be served")
    labels = tuple(classes.tolist())
    for label in labels:
        if not isinstance(label, str | int | float | bool):
            raise ValueError(f"the class {label!r} is no text, number or truth value, so JSON cannot carry it")
    return labels
