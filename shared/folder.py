"""Blobs as files of a folder, which API and workers share; each is written beside its place, synced, and renamed."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from shared.blobs import BLOCK_BYTES, AlteredBlob
from shared.disk import replace_file, sync_folder


class Folder:
    """A folder of blobs.

    Parameters
    ----------
    root : Path
        Made at the first use.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self) -> None:
        """Raise `OSError` if nothing can be written."""
        self._root.mkdir(parents=True, exist_ok=True)
        if not os.access(self._root, os.W_OK | os.X_OK):
            raise PermissionError("the file store cannot be written")

    def write(self, name: str, data: bytes) -> None:
        """Write a blob whole, in place of one that may be there."""
        path = self._root / name
        _make_folder(path.parent)
        replace_file(path, data)

    def open_writer(self, name: str) -> FileWriter:
        """Begin a blob of any size."""
        path = self._root / name
        _make_folder(path.parent)
        return FileWriter(path)

    def read(self, name: str) -> bytes:
        """Return a whole blob."""
        return (self._root / name).read_bytes()

    def read_range(self, name: str, offset: int, length: int, mark: str = "") -> bytes:
        """Return `length` bytes from `offset`."""
        with self._open(name, mark) as file:
            data = os.pread(file.fileno(), length, offset)
            while len(data) < length:
                more = os.pread(file.fileno(), length - len(data), offset + len(data))
                if not more:
                    raise OSError(f"{name} ends at {offset + len(data)}; {offset + length} bytes were expected")
                data += more
        return data

    def iterate(self, name: str, start: int = 0, stop: int | None = None, mark: str = "") -> Iterator[bytes]:
        """Yield the bytes from `start` to before `stop` (the end by default), in blocks."""
        with self._open(name, mark) as file:
            file.seek(start)
            position = start
            while stop is None or position < stop:
                block = file.read(BLOCK_BYTES if stop is None else min(BLOCK_BYTES, stop - position))
                if not block:
                    return
                position += len(block)
                yield block

    def open_reader(self, name: str) -> BinaryIO:
        """Open a blob for reading at any place."""
        return open(self._root / name, "rb")

    def find(self, name: str) -> tuple[int, str]:
        """Return the bytes of a blob, and a mark of its content."""
        status = (self._root / name).stat()
        return status.st_size, _make_mark(status)

    def copy(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Link blobs under further names: what is in the store never changes, so both may have it."""
        touched = set()
        for old, new in pairs:
            target = self._root / new
            _make_folder(target.parent)
            target.hardlink_to(self._root / old)
            touched.add(target.parent)
        for folder in touched:
            sync_folder(folder)

    def list_names(self, folder: str) -> list[str]:
        """Return the names directly below a folder; what is still being written has none yet."""
        try:
            with os.scandir(self._root / folder) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except FileNotFoundError:
            return []

    def read_age_seconds(self, folder: str) -> float:
        """Return the time since something below a folder was last written."""
        newest = 0.0
        for place, _, files in os.walk(self._root / folder):
            for path in (place, *(os.path.join(place, file) for file in files)):
                try:
                    newest = max(newest, os.stat(path).st_mtime)
                except FileNotFoundError:
                    continue
        return time.time() - newest

    def remove(self, name: str) -> None:
        """Remove a blob; nothing happens if it is not there."""
        (self._root / name).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        """Remove all blobs below a folder; nothing happens if there are none."""
        path = self._root / folder
        if path.is_dir():  # most jobs have none, and the sweep removes thousands a second
            shutil.rmtree(path, ignore_errors=True)

    def _open(self, name: str, mark: str) -> BinaryIO:
        file = open(self._root / name, "rb")  # noqa: SIM115 - the caller closes it
        if mark and _make_mark(os.fstat(file.fileno())) != mark:
            file.close()
            raise AlteredBlob(f"{name} was altered")
        return file


class FileWriter:
    """A file that is still coming in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A leading dot: it is nothing of the store while it is written.
        self._incoming = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        self._file = open(self._incoming, "xb")  # noqa: SIM115 - closed by close and abandon

    def write(self, data: bytes, /) -> object:
        """Take further bytes."""
        return self._file.write(data)

    def close(self) -> None:
        """Make it visible: on disk when this returns, file and name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._incoming.replace(self._path)
        sync_folder(self._path.parent)

    def abandon(self) -> None:
        """Forget it; nothing happens if it was closed."""
        try:
            self._file.close()  # on a full disk it cannot write what it still holds
        finally:
            self._incoming.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, their names on disk when this returns."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _make_mark(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
