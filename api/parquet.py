"""Parquet files: their plan, from their footer; a row is never read here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from shared.errors import Fault, ServiceError, StoreUnavailable
from shared.filestore import Source
from shared.plans import COLUMNS_MAX, Chunk, MalformedFile, Plan
from shared.signature import Column, Signature

#: With it a Parquet file begins and ends; between are a footer's length and, at the least, an empty footer.
_MAGIC = b"PAR1"
_SHORTEST_BYTES = 12
_TYPES = {
    "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    "boolean": (pa.types.is_boolean,),
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
}
_EXPECTED = {"number": "numbers", "boolean": "truth values", "text": "texts"}
#: A few bytes of Parquet can say that they are more rows than anybody could score.
_CHUNKS_MAX = 200_000
#: Bytes that the rows of one row group unpack to: it is read a column at a time, and a worker's memory is bounded.
_GROUP_BYTES_MAX = 4 << 30


class ParquetIntake:
    """Takes a Parquet file; all that is looked at is its footer, when the file is whole.

    Parameters
    ----------
    chunk_bytes, chunk_rows : int
        Limits for a chunk: of the bytes that its rows unpack to, and of its rows.
    cut_rows : sequence of int, optional
        The rows of each chunk, instead of this limit: to cut a file where another is cut.

    Attributes
    ----------
    columns : list of str or None
        Names of the columns, nested ones by their topmost name; there after `finish`.
    """

    def __init__(self, chunk_bytes: int, chunk_rows: int, *, cut_rows: Sequence[int] | None = None) -> None:
        self.columns: list[str] | None = None
        self._chunk_bytes = chunk_bytes
        self._chunk_rows = chunk_rows
        self._cut_rows = cut_rows
        self._schema: pa.Schema | None = None

    def feed(self, block: bytes) -> None:
        """Do nothing: a Parquet file is read from its end."""

    def finish(self, source: Source) -> Plan:
        """Return the plan.

        Raises
        ------
        MalformedFile
            It is no Parquet file, or is cut off.
        """
        with source.open() as file:
            _check_end(file)
            try:
                meta = pq.read_metadata(file)
                self._schema = meta.schema.to_arrow_schema()
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, FileNotFoundError | StoreUnavailable):  # nothing is said of the file
                    raise
                raise _refuse("the bytes are not a Parquet file, or not all of one: no footer can be read") from error
        self.columns = list(self._schema.names)
        if len(self.columns) > COLUMNS_MAX:
            raise _refuse(f"the file has {len(self.columns)} columns; at most {COLUMNS_MAX} are taken")
        for index in range(meta.num_row_groups):
            if meta.row_group(index).total_byte_size > _GROUP_BYTES_MAX:
                raise _refuse(
                    f"row group {index} unpacks to {meta.row_group(index).total_byte_size} bytes; at most "
                    f"{_GROUP_BYTES_MAX} are taken: write the file with smaller row groups"
                )
        return Plan(
            header=b"",
            rows=meta.num_rows,
            file_bytes=source.blobs.find(source.name)[0],
            chunks=self._cut(meta),
            format="parquet",
        )

    def find_type_faults(self, signature: Signature) -> list[Fault]:
        """List the columns whose type is none that the model could take."""
        assert self._schema is not None
        faults: list[Fault] = []
        for column in signature.columns:
            index = self._schema.get_field_index(column.name)
            kind = self._schema.field(index).type if index >= 0 else pa.null()
            if not _may_hold(kind, column):
                detail = f"the column is of type {kind}, expected {_EXPECTED[column.holds]}"
                faults.append({"column": column.name, "code": "type_error", "detail": detail})
        return faults

    def _cut(self, meta: pq.FileMetaData) -> tuple[Chunk, ...]:
        rows, cuts = meta.num_rows, self._cut_rows
        if cuts is None or sum(cuts) != rows:
            unpacked = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
            most = max(1, min(self._chunk_rows, self._chunk_bytes * rows // max(unpacked, 1)))
            whole, rest = divmod(rows, most)
            if whole > _CHUNKS_MAX:
                raise _refuse(f"the file says that it has {rows} rows; at most {_CHUNKS_MAX * most} of them are taken")
            cuts = [most] * whole + [rest] * bool(rest)
        chunks, first = [], 0
        for index, count in enumerate(cuts):
            chunks.append(Chunk(index, 0, 0, first, count, first + 1))
            first += count
        return tuple(chunks)


def _check_end(file: BinaryIO) -> None:
    """Refuse what begins as a Parquet file and does not end as one: an upload that was cut off."""
    begins = file.read(len(_MAGIC)) == _MAGIC
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - len(_MAGIC)))
    if begins and (size < _SHORTEST_BYTES or file.read() != _MAGIC):
        raise ServiceError("incomplete_upload", "The Parquet file has no end mark; nothing was kept.")
    file.seek(0)


def _may_hold(kind: pa.DataType, column: Column) -> bool:
    if pa.types.is_dictionary(kind):
        return _may_hold(kind.value_type, column)
    return pa.types.is_null(kind) or any(test(kind) for test in _TYPES[column.holds])


def _refuse(detail: str) -> MalformedFile:
    return MalformedFile(detail, code="malformed_file")
