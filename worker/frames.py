"""From values to what an estimator reads: an array, or a frame with the types that it was trained on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.signature import Column, Label
from shared.values import Others, Values

#: How a categorical type is written in a signature: ``category[str]``, or ``ordered[int64]`` if its order counts.
_CATEGORICAL = re.compile(r"(category|ordered)\[(.+)\]")

_Cells = npt.NDArray[np.float64]
_MakeColumn = Callable[[_Cells, tuple[Label, ...]], Any]


class Framer:
    """Makes what one estimator reads.

    Parameters
    ----------
    columns : sequence of Column
    named : bool
        Whether it was fitted on a frame: its steps may pick columns by name.
    """

    def __init__(self, columns: Sequence[Column], *, named: bool) -> None:
        self._plain = all(column.type == "double" and not column.dtype for column in columns)
        self._named = named
        if self._plain and not named:
            return
        # Most models never need the import.
        import pandas as pd

        self._frame, self._series = pd.DataFrame, pd.Series
        self._names = pd.Index([column.name for column in columns])
        self._makers = [] if self._plain else [make_column_maker(column) for column in columns]

    def make(self, values: Values) -> Any:
        """Return an array or a frame of shape (n_rows, n_columns)."""
        if self._plain:
            return self._frame(values.matrix, columns=self._names, copy=False) if self._named else values.matrix
        made = [maker(cells, values.others) for maker, cells in zip(self._makers, values.matrix.T, strict=True)]
        if not self._named:
            return np.column_stack([np.asarray(column, dtype=object) for column in made])
        # Of bare objects pandas would choose the type anew.
        kept = [self._series(column, dtype=object) if _is_object(column) else column for column in made]
        frame = self._frame(dict(enumerate(kept)), copy=False)
        frame.columns = self._names
        return frame


def make_column_maker(column: Column) -> _MakeColumn:
    """Return what makes a column of a frame from its values and those that are no categories."""
    if column.is_coded:
        return _make_category_maker(column) if _CATEGORICAL.fullmatch(column.dtype) else _make_text_maker(column)
    if column.type == "boolean" and column.dtype == "object":
        pool = _make_objects((False, True, find_missing(column)))
        return lambda cells, _: pool.take(_place(cells))
    if column.dtype == "object":
        kind = np.int64 if column.type == "long" else np.float64
        return lambda cells, _: cells.astype(kind).astype(object)
    import pandas as pd

    dtype = pd.api.types.pandas_dtype(column.dtype or "float64")
    if isinstance(dtype, np.dtype):
        return lambda cells, _: cells.astype(dtype)
    return _make_masked_maker(column)


def parse_categorical(dtype: str) -> tuple[bool, str] | None:
    """Return whether a categorical type is ordered, and the type of its categories; None if it is none."""
    match = _CATEGORICAL.fullmatch(dtype)
    return (match[1] == "ordered", match[2]) if match else None


def find_missing(column: Column) -> Any:
    """Return what a missing value is in a column of Python objects."""
    if column.missing == "none":
        return None
    if column.missing == "nan":
        return np.nan
    import pandas as pd

    return pd.NA


def _make_text_maker(column: Column) -> _MakeColumn:
    import pandas as pd

    dtype: Any = column.dtype

    def make_pool(others: tuple[Label, ...]) -> Any:
        pool = _make_objects((*column.categories, *others, find_missing(column)))
        return pool if dtype == "object" else pd.array(pool, dtype=dtype)

    usual = make_pool(())

    def make(cells: _Cells, others: tuple[Label, ...]) -> Any:
        # A missing value takes the last of the pool.
        return (make_pool(others) if others else usual).take(_place(cells))

    return make


def _make_category_maker(column: Column) -> _MakeColumn:
    import pandas as pd

    parsed = parse_categorical(column.dtype)
    assert parsed is not None
    ordered, inner = parsed

    def make_type(others: tuple[Any, ...]) -> Any:
        if inner.startswith("int"):  # to JSON 4 and 4.0 are one
            others = tuple(int(label) if label == int(label) else label for label in others)
        labels = pd.Index([*column.categories, *others], dtype=None if others else inner)
        return pd.CategoricalDtype(labels, ordered=ordered)

    usual = make_type(())
    known = len(column.categories)

    def make(cells: _Cells, others: tuple[Label, ...]) -> Any:
        codes = _place(cells)
        if not others or not (codes >= known).any():
            return pd.Categorical.from_codes(codes, dtype=usual)
        # As a frame has it in which such a value stands: its type has one more category.
        used, places = np.unique(codes[codes >= known], return_inverse=True)
        codes[codes >= known] = known + places
        return pd.Categorical.from_codes(codes, dtype=make_type(tuple(others[code - known] for code in used)))

    return make


def _make_masked_maker(column: Column) -> _MakeColumn:
    """Make columns of pandas' own types for numbers and truth values, which have a missing value beside them."""
    import pandas as pd

    dtype: Any = column.dtype
    kind: Any = {"long": np.int64, "boolean": np.bool_}.get(column.type, np.float64)

    def make(cells: _Cells, _: tuple[Label, ...]) -> Any:
        missing = np.isnan(cells)
        objects = np.where(missing, 0, cells).astype(kind).astype(object)
        objects[missing] = pd.NA
        return pd.array(objects, dtype=dtype)

    return make


def _is_object(column: Any) -> bool:
    return isinstance(column, np.ndarray) and column.dtype == np.object_


def _place(cells: _Cells) -> npt.NDArray[np.intp]:
    """Return the places of values in a pool that has the missing value at its end."""
    missing = np.isnan(cells)
    return np.where(missing, -1, cells).astype(np.intp) if missing.any() else cells.astype(np.intp)


def _make_objects(labels: tuple[Any, ...]) -> npt.NDArray[np.object_]:
    objects = np.empty(len(labels), dtype=object)
    objects[:] = labels
    return objects


def read_frame(rows: Any, columns: Sequence[Column]) -> Values:
    """Read an array or frame that a signature was derived from: what `Framer` makes, backwards.

    Parameters
    ----------
    rows : ndarray or DataFrame, shape (n_rows, n_columns)
        A value that is no category of its column is among the others.
    columns : sequence of Column
    """
    import pandas as pd

    if not hasattr(rows, "iloc") and all(column.type == "double" for column in columns):
        return Values(np.array(rows, dtype=np.float64))
    frame = rows if hasattr(rows, "iloc") else pd.DataFrame(np.asarray(rows, dtype=object))
    matrix, others = np.empty(frame.shape), Others()
    for index, column in enumerate(columns):
        series = frame.iloc[:, index]
        if not column.is_coded:
            matrix[:, index] = series.to_numpy(dtype=np.float64, na_value=np.nan)
            continue
        places, labels = pd.factorize(series)
        codes = [
            column.codes[label] if label in column.codes else len(column.codes) + others.add(label)
            for label in labels.tolist()
        ]
        matrix[:, index] = np.array([*codes, np.nan]).take(places)  # the place of a missing value is -1
    return Values(matrix, others.list())
