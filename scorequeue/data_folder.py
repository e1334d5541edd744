"""The folder in which one `scorequeue up` keeps everything: its layout, and the lock that makes it one.

It must not know which processes use it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class DataFolderError(Exception):
    """The folder cannot be used; the message says why."""


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
