"""Models in this process: checked, loaded, warmed, and kept; it knows no Redis and no Celery."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shared.backend import GraphFile
from shared.errors import ServiceError
from shared.manifest import Manifest
from shared.references import BrokenManifest, UnknownModel
from shared.registry import MANIFEST_FILE, Registry
from shared.signature import Output
from shared.values import Values
from worker.backends import EstimatorRunner, Runner, open_runner
from worker.formats import describe_refusal, load_estimator
from worker.golden import WrongAnswer, check_golden_sample, read_golden_rows
from worker.onnx_session import GraphRefused
from worker.outputs import list_classes
from worker.scoring import Outcome, check_shape, find_likeliest
from worker.threads import use_one_thread
from worker.tree_ensembles import NotConvertible
from worker.trust import SIGNATURE_FILE, Distrusted, Trust

#: Rows of the second warm-up call; enough to touch the code path of a micro-batch.
WARM_ROWS = 16


class ModelNotReady(ServiceError):
    """A model version is registered and cannot be used here.

    Parameters
    ----------
    reference : str
        ``name:version``.
    reason : str
        What is wrong and what was expected.
    """

    def __init__(self, reference: str, reason: str) -> None:
        super().__init__("model_not_ready", f"model {reference} is not ready: {reason}")
        self.reference = reference
        self.reason = reason


class LoadedModel:
    """An estimator in memory, the manifest that vouches for it, and the backend that runs it.

    Parameters
    ----------
    manifest : Manifest
    estimator : object
        A fitted scikit-learn estimator.
    graph : bytes or None
        The graph of the manifest's backend, if it has one.
    load_seconds : float
        What checking, loading and warming took.

    Raises
    ------
    ModelNotReady
        The estimator is not what the manifest describes, or cannot be run as it says.
    """

    def __init__(
        self, manifest: Manifest, estimator: Any, graph: bytes | None = None, load_seconds: float = 0.0
    ) -> None:
        self.manifest = manifest
        self.estimator = estimator
        self.load_seconds = load_seconds
        _check_classes(manifest, estimator)
        self._labels = _find_labels(manifest, estimator)
        self._own = EstimatorRunner(estimator, manifest.signature.columns, self.outputs)
        self._runner = _open_backend(manifest, self._own, graph)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What it answers to each row."""
        return self.manifest.signature.answers

    def predict(self, values: Values) -> Outcome:
        """Answer every row in one call; the answers are not yet checked.

        Parameters
        ----------
        values : Values
            With the codes of the signature.

        Returns
        -------
        Outcome
            Equal to what the estimator's own `predict` and `predict_proba` give, within the backend's tolerance.
        """
        answers = self._runner.answer(values)
        if self.manifest.signature.task == "regression":
            return Outcome(np.asarray(answers, dtype=np.float64))
        if not self._own.gives_probabilities:
            return Outcome(answers)
        probabilities = np.asarray(answers, dtype=np.float64)
        if self._labels is None:
            return Outcome(self._own.predict(values), probabilities)
        # Registration checked that this equals predict(), which would compute the probabilities once more.
        return Outcome(self._labels.take(find_likeliest(probabilities)), probabilities)


def load_model(registry: Registry, name: str, version: int, trust: Trust | None = None) -> LoadedModel:
    """Read, check, load and warm one model version.

    The bytes that were checked are the bytes that are loaded: each file is read once.

    Parameters
    ----------
    registry : Registry
    name, version
    trust : Trust or None
        What is taken beyond the installed scikit-learn, and whose signature is needed; None is the default.

    Raises
    ------
    ModelNotReady
        The version is missing, altered, not signed, made with another scikit-learn, fails at its first calls, or does
        not answer its golden sample as it did.
    """
    began = time.perf_counter()
    trust = trust or Trust()
    manifest, content, graph = _read_version(registry, name, version, trust)
    model = open_model(manifest, content, graph, trust)
    model.load_seconds = time.perf_counter() - began
    return model


