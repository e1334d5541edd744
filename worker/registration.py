"""Registration: from a fitted estimator and a sample of its data to a version in the registry."""

from __future__ import annotations

import io
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier, is_regressor

from shared.registry import CHAMPION, Detail, Manifest, Registry
from shared.signature import Column, Label, Signature

#: Rows on which `predict` and the most probable class are compared; more only costs time.
COMPARED_ROWS = 2_000

Rows = Any  # an ndarray or a pandas DataFrame; both are sliced by rows and handed to the estimator


def register_model(
    estimator: Any,
    name: str,
    *,
    registry: Registry,
    sample: Rows,
    columns: Sequence[str] | None = None,
    metrics: Mapping[str, float] | None = None,
    training: Mapping[str, Detail] | None = None,
    max_batch_rows: int | None = None,
    version: int | None = None,
) -> Manifest:
    """Add a fitted estimator to the registry as a new version.

    The first version of a name becomes its champion; later ones only when an alias is moved.

    Parameters
    ----------
    estimator : object
        A fitted classifier or regressor with one output.
    name : str
    registry : Registry
    sample : ndarray or DataFrame, shape (n_rows, n_columns)
        The training features, or a fair part: names and ranges are taken from it, NaN allows missing values.
    columns : sequence of str or None
        Names for a sample without names; by default ``x0``, ``x1``, …
    metrics : mapping of str to float or None
        Measured on data that was held out.
    training : mapping or None
        Where the data came from, how many rows, and what else is worth knowing later.
    max_batch_rows : int or None
        Rows of one model call at most.
    version : int or None
        None takes the next free one.

    Raises
    ------
    ValueError
        The estimator cannot be served, or the sample does not fit it; the message says why.
    VersionExists
        The version is there already.
    """
    signature = derive_signature(estimator, sample, columns)
    by_probability = _check_answers(estimator, sample)
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    manifest = registry.write_version(
        name,
        buffer.getvalue(),
        signature=signature,
        libraries=_list_libraries(),
        metrics={key: float(value) for key, value in (metrics or {}).items()},
        training=training,
        labels_from_probabilities=by_probability,
        max_batch_rows=max_batch_rows,
        version=version,
    )
    ensure_champion(registry, name)
    return manifest


def ensure_champion(registry: Registry, name: str) -> None:
    """Give a name its champion if it has none: the first version (or what is left of them)."""
    if CHAMPION not in registry.aliases(name):
        registry.set_alias(name, CHAMPION, registry.versions(name)[0])


def derive_signature(estimator: Any, sample: Rows, columns: Sequence[str] | None = None) -> Signature:
    """Describe what an estimator reads and answers.

    Raises
    ------
    ValueError
        The sample is empty, not numeric or does not fit the estimator, or the estimator has no single task.
    """
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


def _check_answers(estimator: Any, sample: Rows) -> bool:
    """Check the estimator's manners, and tell whether its labels follow from its probabilities.

    Some classifiers decide otherwise (SVC by its decision function, others by a threshold), so it is tried:
    on the sample and on points half-way between its rows, where the classes meet.
    """
    rows = sample[:COMPARED_ROWS]
    before = np.array(rows, dtype=np.float64)
    labels = np.asarray(estimator.predict(rows))
    if labels.shape != (len(rows),):
        raise ValueError(f"one answer a row is expected; predict gave the shape {labels.shape} for {len(rows)} rows")
    follows = False
    if is_classifier(estimator) and hasattr(estimator, "predict_proba"):
        follows = all(_labels_follow(estimator, probe) for probe in (rows, _mix_rows(rows)))
    if not np.array_equal(before, np.asarray(rows, dtype=np.float64), equal_nan=True):
        # A row that is scored again, alone, would then be another row.
        raise ValueError("the estimator alters the rows that it predicts: set copy=True on its steps")
    return follows


def _labels_follow(estimator: Any, rows: Rows) -> bool:
    likeliest = estimator.classes_.take(np.argmax(estimator.predict_proba(rows), axis=1))
    return bool(np.array_equal(likeliest, estimator.predict(rows)))


def _mix_rows(rows: Rows) -> Rows:
    values = np.asarray(rows, dtype=np.float64)
    mixed = values / 2 + np.random.default_rng(0).permutation(values) / 2
    return type(rows)(mixed, columns=rows.columns) if hasattr(rows, "columns") else mixed


def _list_libraries() -> dict[str, str]:
    names = ("scikit-learn", "numpy", "joblib")
    return {"python": platform.python_version()} | {name: installed_version(name) for name in names}
