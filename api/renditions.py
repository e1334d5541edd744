"""Results in another format than their parts: made when somebody asks, kept beside the parts, served from there.

A result that is served while it is made could not be resumed where it broke: its length is not known before.
"""

from __future__ import annotations

import concurrent.futures
import io
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from api.part_tables import ArrowParts, CsvParts, LineParts
from shared.columns import neutralise
from shared.errors import ServiceError
from shared.filestore import FileStore
from shared.jobs import Job
from shared.json_cells import write_cells, write_members
from shared.logs import get_logger
from shared.plans import Format, Plan
from shared.records import parse_header
from shared.signature import Signature
from shared.tables import added_fields, read_table

#: How long a request waits for what is being made; then it is told to come again.
WAIT_SECONDS = 20.0
#: Results that one process makes at a time, and requests that may wait for them.
_MADE_AT_ONCE = 2
_WAITING_MAX = 8

logger = get_logger(__name__)


class Parts(Protocol):
    """Reads the parts of one result as tables of one schema."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of each of them."""

    def read(self, data: bytes) -> pa.Table:
        """Read one part."""


class Renditions:
    """Makes results in other formats, in threads of its own: one that nobody waits for any more is finished too.

    Parameters
    ----------
    files : FileStore
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._pool = concurrent.futures.ThreadPoolExecutor(_MADE_AT_ONCE, "rendition")
        self._waiting = threading.BoundedSemaphore(_WAITING_MAX)
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, Format], concurrent.futures.Future[None]] = {}

    def make(self, job: Job, plan: Plan, signature: Signature | None, parts: list[str], format: Format) -> int:
        """Return the bytes of a result in `format`, making it first if it is not there yet.

        Parameters
        ----------
        job : Job
            Ended, with a result.
        plan : Plan
        signature : Signature or None
            Of the model, for the types of a CSV file's columns; None if it is gone: then they are texts.
        parts : list of str
            Of the whole result, in order.
        format : {"csv", "ndjson", "parquet"}

        Raises
        ------
        ServiceError
            ``job_not_finished``: it takes longer, and goes on; ``overloaded``: too many wait already.
        FileNotFoundError
            The job was removed meanwhile.
        """
        try:
            return self._files.find_rendition(job.id, format)
        except FileNotFoundError:
            future = self._begin(job, plan, signature, parts, format)
        if not self._waiting.acquire(blocking=False):
            raise ServiceError("overloaded", "Too many results are being made at once; try again.", retry_after=5)
        try:
            future.result(WAIT_SECONDS)
        except concurrent.futures.TimeoutError:
            raise ServiceError(
                "job_not_finished", f"The result is being written as {format}; ask again.", retry_after=2
            ) from None
        finally:
            self._waiting.release()
        return self._files.find_rendition(job.id, format)

    def _begin(
        self, job: Job, plan: Plan, signature: Signature | None, parts: list[str], format: Format
    ) -> concurrent.futures.Future[None]:
        key = (job.id, format)
        with self._lock:
            future = self._under_way.get(key)
            if future is None:
                future = self._pool.submit(self._write, job, plan, signature, parts, format)
                self._under_way[key] = future
                future.add_done_callback(lambda _: self._forget(key))
        return future

    def _forget(self, key: tuple[str, Format]) -> None:
        with self._lock:
            self._under_way.pop(key, None)

    def _write(self, job: Job, plan: Plan, signature: Signature | None, parts: list[str], format: Format) -> None:
        writer = self._files.begin_rendition(job.id, format)
        try:
            for block in render(self._files, job, plan, signature, parts, format):
                writer.write(block)
            writer.close()
        finally:
            writer.abandon()


def render(
    files: FileStore, job: Job, plan: Plan, signature: Signature | None, parts: list[str], format: Format
) -> Iterator[bytes]:
    """Yield a result, or the beginning of one, in another format; a part at a time is held in memory."""
    reader = _open_parts(files, job, plan, signature, parts)
    tables = (reader.read(_read_part(files, job.id, part)) for part in parts)
    added = [field.name for field in added_fields(job.document.outputs, job.document.column_prefix)]
    if format == "parquet":
        return _write_parquet(tables, reader.schema)
    return _write_lines(tables, reader.schema) if format == "ndjson" else _write_csv(tables, reader.schema, added)


def _open_parts(files: FileStore, job: Job, plan: Plan, signature: Signature | None, parts: list[str]) -> Parts:
    document = job.document
    added = added_fields(document.outputs, document.column_prefix)
    if plan.format == "csv":
        delimiter = document.delimiter.encode()
        columns = parse_header(plan.header, delimiter)
        columns_read = () if signature is None else signature.columns
        # Of all others the texts are the caller's, whatever the model makes of them.
        numeric = [column.name for column in columns_read if column.type in ("double", "long")]
        return CsvParts(columns, numeric, delimiter, document.outputs, document.column_prefix)
    if plan.format == "ndjson":
        lines = LineParts(added)
        for part in parts:
            lines.look_at(_read_part(files, job.id, part))
        return lines
    if not parts:
        with files.get_input(job.id, plan).open() as file:
            own = pq.ParquetFile(file).schema_arrow
        return ArrowParts(pa.schema([*own, *added]))
    return ArrowParts(read_table(_read_part(files, job.id, parts[0])).schema)


def _read_part(files: FileStore, job_id: str, part: str) -> bytes:
    return b"".join(files.read_part(job_id, part))


class _Outlet(io.RawIOBase):
    """Collects what a writer of Parquet writes, until it is taken."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any, /) -> int:
        self._held += data
        self._position += len(data)
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        held = bytes(self._held)
        self._held.clear()
        return held


