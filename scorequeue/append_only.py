"""The embedded Redis's append-only files, seen from outside: which there are, and a copy of them that fits together.

It asks Redis nothing: what has been answered is in the files, because they are synced before each answer.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

#: The server's own names, which our configuration leaves as they are.
FOLDER = "appendonlydir"
MANIFEST = "appendonly.aof.manifest"

#: Times that a rewrite may come between reading the manifest and opening the files; one takes seconds at least.
_ATTEMPTS = 20


class AppendOnlyError(Exception):
    """The files are missing, or not what a server writes; the message says which."""


@dataclass(frozen=True)
class OpenFile:
    """A file, open, and how much of it belongs to the copy.

    Parameters
    ----------
    name : str
        Its name in the folder.
    content : file
        At its beginning.
    size : int
        Bytes to be copied; the file may have grown since.
    """

    name: str
    content: BinaryIO
    size: int


@contextlib.contextmanager
def open_append_only(redis: Path) -> Iterator[list[OpenFile]]:
    """Open the manifest and all files it names, as they were at one moment; a running server goes on meanwhile.

    Everything that was answered before the call is in them. A rewrite needs no stopping: the files that it replaces
    stay readable while they are open, and they and their manifest tell the same as the new ones. The last command may
    be cut off, if the server is writing it just now: it is not answered yet, and a server that starts drops it.

    Parameters
    ----------
    redis : Path
        The server's folder.

    Raises
    ------
    AppendOnlyError
        There are none, or one that the manifest names is missing.
    """
    folder = redis / FOLDER
    for _ in range(_ATTEMPTS):
        manifest = _read_manifest(folder)
        with contextlib.ExitStack() as stack:
            try:
                files = [_open_file(stack, folder / name) for name in list_files(manifest)]
            except FileNotFoundError as error:
                missing = error
            else:
                # Unchanged, so all of them were current at once: numbers in names are never used again.
                if _read_manifest(folder) == manifest:
                    kept = _leave_out_history(manifest)
                    yield [OpenFile(MANIFEST, io.BytesIO(kept), len(kept)), *files]
                    return
                continue
        if _read_manifest(folder) == manifest:
            raise AppendOnlyError(f"{missing.filename} is missing, and {folder / MANIFEST} names it")
    raise AppendOnlyError(f"the files of {folder} are replaced faster than they can be opened")


def list_files(manifest: bytes) -> list[str]:
    """Name the files from which a server reads its data, in order; it appends to the last one."""
    return [name for name, kind in _parse_manifest(manifest) if kind != "h"]


def find_last_file(redis: Path) -> Path | None:
    """Return the file to which a server appends; None if it has none yet, or the manifest cannot be read."""
    folder = redis / FOLDER
    try:
        names = list_files(_read_manifest(folder))
    except AppendOnlyError:
        return None
    return folder / names[-1] if names else None


def has_lost_manifest(redis: Path) -> bool:
    """Tell whether there is data without a manifest: a server would begin anew, and write over it."""
    folder = redis / FOLDER
    if (folder / MANIFEST).exists():
        return False
    # A base alone is no data: the server makes one before its first manifest.
    return any(file.stat().st_size for file in folder.glob("*.incr.aof"))


def _read_manifest(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise AppendOnlyError(f"no Redis has kept anything in {folder.parent}") from None


def _parse_manifest(manifest: bytes) -> list[tuple[str, str]]:
    """Return name and type (b base, i increment, h history) of each file."""
    files = []
    for line in manifest.decode(errors="replace").splitlines():
        words = line.split()
        fields = dict(zip(words[::2], words[1::2], strict=False))
        if "file" not in fields or "type" not in fields or "/" in fields["file"]:
            raise AppendOnlyError(f"{MANIFEST} has a line that is none: {line[:100]!r}")
        files.append((fields["file"], fields["type"]))
    return files


def _leave_out_history(manifest: bytes) -> bytes:
    """Leave out what the server is about to delete."""
    lines = zip(manifest.splitlines(keepends=True), _parse_manifest(manifest), strict=True)
    return b"".join(line for line, (_, kind) in lines if kind != "h")


def _open_file(stack: contextlib.ExitStack, path: Path) -> OpenFile:
    content = stack.enter_context(path.open("rb"))
    return OpenFile(path.name, content, os.fstat(content.fileno()).st_size)
