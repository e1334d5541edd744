"""The file store: what jobs have that is too large for Redis, and under which names.

``jobs/{id}/``  of a file: ``input`` (unless the job refers to one elsewhere), ``plan.json``,
                ``parts/{chunk}-{attempt}`` (``.errors`` beside it), of a retry ``parts/earlier-{chunk}``, from
                the job before, and ``results/{format}``, the whole in another format than the parts';
                of rows too large for Redis: ``rows``, ``result``

What is visible is whole. Files are there before their job's record is written, and go before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from shared.blobs import AlteredBlob, Blobs, Writer, open_reference
from shared.plans import Format, Plan

INPUT = "input"
PLAN = "plan.json"
PARTS = "parts"
RESULTS = "results"
#: The payload of a rows job that is too large for Redis.
ROWS = "rows"
#: Begins what stands in a job's record for a payload or result that is here; its name follows. Neither of them
#: ever begins so: a payload begins with its version, a result with a brace.
REFERENCE = b"@"

_JOBS = "jobs"


def earlier_parts(chunk: int) -> tuple[str, str]:
    """Name the part and the errors that a retry has of a chunk from the job before."""
    return f"earlier-{chunk:07d}", f"earlier-{chunk:07d}.errors"


class Source(NamedTuple):
    """The bytes of a file to be scored: a job's own upload, or a blob elsewhere.

    Parameters
    ----------
    blobs : Blobs
    name : str
    mark : str
        What the blob must still be; empty for an upload, which never changes.
    """

    blobs: Blobs
    name: str
    mark: str = ""

    def read_range(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`.

        Raises
        ------
        OSError
            The input is gone, altered, or shorter than its plan says.
        """
        return self.blobs.read_range(self.name, offset, length, self.mark)

    def iterate(self) -> Iterator[bytes]:
        """Yield all bytes, in blocks."""
        return self.blobs.iterate(self.name, mark=self.mark)

    def open(self) -> BinaryIO:
        """Open it for reading at any place."""
        if self.mark and self.blobs.find(self.name)[1] != self.mark:
            raise AlteredBlob(f"{self.name} was altered")
        return self.blobs.open_reader(self.name)


class Upload:
    """The files of a job that is not yet submitted; `discard` leaves no trace of them unless they were kept."""

    def __init__(self, blobs: Blobs, job_id: str) -> None:
        self._blobs = blobs
        self._folder = f"{_JOBS}/{job_id}"
        self._input: Writer | None = None
        self._kept = False

    def write(self, block: bytes) -> None:
        """Take further bytes of the input."""
        if self._input is None:
            self._input = self._blobs.open_writer(f"{self._folder}/{INPUT}")
        self._input.write(block)

    def close_input(self) -> Source:
        """End the input; it can be read from now on."""
        if self._input is None:
            self.write(b"")
        assert self._input is not None
        self._input.close()
        return Source(self._blobs, f"{self._folder}/{INPUT}")

    def take_input(self, job_id: str) -> None:
        """Take another job's input as this one's."""
        self._blobs.copy([(f"{_JOBS}/{job_id}/{INPUT}", f"{self._folder}/{INPUT}")])

    def take_parts(self, job_id: str, names: Iterable[tuple[str, str]]) -> None:
        """Take parts of another job's result, each under a new name."""
        old, new = f"{_JOBS}/{job_id}/{PARTS}", f"{self._folder}/{PARTS}"
        self._blobs.copy([(f"{old}/{name}", f"{new}/{new_name}") for name, new_name in names])

    def keep(self, plan: bytes) -> None:
        """Store the plan: all that the job needs is there when this returns."""
        self._blobs.write(f"{self._folder}/{PLAN}", plan)
        self._kept = True

    def discard(self) -> None:
        """Forget the upload; nothing happens if it was kept."""
        if self._kept:
            return
        if self._input is not None:
            self._input.abandon()
        self._blobs.remove_folder(self._folder)


