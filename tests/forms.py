"""A frame in every form in which rows are sent, and read from each as a worker or the front end reads it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from shared.rows import read_rows
from shared.signature import Signature
from shared.values import Values
from worker.chunks import RowFault
from worker.csv_chunks import ChunkReader
from worker.golden import list_cells
from worker.ndjson_chunks import LineReader
from worker.parquet_chunks import TableReader

#: What was read, and what is wrong by row.
Read = tuple[Values, dict[int, RowFault]]


def write_json_lists(frame: pd.DataFrame) -> bytes:
    """Write rows by position."""
    return json.dumps(list_cells(frame)).encode()


def write_json_objects(frame: pd.DataFrame) -> bytes:
    """Write rows by name, every second one backwards."""
    return json.dumps([_turn(row, record) for row, record in enumerate(list_records(frame))]).encode()


def write_ndjson(frame: pd.DataFrame) -> bytes:
    """Write JSON lines, the members of every second one backwards."""
    return "".join(json.dumps(_turn(row, record)) + "\n" for row, record in enumerate(list_records(frame))).encode()


def write_csv(frame: pd.DataFrame, *, header: bool = True) -> bytes:
    """Write CSV; what is missing is an empty field."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    if header:
        writer.writerow(frame.columns)
    writer.writerows([["" if cell is None else cell for cell in row] for row in list_cells(frame)])
    return sink.getvalue().encode()


def write_parquet(frame: pd.DataFrame) -> bytes:
    """Write Parquet, as pandas does."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), sink)
    return sink.getvalue()


def list_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as objects by column name."""
    return [dict(zip(frame.columns, row, strict=True)) for row in list_cells(frame)]


def read_json_lists(frame: pd.DataFrame, signature: Signature) -> Read:
    """Read rows by position."""
    return read_rows(write_json_lists(frame), signature, max_rows=len(frame)), {}


def read_json_objects(frame: pd.DataFrame, signature: Signature) -> Read:
    """Read rows by name."""
    return read_rows(write_json_objects(frame), signature, max_rows=len(frame)), {}


def read_csv(frame: pd.DataFrame, signature: Signature) -> Read:
    """Read a chunk of CSV."""
    return _read_records(frame, signature, list(frame.columns))


def read_csv_turned(frame: pd.DataFrame, signature: Signature) -> Read:
    """Read a chunk of CSV that has its columns in another order, and one more."""
    turned = frame[frame.columns[::-1]].assign(more="x")
    return _read_records(turned, signature, list(turned.columns))


def read_ndjson(frame: pd.DataFrame, signature: Signature) -> Read:
    """Read a chunk of JSON lines."""
    reader = LineReader(write_ndjson(frame), signature, ["prediction", "error_code", "error_message"], 0)
    reader.read_all()
    return reader.values, reader.faults


def read_parquet(frame: pd.DataFrame, signature: Signature) -> Read:
    """Read a chunk of Parquet."""
    reader = TableReader(pq.read_table(io.BytesIO(write_parquet(frame))), signature, 0)
    return reader.values, reader.faults


READERS: dict[str, Callable[[pd.DataFrame, Signature], Read]] = {
    "lists": read_json_lists,
    "objects": read_json_objects,
    "csv": read_csv,
    "csv turned": read_csv_turned,
    "ndjson": read_ndjson,
    "parquet": read_parquet,
}
FILES = ("csv", "csv turned", "ndjson", "parquet")


def _read_records(frame: pd.DataFrame, signature: Signature, columns: Sequence[str]) -> Read:
    reader = ChunkReader(write_csv(frame, header=False), columns=columns, signature=signature, delimiter=b",")
    reader.read_all()
    return reader.values, reader.faults


def _turn(row: int, record: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(record.items())) if row % 2 else record
