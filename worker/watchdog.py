"""The watchdog: a worker that gets nowhere while work waits takes itself down, so that it is started afresh.

A worker can be up and deaf: its connection to the broker half-open, its pool stuck (anchors: "stops consuming after
reconnect"). Nothing restarts a process that only looks alive, so it has to end.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import redis

from shared.logs import get_logger
from shared.store import JobStore
from worker.duty import Duty

_LOOK_SECONDS = 5.0
#: After the order to stop, a pool that is stuck has so long to end.
_END_SECONDS = 10.0

logger = get_logger(__name__)


class Watchdog:
    """Compares what waits with what this worker's processes did.

    Parameters
    ----------
    store : JobStore
        With a connection of its own.
    duty : Duty
        What the worker takes.
    patience_seconds : float
        Longer than any task may take.
    take_down : callable, optional
        How the worker is ended.
    """

    def __init__(
        self,
        store: JobStore,
        duty: Duty,
        patience_seconds: float,
        take_down: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._duty = duty
        self._patience_seconds = patience_seconds
        self._take_down = take_down or _end_process
        self._stop = threading.Event()
        self._tasks: int | None = None
        self._since = time.monotonic()

    def start(self) -> None:
        """Watch in a thread, until `stop`."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def look(self) -> None:
        """Look once; take the worker down if nothing moved for too long."""
        tasks = self._count_tasks()
        # Without a live process there is nobody to blame: they may still be loading their models.
        if tasks is None or tasks != self._tasks or not self._has_work():
            self._tasks, self._since = tasks, time.monotonic()
        elif time.monotonic() - self._since > self._patience_seconds:
            logger.error(
                "work waits and this worker does none; it ends, to be started afresh",
                seconds=round(time.monotonic() - self._since),
            )
            self._take_down()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                self.look()
            except redis.RedisError:
                self._since = time.monotonic()  # nobody can work without Redis: that is not this worker's fault
            except Exception:  # the watchdog must outlive any fault of one look
                logger.exception("the watchdog could not look; it tries again")

    def _has_work(self) -> bool:
        states = (self._store.read_queue(name) for name in self._store.list_queues() if self._duty.takes_queue(name))
        return any(state.waiting_units and not state.paused for state in states)

    def _count_tasks(self) -> int | None:
        """Return the tasks that this worker's live processes did; None if none lives."""
        here = (socket.gethostname(), os.getpid())
        says = self._store.list_workers().values()
        own = [said.get("tasks", 0) for said in says if (said.get("host"), said.get("parent")) == here]
        return sum(own) if own else None


def _end_process() -> None:
    os.kill(os.getpid(), signal.SIGQUIT)
    time.sleep(_END_SECONDS)  # this thread waits for the rest of the process, and then does not
    os._exit(1)
