r"""Where the records of a CSV stream begin and end, its header, and the plan that cuts it into chunks.

It knows bytes only: nothing of Redis, of files or of models.

A quote opens a quoted field only as the first byte of a field; anywhere else outside a quoted field it is an
ordinary byte. Inside, ``""`` is a quote and newlines belong to the field. What follows the closing quote
belongs to the field too. A record ends with ``\n``, ``\r\n`` or a ``\r`` alone: RFC 4180 does not allow the
last one outside quotes, but pyarrow, pandas and Python's csv module all end a record there, so counting
otherwise would shift rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.plans import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    COLUMNS_MAX,
    RECORD_MAX_BYTES,
    Chunk,
    MalformedFile,
    Offsets,
    Plan,
    make_cutter,
)

BOM = b"\xef\xbb\xbf"

#: Bytes looked at in one step: the masks of a step stay in the processor's cache, and memory stays flat.
_PIECE_BYTES = 256 << 10
_LF, _CR, _QUOTE = b'\n\r"'
# Fields are bounded by the limit for a record; the csv module's own 128 KiB would refuse legal ones.
csv.field_size_limit(2**31 - 1)

Bytes = NDArray[np.uint8]


class RecordTable(NamedTuple):
    """The records of a chunk; each array has one element a record.

    Parameters
    ----------
    starts, content_ends, ends : ndarray of int64
        Offsets of the first byte, of the newline (or the end), and after the newline.
    lines : ndarray of int64
        Physical lines of the chunk before the record's first.
    """

    starts: Offsets
    content_ends: Offsets
    ends: Offsets
    lines: Offsets


class _RecordFinder:
    """Finds record ends in consecutive pieces of a stream, carrying the quote state from one to the next."""

    def __init__(self, delimiter: bytes) -> None:
        check_delimiter(delimiter)
        self.inside = False
        self.line = 1  # of the next byte
        self.opening_line = 0  # of the last quote that opened a field
        self._previous = _LF  # the byte before the piece; 0 stands for a quote that means nothing
        self._opens_field = np.zeros(256, dtype=bool)
        self._opens_field[[delimiter[0], _LF, _CR]] = True

    def find_ends(self, piece: bytes | memoryview) -> tuple[Offsets, Offsets]:
        r"""Return the record ends in a piece, and the physical line that begins at each.

        A piece must not end between ``\r`` and ``\n``.
        """
        array = np.frombuffer(piece, dtype=np.uint8)
        line_ends = _find_line_ends(array)
        lines = np.arange(self.line + 1, self.line + 1 + len(line_ends))
        was_inside = self.inside
        quotes = np.flatnonzero(array == _QUOTE)
        if quotes.size:
            quotes = self.keep_meaningful(array, quotes)
            self._note_opening(array, quotes, line_ends)
            self.inside ^= bool(len(quotes) & 1)
        self.line += len(line_ends)
        if quotes.size:
            outside = (np.searchsorted(quotes, line_ends) + was_inside) & 1 == 0
            line_ends, lines = line_ends[outside], lines[outside]
        elif was_inside:
            line_ends, lines = line_ends[:0], lines[:0]
        self._previous = int(array[-1])
        if self._previous == _QUOTE and not (quotes.size and quotes[-1] == len(array) - 1):
            self._previous = 0
        return line_ends, lines

    def _bytes_before(self, array: Bytes, positions: Offsets) -> Bytes:
        before: Bytes = array[positions - 1]
        if positions.size and positions[0] == 0:
            before[0] = self._previous
        return before

    def keep_meaningful(self, array: Bytes, quotes: Offsets) -> Offsets:
        """Return the quotes that open or close; an escaped quote counts as a closing and an opening one.

        If every second quote stands where a field begins or after a closing quote, parity is exact. The first
        that does not is an ordinary byte and would turn the parity of all that follow: then they are walked.
        """
        before = self._bytes_before(array, quotes)
        opens_field = self._opens_field[before]
        if (opens_field | (before == _QUOTE))[int(self.inside) :: 2].all():
            return quotes
        kept = []
        inside = self.inside
        closed_at = -1 if self._previous == _QUOTE and not inside else -2
        for position, opens in zip(quotes.tolist(), opens_field.tolist(), strict=True):
            if inside:
                closed_at = position
            elif not opens and position - 1 != closed_at:
                continue
            inside = not inside
            kept.append(position)
        return np.array(kept, dtype=np.int64)

    def _note_opening(self, array: Bytes, quotes: Offsets, line_ends: Offsets) -> None:
        openings = quotes[int(self.inside) :: 2]
        fresh = openings[self._opens_field[self._bytes_before(array, openings)]]
        if fresh.size:
            self.opening_line = self.line + int(np.searchsorted(line_ends, fresh[-1], "right"))


class RecordScanner:
    """Cuts a CSV stream into chunks while it passes by; keeps the header and the plan, never the file.

    After any error the scanner is of no further use.

    Parameters
    ----------
    delimiter : bytes
        One byte.
    chunk_bytes, chunk_rows : int
        Limits for a chunk, kept unless a single record is larger.
    cut_rows : sequence of int, optional
        The rows of each chunk, instead of these limits: to cut a file where another is cut.
    record_max_bytes, columns_max : int
        Limits for one record, its newline included, and for the header's columns.

    Attributes
    ----------
    header : bytes
        The header record as it came, byte order mark and newline included; complete once `columns` is there.
    columns : list of str or None
        The header's names, as soon as its record has passed: a caller can refuse a file early.
    """

    def __init__(
        self,
        delimiter: bytes = b",",
        chunk_bytes: int = CHUNK_BYTES,
        chunk_rows: int = CHUNK_ROWS,
        *,
        cut_rows: Sequence[int] | None = None,
        record_max_bytes: int = RECORD_MAX_BYTES,
        columns_max: int = COLUMNS_MAX,
    ) -> None:
        self.columns: list[str] | None = None
        self._header = bytearray()
        self._delimiter = delimiter
        self._record_max_bytes = record_max_bytes
        self._columns_max = columns_max
        self._finder = _RecordFinder(delimiter)
        self._cutter = make_cutter(chunk_bytes, chunk_rows, cut_rows)
        self._bom: bool | None = None
        self._held = b""  # bytes that mean nothing before the next ones are known
        self._position = 0  # bytes read
        self._record_start, self._record_line = 0, 1

    @property
    def header(self) -> bytes:
        """The header record as it came."""
        return bytes(self._header)

    @property
    def first_chunk(self) -> Chunk | None:
        """The first chunk, as soon as it is complete."""
        return self._cutter.chunks[0] if self._cutter.chunks else None

    def feed(self, block: bytes) -> None:
        """Take the next bytes, of any number.

        Raises
        ------
        MalformedFile
            The header is not text, or a record or the header's columns pass their limit.
        """
        view = memoryview(self._held + block if self._held else block)
        if self._bom is None:
            if len(view) < len(BOM) and BOM.startswith(view):
                self._held = bytes(view)
                return
            view = self._skip_bom(view)
        while len(view) > 1 or (view and view[0] != _CR):
            piece = view[:_PIECE_BYTES]
            if piece[-1] == _CR and len(piece) > 1:
                piece = piece[:-1]  # its newline may come next
            view = view[len(piece) :]
            self._read_piece(piece)
        self._held = bytes(view)

    def finish(self) -> Plan:
        """Return the plan; the stream is at its end.

        Raises
        ------
        MalformedFile
            Nothing was fed, a quote is still open, or the last record is at fault.
        """
        if self._held:
            held, self._held = self._held, b""
            self._read_piece(memoryview(held))
        if self._position == (len(BOM) if self._bom else 0):
            raise MalformedFile("the file is empty; a header line with the column names was expected")
        if self._finder.inside:
            line = self._finder.opening_line
            raise MalformedFile(f"line {line}: a quote opens here and is never closed", line)
        if self._position > self._record_start:  # no newline at the end: the last record counts all the same
            self._take_records(np.array([self._position]), np.array([self._finder.line]))
        self._cutter.close()
        return Plan(
            header=self.header,
            rows=self._cutter.first_row,
            file_bytes=self._position,
            chunks=tuple(self._cutter.chunks),
        )

    def _skip_bom(self, view: memoryview) -> memoryview:
        self._bom = view[: len(BOM)] == BOM
        if not self._bom:
            return view
        self._header += BOM
        self._position = len(BOM)
        return view[len(BOM) :]

    def _read_piece(self, piece: memoryview) -> None:
        ends, lines = self._finder.find_ends(piece)
        if self.columns is None:
            part = bytes(piece[: int(ends[0])] if ends.size else piece)
            self._header += part
            if b"\0" in part:
                raise MalformedFile("the header holds zero bytes; a CSV file in UTF-8 was expected")
        self._take_records(ends + self._position, lines)
        self._position += len(piece)
        if self._position - self._record_start > self._record_max_bytes:
            self._refuse_record(self._record_line)

    def _take_records(self, ends: Offsets, lines: Offsets) -> None:
        if not ends.size:
            return
        too_large = np.flatnonzero(np.diff(ends, prepend=self._record_start) > self._record_max_bytes)
        if too_large.size:
            index = int(too_large[0])
            self._refuse_record(int(lines[index - 1]) if index else self._record_line)
        self._record_start, self._record_line = int(ends[-1]), int(lines[-1])
        if self.columns is None:
            self._read_header()
            self._cutter.start_at(int(ends[0]), int(lines[0]))
            ends, lines = ends[1:], lines[1:]
        self._cutter.add_records(ends, lines)

    def _read_header(self) -> None:
        columns = parse_header(self.header, self._delimiter)
        if len(columns) > self._columns_max:
            raise MalformedFile(f"the header has {len(columns)} columns; at most {self._columns_max} are taken")
        self.columns = columns

    def _refuse_record(self, line: int) -> None:
        limit = self._record_max_bytes
        opened = self._finder.opening_line
        hint = f"; is the quote in line {opened} never closed?" if self._finder.inside else ""
        raise MalformedFile(f"line {line}: the record that begins here is over {limit} bytes{hint}", line)


def find_records(data: bytes, delimiter: bytes) -> RecordTable:
    """Find every record of a run of whole records.

    Parameters
    ----------
    data : bytes
        Begins at a record's first byte; the newline of the last may be missing.
    delimiter : bytes
        One byte.

    Returns
    -------
    RecordTable

    Raises
    ------
    MalformedFile
        The data end inside a quoted field.
    """
    if not data:
        nothing = np.empty(0, dtype=np.int64)
        return RecordTable(nothing, nothing, nothing, nothing)
    finder = _RecordFinder(delimiter)
    ends, next_lines = finder.find_ends(data)
    if finder.inside:
        raise MalformedFile(f"line {finder.opening_line}: a quote opens here and is never closed")
    if not ends.size or ends[-1] != len(data):
        ends, next_lines = np.append(ends, len(data)), np.append(next_lines, finder.line)
    array = np.frombuffer(data, dtype=np.uint8)
    last = array[ends - 1]
    crlf = (last == _LF) & (array.take(ends - 2, mode="clip") == _CR)
    newline_bytes = ((last == _LF) | (last == _CR)).astype(np.int64) + crlf
    starts = np.concatenate(([0], ends[:-1]))
    lines = np.concatenate(([0], next_lines[:-1] - 1))
    return RecordTable(starts, ends - newline_bytes, ends, lines)


def find_ends(data: bytes, delimiter: bytes) -> Offsets:
    """Return the offset after each record of a run of whole records."""
    return find_records(data, delimiter).ends


def count_fields(data: bytes, delimiter: bytes, ends: Offsets) -> Offsets:
    """Count the fields of every record; a blank line has one.

    Parameters
    ----------
    data : bytes
        Whole records.
    delimiter : bytes
        One byte.
    ends : ndarray of int64
        The records' ends, from `find_records`.
    """
    array = np.frombuffer(data, dtype=np.uint8)
    delimiters = np.flatnonzero(array == delimiter[0])
    quotes = np.flatnonzero(array == _QUOTE)
    if quotes.size:
        quotes = _RecordFinder(delimiter).keep_meaningful(array, quotes)
        delimiters = delimiters[np.searchsorted(quotes, delimiters) & 1 == 0]
    return np.diff(np.searchsorted(delimiters, ends), prepend=0) + 1


def _find_line_ends(array: Bytes) -> Offsets:
    """Return the offsets after each newline, whether it ends a record or stands in a quoted field."""
    ends: Offsets = np.flatnonzero(array == _LF) + 1
    returns = np.flatnonzero(array == _CR)
    alone = returns[array.take(returns + 1, mode="clip") != _LF]
    return np.sort(np.concatenate((ends, alone + 1))) if alone.size else ends


def split_newline(record: bytes) -> tuple[bytes, bytes]:
    """Return a record's content and the newline that ends it (empty if none does)."""
    for newline in (b"\r\n", b"\n", b"\r"):
        if record.endswith(newline):
            return record[: -len(newline)], newline
    return record, b""


