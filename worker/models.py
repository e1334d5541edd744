"""Models in this process: checked, loaded, warmed, and kept; it knows no Redis and no Celery."""

from __future__ import annotations

import hashlib
import io
import time
import warnings
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import sklearn
import threadpoolctl  # type: ignore[import-untyped]
from sklearn.exceptions import InconsistentVersionWarning

from shared.errors import ServiceError
from shared.manifest import Manifest
from shared.registry import BrokenManifest, Registry, UnknownModel
from worker.golden import WrongAnswer, check_golden_sample
from worker.scoring import Matrix, Outcome, check_shape

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
    """An estimator in memory and the manifest that vouches for it.

    Parameters
    ----------
    manifest : Manifest
    estimator : object
        A fitted scikit-learn estimator.
    load_seconds : float
        What checking, loading and warming took.

    Raises
    ------
    ModelNotReady
        The estimator is not what the manifest describes.
    """

    def __init__(self, manifest: Manifest, estimator: Any, load_seconds: float = 0.0) -> None:
        self.manifest = manifest
        self.estimator = estimator
        self.load_seconds = load_seconds
        self._classes = _check_classes(manifest, estimator)
        self._gives_probabilities = self._classes is not None and hasattr(estimator, "predict_proba")
        self._names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]

    @property
    def class_count(self) -> int | None:
        """Classes of a classifier; None for a regressor."""
        return None if self._classes is None else len(self._classes)

    def predict(self, matrix: Matrix) -> Outcome:
        """Answer every row in one call; the answers are not yet checked.

        Parameters
        ----------
        matrix : ndarray of float64, shape (n_rows, n_columns)
            Columns in the signature's order.

        Returns
        -------
        Outcome
            Equal to what the estimator's own `predict` and `predict_proba` give.
        """
        rows = self._frame_rows(matrix)
        if self._classes is None:
            return Outcome(np.asarray(self.estimator.predict(rows), dtype=np.float64))
        if not self._gives_probabilities:
            return Outcome(np.asarray(self.estimator.predict(rows)))
        probabilities = np.asarray(self.estimator.predict_proba(rows), dtype=np.float64)
        if not self.manifest.labels_from_probabilities:
            return Outcome(np.asarray(self.estimator.predict(rows)), probabilities)
        # Registration checked that this equals predict(), which would compute the probabilities once more.
        return Outcome(self._classes.take(np.argmax(probabilities, axis=1)), probabilities)

    def _frame_rows(self, matrix: Matrix) -> Any:
        if not self._names:
            return matrix
        # Fitted on a frame: its steps may pick columns by name. Most models never need the import.
        import pandas as pd

        return pd.DataFrame(matrix, columns=self._names, copy=False)


class ModelCache:
    """The models of this process, each loaded and warmed once.

    Parameters
    ----------
    registry : Registry
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._models: dict[tuple[str, int], LoadedModel] = {}

    def get(self, name: str, version: int) -> LoadedModel:
        """Hand out a warmed model, loading it the first time (seconds, for a large one).

        Raises
        ------
        ModelNotReady
            It cannot be loaded; the next call tries again.
        """
        model = self._models.get((name, version))
        if model is None:
            model = load_model(self.registry, name, version)
            self._models[name, version] = model
            # One thread for OpenMP and BLAS: N processes on N cores must not fight. After each load, because
            # only now are the model's libraries in this process.
            threadpoolctl.threadpool_limits(1)
        return model


def load_model(registry: Registry, name: str, version: int) -> LoadedModel:
    """Read, check, load and warm one model version.

    The bytes that were checked are the bytes that are loaded: the file is read once.

    Raises
    ------
    ModelNotReady
        The version is missing, altered, made with another scikit-learn, fails at its first calls, or does not answer
        its golden sample as it did.
    """
    began = time.perf_counter()
    try:
        manifest = registry.manifest(name, version)
    except (UnknownModel, BrokenManifest) as error:
        raise ModelNotReady(f"{name}:{version}", error.detail) from error
    model = open_model(manifest, _read_model_file(registry, manifest))
    model.load_seconds = time.perf_counter() - began
    return model


def open_model(manifest: Manifest, content: bytes) -> LoadedModel:
    """Load, warm and check a model from the bytes of its file.

    Raises
    ------
    ModelNotReady
        As `load_model`.
    """
    _check_library(manifest)
    estimator = _load_estimator(manifest, content)
    _use_one_thread(estimator)
    model = LoadedModel(manifest, estimator)
    _warm_model(model)
    return model


def _read_model_file(registry: Registry, manifest: Manifest) -> bytes:
    path = registry.version_folder(manifest.name, manifest.version) / manifest.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelNotReady(manifest.reference, f"{manifest.file} cannot be read ({error.strerror})") from error
    if len(content) != manifest.size:
        raise ModelNotReady(
            manifest.reference,
            f"{manifest.file} has {len(content)} bytes; its manifest says {manifest.size}",
        )
    if hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise ModelNotReady(manifest.reference, f"{manifest.file} is not the file whose SHA-256 was registered")
    return content


def _check_library(manifest: Manifest) -> None:
    trained = manifest.libraries.get("scikit-learn", "unknown")
    # A patch release keeps the form of a fitted model; anything more may predict something else, silently.
    if trained.split(".")[:2] != sklearn.__version__.split(".")[:2]:
        raise ModelNotReady(
            manifest.reference,
            f"it was made with scikit-learn {trained} and this worker has {sklearn.__version__};"
            " train it again, or install that version",
        )


def _load_estimator(manifest: Manifest, content: bytes) -> Any:
    try:
        with warnings.catch_warnings():
            # It warns of patch releases too; `_check_library` has judged that already.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            return joblib.load(io.BytesIO(content))
    except Exception as error:  # a pickle runs the model's own code, which may raise anything
        raise ModelNotReady(manifest.reference, f"{manifest.file} cannot be loaded ({type(error).__name__})") from error


def _check_classes(manifest: Manifest, estimator: Any) -> npt.NDArray[Any] | None:
    expected = manifest.signature.classes
    if expected is None:
        return None
    classes = np.asarray(getattr(estimator, "classes_", ()))
    if classes.tolist() != list(expected):
        raise ModelNotReady(
            manifest.reference, f"its classes are {classes.tolist()}; its manifest says {list(expected)}"
        )
    return classes


def _use_one_thread(estimator: Any) -> None:
    """Set `n_jobs` to 1 on an estimator and all those inside it, fitted ones included.

    `set_params` would miss the fitted copies that meta-estimators keep.
    """
    for inner in _walk_estimators(estimator, set()):
        if getattr(inner, "n_jobs", 1) != 1:
            inner.n_jobs = 1


def _walk_estimators(value: Any, seen: set[int]) -> Iterator[Any]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        children = list(np.ravel(value)) if isinstance(value, np.ndarray) else list(value)
    elif hasattr(value, "get_params") and not isinstance(value, type):
        yield value
        children = list(vars(value).values())
    else:
        return
    for child in children:
        yield from _walk_estimators(child, seen)


def _warm_model(model: LoadedModel) -> None:
    """Make the first, slow calls now, so that caches and lazy imports are in place, and check the answers."""
    columns = model.manifest.signature.columns
    typical = [0.0 if c.min is None or c.max is None else c.min / 2 + c.max / 2 for c in columns]
    for rows in (1, WARM_ROWS):
        try:
            answer = model.predict(np.tile(np.array(typical), (rows, 1)))
            check_shape(answer, rows, model.class_count)
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
