"""The manifest: all that is known of a model version without loading it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from shared.backend import Backend
from shared.quality import QualityReference
from shared.signature import Signature

Detail = str | int | float | bool | None

#: How a model file is written. The last two run no code of their maker when they are read.
Format = Literal["joblib", "pickle", "skops", "onnx"]


class GoldenSample(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of the training sample, and what the model answered when it was registered.

    A process that has loaded the model asks it again, through the same code that scores jobs, before it serves it.

    Parameters
    ----------
    rows : tuple of tuple
        As a caller would send them in JSON, in the signature's order; None is a missing value.
    predictions : tuple
        One a row; of several outputs a list.
    probabilities : tuple of tuple of float, or None
        In the order of the classes, those of all outputs in a row; None where the model gives none.
    """

    rows: tuple[tuple[Any, ...], ...]
    predictions: tuple[Any, ...]
    probabilities: tuple[Any, ...] | None = None


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who registered a version, and from where."""

    user: str = ""
    host: str = ""
    #: Name of the file or folder that was registered; empty if it came from Python.
    file: str = ""
    #: Of the folder in which it was registered, if that is under git.
    git_commit: str = ""
    #: Whether that folder had changes which no commit holds.
    git_changes: bool = False
    #: Of an MLflow model: the run that logged it.
    mlflow_run: str = ""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What registration finds out about a version; all but its place in the registry."""

    format: Format = "joblib"
    #: Name of the model file beside the manifest; the pattern keeps it there.
    file: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "model.joblib"
    #: Versions that the model was made with, by distribution name, and ``python``.
    libraries: dict[str, str]
    signature: Signature
    #: Measured on a held-out split.
    metrics: dict[str, float] = {}
    training: dict[str, Detail] = {}
    #: Whether the label is always the class of the highest probability, so that one call gives both.
    labels_from_probabilities: bool = False
    #: Rows of one model call at most; None leaves it to the worker's settings.
    max_batch_rows: Annotated[int, msgspec.Meta(ge=1)] | None = None
    #: Of the format skops: what it may hold beyond the types that skops trusts by itself, as registration was told.
    trusted_types: tuple[str, ...] = ()
    #: Whether registration was told to keep it although another scikit-learn than the installed one made it.
    other_scikit_learn: bool = False
    #: None: registered before there were such samples.
    golden_sample: GoldenSample | None = None
    origin: Origin = Origin()
    #: In which way rows are run, and what was measured.
    backend: Backend = Backend()
    #: What data and scores of the training sample were like. None: registered before that was counted.
    quality: QualityReference | None = None


class Manifest(Description, frozen=True, kw_only=True):
    """The content of ``manifest.json``. It grows by fields of `Description` with a default: old ones stay readable."""

    name: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    #: RFC 3339, UTC.
    created_at: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    #: Bytes of the model file.
    size: Annotated[int, msgspec.Meta(ge=0)]

    @property
    def reference(self) -> str:
        """The exact reference, ``name:version``."""
        return f"{self.name}:{self.version}"
