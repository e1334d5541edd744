"""How a file is taken in, by its format: looked at while it passes by, planned at its end, compared with the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from api.file_options import FileOptions
from api.parquet import ParquetIntake
from api.service import Service
from shared.columns import ColumnCollision, added_columns, find_collisions, missing_columns
from shared.errors import Fault, ServiceError
from shared.filestore import Source
from shared.jobs import queue_name
from shared.lines import LineScanner
from shared.manifest import Manifest
from shared.plans import COLUMNS_MAX, Chunk, Format, Plan
from shared.records import RecordScanner

_CHUNK_SECONDS = 0.5
_FIRST_CHUNK_ROWS = 10_000
#: Below this a chunk's own cost counts for more than the model's, and so does it in the speed that is learned.
_FEWEST_CHUNK_ROWS = 500
#: But no chunk of a slow model may last so long that it is taken for one that hangs.
_LONGEST_CHUNK_SECONDS = 10.0


class Scanner(Protocol):
    """Looks at a stream of records while it passes by."""

    #: The names of the columns, once they are known.
    columns: list[str] | None

    @property
    def first_chunk(self) -> Chunk | None:
        """The first chunk, as soon as it is complete."""

    def feed(self, block: bytes) -> None:
        """Take the next bytes."""

    def finish(self) -> Plan:
        """Return the plan; the stream is at its end."""


class Intake:
    """Takes one file in.

    Parameters
    ----------
    format : {"csv", "ndjson", "parquet"}
    delimiter : str
        Of CSV.
    chunk_bytes, chunk_rows : int
        Limits for a chunk.
    cut_rows : sequence of int, optional
        The rows of each chunk instead: to cut a file where another is cut.

    Raises
    ------
    ServiceError
        ``invalid_parameter``: the delimiter is none.
    """

    def __init__(
        self,
        format: Format,
        *,
        delimiter: str = ",",
        chunk_bytes: int,
        chunk_rows: int,
        cut_rows: Sequence[int] | None = None,
    ) -> None:
        self.format = format
        self._parquet = ParquetIntake(chunk_bytes, chunk_rows, cut_rows=cut_rows)
        self._scanner: Scanner | None = None
        try:
            if format == "csv":
                self._scanner = RecordScanner(delimiter.encode(), chunk_bytes, chunk_rows, cut_rows=cut_rows)
            elif format == "ndjson":
                self._scanner = LineScanner(chunk_bytes, chunk_rows, cut_rows=cut_rows)
        except ValueError as error:
            raise ServiceError("invalid_parameter", str(error)) from None

    @property
    def columns(self) -> list[str]:
        """The names of the file's columns; of NDJSON those of its first record."""
        return (self._scanner or self._parquet).columns or []

    @property
    def first_chunk(self) -> Chunk | None:
        """The first chunk, as soon as it is complete; None where that is known at the end only."""
        return self._scanner.first_chunk if self._scanner else None

    def feed(self, block: bytes) -> None:
        """Take the next bytes.

        Raises
        ------
        MalformedFile
            They are of no such file.
        """
        if self._scanner:
            self._scanner.feed(block)

    def finish(self, source: Source) -> Plan:
        """Return the plan; all bytes have passed, and are in `source`.

        Raises
        ------
        MalformedFile
            They are no such file, or not all of it.
        """
        return self._scanner.finish() if self._scanner else self._parquet.finish(source)

    def find_faults(self, manifest: Manifest) -> list[Fault]:
        """List why the file's columns do not fit the model."""
        signature = manifest.signature
        if len(self.columns) > COLUMNS_MAX:  # of a record of NDJSON; other files were refused when their header came
            raise ServiceError(
                "malformed_file", f"The first record has {len(self.columns)} members; at most {COLUMNS_MAX} are taken."
            )
        # A record of NDJSON may leave out what may be missing; its first stands for the header that the format lacks.
        needed = [column.name for column in signature.columns if self.format != "ndjson" or not column.nullable]
        faults = list_column_faults(self.columns, needed)
        return faults or (self._parquet.find_type_faults(signature) if self.format == "parquet" else [])

    def find_collisions(self, manifest: Manifest, column_prefix: str) -> list[str]:
        """List the columns of the file that have the names of those that scoring adds."""
        return find_collisions(self.columns, added_columns(manifest.signature.answers, column_prefix))

    def check_columns(self, manifest: Manifest, column_prefix: str) -> None:
        """Refuse a file whose columns do not fit.

        Raises
        ------
        ServiceError
            ``schema_mismatch`` or ``column_collision``.
        """
        faults = self.find_faults(manifest)
        if faults:
            listed = ", ".join(str(fault["column"]) for fault in faults[:5]) + (", ..." if len(faults) > 5 else "")
            raise ServiceError(
                "schema_mismatch",
                f"The file's header does not fit {manifest.reference}: {len(faults)} of its "
                f"{len(manifest.signature.columns)} columns are missing, double or of another type ({listed}). "
                "Nothing was scored.",
                errors=faults[:100],
            )
        collisions = self.find_collisions(manifest, column_prefix)
        if collisions:
            raise ColumnCollision(collisions)


def list_column_faults(columns: Sequence[str], needed: Sequence[str]) -> list[Fault]:
    """List which columns are missing or double among those that are there."""
    differences = missing_columns(columns, needed)
    faults: list[Fault] = [
        {
            "column": column.name,
            "code": "missing_column",
            "detail": "there is no such column"
            + (f"; did you mean {', '.join(column.nearest)}?" if column.nearest else ""),
        }
        for column in differences.missing
    ]
    return faults + [
        {"column": name, "code": "duplicate_column", "detail": "there is more than one column of this name"}
        for name in differences.duplicated
    ]


def choose_chunk_rows(manifest: Manifest, speed: float | None) -> int:
    """Return the rows of a chunk: half a second of work.

    Parameters
    ----------
    manifest : Manifest
    speed : float or None
        Rows a second of earlier chunks; None for a version's first file, of which registration measured the model.
    """
    measured = [max(each.estimator, each.converted or 0.0) for each in manifest.backend.measured]
    if speed is None and not measured:
        return _FIRST_CHUNK_ROWS
    expected = max(measured) if speed is None else speed
    most = _FIRST_CHUNK_ROWS if speed is None else math.inf
    fewest = min(_FEWEST_CHUNK_ROWS, expected * _LONGEST_CHUNK_SECONDS)
    return max(1, round(min(most, max(fewest, expected * _CHUNK_SECONDS))))


def begin_intake(service: Service, manifest: Manifest, format: Format, options: FileOptions) -> Intake:
    """Take in a file that is cut into half seconds of work: what is lost, and waited for, at a time."""
    speed = service.store.read_chunk_speed(queue_name("files", manifest.name, manifest.version))
    return Intake(
        format,
        delimiter=options.delimiter,
        chunk_bytes=service.settings.chunk_bytes,
        chunk_rows=min(choose_chunk_rows(manifest, speed), service.settings.chunk_rows),
    )
