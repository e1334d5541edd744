"""Scoring of one chunk of a CSV file: bytes in, the same bytes with the new columns out.

It knows nothing of queues, of jobs or of where files are kept.

Records are read by pyarrow, all at once and only the columns that the model needs. Where it refuses a number (it does
so for a whole chunk) all columns are read as text, and what is not plainly a number is found there. Rows in doubt are
read singly. So the reading of single records decides what a row is worth, and pyarrow only says the same faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from shared.columns import MISSING
from shared.records import BOM, count_fields, find_ends, find_records, split_fields
from shared.signature import Column, Signature
from shared.values import Matrix, Others, Values
from worker.chunks import ChunkMismatch, Earlier, RowFault, ScoredChunk, answer_rows, list_faults, merge_records
from worker.columns import Flags, convert_texts, find_fitting, is_number, read_text, shorten
from worker.csv_cells import format_cells, join_cells
from worker.scoring import Outcome, RowError


class _Layout(NamedTuple):
    """How records of a file are laid out, and what the model wants of them."""

    delimiter: bytes
    width: int
    columns: Sequence[Column]
    positions: list[int]


class ChunkReader:
    """Turns the records of a chunk into values.

    Parameters
    ----------
    data : bytes
        Whole records.
    columns : sequence of str
        The names of the file's header, in its order.
    signature : Signature
        Its columns stand once each in `columns`.
    delimiter : bytes
        One byte.
    first_row : int
        Rows of the file before the chunk.
    first_line : int
        Physical line, from 1, on which the chunk begins.

    Attributes
    ----------
    records : RecordTable
        Where the records are.
    values : Values
        What was read; rows in `faults` mean nothing.
    faults : dict of int to RowFault
        By row of the chunk, from 0.
    """

    def __init__(
        self,
        data: bytes,
        *,
        columns: Sequence[str],
        signature: Signature,
        delimiter: bytes,
        first_row: int = 0,
        first_line: int = 1,
    ) -> None:
        self.records = find_records(data, delimiter)
        self.faults: dict[int, RowFault] = {}
        self._data = data
        self._first_row = first_row
        self._first_line = first_line
        self._matrix: Matrix = np.empty((len(self.records.ends), len(signature.columns)))
        self._others = Others()
        positions = {name: position for position, name in enumerate(columns)}
        self._layout = _Layout(
            delimiter,
            len(columns),
            signature.columns,
            [positions[name] for name in signature.column_names],
        )

    @property
    def values(self) -> Values:
        """What was read; rows in `faults` mean nothing."""
        return Values(self._matrix, self._others.list())

    def read_all(self) -> None:
        """Read every record, many at once where that is possible."""
        if not len(self._matrix):
            return
        doubtful = self._read_typed()
        if doubtful is None:
            doubtful = self._read_texts()
        self.read_singly(np.flatnonzero(doubtful).tolist())

    def read_singly(self, rows: Iterable[int]) -> None:
        """Read the given records one by one, with the same outcome as `read_all`."""
        for row in rows:
            values = self._read_record(row)
            if isinstance(values, RowFault):
                self.faults[row] = values
            else:
                self._matrix[row] = values

    def locate(self, row: int) -> tuple[int, int]:
        """Return a record's row number and physical line number in the file, both from 1."""
        return self._first_row + row + 1, self._first_line + int(self.records.lines[row])

    def _read_typed(self) -> Flags | None:
        """Fill the matrix and return the rows in doubt, or None if pyarrow refuses a number of the chunk."""
        if self._data.startswith(BOM):
            return None  # pyarrow would skip it; inside a file it is part of a value
        table = _parse_columns(self._data, self._layout, pa.float64(), len(self._matrix))
        if table is None:
            return None
        doubtful: Flags = self.records.starts == self.records.content_ends
        for index, (column, expected) in enumerate(zip(table.columns, self._layout.columns, strict=True)):
            if is_number(expected):
                cells = column.to_numpy()
                if expected.type == "long" or not np.isfinite(cells).all():
                    doubtful |= ~find_fitting(cells, expected)
            else:
                cells, sure = convert_texts(column, expected, self._others)
                doubtful |= ~sure
            self._matrix[:, index] = cells
        return doubtful

    def _read_texts(self) -> Flags:
        """Fill the matrix where that is sure, whatever the chunk holds, and return the other rows."""
        starts, _, ends, _ = self.records
        doubtful: Flags = count_fields(self._data, self._layout.delimiter, ends) != self._layout.width
        rows = np.flatnonzero(~doubtful)
        if not rows.size:
            return doubtful
        kept = np.frombuffer(self._data, np.uint8)[np.repeat(~doubtful, ends - starts)].tobytes()
        # The line before keeps pyarrow from taking the first record's bytes for a byte order mark.
        table = _parse_columns(b"\n" + kept, self._layout, pa.binary(), len(rows), skip_rows=1)
        if table is None:
            return np.ones_like(doubtful)
        for index, (column, expected) in enumerate(zip(table.columns, self._layout.columns, strict=True)):
            values, sure = convert_texts(column, expected, self._others)
            self._matrix[rows, index] = values
            doubtful[rows[~sure]] = True
        return doubtful

    def _read_record(self, row: int) -> list[float] | RowFault:
        layout = self._layout
        content = self._data[self.records.starts[row] : self.records.content_ends[row]]
        # Latin-1 maps bytes to characters one to one: what is not UTF-8 harms no column that is not read.
        fields = split_fields(content.decode("latin-1"), layout.delimiter)
        if len(fields) != layout.width:
            found = f"{len(fields)} field(s)" if content else "a blank line"
            return self._describe_fault(row, "malformed_row", f"found {found}, expected {layout.width} fields")
        values = []
        for column, position in zip(layout.columns, layout.positions, strict=True):
            value = read_text(fields[position], column, self._others)
            if isinstance(value, RowError):
                return self._describe_fault(row, *value, column.name)
            values.append(value)
        return values

    def _describe_fault(self, row: int, code: str, detail: str, column: str | None = None) -> RowFault:
        number, line = self.locate(row)
        where = f"row {number}, line {line}" + ("" if column is None else f", column {shorten(column)}")
        return RowFault(code, f"{where}: {detail}", column)


