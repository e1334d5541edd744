"""Registration: from a fitted estimator, or its file, and a sample of its data to a version in the registry.

One way for all: read the model, describe it by the sample, take its golden sample, see that what will be kept loads and
answers as it should, write it.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import packages_distributions
from importlib.metadata import version as installed_version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypedDict, Unpack

import joblib
import msgspec
import sklearn

from shared.backend import Backend
from shared.manifest import Description, Detail, Format, Manifest, Origin
from shared.quality import QualityReference
from shared.registry import CHAMPION, Registry
from shared.signature import Signature
from shared.values import Values
from worker.backend_choice import Choice, choose_backend
from worker.backend_speeds import measure_speeds
from worker.backends import EstimatorRunner
from worker.description import Described, describe_model
from worker.formats import (
    FILES,
    Input,
    ModelFile,
    UnreadableModel,
    describe_refusal,
    find_scikit_learn,
    list_unknown_types,
    load_estimator,
    read_model_file,
)
from worker.golden import take_golden_sample
from worker.models import open_model
from worker.nested import walk_estimators
from worker.onnx_model import read_labels
from worker.origin import find_origin
from worker.quality import make_reference
from worker.samples import SampleMismatch, list_columns, read_sample
from worker.scoring import Outcome
from worker.signatures import Rows
from worker.trust import SIGNATURE_FILE, Trust, sign_files

#: Rows whose values and scores are the reference of data quality.
REFERENCE_ROWS = 20_000
#: Libraries without which no version is made; those of the model's own classes come beside them.
_ALWAYS = ("numpy", "scikit-learn")
#: What values of MLflow's types are in JSON.
_HOLDS = {"string": "text", "boolean": "boolean"} | dict.fromkeys(("integer", "long", "float", "double"), "number")


class Notes(TypedDict, total=False):
    """What else may be said of a version.

    Parameters
    ----------
    metrics : mapping of str to float
        Measured on data that was held out.
    training : mapping
        Where the data came from, how many rows, and what else is worth knowing later.
    max_batch_rows : int
        Rows of one model call at most.
    version : int
        By default the next free one.
    outputs : sequence of str
        Names of what it answers, if that is several values a row; by default their places from 0.
    other_scikit_learn : bool
        Whether it may be of another minor version of scikit-learn than the installed one.
    sign_with : Path
        Private key (PEM) to sign the version with.
    """

    metrics: Mapping[str, float]
    training: Mapping[str, Detail]
    max_batch_rows: int | None
    version: int | None
    outputs: Sequence[str]
    other_scikit_learn: bool
    sign_with: Path | None


class Artifact(NamedTuple):
    """A model as it is to be kept, and as it was read."""

    content: bytes
    estimator: Any
    format: Format = "joblib"
    #: The scikit-learn that made it, if it is not the installed one.
    scikit_learn: str = ""
    trusted_types: tuple[str, ...] = ()
    origin: Origin | None = None
    #: What its file says of the columns that it reads.
    inputs: tuple[Input, ...] = ()


def register(
    model: Any,
    name: str,
    sample: Rows | str | os.PathLike[str],
    *,
    models: str | os.PathLike[str] | None = None,
    **notes: Unpack[Notes],
) -> Manifest:
    """Register a model: the way from a notebook.

    Parameters
    ----------
    model : object, or path
        A fitted estimator, or a file of one (see `register_file`).
    name : str
    sample : DataFrame, ndarray of shape (n_rows, n_columns), or path
        The training features, or a fair part; a path is of a CSV or Parquet file.
    models : path or None
        Folder of the registry; by default ``SCOREQUEUE_MODELS``, or ``.scorequeue/models``.
    **notes
        As in `Notes`.

    Returns
    -------
    Manifest
        The first version of a name is its champion; later ones are when they are promoted.

    Raises
    ------
    ValueError
        The model cannot be served, or the sample does not fit it; the message says why.
    """
    registry = Registry(Path(models or os.environ.get("SCOREQUEUE_MODELS") or ".scorequeue/models"))
    frame = read_sample(Path(sample)) if isinstance(sample, str | os.PathLike) else sample
    if isinstance(model, str | os.PathLike):
        return register_file(Path(model), name, registry=registry, sample=frame, **notes)
    return register_model(model, name, registry=registry, sample=frame, **notes)


def register_model(
    estimator: Any,
    name: str,
    *,
    registry: Registry,
    sample: Rows,
    columns: Sequence[str] | None = None,
    **notes: Unpack[Notes],
) -> Manifest:
    """Add a fitted estimator to the registry as a new version.

    The first version of a name becomes its champion; later ones only when an alias is moved.

    Parameters
    ----------
    estimator : object
        A fitted classifier or regressor.
    name : str
    registry : Registry
    sample : ndarray or DataFrame, shape (n_rows, n_columns)
        The training features, or a fair part: names and ranges are taken from it, NaN allows missing values.
    columns : sequence of str or None
        Names for a sample without names; by default ``x0``, ``x1``, …
    **notes
        As in `Notes`.

    Raises
    ------
    ValueError
        The estimator cannot be served, or the sample does not fit it; the message says why.
    ModelNotReady
        What was kept does not load, or does not answer as the estimator does; nothing was written.
    VersionExists
        The version is there already.
    """
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return _register(Artifact(buffer.getvalue(), estimator), name, registry, sample, columns, notes)


def register_file(
    path: Path,
    name: str,
    *,
    registry: Registry,
    sample: Any,
    target: Sequence[str] = (),
    kind: Format | None = None,
    trusted_types: Sequence[str] = (),
    **notes: Unpack[Notes],
) -> Manifest:
    """Add a model file, or an MLflow model folder, to the registry as a new version; its bytes are kept as they are.

    Parameters
    ----------
    path : Path
    name : str
    registry : Registry
    sample : DataFrame, shape (n_rows, n_columns)
        With the columns that the model reads among its own.
    target : sequence of str
        Columns of the sample that the model does not read; needed if it was fitted without names.
    kind : str or None
        Format; None tells it from the name's ending.
    trusted_types : sequence of str
        What a skops file may hold beyond the types that skops trusts by itself.
    **notes
        As in `Notes`.

    Raises
    ------
    ValueError
        The file cannot be read as a model that can be served, or the sample does not fit it.
    OSError
        It cannot be read.
    ModelNotReady, VersionExists
        As in `register_model`.
    """
    file = read_model_file(path, kind)
    trusted = _choose_trusted(file, trusted_types)
    artifact = _open_file(path, file, trusted)
    columns = list_columns(sample, artifact.estimator, columns=[column.name for column in file.inputs], target=target)
    rows = sample[columns] if hasattr(artifact.estimator, "feature_names_in_") else sample[columns].to_numpy()
    return _register(artifact, name, registry, rows, columns, notes)


def _register(
    artifact: Artifact, name: str, registry: Registry, sample: Rows, columns: Sequence[str] | None, notes: Notes
) -> Manifest:
    """Describe a model by its sample, check it as a worker would, and write it as a new version."""
    described = describe_model(artifact.estimator, sample, columns, notes.get("outputs", ()))
    described = described._replace(signature=_apply_inputs(described.signature, artifact.inputs))
    runner = EstimatorRunner(artifact.estimator, described.signature.columns, described.signature.answers)
    choice = _choose_backend(artifact, runner, described)
    description = Description(
        format=artifact.format,
        file=FILES[artifact.format],
        libraries=_list_libraries(artifact),
        signature=described.signature,
        metrics=_read_metrics(notes.get("metrics", {})),
        training=dict(notes.get("training", {})),
        labels_from_probabilities=described.labels_from_probabilities,
        max_batch_rows=notes.get("max_batch_rows"),
        trusted_types=artifact.trusted_types,
        other_scikit_learn=notes.get("other_scikit_learn", False),
        golden_sample=take_golden_sample(artifact.estimator, described.sample, described.signature.answers),
        origin=artifact.origin or find_origin(Path.cwd()),
        backend=choice.backend,
    )
    quality = _measure_quality(description, runner, described.values)
    description = msgspec.structs.replace(description, quality=quality)

    def check(manifest: Manifest) -> None:
        with _leave_notebook():
            open_model(manifest, artifact.content, choice.graph, Trust())

    def sign(files: Mapping[str, bytes]) -> Mapping[str, bytes]:
        key = notes.get("sign_with")
        return {SIGNATURE_FILE: sign_files(files, key)} if key else {}

    manifest = registry.write_version(
        name, artifact.content, description, graph=choice.graph, version=notes.get("version"), check=check, sign=sign
    )
    ensure_champion(registry, name)
    return manifest


def _apply_inputs(signature: Signature, inputs: Sequence[Input]) -> Signature:
    """Hold a signature from a sample against what the model's file says; let what it calls optional be missing.

    Raises
    ------
    SampleMismatch
        A column of the sample holds something else than the file says.
    """
    said = {column.name: column for column in inputs}
    columns = []
    for column in signature.columns:
        known = said.get(column.name, Input(column.name))
        holds = _HOLDS.get(known.type, column.holds)
        if holds != column.holds:
            raise SampleMismatch(
                f"MLmodel says that the column {column.name!r} is of type {known.type}; in the sample it holds"
                f" {column.holds}s (a Parquet file keeps types that CSV does not)"
            )
        # A whole number or a truth value has no way to be missing in the frame that the model was trained on.
        may_miss = known.optional and column.type in ("double", "string", "category")
        columns.append(msgspec.structs.replace(column, nullable=column.nullable or may_miss))
    return msgspec.structs.replace(signature, columns=tuple(columns))


def _choose_backend(artifact: Artifact, runner: EstimatorRunner, described: Described) -> Choice:
    columns = described.signature.columns
    if artifact.format == "onnx":
        speeds = measure_speeds([runner], described.values)
        return Choice(Backend(name="onnx", reason="it was registered as an ONNX graph", measured=speeds))
    return choose_backend(runner, described.values, columns, labels_follow=described.labels_from_probabilities)


def _measure_quality(description: Description, runner: EstimatorRunner, sample: Values) -> QualityReference:
    """Count what is missing in the sample, and how its scores are distributed."""
    values = sample[:: math.ceil(len(sample) / REFERENCE_ROWS)]
    probabilities = runner.answer(values) if runner.gives_probabilities else None
    return make_reference(description, values.matrix, Outcome(runner.predict(values), probabilities))


def _read_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"the metric {name!r} is {value}; JSON has no such number")
    return values


def _choose_trusted(file: ModelFile, trusted: Sequence[str]) -> tuple[str, ...]:
    """Return the types of a skops file that need trust, all of which must have been named."""
    if file.format != "skops":
        return ()
    needed = list_unknown_types(file.content)
    unnamed = [name for name in needed if name not in trusted]
    if unnamed:
        listed = " ".join(f"--trust {name}" for name in unnamed)
        raise UnreadableModel(f"the file holds types that skops does not trust; if you do: {listed}")
    return tuple(needed)


def _open_file(path: Path, file: ModelFile, trusted: tuple[str, ...]) -> Artifact:
    origin = find_origin(path.resolve().parent, file=path.name, mlflow_run=file.mlflow_run)
    classes = read_labels(file.content) if file.format == "onnx" else None
    try:
        loaded = load_estimator(file.content, file.format, trusted_types=trusted, classes=classes)
    except Exception as error:  # a pickle runs its maker's code, which may raise anything
        raise UnreadableModel(f"{path.name} cannot be loaded as {file.format}: {_explain(error, file)}") from error
    made_with = loaded.other_scikit_learn or file.scikit_learn
    return Artifact(file.content, loaded.estimator, file.format, made_with, trusted, origin, file.inputs)


def _explain(error: Exception, file: ModelFile) -> str:
    """Say why a file cannot be loaded; another scikit-learn is the likeliest reason, whatever the error says."""
    made_with = file.scikit_learn or find_scikit_learn(file.content)
    other = f"it was made with scikit-learn {made_with} and this worker has {sklearn.__version__}; "
    reason = describe_refusal(error)
    said = f"{reason}: {error}" if reason == type(error).__name__ else reason
    return (other if made_with and made_with != sklearn.__version__ else "") + said


@contextlib.contextmanager
def _leave_notebook() -> Iterator[None]:
    """Hide what is defined in the notebook or script that runs: no worker has it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def ensure_champion(registry: Registry, name: str) -> None:
    """Give a name its champion if it has none: the first version (or what is left of them)."""
    if CHAMPION not in registry.aliases(name):
        registry.set_alias(name, CHAMPION, registry.versions(name)[0])


def _list_libraries(artifact: Artifact) -> dict[str, str]:
    """Tell the versions that the model was made with, or else those that read it here."""
    if artifact.format == "onnx":
        names = {"numpy", "onnxruntime"}
    else:
        names = {*_ALWAYS, artifact.format} & {*_ALWAYS, "joblib", "skops"}
        names |= set(_find_distributions(artifact.estimator))
    versions = {name: installed_version(name) for name in sorted(names)}
    if artifact.scikit_learn and "scikit-learn" in versions:
        versions["scikit-learn"] = artifact.scikit_learn
    return {"python": platform.python_version()} | versions


def _find_distributions(estimator: Any) -> Iterator[str]:
    """Yield the distributions of the classes of an estimator and of those inside it."""
    known = packages_distributions()
    for inner in walk_estimators(estimator):
        yield from known.get(type(inner).__module__.partition(".")[0], [])[:1]
