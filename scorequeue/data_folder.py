"""The folder in which one `scorequeue up` keeps everything: its layout, and the lock that makes it one.

It must not know which processes use it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


class DataFolderError(Exception):
    """The folder cannot be used; the message says why."""


@dataclass(frozen=True)
class Stores:
    """Where a service keeps what must not be lost, if the user said otherwise than the data folder.

    Parameters
    ----------
    has_own_redis : bool
        Whether Redis is one that runs already, not the embedded one.
    files, models : str or None
        Folder or address of the file store and of the registry; None: in the data folder.
    """

    has_own_redis: bool = False
    files: str | None = None
    models: str | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read what the user says; relative folders become absolute, because the processes run elsewhere."""

        def find(name: str) -> str | None:
            given = environ.get(name, "")
            return (given if "://" in given else os.path.abspath(given)) if given else None

        own_redis = bool(environ.get("SCOREQUEUE_REDIS_URL", "").strip())
        return cls(own_redis, find("SCOREQUEUE_FILE_STORE"), find("SCOREQUEUE_MODELS"))


@dataclass(frozen=True)
class DataFolder:
    """Where everything is.

    Parameters
    ----------
    root : Path
        The folder, absolute, with symbolic links resolved.
    """

    root: Path

    @property
    def redis(self) -> Path:
        """Redis's append-only files."""
        return self.root / "redis"

    @property
    def files(self) -> Path:
        """The file store: uploads and results."""
        return self.root / "files"

    @property
    def models(self) -> Path:
        """The model registry."""
        return self.root / "models"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What is true only while the service runs: sockets, configuration, the record of processes."""
        return self.root / "run"

    @property
    def metrics(self) -> Path:
        """Counters that processes share; they start anew with the service."""
        return self.run / "metrics"

    @property
    def other_metrics(self) -> Path:
        """Counters of the processes beside API and workers, which nobody reads."""
        return self.metrics / "others"

    @property
    def _stores(self) -> Path:
        return self.run / "stores.json"

    def make(self) -> None:
        """Create what is missing; nobody else may read it.

        Raises
        ------
        DataFolderError
            A folder cannot be created, or something else has its name.
        """
        try:
            for folder in (self.root, self.redis, self.files, self.models, self.logs, self.run):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # An older service, or a copied folder, may have left it open; the socket in it is private.
            self.run.chmod(0o700)
        except OSError as error:
            raise DataFolderError(f"cannot use {self.root} as the data folder: {error}") from error

    def note_stores(self, stores: Stores) -> None:
        """Write down where the service that starts now keeps its data: a backup must find all of it."""
        draft = self._stores.with_suffix(".new")
        draft.write_text(json.dumps(asdict(stores)))
        draft.replace(self._stores)

    def read_stores(self) -> Stores | None:
        """Return what the latest start wrote down; None if there was none.

        Raises
        ------
        DataFolderError
            The note cannot be read.
        """
        try:
            return Stores(**json.loads(self._stores.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise DataFolderError(f"{self._stores} is not a note of a start: {error}") from error

    def clear_metrics(self) -> None:
        """Empty the folder of shared counters: the process ids in its file names mean nothing any more."""
        shutil.rmtree(self.metrics, ignore_errors=True)
        self.other_metrics.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process alone; the lock ends with it, however it ends.

        Raises
        ------
        DataFolderError
            Another process holds it; the message names its process id.
        """
        # Python opens files so that children do not inherit them: a survivor cannot hold the lock.
        with (self.root / "up.lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise DataFolderError(
                    f"{self.root} is in use by another `scorequeue up` (pid {holder}); stop that one, or "
                    "choose another folder with --data"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield
