"""The file store: a folder, shared by API and workers, for what is too large for Redis.

What is visible is whole: everything is written beside its place, fsynced, and renamed into it.

``uploads/{token}/``  an upload under way
``jobs/{id}/``        of a file: ``input``, ``plan.json``, ``parts/{chunk}-{attempt}`` (``.errors`` beside it), and of a
                      retry ``parts/earlier-{chunk}``, from the job before;
                      of rows too large for Redis: ``rows``, ``result``
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from shared.disk import replace_file, sync_folder, write_file

INPUT = "input"
PLAN = "plan.json"
PARTS = "parts"
#: The payload of a rows job that is too large for Redis.
ROWS = "rows"
#: Begins what stands in a job's record for a payload or result that is here; its name follows. Neither of them
#: ever begins so: a payload begins with its version, a result with a brace.
REFERENCE = b"@"

_BLOCK_BYTES = 1 << 20
#: An upload folder untouched for this long is of a process that died.
_ABANDONED_SECONDS = 3600


def earlier_parts(chunk: int) -> tuple[str, str]:
    """Name the part and the errors that a retry has of a chunk from the job before."""
    return f"earlier-{chunk:07d}", f"earlier-{chunk:07d}.errors"


class Upload:
    """A file that is still coming in; it becomes visible by `keep`, or leaves no trace."""

    def __init__(self, folder: Path, jobs: Path) -> None:
        self._folder = folder
        self._jobs = jobs
        folder.mkdir(parents=True)
        (folder / PARTS).mkdir()
        self.path = folder / INPUT
        self.file: BinaryIO = open(self.path, "xb")  # noqa: SIM115 - closed by keep and discard

    def keep(self, job_id: str, plan: bytes) -> None:
        """Make the upload a job's input: on disk when this returns, file and folders."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        write_file(self._folder / PLAN, plan)
        sync_folder(self._folder / PARTS)
        sync_folder(self._folder)
        self._folder.rename(self._jobs / job_id)
        sync_folder(self._jobs)

    def take_input(self, job_id: str) -> None:
        """Take another job's input as this one's; what is in the store never changes, so both may have it."""
        self.file.close()
        self.path.unlink()
        self.path.hardlink_to(self._jobs / job_id / INPUT)
        self.file = open(self.path, "rb")  # noqa: SIM115 - closed by keep and discard

    def take_part(self, job_id: str, name: str, new_name: str) -> None:
        """Take a part of another job's result."""
        (self._folder / PARTS / new_name).hardlink_to(self._jobs / job_id / PARTS / name)

    def discard(self) -> None:
        """Forget the upload; nothing happens if it was kept."""
        try:
            self.file.close()  # on a full disk it cannot write what it still holds
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


class FileStore:
    """The folder of uploads, inputs and parts.

    Parameters
    ----------
    root : Path
        Made at the first use.
    """

    def __init__(self, root: Path) -> None:
        self._uploads = root / "uploads"
        self._jobs = root / "jobs"

    def check(self) -> None:
        """Raise `OSError` if the store cannot be written."""
        self._make_folders()
        if not os.access(self._jobs, os.W_OK | os.X_OK):
            raise PermissionError("the file store cannot be written")

    def begin_upload(self) -> Upload:
        """Open a place for an upload."""
        self._make_folders()
        return Upload(self._uploads / secrets.token_hex(12), self._jobs)

    def read_plan(self, job_id: str) -> bytes:
        """Return the plan of a file job."""
        return (self._jobs / job_id / PLAN).read_bytes()

    def read_range(self, job_id: str, offset: int, length: int) -> bytes:
        """Return `length` bytes of a file job's input from `offset`.

        Raises
        ------
        OSError
            The input is gone, or shorter than its plan says.
        """
        with open(self._jobs / job_id / INPUT, "rb") as file:
            data = os.pread(file.fileno(), length, offset)
            while len(data) < length:
                more = os.pread(file.fileno(), length - len(data), offset + len(data))
                if not more:
                    raise OSError(f"the input ends at {offset + len(data)}; its plan goes to {offset + length}")
                data += more
        return data

    def write_blob(self, job_id: str, name: str, data: bytes) -> bytes:
        """Write a large payload or result, whole or not at all; return what stands for it in the record."""
        self._make_folders()
        folder = self._jobs / job_id
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            sync_folder(self._jobs)
        replace_file(folder / name, data)
        return REFERENCE + name.encode()

    def fetch(self, job_id: str, stored: bytes) -> bytes:
        """Return a payload or result: what stands in the record, or what that refers to."""
        if not stored.startswith(REFERENCE):
            return stored
        return (self._jobs / job_id / stored.removeprefix(REFERENCE).decode()).read_bytes()

    def remove_blob(self, job_id: str, stored: bytes) -> None:
        """Remove what a record would have referred to; nothing happens if it is gone."""
        (self._jobs / job_id / stored.removeprefix(REFERENCE).decode()).unlink(missing_ok=True)

    def write_part(self, job_id: str, name: str, data: bytes) -> None:
        """Write a part of a result, whole or not at all."""
        replace_file(self._jobs / job_id / PARTS / name, data)

    def read_part(self, job_id: str, name: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of a part from `start` to before `stop` (its end by default), in blocks."""
        with open(self._jobs / job_id / PARTS / name, "rb") as file:
            file.seek(start)
            position = start
            while stop is None or position < stop:
                block = file.read(_BLOCK_BYTES if stop is None else min(_BLOCK_BYTES, stop - position))
                if not block:
                    return
                position += len(block)
                yield block

    def check_parts(self, job_id: str, names: Iterable[str]) -> None:
        """Raise `FileNotFoundError` if one of these parts is not there: before a byte of them is sent."""
        with os.scandir(self._jobs / job_id / PARTS) as entries:
            missing = set(names) - {entry.name for entry in entries}
        if missing:
            raise FileNotFoundError(f"{len(missing)} parts are missing, as {min(missing)}")

    def remove(self, job_id: str) -> None:
        """Remove all files of a job; nothing happens if there are none."""
        folder = self._jobs / job_id
        if folder.is_dir():  # most jobs have none, and the sweep removes thousands a second
            shutil.rmtree(folder, ignore_errors=True)

    def list_jobs(self) -> list[str]:
        """Return the ids of the jobs that have files."""
        return sorted(entry.name for entry in self._jobs.iterdir()) if self._jobs.is_dir() else []

    def remove_abandoned_uploads(self) -> None:
        """Remove uploads whose process died."""
        if not self._uploads.is_dir():
            return
        for folder in self._uploads.iterdir():
            try:
                # A retry's input is as old as the first job's; its folder is not.
                touched = max((folder / INPUT).stat().st_mtime, folder.stat().st_mtime)
            except FileNotFoundError:
                continue
            if time.time() - touched > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def _make_folders(self) -> None:
        self._uploads.mkdir(parents=True, exist_ok=True)
        self._jobs.mkdir(parents=True, exist_ok=True)