class FileStore:
    """The files of all jobs.

    Parameters
    ----------
    blobs : Blobs
        From `shared.blobs.open_blobs`.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def check(self) -> None:
        """Raise `OSError` if the store cannot be written."""
        self._blobs.check()

    def begin_upload(self, job_id: str) -> Upload:
        """Open a place for the files of a job to be."""
        return Upload(self._blobs, job_id)

    def get_input(self, job_id: str, plan: Plan) -> Source:
        """Return the file that a job scores: its own upload, or what its plan refers to."""
        if plan.source:
            return Source(*open_reference(plan.source), plan.mark)
        return Source(self._blobs, f"{_JOBS}/{job_id}/{INPUT}")

    def read_plan(self, job_id: str) -> bytes:
        """Return the plan of a file job."""
        return self._blobs.read(f"{_JOBS}/{job_id}/{PLAN}")

    def write_blob(self, job_id: str, name: str, data: bytes) -> bytes:
        """Write a large payload or result, whole or not at all; return what stands for it in the record."""
        self._blobs.write(f"{_JOBS}/{job_id}/{name}", data)
        return REFERENCE + name.encode()

    def fetch(self, job_id: str, stored: bytes) -> bytes:
        """Return a payload or result: what stands in the record, or what that refers to."""
        if not stored.startswith(REFERENCE):
            return stored
        return self._blobs.read(f"{_JOBS}/{job_id}/{stored.removeprefix(REFERENCE).decode()}")

    def remove_blob(self, job_id: str, stored: bytes) -> None:
        """Remove what a record would have referred to; nothing happens if it is gone."""
        self._blobs.remove(f"{_JOBS}/{job_id}/{stored.removeprefix(REFERENCE).decode()}")

    def write_part(self, job_id: str, name: str, data: bytes) -> None:
        """Write a part of a result, whole or not at all."""
        self._blobs.write(f"{_JOBS}/{job_id}/{PARTS}/{name}", data)

    def read_part(self, job_id: str, name: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of a part from `start` to before `stop` (its end by default), in blocks."""
        return self._blobs.iterate(f"{_JOBS}/{job_id}/{PARTS}/{name}", start, stop)

    def begin_rendition(self, job_id: str, format: Format) -> Writer:
        """Begin a job's result in another format than its parts have."""
        return self._blobs.open_writer(f"{_JOBS}/{job_id}/{RESULTS}/{format}")

    def find_rendition(self, job_id: str, format: Format) -> int:
        """Return the bytes of a result in another format.

        Raises
        ------
        FileNotFoundError
            It was not made yet.
        """
        return self._blobs.find(f"{_JOBS}/{job_id}/{RESULTS}/{format}")[0]

    def read_rendition(self, job_id: str, format: Format, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of a result in another format from `start` to before `stop`, in blocks."""
        return self._blobs.iterate(f"{_JOBS}/{job_id}/{RESULTS}/{format}", start, stop)

    def check_parts(self, job_id: str, names: Iterable[str]) -> None:
        """Raise `FileNotFoundError` if one of these parts is not there: before a byte of them is sent."""
        missing = set(names)
        missing -= set(self._blobs.list_names(f"{_JOBS}/{job_id}/{PARTS}") if missing else ())
        if missing:
            raise FileNotFoundError(f"{len(missing)} parts are missing, as {min(missing)}")

    def remove(self, job_id: str) -> None:
        """Remove all files of a job; nothing happens if there are none."""
        self._blobs.remove_folder(f"{_JOBS}/{job_id}")

    def remove_results(self, job_id: str) -> None:
        """Remove what was scored of a job, and leave its input."""
        for name in (PARTS, RESULTS):
            self._blobs.remove_folder(f"{_JOBS}/{job_id}/{name}")

    def list_jobs(self) -> list[str]:
        """Return the ids of the jobs that have files."""
        return self._blobs.list_names(_JOBS)

    def read_age_seconds(self, job_id: str) -> float:
        """Return the time since a file of a job was last written."""
        return self._blobs.read_age_seconds(f"{_JOBS}/{job_id}")