def check_files(registry: Registry, name: str, version: int, trust: Trust) -> None:
    """See that the files of a version are still those that were registered, without loading it.

    Raises
    ------
    ModelNotReady
        They are missing, altered or not signed.
    """
    manifest = _read_manifest(registry, name, version)
    if trust.signing_key:
        _read_signed(registry, manifest, trust)
    for described in (manifest, manifest.backend.graph):
        if described is not None:
            _check_file(registry, manifest, described)


def open_model(manifest: Manifest, content: bytes, graph: bytes | None, trust: Trust) -> LoadedModel:
    """Check, load and warm a model from the bytes of its files; signatures are not looked at.

    Parameters
    ----------
    manifest : Manifest
    content : bytes
        Of the model file.
    graph : bytes or None
        Of the file of the manifest's backend, if it has one.
    trust : Trust

    Raises
    ------
    ModelNotReady
        As `load_model`.
    """
    _check_all_bytes(manifest, content, graph)
    try:
        trust.check_library(manifest)
    except Distrusted as error:
        raise ModelNotReady(manifest.reference, str(error)) from error
    estimator = _load_estimator(manifest, content)
    use_one_thread(estimator)
    model = LoadedModel(manifest, estimator, graph)
    _warm_model(model)
    return model


def _read_version(registry: Registry, name: str, version: int, trust: Trust) -> tuple[Manifest, bytes, bytes | None]:
    manifest = _read_manifest(registry, name, version)
    described = manifest.backend.graph
    names = [manifest.file] if described is None else [manifest.file, described.file]
    content, *graphs = _read_files(registry, manifest, names, trust)
    return manifest, content, graphs[0] if graphs else None


def _read_manifest(registry: Registry, name: str, version: int) -> Manifest:
    try:
        return registry.manifest(name, version)
    except (UnknownModel, BrokenManifest) as error:
        raise ModelNotReady(f"{name}:{version}", error.detail) from error


def _check_all_bytes(manifest: Manifest, content: bytes, graph: bytes | None) -> None:
    _check_bytes(manifest, manifest, content)
    if graph is not None and manifest.backend.graph is not None:
        _check_bytes(manifest, manifest.backend.graph, graph)


def _read_files(registry: Registry, manifest: Manifest, names: list[str], trust: Trust) -> list[bytes]:
    if trust.signing_key:
        files = _read_signed(registry, manifest, trust)
        missing = [name for name in names if name not in files]
        if missing:
            raise ModelNotReady(manifest.reference, f"{missing[0]} is missing")
        return [files[name] for name in names]
    return [_read_file(registry, manifest, name) for name in names]


def _read_file(registry: Registry, manifest: Manifest, name: str) -> bytes:
    try:
        return (registry.version_folder(manifest.name, manifest.version) / name).read_bytes()
    except OSError as error:
        raise ModelNotReady(manifest.reference, f"{name} cannot be read ({error.strerror})") from error


def _read_signed(registry: Registry, manifest: Manifest, trust: Trust) -> dict[str, bytes]:
    """Read all files once and see that they are signed; the manifest in memory must be the one that is."""
    try:
        files = registry.read_files(manifest.name, manifest.version)
    except OSError as error:
        raise ModelNotReady(manifest.reference, f"its files cannot be read ({error.strerror})") from error
    signature = files.pop(SIGNATURE_FILE, None)
    try:
        trust.check_signature(files, signature)
    except Distrusted as error:
        raise ModelNotReady(manifest.reference, str(error)) from error
    if msgspec.json.decode(files[MANIFEST_FILE], type=Manifest) != manifest:
        raise ModelNotReady(manifest.reference, f"its {MANIFEST_FILE} was changed after it was first read")
    return files


def _check_bytes(manifest: Manifest, described: Manifest | GraphFile, content: bytes) -> None:
    _check_size(manifest, described, len(content))
    _check_digest(manifest, described, hashlib.sha256(content).hexdigest())


