"""The lease of a worker process: one heartbeat for all that it holds."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any

import redis

from shared.logs import get_logger
from shared.store import JobStore

logger = get_logger(__name__)


class Lease:
    """Renews the right to commit, in a thread, for as long as the process lives.

    Parameters
    ----------
    store : JobStore
        With a connection of its own.
    lease_seconds : float
        How long silence is forgiven; it is renewed five times in that time.
    describe : callable
        What the process says of itself, for ``/ready`` and the console.
    """

    def __init__(self, store: JobStore, lease_seconds: float, describe: Callable[[], dict[str, Any]]) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._describe = describe
        self._stop = threading.Event()
        self.owner = _make_owner()

    def start(self) -> None:
        """Beat once now and then from a thread."""
        self._beat()
        threading.Thread(target=self._run, name="lease", daemon=True).start()

    def abandon(self) -> None:
        """Go on under another name: the sweep gives what the old one held to others."""
        logger.warning("abandoned the claims of this process; the sweep offers them for trial", owner=self.owner)
        self.owner = _make_owner()
        self._beat()

    def stop(self) -> None:
        """End the lease at once."""
        self._stop.set()
        try:
            self._store.leave(self.owner)
        except redis.RedisError:
            logger.info("Redis does not answer; the lease ends by itself", owner=self.owner)

    def _run(self) -> None:
        while not self._stop.wait(self._lease_seconds / 5):
            self._beat()

    def _beat(self) -> None:
        try:
            self._store.beat(self.owner, lease_seconds=self._lease_seconds, says=self._describe())
        except redis.RedisError as error:
            logger.warning("heartbeat not stored; claims are lost if this lasts", owner=self.owner, error=str(error))


def _make_owner() -> str:
    """Name one start of one process: a recycled pid must not inherit claims."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
