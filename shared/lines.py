r"""Where the records of newline-delimited JSON begin and end, and the plan that cuts it into chunks.

A record is a line; what ends one is ``\n`` alone, for ``\r`` is white space in JSON. A blank line is a record too, a
malformed one, so that rows keep their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from shared.plans import CHUNK_BYTES, CHUNK_ROWS, RECORD_MAX_BYTES, Chunk, MalformedFile, Offsets, Plan, make_cutter

BOM = b"\xef\xbb\xbf"


class LineScanner:
    """Cuts a stream of lines into chunks while it passes by; keeps the first line and the plan, never the file.

    After any error the scanner is of no further use.

    Parameters
    ----------
    chunk_bytes, chunk_rows : int
        Limits for a chunk, kept unless a single record is larger.
    cut_rows : sequence of int, optional
        The rows of each chunk, instead of these limits: to cut a file where another is cut.
    record_max_bytes : int
        Limit for one record, its newline included.

    Attributes
    ----------
    columns : list of str or None
        The names of the first record's members, as soon as it has passed: a caller can refuse a file early.
    """

    def __init__(
        self,
        chunk_bytes: int = CHUNK_BYTES,
        chunk_rows: int = CHUNK_ROWS,
        *,
        cut_rows: Sequence[int] | None = None,
        record_max_bytes: int = RECORD_MAX_BYTES,
    ) -> None:
        self.columns: list[str] | None = None
        self._first = bytearray()
        self._record_max_bytes = record_max_bytes
        self._cutter = make_cutter(chunk_bytes, chunk_rows, cut_rows)
        self._position = 0  # bytes read
        self._record_start = 0
        self._line = 1  # of the record that has begun

    @property
    def first_chunk(self) -> Chunk | None:
        """The first chunk, as soon as it is complete."""
        return self._cutter.chunks[0] if self._cutter.chunks else None

    def feed(self, block: bytes) -> None:
        """Take the next bytes, of any number.

        Raises
        ------
        MalformedFile
            The first line is not an object, or a record passes its limit.
        """
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + 1
        if self.columns is None:
            self._first += block[: int(ends[0])] if ends.size else block
        self._take_records(ends + self._position)
        self._position += len(block)
        if self._position - self._record_start > self._record_max_bytes:
            raise self._refuse_record(self._line)

    def finish(self) -> Plan:
        """Return the plan; the stream is at its end.

        Raises
        ------
        MalformedFile
            Nothing was fed, or the only record is not an object.
        """
        if not self._position:
            raise MalformedFile("the file is empty; a JSON object on each line was expected", code="malformed_file")
        if self._position > self._record_start:  # no newline at the end: the last record counts all the same
            self._take_records(np.array([self._position]))
        self._cutter.close()
        return Plan(
            header=b"",
            rows=self._cutter.first_row,
            file_bytes=self._position,
            chunks=tuple(self._cutter.chunks),
            format="ndjson",
        )

    def _take_records(self, ends: Offsets) -> None:
        if not ends.size:
            return
        too_large = np.flatnonzero(np.diff(ends, prepend=self._record_start) > self._record_max_bytes)
        if too_large.size:
            raise self._refuse_record(self._line + int(too_large[0]))
        if self.columns is None:
            self.columns = list(read_object(bytes(self._first), "line 1"))
        self._record_start = int(ends[-1])
        self._cutter.add_records(ends, np.arange(self._line + 1, self._line + 1 + len(ends)))
        self._line += len(ends)

    def _refuse_record(self, line: int) -> MalformedFile:
        detail = f"line {line}: the record that begins here is over {self._record_max_bytes} bytes"
        return MalformedFile(detail, line, code="malformed_file")


def read_object(line: bytes, where: str) -> dict[str, Any]:
    """Read a line that must be a JSON object.

    Raises
    ------
    MalformedFile
        It is not.
    """
    try:
        found = msgspec.json.decode(line.removeprefix(BOM))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFile(
            f"{where} is not JSON ({error}); an object on each line was expected", code="malformed_file"
        ) from None
    if not isinstance(found, dict):
        raise MalformedFile(
            f"{where} is not a JSON object; one on each line, by column name, was expected", code="malformed_file"
        )
    return found


def find_lines(data: bytes) -> Offsets:
    """Return the offset after each line of a run of whole lines; the newline of the last may be missing."""
    ends: Offsets = np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + 1
    return ends if not data or (ends.size and ends[-1] == len(data)) else np.append(ends, len(data))
