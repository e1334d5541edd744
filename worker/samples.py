"""A sample of the training data from a file, cut to what a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: Rows of a sample that are looked at: more only cost time.
MOST_ROWS = 200_000


class SampleMismatch(ValueError):
    """A sample does not have the columns that the model reads; the message says which."""


def read_sample(path: Path) -> pd.DataFrame:
    """Read a CSV or Parquet file.

    Raises
    ------
    SampleMismatch
        It is neither, or has no row.
    OSError
        It cannot be read.
    """
    import pandas as pd  # takes a second or two, and only registration needs it

    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path).head(MOST_ROWS)
        else:
            frame = pd.read_csv(path, nrows=MOST_ROWS, sep="\t" if path.suffix.lower() == ".tsv" else ",")
    except (ValueError, UnicodeError) as error:  # pandas' and pyarrow's own errors are of the first
        raise SampleMismatch(f"{path.name} cannot be read as a sample: {error}") from error
    if frame.empty:
        raise SampleMismatch(f"{path.name} has no rows")
    frame.columns = frame.columns.map(str)
    return frame


def list_columns(
    frame: pd.DataFrame, estimator: Any, *, columns: Sequence[str] = (), target: Sequence[str] = ()
) -> list[str]:
    """Name the columns of a sample that a model reads, in its order.

    Parameters
    ----------
    frame : DataFrame
    estimator : object
        Fitted.
    columns : sequence of str
        What the model reads, where it does not know that itself.
    target : sequence of str
        Columns that it does not read, such as the true answer.

    Raises
    ------
    SampleMismatch
        Columns are missing, or it is not clear which ones the model reads.
    """
    present = list(frame.columns)
    unknown = [name for name in target if name not in present]
    if unknown:
        raise SampleMismatch(f"the sample has no column {unknown[0]!r}; it has {_list_some(present)}")
    named = [str(name) for name in getattr(estimator, "feature_names_in_", columns)]
    if named:
        # LightGBM writes spaces in another way.
        spaced = {name.replace(" ", "_"): name for name in present}
        named = [name if name in present else spaced.get(name, name) for name in named]
        missing = [name for name in named if name not in present]
        if missing:
            raise SampleMismatch(f"the model reads {_list_some(missing)}, which the sample lacks")
        return named
    left = [name for name in present if name not in target]
    expected = getattr(estimator, "n_features_in_", len(left))
    if len(left) != expected:
        raise SampleMismatch(
            f"the model reads {expected} columns, without names, and the sample has {len(left)}: {_list_some(left)};"
            " name those that it does not read with --target"
        )
    return left


def _list_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + more
