"""Columns of files to values: texts of a CSV file, or what a typed file holds.

Columns of numbers go through pyarrow. Of all others each different cell is read once, by the same function that reads
it alone, and its value taken for all rows that have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.columns import MISSING, NUMBER
from shared.rows import read_cell
from shared.signature import INTEGER_LIMIT, Column
from shared.values import Matrix, Others
from worker.scoring import RowError

_MISSING = frozenset(MISSING)
_WHOLE_NUMBER = f"^(?:{NUMBER.pattern.replace('++', '+').replace('*+', '*')})$"
_NOT_A_NUMBER = re.compile(r"[+-]?nan(?:\([a-z0-9_]*\))?", re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
_SHOWN_MAX_CHARACTERS = 40

Flags = NDArray[np.bool_]
#: Reads one cell: to its value, or what is wrong with it.
ReadCell = Callable[[Any], float | RowError]


def is_number(column: Column) -> bool:
    """Whether the values of a column stand for themselves, so that pyarrow can read them."""
    return column.type in ("double", "long")


def read_text(characters: str, column: Column, others: Others) -> float | RowError:
    """Read a field of a CSV file.

    Parameters
    ----------
    characters : str
        The field's bytes as Latin-1.
    column : Column
    others : Others
        Gets a text that is no category.
    """
    if column.holds == "number":
        number = characters.strip(" \t")
        if NUMBER.fullmatch(number):
            return _read_number(number, column, others)
        characters = number
    try:
        text = characters.encode("latin-1").decode()
    except UnicodeDecodeError:
        return RowError("malformed_row", "the value is not UTF-8")
    if column.is_coded and text in column.codes:
        return float(column.codes[text])
    if text in _MISSING or (column.holds == "number" and _NOT_A_NUMBER.fullmatch(text)):
        return _judge(None, column, others)
    if column.holds == "number" and _INFINITE.fullmatch(text):
        return RowError("non_finite", f"found {shorten(text)}, expected a finite number")
    if column.holds == "boolean" and (truth := _TRUTH.get(text.strip(" \t").lower())) is not None:
        return _judge(truth, column, others)
    if column.holds == "text":
        return _judge(text, column, others)
    return RowError("type_error", f"found {shorten(text)}, expected {column.expected}")


def convert_texts(column: pa.ChunkedArray, expected: Column, others: Others) -> tuple[Matrix, Flags]:
    """Return the values in a column of bytes, and which cells are certain."""
    if not is_number(expected):
        return read_each(column, lambda cell: read_text(cell.decode("latin-1"), expected, others))
    numeric = pc.match_substring_regex(column, _WHOLE_NUMBER)
    values = pc.if_else(numeric, column, None).cast(pa.string()).cast(pa.float64()).to_numpy()
    sure = np.isfinite(values)
    if expected.nullable:
        sure |= pc.is_in(column, value_set=pa.array(MISSING, pa.binary())).to_numpy()
    return values, sure & find_fitting(values, expected)


def read_each(column: pa.ChunkedArray, read: ReadCell) -> tuple[Matrix, Flags]:
    """Read each different cell once.

    Returns
    -------
    tuple of ndarray
        The values, NaN where there is none; and which cells could be read.
    """
    encoded = column.combine_chunks().dictionary_encode()
    found = [read(cell) for cell in encoded.dictionary.to_pylist()]
    missing = read(None) if encoded.null_count else math.nan
    found.append(missing)
    table = np.array([math.nan if isinstance(value, RowError) else value for value in found])
    sure = np.array([not isinstance(value, RowError) for value in found])
    places = encoded.indices.fill_null(len(found) - 1).to_numpy()
    return table[places], sure[places]


def read_typed(column: pa.ChunkedArray, expected: Column, others: Others) -> tuple[Matrix, dict[int, RowError]]:
    """Read a column that has a type.

    Returns
    -------
    tuple of ndarray and dict
        The values, and by row what is wrong with those that have none.
    """
    if is_number(expected):
        values = column.cast(pa.float64(), safe=False).to_numpy()
        sure = find_fitting(values, expected)
    else:
        values, sure = read_each(column, lambda cell: _judge(cell, expected, others))
    if sure.all():
        return values, {}
    errors = {}
    for row in np.flatnonzero(~sure).tolist():
        cell = values[row].item() if is_number(expected) else column[row].as_py()
        error = _judge(None if cell != cell else cell, expected, others)
        assert isinstance(error, RowError)
        errors[row] = error
    return values, errors


def find_fitting(values: Matrix, column: Column) -> Flags:
    """Return which values may stand in a column: finite, or missing if that is allowed, and whole if they must be."""
    fits: Flags = np.isfinite(values)
    if column.type == "long":
        with np.errstate(invalid="ignore"):
            fits &= (np.floor(values) == values) & (np.abs(values) < INTEGER_LIMIT)
    return fits | np.isnan(values) if column.nullable else fits


def shorten(text: str) -> str:
    """Quote a text for a message, cut short."""
    if len(text) > _SHOWN_MAX_CHARACTERS:
        text = text[:_SHOWN_MAX_CHARACTERS] + "…"
    return repr(text)


def _read_number(text: str, column: Column, others: Others) -> float | RowError:
    value = float(text)
    if not math.isfinite(value):
        return RowError("non_finite", f"found {shorten(text)}, expected a number below 1.8e308 in size")
    return _judge(value, column, others)


def _judge(cell: Any, column: Column, others: Others) -> float | RowError:
    value = read_cell(cell, column, others)
    return value if isinstance(value, float) else RowError(*value)
