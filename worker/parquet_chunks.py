"""Scoring of one chunk of a Parquet file: a run of its rows in, the same rows with the new columns out.

It knows nothing of queues, of jobs or of where files are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.errors import ServiceError
from shared.signature import Signature
from shared.tables import added_fields, read_table, write_table
from shared.values import Others, Values
from worker.chunks import ChunkMismatch, DamagedFile, Earlier, RowFault, ScoredChunk, answer_rows, list_faults
from worker.columns import read_typed
from worker.scoring import Outcome

#: Rows that are unpacked at a time, and bytes that are read of a column at a time: so memory does not depend on how
#: large the row groups are.
_BATCH_ROWS = 8192
_BUFFER_BYTES = 1 << 20
_SHOWN_MAX_CHARACTERS = 40


class ParquetRows:
    """Reads runs of rows, best in ascending order: a row group is unpacked from its start.

    Parameters
    ----------
    file : binary file
        Stays open as long as this is used.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        groups = self._file.metadata.num_row_groups
        sizes = [self._file.metadata.row_group(index).num_rows for index in range(groups)]
        self._group_starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._position = -1  # row with which the held batch, or else the next one, begins
        self._held: pa.RecordBatch | None = None

    @property
    def schema(self) -> pa.Schema:
        """The file's columns."""
        return self._file.schema_arrow

    def read(self, first_row: int, rows: int) -> pa.Table:
        """Return `rows` rows from `first_row`, counted from 0.

        Raises
        ------
        ChunkMismatch
            The file does not have them.
        """
        if rows == 0:
            return self.schema.empty_table()
        self._go_to(first_row)
        found: list[pa.RecordBatch] = []
        missing = rows
        while missing:
            batch = self._next_batch()
            if batch is None:
                raise ChunkMismatch(f"the file ends {missing} rows before row {first_row + rows}")
            skipped = max(0, first_row - self._position)
            taken = batch.slice(skipped, missing)
            if len(taken):
                found.append(taken)
                missing -= len(taken)
            if missing or skipped + len(taken) == len(batch):
                self._position += len(batch)
                self._held = None
        return pa.Table.from_batches(found, self.schema)

    def _go_to(self, row: int) -> None:
        """Stand at the row's batch or before it, in its row group at the earliest."""
        group = int(np.searchsorted(self._group_starts, row, "right")) - 1
        if 0 <= self._position <= row and self._position >= self._group_starts[group]:
            return
        groups = list(range(group, self._file.metadata.num_row_groups))
        self._batches = self._file.iter_batches(_BATCH_ROWS, row_groups=groups, use_threads=False)
        self._position = int(self._group_starts[group])
        self._held = None

    def _next_batch(self) -> pa.RecordBatch | None:
        if self._held is None:
            try:
                self._held = next(self._batches, None)
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and (error.errno or isinstance(error, ServiceError)):
                    raise  # of the store; what pyarrow finds wrong has no number
                raise DamagedFile(f"the Parquet file is damaged after row {self._position}") from error
        return self._held


class TableReader:
    """Turns rows of a table into values.

    Parameters
    ----------
    table : pyarrow.Table
    signature : Signature
    first_row : int
        Rows of the file before the table's first.

    Attributes
    ----------
    values : Values
    faults : dict of int to RowFault
    """

    def __init__(self, table: pa.Table, signature: Signature, first_row: int) -> None:
        self.faults: dict[int, RowFault] = {}
        self._first_row = first_row
        matrix, others = np.empty((len(table), len(signature.columns))), Others()
        for index, column in enumerate(signature.columns):
            matrix[:, index], errors = read_typed(table.column(column.name), column, others)
            for row, (code, detail) in errors.items():
                where = f"row {first_row + row + 1}, column {column.name[:_SHOWN_MAX_CHARACTERS]!r}"
                self.faults.setdefault(row, RowFault(code, f"{where}: {detail}", column.name))
        self.values = Values(matrix, others.list())

    def locate(self, row: int) -> tuple[int, int]:
        """Return a row's number in the file, twice: it has no lines."""
        return self._first_row + row + 1, self._first_row + row + 1


def score_chunk(
    rows: ParquetRows,
    *,
    signature: Signature,
    column_prefix: str,
    predict: Callable[[Values], Outcome],
    expected_rows: int,
    first_row: int,
    earlier: Earlier | None = None,
) -> ScoredChunk:
    """Score a run of rows.

    Parameters
    ----------
    rows : ParquetRows
    signature : Signature
    column_prefix : str
        Put before the name of each new column.
    predict : callable
        Scores values with the signature's codes; called once at most, and with at least one row.
    expected_rows : int
        Rows of the chunk.
    first_row : int
        Rows of the file before it.
    earlier : Earlier, optional
        Score only the rows that had failed; the others stay as they are there.

    Returns
    -------
    ScoredChunk
        Its data are an Arrow stream (`shared.tables`).

    Raises
    ------
    ChunkMismatch
        The file does not have these rows.
    """
    table = rows.read(first_row, expected_rows).replace_schema_metadata(None)
    reader = TableReader(table, signature, first_row)
    answers = answer_rows(reader, predict, earlier)
    fields = added_fields(signature.answers, column_prefix)
    columns = [*answers.make_columns(len(fields) - 2), *answers.make_fault_columns()]
    for field, column in zip(fields, columns, strict=True):
        table = table.append_column(field, column.cast(field.type))
    if earlier is not None:
        table = _merge_tables(table, read_table(earlier.data), earlier.failed)
    return ScoredChunk(
        data=write_table(table.combine_chunks()),
        errors=list_faults(reader, answers.faults),
        succeeded=len(table) - len(answers.faults),
        failed=len(answers.faults),
    )


def _merge_tables(scored: pa.Table, before: pa.Table, failed: Sequence[int]) -> pa.Table:
    """Return the rows that had failed as they are now, and the others as they were."""
    if before.schema != scored.schema or len(before) != len(scored):
        raise ChunkMismatch("the columns of the corrected file are not those of the first")
    picks = np.arange(len(scored))
    picks[list(failed)] += len(scored)
    return pa.concat_tables([before, scored]).take(pa.array(picks))
