"""Frames as MLflow's clients send them, in JSON or CSV, to rows with the columns that a model needs.

As in MLflow's own server, columns that the model does not use are let through and left out, and NaN is a missing value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from api.intake import list_column_faults
from shared.columns import MISSING, NUMBER
from shared.errors import ServiceError
from shared.signature import Column, Signature

SHAPES = ("dataframe_split", "dataframe_records", "instances", "inputs")

_TRUTH = {"true": True, "false": False}


class Frame(NamedTuple):
    """Rows, as lists in the order of the model's columns or as objects, and where they stood."""

    rows: list[Any]
    pointer: str


def read_frame(document: Any, signature: Signature) -> Frame:
    """Take the rows out of a request in one of `SHAPES`.

    Raises
    ------
    ServiceError
        ``invalid_parameter``: it has another shape; ``schema_mismatch``: columns of the model are not there.
    """
    found = [shape for shape in SHAPES if isinstance(document, dict) and shape in document]
    if len(found) != 1:
        raise ServiceError("invalid_parameter", f"Expected an object with one of {', '.join(SHAPES)}.")
    if document.get("params"):
        raise ServiceError("invalid_parameter", "params: the models here take none.")
    shape = found[0]
    read = {"dataframe_split": _read_split, "dataframe_records": _read_records}.get(shape, _read_tensor)
    return read(document[shape], signature, f"#/{shape}")


def read_csv(body: bytes, signature: Signature) -> Frame:
    """Take the rows out of a CSV file with a header.

    Raises
    ------
    ServiceError
        ``malformed_csv``, or ``schema_mismatch``: columns of the model are not there.
    """
    try:
        records = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ServiceError("malformed_csv", f"The body cannot be read as CSV in UTF-8: {error}.") from None
    records = [record for record in records if record]
    if not records:
        raise ServiceError("malformed_csv", "The body is empty; expected a header and at least one record.")
    header, *records = records
    _check_columns(header, signature)
    for number, record in enumerate(records):
        if len(record) != len(header):
            detail = f"Record {number} has {len(record)} fields, and the header {len(header)}."
            raise ServiceError("malformed_csv", detail)
    columns = [(header.index(column.name), column) for column in signature.columns]
    return Frame([[_read_text(record[place], column) for place, column in columns] for record in records], "#")


def _read_split(split: Any, signature: Signature, pointer: str) -> Frame:
    if not isinstance(split, dict) or not isinstance(split.get("data"), list):
        raise ServiceError("invalid_parameter", f'{pointer}: expected an object with "data", a list of rows.')
    if unknown := split.keys() - {"columns", "index", "data"}:
        raise ServiceError("invalid_parameter", f"{pointer}: expected columns, index and data, not {min(unknown)!r}.")
    names, rows, pointer = split.get("columns"), split["data"], f"{pointer}/data"
    if names is None or names == list(range(len(signature.columns))):  # a frame without names, in the model's order
        return Frame(rows, pointer)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ServiceError("invalid_parameter", "#/dataframe_split/columns: expected a list of names.")
    if names == list(signature.column_names):
        return Frame(rows, pointer)
    _check_columns(names, signature)
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            detail = f"{pointer}/{index}: expected a list of {len(names)} values, one for each of its columns."
            raise ServiceError("schema_mismatch", detail)
    return Frame(_pick((dict(zip(names, row, strict=True)) for row in rows), signature), pointer)


def _read_records(records: Any, signature: Signature, pointer: str) -> Frame:
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ServiceError("invalid_parameter", f"{pointer}: expected a list of objects.")
    if records:
        # A column that no record has was not left out here and there: its name is wrong.
        _check_columns(list(dict.fromkeys(name for record in records for name in record)), signature)
    return Frame(_pick(records, signature), pointer)


def _read_tensor(tensor: Any, signature: Signature, pointer: str) -> Frame:
    if isinstance(tensor, dict):
        return Frame(_join_columns(tensor, signature, pointer), pointer)
    if isinstance(tensor, list) and tensor and all(isinstance(row, dict) for row in tensor):
        return _read_records(tensor, signature, pointer)
    if not isinstance(tensor, list):
        raise ServiceError("invalid_parameter", f"{pointer}: expected a list of rows, or an object of columns.")
    if len(signature.columns) == 1:
        return Frame([row if isinstance(row, list) else [row] for row in tensor], pointer)
    return Frame(tensor, pointer)


def _join_columns(columns: dict[str, Any], signature: Signature, pointer: str) -> list[Any]:
    _check_columns(list(columns), signature)
    found = [columns[name] for name in signature.column_names]
    if not all(isinstance(column, list) and len(column) == len(found[0]) for column in found):
        raise ServiceError("invalid_parameter", f"{pointer}: expected a list a column, all of the same length.")
    return [list(row) for row in zip(*found, strict=True)]


def _check_columns(names: Sequence[str], signature: Signature) -> None:
    faults = list_column_faults(names, signature.column_names)
    if faults:
        listed = ", ".join(str(fault["column"]) for fault in faults[:5])
        raise ServiceError("schema_mismatch", f"Columns are missing or double: {listed}.", errors=faults[:100])


def _pick(records: Iterable[dict[str, Any]], signature: Signature) -> list[Any]:
    """Leave the columns that the model needs; one that a record lacks is missing in it."""
    return [{name: record.get(name) for name in signature.column_names} for record in records]


def _read_text(text: str, column: Column) -> Any:
    """Return a field as JSON would have it; what is not of the column's type stays a text, and is a fault."""
    if column.is_coded and text in column.codes:
        return text
    if text in MISSING:
        return None
    if column.holds == "number" and NUMBER.fullmatch(text.strip(" \t")):
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return _TRUTH.get(text.strip(" \t").lower(), text) if column.holds == "boolean" else text
