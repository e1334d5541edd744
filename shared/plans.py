"""The plan of a file: where its records were cut into chunks, whatever its form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import ServiceError

CHUNK_BYTES = 4 << 20
CHUNK_ROWS = 50_000
RECORD_MAX_BYTES = 16 << 20
COLUMNS_MAX = 20_000

#: More than any file has.
_ANY_BYTES = _ANY_ROWS = 1 << 60

Offsets = NDArray[np.int64]

#: What a file, or a result, is written as.
Format = Literal["csv", "ndjson", "parquet"]


class MalformedFile(ServiceError, ValueError):
    """The bytes are not a file that can be scored.

    Parameters
    ----------
    detail : str
        What was found, where, and what was expected.
    line : int
        Physical line number, from 1, of the fault (for an unclosed quote: where it opened).
    code : str
        ``malformed_csv``, or ``malformed_file`` for the other formats.
    """

    def __init__(self, detail: str, line: int = 1, *, code: str = "malformed_csv") -> None:
        super().__init__(code, detail)
        self.line = line


class Chunk(msgspec.Struct, frozen=True):
    """A run of whole records.

    Parameters
    ----------
    index : int
        Position among the chunks, from 0.
    offset, length : int
        Bytes from the start of the file, and how many.
    first_row, rows : int
        Rows before it (the header is not a row), and rows in it; at least one.
    first_line : int
        Physical line number, from 1, on which its first record begins.
    """

    index: int
    offset: int
    length: int
    first_row: int
    rows: int
    first_line: int


class Plan(msgspec.Struct, frozen=True):
    """A file cut at record boundaries; header and chunks together are all of its bytes.

    Parameters
    ----------
    header : bytes
        Of CSV: the header record as it came, byte order mark and newline included.
    rows, file_bytes : int
        Records after the header, and the size of the whole.
    chunks : tuple of Chunk
        In the file's order; none when only a header is there. Of Parquet the offsets mean nothing: its rows are
        not bytes in a row.
    format : {"csv", "ndjson", "parquet"}
    source, mark : str
        Address of the file if it is not the job's own upload, and what it must still be when it is read.
    """

    header: bytes
    rows: int
    file_bytes: int
    chunks: tuple[Chunk, ...]
    format: Format = "csv"
    source: str = ""
    mark: str = ""


class ChunkCutter:
    """Gathers record ends into chunks that keep both limits, whatever the pieces in which they come."""

    def __init__(self, chunk_bytes: int, chunk_rows: int) -> None:
        if min(chunk_bytes, chunk_rows) < 1:
            raise ValueError(f"a chunk needs room for a record, not {chunk_bytes} bytes, {chunk_rows} rows")
        self._chunk_bytes = chunk_bytes
        self._chunk_rows = chunk_rows
        self.chunks: list[Chunk] = []
        self.first_row = 0
        self._rows = 0
        self._offset = self._end = 0
        self._line = self._next_line = 1

    def start_at(self, offset: int, line: int) -> None:
        """Say where the first record after the header begins."""
        self._offset = self._end = offset
        self._line = self._next_line = line

    def add_records(self, ends: Offsets, lines: Offsets) -> None:
        """Take further records by their ends and the lines that follow them."""
        taken = 0
        while taken < len(ends):
            fitting = int(np.searchsorted(ends[taken:], self._offset + self._chunk_bytes, "right"))
            count = min(fitting, self._chunk_rows - self._rows)
            if count == 0 and self._rows == 0:
                count = 1  # a record larger than a chunk makes one by itself
            if count:
                taken += count
                self._rows += count
                self._end, self._next_line = int(ends[taken - 1]), int(lines[taken - 1])
            if taken < len(ends):
                self.close()

    def close(self) -> None:
        """End the chunk after the records taken so far, if any."""
        if not self._rows:
            return
        length = self._end - self._offset
        self.chunks.append(Chunk(len(self.chunks), self._offset, length, self.first_row, self._rows, self._line))
        self.first_row += self._rows
        self._rows = 0
        self._offset, self._line = self._end, self._next_line


class RowCutter(ChunkCutter):
    """Gathers record ends into chunks of given numbers of rows; what is left over is one more."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(_ANY_BYTES, 1)
        self._cuts = iter(rows)
        self._chunk_rows = next(self._cuts, _ANY_ROWS)

    def close(self) -> None:
        """End the chunk after the records taken so far, if any."""
        if self._rows:
            super().close()
            self._chunk_rows = next(self._cuts, _ANY_ROWS)


def make_cutter(chunk_bytes: int, chunk_rows: int, cut_rows: Sequence[int] | None = None) -> ChunkCutter:
    """Return what gathers records: within these limits or, if rows of each chunk are given, just so."""
    return ChunkCutter(chunk_bytes, chunk_rows) if cut_rows is None else RowCutter(cut_rows)
