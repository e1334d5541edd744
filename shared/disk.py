"""Writing to disk so that what is visible is whole, and what was answered stays: file, then folder, synced."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Write a new file; it is on disk when this returns, its name in the folder not yet.

    Raises
    ------
    FileExistsError
        It is there already.
    """
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in place of the one that may be there: readers see the old one or the new one, whole."""
    # A leading dot: it is no part, alias or version of anything while it is written.
    incoming = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        write_file(incoming, content)
        incoming.replace(path)
    finally:
        incoming.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
