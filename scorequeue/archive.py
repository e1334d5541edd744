"""The archive of a backup: a tar file that says what it is first, and at its end that it is whole.

::

    scorequeue-backup.json   what it is, and of when
    redis/…  files/…  models/…
    scorequeue-backup.end    how many files and bytes there are before it, and their SHA-256

It must not know what is in the files.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO

FORMAT = "scorequeue-backup"
VERSION = 1
#: The folders that an archive may have, and no others.
ROOMS = ("redis", "files", "models")
#: Endings of an archive that is compressed.
GZIP_ENDINGS = (".gz", ".tgz")

_HEADER, _END = f"{FORMAT}.json", f"{FORMAT}.end"
_NOTE_MAX_BYTES = 65_536
_BLOCK_BYTES = 1 << 20


class ArchiveError(Exception):
    """A file is not an archive of ours, not whole, or holds what it must not; the message says which."""


@dataclass(frozen=True)
class Contents:
    """What an archive holds.

    Parameters
    ----------
    created_at : str
        When it was begun, RFC 3339, UTC.
    files, bytes : int
        How many files, and their size before compression.
    """

    created_at: str
    files: int
    bytes: int


class ArchiveWriter:
    """Writes an archive; what it holds is whole when `end` has returned.

    Parameters
    ----------
    tar : TarFile
        Open for writing, empty.
    """

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._digest = _Digest()
        self._created_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._add_note(_HEADER, {"format": FORMAT, "version": VERSION, "created_at": self._created_at})

    def add_folder(self, name: str) -> None:
        """Add a folder; its name is relative, with slashes."""
        member = _describe_member(name)
        member.type, member.mode = tarfile.DIRTYPE, 0o700
        self._tar.addfile(member)

    def add_file(self, name: str, content: IO[bytes], size: int) -> None:
        """Add the next ``size`` bytes of a file; its name is relative, with slashes.

        Raises
        ------
        ArchiveError
            There are fewer.
        """
        reader = _Reader(name, size, content, self._digest)
        self._tar.addfile(_describe_member(name, size), reader)  # type: ignore[arg-type] # read() is all it needs

    def end(self) -> Contents:
        """Add the last member."""
        contents = Contents(self._created_at, self._digest.files, self._digest.bytes)
        self._add_note(_END, asdict(contents) | {"sha256": self._digest.hexdigest()})
        return contents

    def _add_note(self, name: str, note: dict[str, object]) -> None:
        text = json.dumps(note, indent=1).encode() + b"\n"
        self._tar.addfile(_describe_member(name, len(text)), io.BytesIO(text))


@contextlib.contextmanager
def write_archive(path: Path, file: IO[bytes]) -> Iterator[ArchiveWriter]:
    """Write an archive into an open file, compressed if ``path`` says so by its ending."""
    with contextlib.ExitStack() as stack:
        target: IO[bytes] | gzip.GzipFile = file
        if path.name.endswith(GZIP_ENDINGS):
            # The fastest level: it is the disk that is to be spared, not the last percent of it.
            target = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=1, fileobj=file))
        yield ArchiveWriter(stack.enter_context(tarfile.open(fileobj=target, mode="w:", format=tarfile.PAX_FORMAT)))


def extract_archive(path: Path, target: Path) -> Contents:
    """Extract an archive into an empty folder: all of it is on disk when this returns.

    Raises
    ------
    ArchiveError
        It is no archive of ours, not whole, or a member is not what an archive may hold. A part of it is in the
        folder then.
    OSError
        It cannot be read, or the folder cannot be written.
    """
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:*") as tar:
            return _extract(tar, target)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ArchiveError(f"{path} is not a whole archive: {error}") from error
    except ArchiveError as error:
        raise ArchiveError(f"{path}: {error}") from error


def _extract(tar: tarfile.TarFile, target: Path) -> Contents:
    members = iter(tar)
    _check_header(_read_note(tar, next(members, None), _HEADER))
    digest = _Digest()
    folders = {target}
    for member in members:
        if member.name == _END:
            contents = _check_end(_read_note(tar, member, _END), digest)
            break
        path = target / _check_member(member, target)
        folder = path if member.isdir() else path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders.add(folder)
        if member.isreg():
            _extract_file(tar, member, path, digest)
    else:
        raise ArchiveError("its end is missing; it was cut off")
    for folder in folders:
        sync_folder(folder)
    return contents


def _extract_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, digest: _Digest) -> None:
    content = tar.extractfile(member)
    assert content is not None  # a regular file has content
    reader = _Reader(member.name, member.size, content, digest)
    with path.open("xb") as file:
        while block := reader.read(_BLOCK_BYTES):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _check_member(member: tarfile.TarInfo, target: Path) -> str:
    """Return the name of a member that may be extracted."""
    try:
        tarfile.data_filter(member, str(target))
    except tarfile.FilterError as error:
        raise ArchiveError(f"it holds what no backup does: {error}") from error
    parts = PurePosixPath(member.name).parts
    if not (member.isreg() or member.isdir()) or not parts or parts[0] not in ROOMS or ".." in parts:
        raise ArchiveError(f"it holds what no backup does: {member.name!r}")
    return member.name


def _read_note(tar: tarfile.TarFile, member: tarfile.TarInfo | None, name: str) -> dict[str, object]:
    if member is None or member.name != name or not member.isreg() or member.size > _NOTE_MAX_BYTES:
        raise ArchiveError(f"it does not begin with {name}: it is not a backup of scorequeue")
    content = tar.extractfile(member)
    try:
        note = json.loads(content.read() if content else b"")
    except ValueError as error:
        raise ArchiveError(f"{name} is not JSON: {error}") from error
    if not isinstance(note, dict):
        raise ArchiveError(f"{name} is not an object")
    return note


def _check_header(header: dict[str, object]) -> None:
    if header.get("format") != FORMAT:
        raise ArchiveError(f"{_HEADER} says that it is {header.get('format')!r}; expected {FORMAT!r}")
    if header.get("version") != VERSION:
        raise ArchiveError(f"its format has version {header.get('version')!r}; this release reads {VERSION}")


def _check_end(end: dict[str, object], digest: _Digest) -> Contents:
    found = {"files": digest.files, "bytes": digest.bytes, "sha256": digest.hexdigest()}
    if any(end.get(name) != value for name, value in found.items()):
        raise ArchiveError(f"it is damaged: its files are not those that were saved ({found}, expected {end})")
    return Contents(str(end.get("created_at")), digest.files, digest.bytes)


class _Digest:
    """The SHA-256 over names, sizes and contents, in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.files = 0
        self.bytes = 0

    def begin_file(self, name: str, size: int) -> None:
        self._hash.update(os.fsencode(f"{name}\0{size}\0"))
        self.files += 1

    def update(self, block: bytes) -> None:
        self._hash.update(block)
        self.bytes += len(block)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _Reader:
    """Reads a file of a known size, and digests what it reads."""

    def __init__(self, name: str, size: int, content: IO[bytes], digest: _Digest) -> None:
        self._name = name
        self._left = size
        self._content = content
        self._digest = digest
        digest.begin_file(name, size)

    def read(self, size: int) -> bytes:
        block = self._content.read(min(size, self._left))
        if not block and self._left:
            raise ArchiveError(f"{self._name} became shorter while it was read")
        self._left -= len(block)
        self._digest.update(block)
        return block


def sync_folder(path: Path) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe_member(name: str, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    return member
