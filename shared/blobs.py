"""Blobs by name, whole or not there: the small interface behind which a folder or a bucket keeps what Redis cannot.

A name is a path with ``/``. What can be seen under a name is whole; it is replaced or removed, never written into.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Protocol

#: Bytes that are handed on at a time.
BLOCK_BYTES = 1 << 20


class AlteredBlob(OSError):
    """There is another blob under the name than the one that is meant."""


class Writer(Protocol):
    """A blob that is still coming in; nothing is seen of it before `close`."""

    def write(self, data: bytes, /) -> object:
        """Take further bytes."""

    def close(self) -> None:
        """Make it visible: it is stored for good when this returns."""

    def abandon(self) -> None:
        """Forget it; nothing happens if it was closed."""


class Blobs(Protocol):
    """Where blobs are kept.

    All methods raise `OSError` if that place fails, and `FileNotFoundError` for a blob that is not there.
    """

    def check(self) -> None:
        """Raise `OSError` if nothing can be written."""

    def write(self, name: str, data: bytes) -> None:
        """Write a blob, in place of one that may be there; it is stored for good when this returns."""

    def open_writer(self, name: str) -> Writer:
        """Begin a blob of any size; a bounded part of it is held in memory."""

    def read(self, name: str) -> bytes:
        """Return a whole blob."""

    def read_range(self, name: str, offset: int, length: int, mark: str = "") -> bytes:
        """Return `length` bytes from `offset`.

        Parameters
        ----------
        mark : str
            From `find`: another blob under this name is an `AlteredBlob`.
        """

    def iterate(self, name: str, start: int = 0, stop: int | None = None, mark: str = "") -> Iterator[bytes]:
        """Yield the bytes from `start` to before `stop` (the end by default), in blocks."""

    def open_reader(self, name: str) -> BinaryIO:
        """Open a blob for reading at any place."""

    def find(self, name: str) -> tuple[int, str]:
        """Return the bytes of a blob, and a mark that no other content under this name will have."""

    def copy(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Make blobs visible under further names, each pair from an old to a new one."""

    def list_names(self, folder: str) -> list[str]:
        """Return the last parts of all names, and of all folders, directly below a folder; none if it is not there."""

    def read_age_seconds(self, folder: str) -> float:
        """Return the time since something below a folder was last written."""

    def remove(self, name: str) -> None:
        """Remove a blob; nothing happens if it is not there."""

    def remove_folder(self, folder: str) -> None:
        """Remove all blobs below a folder; nothing happens if there are none."""


def open_blobs(address: str) -> Blobs:
    """Return the place of an address: a folder's path, or ``s3://bucket/prefix``.

    Raises
    ------
    ValueError
        The address is of neither kind.
    """
    if address.startswith("s3://"):
        from shared.bucket import Bucket  # its library is large, and a folder needs none

        return Bucket.open(address)
    if "://" in address:
        raise ValueError(f"{address!r}: a folder, or s3://bucket/prefix, was expected")
    from shared.folder import Folder

    return Folder(Path(address))


@lru_cache(maxsize=64)
def open_reference(address: str) -> tuple[Blobs, str]:
    """Return the place of an object's address, ``s3://bucket/name``, and its name there.

    Raises
    ------
    ValueError
        It is no such address.
    """
    bucket, _, name = address.removeprefix("s3://").partition("/")
    if not address.startswith("s3://") or not bucket or not name:
        raise ValueError("s3://bucket/name was expected")
    return open_blobs(f"s3://{bucket}"), name