def split_fields(text: str, delimiter: bytes) -> list[str]:
    """Return the fields of one record without its newline; a blank line is one empty field."""
    return next(csv.reader([text], delimiter=delimiter.decode()), None) or [""]


def parse_header(header: bytes, delimiter: bytes) -> list[str]:
    """Return the names of the columns; a name may stand there twice.

    Parameters
    ----------
    header : bytes
        The header record, with or without byte order mark and newline.
    delimiter : bytes
        One byte.

    Raises
    ------
    MalformedFile
        It is blank, not UTF-8, or holds zero bytes.
    """
    content = split_newline(header.removeprefix(BOM))[0]
    if not content:
        raise MalformedFile("line 1 is blank; a header line with the column names was expected")
    if b"\0" in content:
        raise MalformedFile("the header holds zero bytes; a CSV file in UTF-8 was expected")
    try:
        return split_fields(content.decode(), delimiter)
    except UnicodeDecodeError as error:
        raise MalformedFile(f"the header is not UTF-8: byte {error.start} cannot be read") from error


def check_delimiter(delimiter: bytes) -> None:
    """Refuse what cannot stand between fields; parts of numbers are refused since ours are never quoted.

    Raises
    ------
    ValueError
        Not a single ASCII byte, or a quote, a newline, a letter, a digit, a sign or a point.
    """
    if len(delimiter) != 1 or delimiter > b"\x7f" or re.match(rb'[\0\r\n"A-Za-z0-9+.-]', delimiter):
        raise ValueError(f"delimiter {delimiter!r}: one character such as ',', ';', '|' or a tab was expected")
