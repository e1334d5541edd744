"""Admission: no work is taken that Redis or the disk could not hold to its end.

What is queued already needs room to finish, and Redis with ``appendfsync always`` ends when its disk is full; so the
doors close before (design, decisions 9 and 10).
"""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import redis

from shared.errors import ServiceError

#: Share of Redis's memory above which nothing new is taken.
MEMORY_SHARE = 0.8
_SAMPLE_SECONDS = 1.0
_RETRY_SECONDS = 5


class _Sample(NamedTuple):
    memory_share: float
    missing_bytes: int


class Admission:
    """Looks at memory and disks once a second, when somebody submits.

    Parameters
    ----------
    client : redis.Redis
    folders : list of Path
        On the disks that must keep room: the file store's, and Redis's if it is on this machine.
    min_free_bytes : int
        Room to be kept; at least twice the append-only file, which is rewritten beside itself.
    """

    def __init__(self, client: redis.Redis, folders: list[Path], min_free_bytes: int) -> None:
        self._client = client
        self._folders = folders
        self._min_free_bytes = min_free_bytes
        self._sample = _Sample(0.0, 0)
        self._due = 0.0
        self._lock = threading.Lock()

    def check_rows(self) -> None:
        """Refuse a rows job for want of room.

        Raises
        ------
        ServiceError
            ``overloaded``.
        """
        sample = self._look()
        if sample.memory_share >= MEMORY_SHARE:
            raise ServiceError(
                "overloaded",
                f"The job store's memory is {sample.memory_share:.0%} full; jobs are taken below {MEMORY_SHARE:.0%}.",
                retry_after=_RETRY_SECONDS,
            )
        if sample.missing_bytes:
            raise ServiceError("overloaded", "The disk is nearly full; no jobs are taken.", retry_after=_RETRY_SECONDS)

    def check_file(self) -> None:
        """Refuse a file for want of room.

        Raises
        ------
        ServiceError
            ``storage_full`` or ``overloaded``.
        """
        if self._look().missing_bytes:
            raise ServiceError("storage_full", "The disk is nearly full; no files are taken.", retry_after=60)
        self.check_rows()

    def look_again(self) -> None:
        """Measure at the next submission, however short ago the last time was."""
        self._due = 0.0

    def _look(self) -> _Sample:
        if time.monotonic() >= self._due and self._lock.acquire(blocking=False):
            try:
                self._due = time.monotonic() + _SAMPLE_SECONDS
                self._sample = self._measure()
            finally:
                self._lock.release()
        return self._sample

    def _measure(self) -> _Sample:
        info: dict[str, Any] = self._client.info("memory", "persistence")
        most = info.get("maxmemory", 0)
        needed = max(self._min_free_bytes, 2 * info.get("aof_current_size", 0))
        free = min((_read_free_bytes(folder) for folder in self._folders), default=needed)
        return _Sample(info["used_memory"] / most if most else 0.0, max(0, needed - free))


def _read_free_bytes(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