def _write_parquet(tables: Iterator[pa.Table], schema: pa.Schema) -> Iterator[bytes]:
    outlet = _Outlet()
    with pq.ParquetWriter(outlet, schema, compression="zstd") as writer:
        for table in tables:
            if len(table):
                writer.write_table(table, row_group_size=len(table))
            yield outlet.take()
    yield outlet.take()


def _write_lines(tables: Iterator[pa.Table], schema: pa.Schema) -> Iterator[bytes]:
    end = pa.scalar(b"}\n", pa.large_binary())
    nothing = pa.scalar(b"", pa.large_binary())
    for table in tables:
        columns = [column.combine_chunks() for column in table.columns]
        lines = pc.binary_join_element_wise(write_members(schema.names, columns, opening="{"), end, nothing)
        yield bytes(memoryview(lines.buffers()[2])[: lines.total_values_length])


def _write_csv(tables: Iterator[pa.Table], schema: pa.Schema, added: list[str]) -> Iterator[bytes]:
    yield _join_cells([_quote_texts(pa.array([name])) for name in schema.names])
    for table in tables:
        cells = [
            _print_cells(column.combine_chunks(), is_ours=field.name in added)
            for field, column in zip(schema, table.columns, strict=True)
        ]
        yield _join_cells(cells)


def _join_cells(cells: list[pa.Array]) -> bytes:
    """Write cells as records of CSV; a missing one is empty."""
    records = pc.binary_join_element_wise(
        *cells, pa.scalar(",", pa.large_string()), null_handling="replace", null_replacement=""
    )
    end, nothing = (pa.scalar(text, pa.large_string()) for text in ("\n", ""))
    lines = pc.binary_join_element_wise(records, end, nothing).cast(pa.large_binary())
    return bytes(memoryview(lines.buffers()[2] or b"")[: lines.total_values_length])


def _print_cells(column: pa.Array, *, is_ours: bool) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _print_cells(column.dictionary_decode(), is_ours=is_ours)
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.large_string())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _quote_texts(column, is_ours=is_ours)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        written = _quote_texts(write_cells(column).cast(pa.large_string()))
        return pc.if_else(column.is_null(), pa.scalar(None, pa.large_string()), written)
    return column.cast(pa.large_string())


def _quote_texts(column: pa.Array, *, is_ours: bool = False) -> pa.Array:
    """Quote what must be, and the empty text, which is not a missing one; what we add is harmless to a spreadsheet."""
    encoded = column.cast(pa.large_string()).dictionary_encode()
    texts = [neutralise(text) if is_ours else text for text in encoded.dictionary.to_pylist()]
    quoted = [
        '"' + text.replace('"', '""') + '"' if not text or any(mark in text for mark in ',"\r\n') else text
        for text in texts
    ]
    return pa.array(quoted, pa.large_string()).take(encoded.indices)
