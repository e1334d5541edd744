"""The forms in which a model is kept: a file's bytes to an estimator, and a user's file to what is kept."""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import joblib
import yaml
from sklearn.exceptions import InconsistentVersionWarning

from shared.manifest import Format
from shared.signature import Label
from worker.onnx_model import open_onnx

#: Name of the kept file by its format.
FILES: dict[Format, str] = {
    "joblib": "model.joblib",
    "pickle": "model.pkl",
    "skops": "model.skops",
    "onnx": "model.onnx",
}
_ENDINGS: dict[str, Format] = {
    ".joblib": "joblib",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".skops": "skops",
    ".onnx": "onnx",
}
#: What unpickling says of a name that a module does not have.
_MISSING = re.compile(r"(?:Can't get|module '[\w.]+' has no) attribute '?([\w.]+)'? on <module '([\w.]+)'")
#: The key and the value beside it, in the state of each estimator.
_MADE_WITH = re.compile(rb"_sklearn_version[^\d]{1,20}?(\d+\.\d+[\w.]*)")
#: The file by which a folder is an MLflow model.
_MLMODEL = "MLmodel"


class UnreadableModel(ValueError):
    """A file cannot be read as a model; the message says why."""


class Input(NamedTuple):
    """A column that a file says its model reads."""

    name: str
    #: As MLflow calls it; empty: it does not say.
    type: str = ""
    #: Whether it may be missing.
    optional: bool = False


class ModelFile(NamedTuple):
    """A user's file or folder, read: what will be kept of it, and what it says of itself."""

    content: bytes
    format: Format
    #: The columns that it says the model reads; none if it does not say.
    inputs: tuple[Input, ...] = ()
    #: The scikit-learn that it says the model was made with.
    scikit_learn: str = ""
    mlflow_run: str = ""


class Estimator(NamedTuple):
    """A model in memory."""

    estimator: Any
    #: The scikit-learn that made it, if that is another than this one.
    other_scikit_learn: str = ""


def read_model_file(path: Path, kind: Format | None = None) -> ModelFile:
    """Read a model file, or an MLflow model folder, as it is; nothing of it is run.

    Parameters
    ----------
    path : Path
    kind : str or None
        None tells it from the name's ending.

    Raises
    ------
    UnreadableModel
        Its format is not known, or the folder is none of a model that can be served.
    OSError
        It cannot be read.
    """
    if path.is_dir():
        return _read_mlflow(path)
    kind = kind or _ENDINGS.get(path.suffix.lower())
    if kind is None:
        endings = ", ".join(_ENDINGS)
        raise UnreadableModel(f"{path.name}: the ending says no format (known: {endings}); name it with --format")
    return ModelFile(path.read_bytes(), kind)


def list_unknown_types(content: bytes) -> list[str]:
    """List the types of a skops file that skops does not trust by itself.

    Raises
    ------
    UnreadableModel
        It is no skops file.
    """
    from skops.io import get_untrusted_types

    try:
        return [str(name) for name in get_untrusted_types(data=content)]
    except Exception as error:  # it may be anything
        raise UnreadableModel(f"this is no skops file ({type(error).__name__})") from error


