"""Scoring of one chunk of newline-delimited JSON: lines in, the same lines with the new members out.

It knows nothing of queues, of jobs or of where files are kept. A record keeps its bytes: the new members stand before
the brace that closes it. A line that is no object cannot have members; it stands in the result as the text of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.clean_rows import find_clean_reader, is_fit
from shared.errors import ServiceError
from shared.json_cells import write_members
from shared.lines import BOM, find_lines
from shared.plans import Offsets
from shared.rows import check_record, load_json
from shared.signature import Signature
from shared.values import Others, Values
from worker.chunks import (
    Answers,
    ChunkMismatch,
    Earlier,
    RowFault,
    ScoredChunk,
    answer_rows,
    list_faults,
    merge_records,
)
from worker.scoring import Outcome

#: The member under which a line that is no object is kept.
MALFORMED_MEMBER = "malformed_record"
_SHOWN_MAX_CHARACTERS = 40
_SPACE = np.frombuffer(b" \t\r\n", np.uint8)
#: White space in one place that is skipped for all lines at once.
_USUAL_SPACES = 16


class LineReader:
    """Turns the lines of a chunk into values.

    Parameters
    ----------
    data : bytes
        Whole lines; the newline of the last may be missing.
    signature : Signature
    added : sequence of str
        The names of the members that scoring adds; a record that has one of its own cannot be scored.
    first_row : int
        Lines of the file before the chunk.

    Attributes
    ----------
    ends : ndarray of int64
        Offsets after each line.
    objects : ndarray of bool
        Which lines hold an object.
    values : Values
    faults : dict of int to RowFault
    """

    def __init__(self, data: bytes, signature: Signature, added: Sequence[str], first_row: int) -> None:
        self.ends: Offsets = find_lines(data)
        self.values = Values(np.empty((len(self.ends), len(signature.columns))))
        self.objects = np.ones(len(self.ends), dtype=bool)
        self.faults: dict[int, RowFault] = {}
        self._data = data
        self._signature = signature
        self._added = frozenset(added)
        self._first_row = first_row

    def read_all(self) -> None:
        """Read every line, many at once where all is well."""
        if not len(self.ends):
            return
        if not self._read_clean():
            self._read_singly()

    def locate(self, row: int) -> tuple[int, int]:
        """Return a line's row number and line number in the file: they are one."""
        return self._first_row + row + 1, self._first_row + row + 1

    def _read_clean(self) -> bool:
        """Take the values of all lines; False if anything is not as it should be."""
        width, names = len(self._signature.columns), [*self._signature.column_names, *sorted(self._added)]
        if not all(map(is_fit, names)):
            return False
        decoder = _make_decoder(self._signature, tuple(names))
        data = self._data if self._first_row else self._data.removeprefix(BOM)
        try:
            records = decoder.decode_lines(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if len(records) != len(self.ends):  # blank lines are skipped
            return False
        cells = [[getattr(record, f"c{index}") for record in records] for index in range(len(names))]
        if any(cell is not msgspec.UNSET for column in cells[width:] for cell in column):
            return False
        values = find_clean_reader(self._signature).fill(cells[:width])
        if values is None:
            return False
        self.values = values
        return True

    def _read_singly(self) -> None:
        start, others = 0, Others()
        for row, end in enumerate(self.ends.tolist()):
            values = self._read_record(row, self._data[start:end], others)
            start = end
            if isinstance(values, RowFault):
                self.faults[row] = values
            else:
                self.values.matrix[row] = values
        self.values = Values(self.values.matrix, others.list())

    def _read_record(self, row: int, line: bytes, others: Others) -> list[float] | RowFault:
        number, _ = self.locate(row)
        if not line.strip():
            return self._refuse(row, f"line {number} is blank")
        try:  # as Python reads it: with NaN, so that its column can be named
            record = load_json(line.removeprefix(BOM) if number == 1 else line)
        except ServiceError:
            return self._refuse(row, f"line {number} is not JSON")
        if not isinstance(record, dict):
            return self._refuse(row, f"line {number} is not a JSON object")
        own = self._added & record.keys()
        if own:
            return RowFault("malformed_row", f"line {number}: the record has a member {min(own)!r} of its own")
        checked = check_record(record, self._signature, others)
        if isinstance(checked, list):
            return checked
        column = checked.get("column")
        shown = "" if column is None else f", column {column[:_SHOWN_MAX_CHARACTERS]!r}"
        return RowFault(checked["code"], f"row {number}, line {number}{shown}: {checked['detail']}", column)

    def _refuse(self, row: int, detail: str) -> RowFault:
        self.objects[row] = False
        return RowFault("malformed_row", f"{detail}; an object by column name was expected")


def score_chunk(
    data: bytes,
    *,
    signature: Signature,
    added: Sequence[str],
    predict: Callable[[Values], Outcome],
    expected_rows: int,
    first_row: int,
    earlier: Earlier | None = None,
) -> ScoredChunk:
    """Score the records of a chunk.

    Parameters
    ----------
    data : bytes
        Whole lines; the newline of the last may be missing.
    signature : Signature
    added : sequence of str
        The names of the new members: prediction, probabilities, code and message of the error.
    predict : callable
        Scores values with the signature's codes; called once at most, and with at least one row.
    expected_rows : int
        Lines that the plan counts in the chunk.
    first_row : int
        Lines of the file before the chunk.
    earlier : Earlier, optional
        Score only the rows that had failed; the others stay, byte for byte, as they are there.

    Raises
    ------
    ChunkMismatch
        The data do not hold the expected number of lines.
    """
    reader = LineReader(data, signature, added, first_row)
    rows = len(reader.ends)
    if rows != expected_rows:
        raise ChunkMismatch(f"the plan counts {expected_rows} lines from row {first_row + 1}, found {rows}")
    reader.read_all()
    answers = answer_rows(reader, predict, earlier)
    scored = _join_members(data, reader, answers, added)
    return ScoredChunk(
        data=scored if earlier is None else merge_records(scored, earlier, rows, find_lines),
        errors=list_faults(reader, answers.faults),
        succeeded=rows - len(answers.faults),
        failed=len(answers.faults),
    )


@lru_cache(maxsize=8)
def _make_decoder(signature: Signature, names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Return a decoder of clean records: their members of the model, then those that no record may have."""
    types = find_clean_reader(signature).types
    fields: list[tuple[str, Any, Any]] = []
    for index in range(len(names)):
        if index >= len(types):
            fields.append((f"c{index}", Any, msgspec.UNSET))
        else:
            fields.append((f"c{index}", types[index], None if signature.nullable_columns[index] else msgspec.NODEFAULT))
    rename = {f"c{index}": name for index, name in enumerate(names)}
    return msgspec.json.Decoder(msgspec.defstruct("Record", fields, rename=rename, kw_only=True))


def _join_members(data: bytes, reader: LineReader, answers: Answers, added: Sequence[str]) -> bytes:
    """Put the new members before the brace that closes each record."""
    rows = len(reader.ends)
    if not rows:
        return b""
    columns = [*answers.make_columns(len(added) - 2), *answers.make_fault_columns()]
    members = write_members(added, columns, opening=",")
    starts = np.concatenate(([0], reader.ends[:-1]))
    content = np.frombuffer(data, np.uint8)
    braces = _skip_space_back(content, reader.ends - 1, starts)
    heads, tails = _cut(data, starts, braces), _cut(data, braces, reader.ends)
    # The first member of an object has no comma before it.
    empty = np.flatnonzero(content[_skip_space_back(content, braces - 1, starts)] == ord("{"))
    members = _replace(members, empty, [member[1:] for member in members.take(pa.array(empty)).to_pylist()])
    # A line that is no object becomes one, with its text as the first member.
    lost = np.flatnonzero(~reader.objects)
    lines = [data[starts[row] : reader.ends[row]] for row in lost.tolist()]
    heads, tails = (
        _replace(heads, lost, map(_open_malformed, lines)),
        _replace(tails, lost, map(_close_malformed, lines)),
    )
    joined = pc.binary_join_element_wise(heads, members, tails, pa.scalar(b"", pa.large_binary()))
    return bytes(memoryview(joined.buffers()[2])[: joined.total_values_length])


def _skip_space_back(content: NDArray[np.uint8], places: Offsets, starts: Offsets) -> Offsets:
    """Return the nearest places, not after those given, where no white space stands; at the earliest the starts."""
    places = np.maximum(places, starts)
    blank = np.arange(len(places))
    for _ in range(_USUAL_SPACES):
        blank = blank[np.isin(content[places[blank]], _SPACE) & (places[blank] > starts[blank])]
        if not blank.size:
            return places
        places[blank] -= 1
    for row in blank.tolist():  # a line may be padded with megabytes
        text = content[starts[row] : places[row] + 1].tobytes().rstrip(_SPACE.tobytes())
        places[row] = starts[row] + max(0, len(text) - 1)
    return places


def _cut(data: bytes, starts: Offsets, stops: Offsets) -> pa.Array:
    """Cut out pieces that lie one after the other, with gaps between them."""
    offsets = np.append(np.column_stack((starts, stops)).ravel(), len(data)).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    pieces = pa.Array.from_buffers(pa.large_binary(), 2 * len(starts), buffers)
    return pieces.take(pa.array(np.arange(0, 2 * len(starts), 2)))


def _replace(pieces: pa.Array, rows: Offsets, values: Iterable[bytes]) -> pa.Array:
    """Put other values at some rows."""
    if not rows.size:
        return pieces
    picks = np.arange(len(pieces))
    picks[rows] = len(pieces) + np.arange(len(rows))
    return pa.concat_arrays([pieces, pa.array(list(values), pa.large_binary())]).take(pa.array(picks))


def _open_malformed(line: bytes) -> bytes:
    text = line.rstrip(b"\r\n").decode("utf-8", "replace")
    return b'{"' + MALFORMED_MEMBER.encode() + b'":' + msgspec.json.encode(text)


def _close_malformed(line: bytes) -> bytes:
    return b"}" + line[len(line.rstrip(b"\r\n")) :]
