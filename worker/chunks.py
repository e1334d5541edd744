"""What the chunks of all files have in common, whatever their form: rows read and answered, and faults on their rows.

It knows nothing of queues, of jobs or of where files are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.plans import Offsets
from shared.values import Values
from worker.scoring import Outcome

Places = Offsets


class ChunkMismatch(ValueError):
    """The bytes do not hold the records that the plan says: the input has changed since it was planned."""


class DamagedFile(ChunkMismatch):
    """The file cannot be read here, whoever tries: its caller is told so."""


class ScoredChunk(NamedTuple):
    """What a chunk became.

    Parameters
    ----------
    data : bytes
        Every record as it came, then the new columns, then its newline as it came.
    errors : bytes
        NDJSON, one line a failed row: `row`, `line`, `column`, `code`, `detail`.
    succeeded, failed : int
        Rows; together all of the chunk's.
    """

    data: bytes
    errors: bytes
    succeeded: int
    failed: int


class RowFault(NamedTuple):
    """Why a row failed; `column` is None when it is not about one."""

    code: str
    detail: str
    column: str | None = None


class Earlier(NamedTuple):
    """What a job before made of the same records of a chunk.

    Parameters
    ----------
    data : bytes
        Its part of the result.
    failed : sequence of int
        Rows of the chunk, from 0, that had failed; all others are taken over.
    """

    data: bytes
    failed: Sequence[int]


class RowsRead(Protocol):
    """The rows of a chunk, as they were read."""

    #: By row of the chunk, from 0.
    faults: dict[int, RowFault]

    @property
    def values(self) -> Values:
        """Of all rows; those in `faults` mean nothing."""

    def locate(self, row: int) -> tuple[int, int]:
        """Return a row's number and physical line number in the file, both from 1."""


class Answers(NamedTuple):
    """What the rows of a chunk became.

    Parameters
    ----------
    rows : int
        Of the chunk, answered or not.
    answered : ndarray of int64
        Rows of the chunk, from 0, that have an answer.
    outcome : Outcome or None
        Of the answered rows, in their order; None when there are none.
    faults : dict of int to RowFault
        By row of the chunk, from 0.
    """

    rows: int
    answered: Places
    outcome: Outcome | None
    faults: dict[int, RowFault]

    def make_columns(self, count: int) -> list[pa.Array]:
        """Return predictions and probabilities as so many columns; null where there is no answer."""
        if self.outcome is None:
            return [pa.nulls(self.rows)] * count
        columns = [pa.array(column) for column in self.outcome.list_columns()]
        columns += [pa.nulls(len(self.answered))] * (count - len(columns))
        return [spread(column, self.answered, self.rows) for column in columns]

    def make_fault_columns(self) -> list[pa.Array]:
        """Return codes and details of the faults as columns of text; null where there is none."""
        failed = sorted(self.faults)
        texts = ([self.faults[row][part] for row in failed] for part in (0, 1))
        return [spread(pa.array(column, pa.string()), np.array(failed, np.int64), self.rows) for column in texts]


def answer_rows(read: RowsRead, predict: Callable[[Values], Outcome], earlier: Earlier | None = None) -> Answers:
    """Score the rows that could be read.

    Parameters
    ----------
    read : RowsRead
    predict : callable
        Scores values with the signature's codes; called once at most, and with at
        least one row.
    earlier : Earlier, optional
        Score only the rows that had failed before.
    """
    rows = len(read.values)
    wanted = range(rows) if earlier is None else set(earlier.failed)
    faults = {row: fault for row, fault in read.faults.items() if row in wanted}
    readable = find_others(rows, faults) if earlier is None else np.setdiff1d(earlier.failed, list(faults))
    if not readable.size:
        return Answers(rows, readable, None, faults)
    outcome = predict(read.values if len(readable) == rows else read.values[readable])
    faults.update({int(readable[index]): RowFault(*error) for index, error in outcome.errors.items()})
    if outcome.errors:
        answered = find_others(len(outcome), outcome.errors)
        outcome, readable = outcome.take(answered), readable[answered]
    return Answers(rows, readable, outcome if readable.size else None, faults)


def find_others(rows: int, failed: Iterable[int]) -> Places:
    """Return the rows that did not fail, ascending."""
    others = np.ones(rows, dtype=bool)
    others[list(failed)] = False
    return np.flatnonzero(others)


def spread(column: pa.Array, places: Places, rows: int) -> pa.Array:
    """Put values at the given rows, and null at all others."""
    if len(places) == rows:
        return column
    indices = np.full(rows, -1)
    indices[places] = np.arange(len(places))
    picks = pa.array(indices, mask=indices < 0)
    return column.take(picks)


def list_faults(read: RowsRead, faults: dict[int, RowFault]) -> bytes:
    """Write the faults as NDJSON, in the order of their rows."""
    lines = []
    for row in sorted(faults):
        number, line = read.locate(row)
        code, detail, column = faults[row]
        fault = {"row": number, "line": line, "column": column, "code": code, "detail": detail}
        lines.append(msgspec.json.encode(fault) + b"\n")
    return b"".join(lines)


def merge_records(scored: bytes, earlier: Earlier, rows: int, find_ends: Callable[[bytes], Offsets]) -> bytes:
    """Return the records that had failed as they are scored now, and the others as they were.

    Parameters
    ----------
    scored : bytes
        All records of the chunk, as they are now.
    earlier : Earlier
    rows : int
    find_ends : callable
        Returns the offset after each record.

    Raises
    ------
    ChunkMismatch
        One of both has not so many records.
    """
    arrays = []
    for data in (scored, earlier.data):
        ends = find_ends(data)
        if len(ends) != rows:
            raise ChunkMismatch(f"{rows} scored records were expected, found {len(ends)}")
        offsets = np.concatenate(([0], ends)).astype(np.int64)
        arrays.append(pa.Array.from_buffers(pa.large_binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(data)]))
    again = np.zeros(rows, dtype=bool)
    again[list(earlier.failed)] = True
    merged = pc.if_else(pa.array(again), *arrays)
    return bytes(memoryview(merged.buffers()[2])[: merged.total_values_length])
