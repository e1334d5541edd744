"""Rows as a caller has them, turned into the JSON of a submission.

It knows nothing of HTTP. NaN means a missing value, as it does in pandas, and is sent as null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from scorequeue.errors import WrongUse


def encode_submission(model: str, rows: Any, options: dict[str, Any]) -> bytes:
    """Write the body of a rows job.

    Parameters
    ----------
    model : str
        ``name``, ``name@alias`` or ``name:version``.
    rows : sequence of rows, ndarray of shape (n_rows, n_columns), or DataFrame
        A row is a sequence in the order of the model's columns, or a mapping by column name.
    options : dict
        The other members of the body; those that are None are left out.

    Raises
    ------
    WrongUse
        A value has no form in JSON; the message says in which row and column.
    """
    rows = _list_rows(rows)
    body = {"model": model, **{name: value for name, value in options.items() if value is not None}}
    try:
        return _dump({**body, "rows": rows})
    except ValueError:
        # Only now look at every value: rows without NaN, nearly all there are, are not walked twice.
        return _dump({**body, "rows": [_clean_row(row, number) for number, row in enumerate(rows)]})
    except TypeError as error:
        raise WrongUse(f"the rows cannot be written as JSON: {error}") from error


def parse_rows(text: str, place: str) -> Any:
    """Read rows from JSON as a person writes it: a list of rows, one row, or a body with ``rows``.

    Parameters
    ----------
    text : str
    place : str
        Where the text is from, for the error.

    Raises
    ------
    WrongUse
        It is not JSON.
    """
    try:
        rows = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise WrongUse(f"{place} is not JSON: {error}; expected rows as [[1.0, 2.0]]") from error
    if isinstance(rows, dict):
        rows = rows.get("rows", [rows])
    # One row may come without the outer brackets.
    return [rows] if rows and isinstance(rows, list) and not isinstance(rows[0], list | dict) else rows


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value (a missing one is null)")


def _list_rows(rows: Any) -> list[Any]:
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        rows = rows.to_dict(orient="records")
    elif hasattr(rows, "tolist"):
        rows = rows.tolist()
    if isinstance(rows, str | bytes) or not isinstance(rows, Sequence):
        raise WrongUse(f"rows must be a list of rows, not {type(rows).__name__}")
    return [row.tolist() if hasattr(row, "tolist") else row for row in rows]


def _dump(body: dict[str, Any]) -> bytes:
    return json.dumps(body, allow_nan=False, ensure_ascii=False, default=_plain_value).encode()


def _plain_value(value: Any) -> Any:
    """Take the Python value out of numpy's scalars, without importing numpy."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _clean_row(row: Any, number: int) -> Any:
    if isinstance(row, dict):
        return {name: _clean_value(value, number, name) for name, value in row.items()}
    if isinstance(row, list | tuple):
        return [_clean_value(value, number, column) for column, value in enumerate(row)]
    return row


def _clean_value(value: Any, row: int, column: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and math.isinf(value):
        raise WrongUse(f"row {row}, column {column}: {value} is not a number that can be scored")
    return value
