"""Files whose chunks are being scored: plan and input at hand, and each chunk scored as the file's format has it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property

import msgspec

from shared.columns import added_columns
from shared.filestore import FileStore
from shared.jobs import Document
from shared.plans import Plan
from shared.records import parse_header
from shared.signature import Signature
from shared.values import Values
from worker import csv_chunks, ndjson_chunks, parquet_chunks
from worker.chunks import Earlier, ScoredChunk
from worker.scoring import Outcome


class OpenFile:
    """The input of one job.

    Parameters
    ----------
    files : FileStore
    job_id : str

    Raises
    ------
    FileNotFoundError
        The job's files are gone.
    """

    def __init__(self, files: FileStore, job_id: str) -> None:
        self.plan = msgspec.json.decode(files.read_plan(job_id), type=Plan)
        self._source = files.get_input(job_id, self.plan)
        self._to_close = ExitStack()

    def close(self) -> None:
        """Close what is open of it."""
        self._to_close.close()

    def score_chunk(
        self,
        index: int,
        document: Document,
        signature: Signature,
        predict: Callable[[Values], Outcome],
        earlier: Earlier | None,
    ) -> ScoredChunk:
        """Score the chunk with this index."""
        chunk = self.plan.chunks[index]
        if self.plan.format == "parquet":
            return parquet_chunks.score_chunk(
                self._parquet_rows,
                signature=signature,
                column_prefix=document.column_prefix,
                predict=predict,
                expected_rows=chunk.rows,
                first_row=chunk.first_row,
                earlier=earlier,
            )
        data = self._source.read_range(chunk.offset, chunk.length)
        if self.plan.format == "ndjson":
            return ndjson_chunks.score_chunk(
                data,
                signature=signature,
                added=added_columns(signature.answers, document.column_prefix),
                predict=predict,
                expected_rows=chunk.rows,
                first_row=chunk.first_row,
                earlier=earlier,
            )
        delimiter = document.delimiter.encode()
        return csv_chunks.score_chunk(
            data,
            columns=parse_header(self.plan.header, delimiter),
            signature=signature,
            delimiter=delimiter,
            predict=predict,
            expected_rows=chunk.rows,
            first_row=chunk.first_row,
            first_line=chunk.first_line,
            earlier=earlier,
        )

    @cached_property
    def _parquet_rows(self) -> parquet_chunks.ParquetRows:
        return parquet_chunks.ParquetRows(self._to_close.enter_context(self._source.open()))


class OpenFiles:
    """The files that were scored last: the next chunk is likely one of theirs.

    Parameters
    ----------
    files : FileStore
    most : int
        Kept open at a time.
    """

    def __init__(self, files: FileStore, most: int = 8) -> None:
        self._files = files
        self._most = most
        self._open: OrderedDict[str, OpenFile] = OrderedDict()

    def get(self, job_id: str) -> OpenFile:
        """Return a job's file, opened if it is not.

        Raises
        ------
        FileNotFoundError
            The job's files are gone.
        """
        if job_id not in self._open:
            self._open[job_id] = OpenFile(self._files, job_id)
            while len(self._open) > self._most:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(job_id)
        return self._open[job_id]

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            self._open.popitem()[1].close()