def load_estimator(
    content: bytes, kind: Format, *, trusted_types: Sequence[str] = (), classes: Sequence[Label] | None = None
) -> Estimator:
    """Make an estimator of a file's bytes. Joblib and pickle run what its maker put in.

    Parameters
    ----------
    content : bytes
    kind : str
        Its format.
    trusted_types : sequence of str
        Types that a skops file may have beyond those that skops trusts by itself.
    classes : sequence or None
        Of an ONNX graph, from its manifest; None where it is a regressor. (A graph says them only by the way; see
        `read_labels`.)

    Raises
    ------
    Exception
        Whatever reading it raises: a pickle runs its maker's code.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InconsistentVersionWarning)
        estimator = _load(content, kind, trusted_types, classes)
    others = [
        warning.message.original_sklearn_version
        for warning in caught
        if isinstance(warning.message, InconsistentVersionWarning)
    ]
    return Estimator(estimator, others[0] if others else "")


def describe_refusal(error: Exception) -> str:
    """Say why an estimator could not be loaded, without what its maker's code may have put into a message.

    What is missing here is named: it must be installed, or put where workers find it.
    """
    if isinstance(error, ModuleNotFoundError):
        return f"it needs the module {error.name!r}, which is not here"
    missing = _MISSING.match(str(error)) if isinstance(error, AttributeError) else None
    if missing is None:
        return type(error).__name__
    name, module = missing.groups()
    advice = "; a notebook's or a script's own code must be put into a module that workers can import"
    return f"it needs {name!r} of {module!r}, which is not there{advice if module == '__main__' else ''}"


def find_scikit_learn(content: bytes) -> str:
    """Find the version of scikit-learn that a pickle was made with; nothing if it is compressed, or does not say."""
    found = _MADE_WITH.search(content)
    return found.group(1).decode() if found else ""


def _load(content: bytes, kind: Format, trusted_types: Sequence[str], classes: Sequence[Label] | None) -> Any:
    if kind == "joblib":
        return joblib.load(io.BytesIO(content))
    if kind == "pickle":
        return pickle.loads(content)
    if kind == "skops":
        from skops.io import loads

        # Never `trusted=True`: a type that registration did not allow is refused here.
        return loads(content, trusted=list(trusted_types))
    return open_onnx(content, classes)


def _read_mlflow(folder: Path) -> ModelFile:
    document = _read_mlmodel(folder)
    flavors = document.get("flavors") or {}
    signature = document.get("signature") or {}
    inputs, run = _read_inputs(signature.get("inputs")), str(document.get("run_id") or "")
    if isinstance(sklearn := flavors.get("sklearn"), dict):
        path = _find_inside(folder, sklearn.get("pickled_model"))
        is_skops = sklearn.get("serialization_format") == "skops" or path.suffix == ".skops"
        version = str(sklearn.get("sklearn_version") or "")
        return ModelFile(path.read_bytes(), "skops" if is_skops else "pickle", inputs, version, run)
    if isinstance(onnx := flavors.get("onnx"), dict):
        return ModelFile(_find_inside(folder, onnx.get("data")).read_bytes(), "onnx", inputs, mlflow_run=run)
    known = ", ".join(flavors) or "none"
    raise UnreadableModel(f"{folder.name}/{_MLMODEL}: expected the flavor sklearn or onnx; it has {known}")


def _read_mlmodel(folder: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load((folder / _MLMODEL).read_text("utf-8"))
    except FileNotFoundError:
        raise UnreadableModel(f"{folder.name} is a folder without {_MLMODEL}: no MLflow model") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UnreadableModel(f"{folder.name}/{_MLMODEL} is not YAML ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise UnreadableModel(f"{folder.name}/{_MLMODEL}: expected a mapping")
    return document


def _find_inside(folder: Path, name: Any) -> Path:
    """Return a file of the folder; a name that leads out of it is refused."""
    path = (folder / str(name)).resolve()
    if not name or not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise UnreadableModel(f"{folder.name}/{_MLMODEL} names the model file {name!r}, which is not in the folder")
    return path


def _read_inputs(inputs: Any) -> tuple[Input, ...]:
    """Return the columns in a signature's inputs, which are JSON inside of YAML; a tensor has none."""
    try:
        columns = json.loads(inputs) if isinstance(inputs, str) else inputs or []
        return tuple(
            Input(str(column["name"]), str(column.get("type") or ""), column.get("required") is False)
            for column in columns
            if "name" in column and column.get("type") != "tensor"
        )
    except (ValueError, TypeError) as error:
        raise UnreadableModel(f"{_MLMODEL}: its signature cannot be read ({type(error).__name__})") from error


assert set(FILES) == set(get_args(Format))