def _check_file(registry: Registry, manifest: Manifest, described: Manifest | GraphFile) -> None:
    """Check a file without holding it in memory."""
    try:
        with (registry.version_folder(manifest.name, manifest.version) / described.file).open("rb") as file:
            _check_size(manifest, described, os.fstat(file.fileno()).st_size)
            _check_digest(manifest, described, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise ModelNotReady(manifest.reference, f"{described.file} cannot be read ({error.strerror})") from error


def _check_size(manifest: Manifest, described: Manifest | GraphFile, size: int) -> None:
    if size != described.size:
        raise ModelNotReady(
            manifest.reference, f"{described.file} has {size} bytes; its manifest says {described.size}"
        )


def _check_digest(manifest: Manifest, described: Manifest | GraphFile, sha256: str) -> None:
    if sha256 != described.sha256:
        raise ModelNotReady(manifest.reference, f"{described.file} is not the file whose SHA-256 was registered")


def _open_backend(manifest: Manifest, own: EstimatorRunner, graph: bytes | None) -> Runner:
    if manifest.format == "onnx":  # it is a graph itself
        return own
    try:
        return open_runner(manifest.backend, own, manifest.signature.columns, graph)
    except (NotConvertible, GraphRefused) as error:
        raise ModelNotReady(
            manifest.reference, f"it cannot be run as {manifest.backend.name}, as its manifest says ({error})"
        ) from error


def _load_estimator(manifest: Manifest, content: bytes) -> Any:
    try:
        return load_estimator(
            content, manifest.format, trusted_types=manifest.trusted_types, classes=manifest.signature.classes
        ).estimator
    except Exception as error:  # a pickle runs the model's own code, which may raise anything
        reason = describe_refusal(error)
        raise ModelNotReady(manifest.reference, f"{manifest.file} cannot be loaded ({reason})") from error


def _check_classes(manifest: Manifest, estimator: Any) -> None:
    if manifest.signature.task == "regression":
        return
    outputs = manifest.signature.answers
    expected = [list(output.classes or ()) for output in outputs]
    try:
        found = list_classes(estimator, outputs)
    except ValueError as error:
        raise ModelNotReady(manifest.reference, str(error)) from error
    if found != expected:
        shown = (found[0], expected[0]) if len(outputs) == 1 else (found, expected)
        raise ModelNotReady(manifest.reference, f"its classes are {shown[0]}; its manifest says {shown[1]}")


def _find_labels(manifest: Manifest, estimator: Any) -> npt.NDArray[Any] | None:
    """Return the classes among which the highest probability chooses; None if that does not decide the label."""
    if not manifest.labels_from_probabilities:
        return None
    classes = np.asarray(estimator.classes_)
    # As Python's own texts: thousands of rows share a few, where numpy would copy each.
    return classes.astype(object) if classes.dtype.kind == "U" else classes


def _find_typical(manifest: Manifest) -> Values:
    """Return a row as it may come."""
    if manifest.golden_sample is not None:
        return read_golden_rows(manifest.golden_sample, manifest.signature)[:1]
    columns = manifest.signature.columns
    middle = [0.0 if c.min is None or c.max is None else c.min / 2 + c.max / 2 for c in columns]
    return Values(np.array([middle]))


def _warm_model(model: LoadedModel) -> None:
    """Make the first, slow calls now, so that caches and lazy imports are in place, and check the answers."""
    for rows in (1, WARM_ROWS):
        try:
            answer = model.predict(_find_typical(model.manifest)[np.zeros(rows, dtype=int)])
            check_shape(answer, rows, model.outputs)
        except Exception as error:  # a model may raise anything, and must not take the worker down
            raise ModelNotReady(
                model.manifest.reference, f"its first call, on {rows} row(s), failed ({type(error).__name__})"
            ) from error
    try:
        check_golden_sample(model)
    except WrongAnswer as error:
        raise ModelNotReady(model.manifest.reference, str(error)) from error
    except Exception as error:
        raise ModelNotReady(
            model.manifest.reference, f"its golden sample cannot be scored ({type(error).__name__})"
        ) from error
