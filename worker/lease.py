"""The lease of a worker process: one heartbeat for all that it holds."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
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
    serves : sequence of str
        As `JobStore.beat` has it.
    hear : callable, optional
        Called with the preparations that are asked for, at each beat.
    """

    def __init__(
        self,
        store: JobStore,
        lease_seconds: float,
        describe: Callable[[], dict[str, Any]],
        serves: Sequence[str] = (),
        hear: Callable[[list[str]], None] | None = None,
    ) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._describe = describe
        self._serves = serves
        self._hear = hear
        self._stop = threading.Event()
        #: Names under which this process has abandoned claims, and Redis has not been told yet.
        self._left: list[tuple[str, bool]] = []
        self._lock = threading.Lock()
        self._beats = True
        self.owner = _make_owner()

    def start(self) -> None:
        """Beat once now and then from a thread."""
        self.beat()
        threading.Thread(target=self._run, name="lease", daemon=True).start()

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Abandon what is claimed in this block if it fails: nothing may stay claimed by a process that lives on.

        That includes a claim whose answer was lost: Redis gave the work, and nobody here knows which.
        """
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            # Redis or the file store failed, and the model had no part in it. What Redis refuses, it refuses again.
            self._abandon(excused=True)
            raise
        except BaseException:
            self._abandon(excused=False)
            raise

    def _abandon(self, *, excused: bool) -> None:
        """Go on under another name; the sweep gives what the old one held to others.

        Parameters
        ----------
        excused : bool
            Redis or the file store failed, not the model: what was tried alone has no strike for it.
        """
        logger.warning("abandoned the claims of this process; the sweep offers them for trial", owner=self.owner)
        with self._lock:
            self._left.append((self.owner, excused))
            self.owner = _make_owner()
        self.beat()

    def stop(self) -> None:
        """End the lease at once."""
        self._stop.set()
        try:
            self._store.leave(self.owner)
        except redis.RedisError:
            logger.info("Redis does not answer; the lease ends by itself", owner=self.owner)

    def _run(self) -> None:
        while not self._stop.wait(self._lease_seconds / 5):
            try:
                self.beat()
            except Exception:  # without this thread the process would score on and commit nothing
                logger.exception("the heartbeat failed; it is tried again")

    def beat(self) -> None:
        """Renew the lease now, and say what is new."""
        asked: list[str] = []
        with self._lock:
            try:
                while self._left:
                    owner, excused = self._left[0]
                    self._store.leave(owner, excused=excused)
                    del self._left[0]
                asked = self._store.beat(
                    self.owner, lease_seconds=self._lease_seconds, says=self._describe(), serves=self._serves
                )
            except redis.RedisError as error:
                if self._beats:  # once an outage
                    logger.warning(
                        "heartbeats not stored; claims are lost if this lasts", owner=self.owner, error=str(error)
                    )
                self._beats = False
            else:
                self._beats = True
        if self._hear is not None and self._beats:
            self._hear(asked)


def _make_owner() -> str:
    """Name one start of one process: a recycled pid must not inherit claims."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
