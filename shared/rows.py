"""Rows in JSON to values, checked against the model's signature; every fault names its row and column."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np

from shared.clean_rows import find_clean_reader
from shared.errors import Fault, ServiceError
from shared.signature import INTEGER_LIMIT, Column, Label, Signature
from shared.values import Others, Values

#: Faults that are listed; the count in the detail is of all.
MOST_FAULTS = 100
_SHOWN_CHARACTERS = 40

_KINDS: dict[str, Any] = {"number": int | float, "boolean": bool, "text": str}


def read_rows(text: bytes | msgspec.Raw, signature: Signature, *, max_rows: int, pointer: str = "#/rows") -> Values:
    """Decode and check rows.

    Parameters
    ----------
    text : bytes
        JSON: a list of lists in the signature's order, or of objects by column name.
    signature : Signature
    max_rows : int
    pointer : str
        Where the rows are in the body, for the faults.

    Returns
    -------
    Values
        With the codes of the signature.

    Raises
    ------
    ServiceError
        ``schema_mismatch`` with every fault (the first 100), or ``payload_too_large``.
    """
    values = find_clean_reader(signature).read(text)
    if values is None:
        # Something is not as it should be: look again, cell by cell, to say what and where.
        values = check_rows(load_json(bytes(text)), signature, max_rows=max_rows, pointer=pointer)
    _check_count(len(values), max_rows)
    return values


def load_json(text: bytes) -> Any:
    """Decode JSON, taking ``NaN`` and ``Infinity`` as Python writes them, so that their row can be named.

    Raises
    ------
    ServiceError
        ``malformed_json``.
    """
    try:
        return json.loads(text, parse_int=_parse_integer)
    except (ValueError, RecursionError) as error:
        raise ServiceError("malformed_json", f"The body cannot be read as JSON: {_shorten(str(error), 200)}") from None


def check_rows(rows: Any, signature: Signature, *, max_rows: int, pointer: str = "#/rows") -> Values:
    """Check decoded rows cell by cell.

    Raises
    ------
    ServiceError
        As `read_rows`.
    """
    if not isinstance(rows, list) or not rows:
        raise _mismatch(
            [{"pointer": pointer, "code": "malformed_row", "detail": "expected a list with at least one row"}], 1, 0
        )
    _check_count(len(rows), max_rows)
    faults: list[Fault] = []
    bad_rows = 0
    matrix, others = np.empty((len(rows), len(signature.columns))), Others()
    for index, row in enumerate(rows):
        before = len(faults)
        values = _check_row(row, signature, f"{pointer}/{index}", others, faults)
        if len(faults) > before:
            bad_rows += 1
            del faults[MOST_FAULTS + 1 :]
        else:
            matrix[index] = values
    if faults:
        raise _mismatch(faults[:MOST_FAULTS], bad_rows, len(rows))
    return Values(matrix, others.list())


def check_record(record: dict[str, Any], signature: Signature, others: Others) -> list[float] | Fault:
    """Check a record of a file, which may have further members; return its values, or its first fault."""
    faults: list[Fault] = []
    values = [_check_cell(record.get(c.name), c, f"/{_escape(c.name)}", others, faults) for c in signature.columns]
    return faults[0] if faults else values


def _check_count(rows: int, max_rows: int) -> None:
    if rows > max_rows:
        raise ServiceError(
            "payload_too_large", f"{rows} rows; at most {max_rows} fit a rows job. Send more as a file (CSV)."
        )


def _parse_integer(text: str) -> int | float:
    # Python refuses integers of more than 4,300 digits; as a float it is infinite, and its row can be named.
    return int(text) if len(text) < 1000 else float(text)


def _check_row(row: Any, signature: Signature, pointer: str, others: Others, faults: list[Fault]) -> list[float]:
    columns = signature.columns
    if isinstance(row, dict):
        return _check_object(row, columns, pointer, others, faults)
    if not isinstance(row, list):
        detail = f"expected a list of {len(columns)} values or an object, got {_show(row)}"
        faults.append({"pointer": pointer, "code": "malformed_row", "detail": detail})
        return []
    if len(row) != len(columns):
        detail = f"expected {len(columns)} columns ({_list_names(columns)}), got {len(row)}"
        faults.append({"pointer": pointer, "code": "malformed_row", "detail": detail})
        return []
    return [
        _check_cell(cell, column, f"{pointer}/{index}", others, faults)
        for index, (cell, column) in enumerate(zip(row, columns, strict=True))
    ]


def _check_object(
    row: dict[str, Any], columns: tuple[Column, ...], pointer: str, others: Others, faults: list[Fault]
) -> list[float]:
    known = {column.name for column in columns}
    for name in row:
        if name not in known:
            # A lone surrogate is legal in JSON and cannot be written as UTF-8.
            shown = _shorten(name, _SHOWN_CHARACTERS).encode("utf-8", "backslashreplace").decode()
            faults.append(
                {
                    "pointer": f"{pointer}/{_escape(shown)}",
                    "column": shown,
                    "code": "malformed_row",
                    "detail": f"the model has no such column; it has {_list_names(columns)}",
                }
            )
    return [_check_cell(row.get(c.name), c, f"{pointer}/{_escape(c.name)}", others, faults) for c in columns]


def _check_cell(cell: Any, column: Column, pointer: str, others: Others, faults: list[Fault]) -> float:
    """Return the cell's value, or NaN and a further fault."""
    value = read_cell(cell, column, others)
    if isinstance(value, float):
        return value
    code, detail = value
    faults.append({"pointer": pointer, "column": column.name, "code": code, "detail": detail})
    return math.nan