def score_chunk(
    data: bytes,
    *,
    columns: Sequence[str],
    signature: Signature,
    delimiter: bytes,
    predict: Callable[[Values], Outcome],
    expected_rows: int,
    first_row: int,
    first_line: int,
    earlier: Earlier | None = None,
) -> ScoredChunk:
    """Score the records of a chunk.

    Parameters
    ----------
    data : bytes
        Whole records; the newline of the last may be missing.
    columns : sequence of str
        The names of the file's header, in its order.
    signature : Signature
        Its columns stand once each in `columns`.
    delimiter : bytes
        One byte.
    predict : callable
        Scores values with the signature's codes; called once at most, and with at
        least one row.
    expected_rows : int
        Records that the plan counts in the chunk.
    first_row, first_line : int
        Rows of the file before the chunk; physical line, from 1, on which it begins.
    earlier : Earlier, optional
        Score only the rows that had failed; the others stay, byte for byte, as they are there.

    Returns
    -------
    ScoredChunk
        A record with the wrong number of fields keeps its bytes, so its added columns do not align.

    Raises
    ------
    ChunkMismatch
        The data do not hold the expected number of records.
    """
    reader = ChunkReader(
        data,
        columns=columns,
        signature=signature,
        delimiter=delimiter,
        first_row=first_row,
        first_line=first_line,
    )
    rows = len(reader.records.ends)
    if rows != expected_rows:
        raise ChunkMismatch(f"the plan counts {expected_rows} records from row {first_row + 1}, found {rows}")
    reader.read_all()
    answers = answer_rows(reader, predict, earlier)
    added = format_cells(answers, signature.answers, delimiter)
    scored = join_cells(data, reader.records.content_ends, added, delimiter)
    if earlier is not None:
        scored = merge_records(scored, earlier, rows, partial(find_ends, delimiter=delimiter))
    return ScoredChunk(
        data=scored,
        errors=list_faults(reader, answers.faults),
        succeeded=rows - len(answers.faults),
        failed=len(answers.faults),
    )


def _parse_columns(
    data: bytes, layout: _Layout, numbers: pa.DataType, expected_rows: int, skip_rows: int = 0
) -> pa.Table | None:
    """Return the model's columns, those of numbers as a type and the others as bytes.

    None if pyarrow refuses the data or counts the rows otherwise.
    """
    # Columns go by position: the file's own names may stand there twice.
    names = [str(position) for position in range(layout.width)]
    wanted = [names[position] for position in layout.positions]
    quoted = b'"' in data
    # One block, so that no record is cut; one thread, since a worker process is meant for one core.
    read_options = pyarrow.csv.ReadOptions(
        use_threads=False, block_size=len(data) + 1, column_names=names, skip_rows=skip_rows
    )
    parse_options = pyarrow.csv.ParseOptions(
        delimiter=layout.delimiter.decode(),
        quote_char='"' if quoted else False,
        newlines_in_values=quoted,
        ignore_empty_lines=False,  # a blank line is a record: rows keep their places
    )
    kinds = {
        name: numbers if is_number(column) else pa.binary() for name, column in zip(wanted, layout.columns, strict=True)
    }
    convert_options = pyarrow.csv.ConvertOptions(column_types=kinds, include_columns=wanted, null_values=list(MISSING))
    try:
        table = pyarrow.csv.read_csv(pa.py_buffer(data), read_options, parse_options, convert_options)
    except pa.ArrowInvalid:
        return None
    return table if table.num_rows == expected_rows else None
