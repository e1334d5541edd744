"""Rows as other protocols carry them, to values: there NaN is how a missing value is written."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import msgspec

from shared.rows import check_rows, load_json, read_rows
from shared.signature import Signature
from shared.values import Values


def load_document(body: bytes) -> Any:
    """Decode JSON, with the ``NaN`` and ``Infinity`` that Python's clients write.

    Raises
    ------
    ServiceError
        ``malformed_json``.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return load_json(body)


def read_cells(rows: list[Any], signature: Signature, *, max_rows: int, pointer: str) -> Values:
    """Check decoded rows, in which NaN is a missing value.

    Parameters
    ----------
    rows : list
        Of lists in the signature's order, or of objects by column name; anything else is a fault of its row.
    signature : Signature
    max_rows : int
    pointer : str
        Where the rows are in the body, for the faults.

    Raises
    ------
    ServiceError
        As `shared.rows.read_rows`.
    """
    if all(isinstance(row, list | dict) and all(map(_is_plain, _list_cells(row))) for row in rows):
        # Written down once more they take the way of all other rows, which is faster than to check each cell here.
        with contextlib.suppress(UnicodeEncodeError):  # half of a surrogate pair
            return read_rows(msgspec.json.encode(rows), signature, max_rows=max_rows, pointer=pointer)
    return check_rows([_mark_missing(row) for row in rows], signature, max_rows=max_rows, pointer=pointer)


def _list_cells(row: list[Any] | dict[str, Any]) -> Any:
    return row.values() if isinstance(row, dict) else row


def _is_plain(cell: object) -> bool:
    """Tell whether JSON has the cell as it is: no NaN, no infinity, nothing nested."""
    return math.isfinite(cell) if isinstance(cell, float) else cell is None or isinstance(cell, int | str)


def _mark_missing(row: Any) -> Any:
    if isinstance(row, dict):
        return {name: _drop_nan(cell) for name, cell in row.items()}
    return [_drop_nan(cell) for cell in row] if isinstance(row, list) else row


def _drop_nan(cell: Any) -> Any:
    return None if isinstance(cell, float) and math.isnan(cell) else cell