def read_cell(cell: Any, column: Column, others: Others) -> float | tuple[str, str]:
    """Read one cell, as JSON has it.

    Returns
    -------
    float or tuple of str
        The value, or the code of its fault and what was expected.
    """
    if cell is None:
        return math.nan if column.nullable else ("missing_value", f"the value is missing, expected {column.expected}")
    if not isinstance(cell, _KINDS[column.holds]) or (isinstance(cell, bool) and column.holds != "boolean"):
        return "type_error", f"expected {column.expected}, got {_show(cell)}"
    return _code_cell(cell, column, others) if column.is_coded else _convert_number(cell, column)


def _convert_number(cell: bool | int | float, column: Column) -> float | tuple[str, str]:
    try:
        value = float(cell)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        return "non_finite", f"expected a finite number, got {_show(cell)}"
    if column.type == "long" and not value.is_integer():
        return "type_error", f"expected a whole number, got {_show(cell)}"
    if column.type == "long" and abs(value) >= INTEGER_LIMIT:
        return "type_error", f"expected a whole number below 2^53 in size, got {_show(cell)}"
    return value


def _code_cell(label: Label, column: Column, others: Others) -> float | tuple[str, str]:
    if isinstance(label, str) and not label.isascii():
        try:
            label.encode()
        except UnicodeEncodeError:
            return "type_error", f"expected {column.expected}, got half of a surrogate pair"
    if label in column.codes:
        return float(column.codes[label])
    if column.unseen == "error":
        return "unseen_category", f"expected {column.expected}, got {_show(label)}"
    return float(len(column.categories) + others.add(label))


def _mismatch(faults: list[Fault], bad_rows: int, rows: int) -> ServiceError:
    first = faults[0]
    where = first["pointer"] + (f" (column {first['column']})" if first.get("column") else "")
    count = f"{bad_rows} of {rows} rows do not fit the model's signature; the first: " if rows else ""
    return ServiceError("schema_mismatch", f"{count}{where}: {first['detail']}", errors=faults)


def _list_names(columns: tuple[Column, ...]) -> str:
    names = [column.name for column in columns[:5]]
    return ", ".join(names) + (", ..." if len(columns) > 5 else "")


def _show(value: Any) -> str:
    return _shorten(json.dumps(value, default=str), _SHOWN_CHARACTERS)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _escape(name: str) -> str:
    """Escape a member name for a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
