"""Registration: from a fitted estimator and a sample of its data to a version in the registry."""

from __future__ import annotations

import io
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.base import is_classifier

from shared.manifest import Description, Detail, Format, Manifest, Origin
from shared.registry import CHAMPION, Registry
from worker.backend_choice import choose_backend
from worker.golden import take_golden_sample
from worker.models import open_model
from worker.origin import find_origin
from worker.signatures import Rows, derive_signature

#: Rows on which `predict` and the most probable class are compared; more only costs time.
COMPARED_ROWS = 2_000


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
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return register_artifact(
        Artifact(buffer.getvalue(), estimator),
        name,
        registry=registry,
        sample=sample,
        columns=columns,
        metrics=metrics,
        training=training,
        max_batch_rows=max_batch_rows,
        version=version,
    )


class Artifact(NamedTuple):
    """A model as it is to be kept, and as it was read."""

    content: bytes
    estimator: Any
    format: Format = "joblib"
    file: str = "model.joblib"
    origin: Origin | None = None


def register_artifact(
    artifact: Artifact,
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
    """Describe a model by its sample, check it as a worker would, and write it as a new version.

    Parameters
    ----------
    artifact : Artifact
    name, registry, sample, columns, metrics, training, max_batch_rows, version
        As in `register_model`.

    Raises
    ------
    ValueError
        It cannot be served, or the sample does not fit it; nothing was written.
    ModelNotReady
        What was kept does not load, or does not answer as the estimator does; nothing was written.
    VersionExists
        The version is there already.
    """
    estimator = artifact.estimator
    signature = derive_signature(estimator, sample, columns)
    by_probability = _check_answers(estimator, sample)
    choice = choose_backend(estimator, np.asarray(sample, dtype=np.float64), labels_follow=by_probability)
    description = Description(
        format=artifact.format,
        file=artifact.file,
        libraries=_list_libraries(),
        signature=signature,
        metrics={key: float(value) for key, value in (metrics or {}).items()},
        training=dict(training or {}),
        labels_from_probabilities=by_probability,
        max_batch_rows=max_batch_rows,
        golden_sample=take_golden_sample(estimator, sample),
        origin=artifact.origin or find_origin(Path.cwd()),
        backend=choice.backend,
    )

    def check(manifest: Manifest) -> None:
        open_model(manifest, artifact.content, choice.graph)

    manifest = registry.write_version(
        name, artifact.content, description, graph=choice.graph, version=version, check=check
    )
    ensure_champion(registry, name)
    return manifest


def ensure_champion(registry: Registry, name: str) -> None:
    """Give a name its champion if it has none: the first version (or what is left of them)."""
    if CHAMPION not in registry.aliases(name):
        registry.set_alias(name, CHAMPION, registry.versions(name)[0])


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
