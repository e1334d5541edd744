"""A pandas frame to the service and back; the only module that needs pandas.

A frame goes as a file job: a row that cannot be scored then gets its own error, where a rows job would be
refused as a whole, and a frame of any size goes the same way.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scorequeue.errors import WrongUse

if TYPE_CHECKING:
    from scorequeue.client import Client

_ERROR_COLUMNS = ["error_code", "error_message"]


def score_frame(client: Client, frame: pd.DataFrame, model: str, *, timeout: float, **options: Any) -> pd.DataFrame:
    """Score a frame; see `Client.score`."""
    version = client.model_version(model)
    signature = version["signature"]
    # The very version whose columns were looked up, whatever the alias means a moment later.
    model = f"{version['name']}:{version['version']}"
    names = [column["name"] for column in signature["columns"]]
    labels = _list_labels(signature)
    added = [*labels, *_list_probabilities(signature), *_ERROR_COLUMNS]
    _check_columns(frame, names, added, model)
    if frame.empty:
        return frame.reindex(columns=[*frame.columns, *added])
    with tempfile.TemporaryDirectory(prefix="scorequeue-") as folder:
        source, target = Path(folder, "rows.csv"), Path(folder, "scored.csv")
        _exact(frame[names]).to_csv(source, index=False)
        client.score_file(source, target, model, timeout=timeout, **options)
        scores = pd.read_csv(
            target,
            usecols=lambda name: name not in names,
            # As text first: Python's own reading of a number is exact, and a label keeps its form.
            dtype="str",
            keep_default_na=False,
            na_values=[""],
        )
    if len(scores) != len(frame):
        raise AssertionError(f"{len(frame)} rows were sent and {len(scores)} came back")
    for name, classes in labels.items():
        scores[name] = _read_predictions(scores[name], classes)
    scores = scores.astype(dict.fromkeys(_list_probabilities(signature), "float64"))
    return pd.concat([frame, scores.set_index(frame.index)], axis="columns")


def _list_labels(signature: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the classes of each column of predictions; none of a number."""
    outputs = signature.get("outputs") or [signature]
    return {
        f"prediction_{output['name']}" if output.get("name") else "prediction": output.get("classes") or []
        for output in outputs
    }


def _list_probabilities(signature: dict[str, Any]) -> list[str]:
    outputs = signature.get("outputs") or [signature]
    return [
        f"probability_{output['name']}_{label}" if output.get("name") else f"probability_{label}"
        for output in outputs
        if output.get("gives_probabilities", True)
        for label in output.get("classes") or []
    ]


def _check_columns(frame: pd.DataFrame, names: list[str], added: list[str], model: str) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise WrongUse(f"the frame lacks columns that model {model} needs: {', '.join(map(repr, missing[:10]))}")
    doubled = sorted(set(frame.columns[frame.columns.duplicated()]).intersection(names))
    if doubled:
        raise WrongUse(f"the frame has column {doubled[0]!r} twice")
    taken = [name for name in added if name in frame.columns]
    if taken:
        raise WrongUse(f"the frame has a column {taken[0]!r} already: rename it, the scores need the name")


def _exact(frame: pd.DataFrame) -> pd.DataFrame:
    """Bring the columns into types whose text gives back the very number that a model would get."""
    # The shortest text of a float32 is that of another float64; and True is no number in a CSV.
    narrow = frame.select_dtypes(["float16", "float32"]).columns
    flags = frame.select_dtypes("bool").columns
    return frame.astype({**dict.fromkeys(narrow, "float64"), **dict.fromkeys(flags, "int8")})


def _read_predictions(column: pd.Series, classes: list[Any]) -> pd.Series:
    if not classes:
        return column.astype("float64")
    # The text of a label back to the label: '007' and 7 are different classes, and only one is there.
    return column.map({str(label): label for label in classes})
