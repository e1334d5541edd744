"""A data folder into an archive, while its service runs or not, and back into a folder.

Redis's files come first: whatever a record refers to was written before the record, so it is found afterwards.
It must not know how an archive is built, nor the files of Redis.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from scorequeue.append_only import FOLDER, AppendOnlyError, open_append_only
from scorequeue.archive import (
    ArchiveError,
    ArchiveWriter,
    Contents,
    extract_archive,
    sync_folder,
    write_archive,
)
from scorequeue.data_folder import DataFolder, DataFolderError, Stores


class SnapshotError(Exception):
    """Nothing was saved, or restored, and the message says why.

    Parameters
    ----------
    message : str
        For people.
    exit_code : int
        2 if the command was used wrongly, 1 if something failed.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def save_data(data: Path, out: Path, environ: Mapping[str, str]) -> Contents:
    """Save a data folder into an archive: whole, or not at all.

    Parameters
    ----------
    data : Path
        Its service may run.
    out : Path
        Replaced when the new one is on disk. Compressed if it ends in ``.gz`` or ``.tgz``.
    environ : mapping
        Says where the stores are, if no start of the service has written it down.

    Raises
    ------
    SnapshotError
        The folder has no data of an embedded Redis, or something cannot be read or written.
    """
    folder = DataFolder(data.resolve())
    if not folder.root.is_dir():
        raise SnapshotError(f"{data} is not a data folder: there is no such folder", 2)
    if not out.parent.is_dir() or out.is_dir():
        raise SnapshotError(f"{out}: name a file to be written, in a folder that exists", 2)
    files, models = _find_stores(folder, environ)
    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        try:
            contents = _write_draft(folder, files, models, out, draft)
            draft.replace(out)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(out.parent)
    except (ArchiveError, AppendOnlyError) as error:
        raise SnapshotError(f"{data} was not saved: {error}", 1) from error
    except OSError as error:
        raise SnapshotError(f"{data} was not saved to {out}: {error}", 1) from error
    return contents


def restore_data(archive: Path, data: Path) -> Contents:
    """Restore an archive as a data folder: whole, or not at all.

    Parameters
    ----------
    archive : Path
    data : Path
        Must not exist, or be empty.

    Raises
    ------
    SnapshotError
        The folder is not empty, or the archive is not a whole backup, or something cannot be read or written.
    """
    root = data.resolve()
    _check_target(data, root)
    if not archive.is_file():
        raise SnapshotError(f"{archive} is not a file", 2)
    draft = root.with_name(f".{root.name}.{secrets.token_hex(4)}")
    try:
        try:
            draft.mkdir(mode=0o700, parents=True)
            contents = extract_archive(archive, draft)
            # An empty folder is replaced; one in which somebody made something meanwhile is not.
            draft.rename(root)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        sync_folder(root.parent)
    except ArchiveError as error:
        raise SnapshotError(f"nothing was restored: {error}", 1) from error
    except OSError as error:
        hint = "; it is a mount point: name a folder in it" if error.errno in (errno.EBUSY, errno.EXDEV) else ""
        raise SnapshotError(f"nothing was restored to {data}: {error}{hint}", 1) from error
    return contents


def _find_stores(folder: DataFolder, environ: Mapping[str, str]) -> tuple[Path, Path]:
    """Return the folders of file store and registry; refuse what a backup of folders would not cover."""
    try:
        stores = folder.read_stores() or Stores.from_environ(environ)
    except DataFolderError as error:
        raise SnapshotError(str(error), 1) from error
    if stores.has_own_redis:
        raise SnapshotError(
            "only the embedded Redis is covered, and this service uses the one that SCOREQUEUE_REDIS_URL names: save "
            "that with its own tools first, and then the folders of SCOREQUEUE_FILE_STORE and SCOREQUEUE_MODELS",
            2,
        )
    for place in (stores.files, stores.models):
        if place and not Path(place).is_dir():
            raise SnapshotError(f"this service keeps data in {place}, which is not a folder: only those are covered", 2)
    return Path(stores.files or folder.files), Path(stores.models or folder.models)


def _check_target(data: Path, root: Path) -> None:
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SnapshotError(f"{data} is not empty: restore into a folder that is, or does not exist yet", 2)


def _write_draft(folder: DataFolder, files: Path, models: Path, out: Path, draft: Path) -> Contents:
    # Models and rows of others' jobs are in it: for the owner alone, like the data folder.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with write_archive(out, file) as archive:
            with open_append_only(folder.redis) as opened:
                for found in opened:
                    archive.add_file(f"redis/{FOLDER}/{found.name}", found.content, found.size)
            _add_tree(archive, "files", files)
            _add_tree(archive, "models", models)
            contents = archive.end()
        file.flush()
        os.fsync(file.fileno())
    return contents


def _add_tree(archive: ArchiveWriter, name: str, root: Path) -> None:
    """Add a folder of files that are never changed in place; what goes while one looks is left out."""
    for path, is_folder in _walk(root, (root.resolve(),)):
        member = f"{name}/{path.relative_to(root).as_posix()}"
        if is_folder:
            archive.add_folder(member)
            continue
        try:
            content = path.open("rb")
        except FileNotFoundError:
            continue
        with content:
            archive.add_file(member, content, os.fstat(content.fileno()).st_size)


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, bool]]:
    """Yield paths and whether each is a folder, folders before what is in them; names with a dot are drafts."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            yield path, False
        elif entry.is_dir() and (real := path.resolve()) not in above:  # a link to what it is in has no end
            yield path, True
            yield from _walk(path, (*above, real))
