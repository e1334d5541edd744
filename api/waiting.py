"""Waiting for jobs to end: one subscription a process, told once a micro-batch; Redis is not polled."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shared.connection import connect
from shared.errors import ServiceError
from shared.jobs import Job
from shared.logs import get_logger

if TYPE_CHECKING:
    from api.service import Service

#: What the scripts tell: jobs that ended, and jobs that were begun or came further.
_ENDED, _MOVED = "sq:ended", "sq:moved"
#: A message may be lost while the subscription is cut; so a waiting request looks for itself this often.
LOOK_SECONDS = 2.0

logger = get_logger(__name__)


class Waiters:
    """The requests of this process that wait for a job.

    Parameters
    ----------
    redis_url : str
    most : int
        Requests that may wait at a time; the others are answered at once, so that threads are left.
    """

    def __init__(self, redis_url: str, most: int) -> None:
        self._redis_url = redis_url
        self._places = threading.BoundedSemaphore(most)
        self._events: dict[tuple[str, str], list[threading.Event]] = {}
        self._lock = threading.Lock()
        self._listening = True
        self._stop = threading.Event()

    def start(self) -> None:
        """Listen in a thread, until `stop` or the end of the process."""
        threading.Thread(target=self._run, name="waiters", daemon=True).start()

    def stop(self) -> None:
        """End the thread within a second or so."""
        self._stop.set()

    @contextlib.contextmanager
    def expect(self, job_id: str, *, moves: bool = False) -> Iterator[threading.Event | None]:
        """Register interest in a job's end before looking at it, so that its end cannot slip between.

        Parameters
        ----------
        moves : bool
            Whether to be told of its progress too.

        Yields
        ------
        threading.Event or None
            Set when there is something to look at; None when too many wait already.
        """
        if not self._places.acquire(blocking=False):
            yield None
            return
        event = threading.Event()
        keys = [(_ENDED, job_id), (_MOVED, job_id)] if moves else [(_ENDED, job_id)]
        with self._lock:
            for key in keys:
                self._events.setdefault(key, []).append(event)
        try:
            yield event
        finally:
            with self._lock:
                for key in keys:
                    self._events[key].remove(event)
                    if not self._events[key]:
                        del self._events[key]
            self._places.release()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - without this thread every waiting request would poll
                if self._listening:  # once an outage
                    logger.warning("not told of finished jobs for now; who waits looks for itself", error=str(error))
                self._listening = False
                self._stop.wait(0.5)

    def _listen(self) -> None:
        with connect(self._redis_url) as client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe(_ENDED, _MOVED)
            self._listening = True
            while not self._stop.is_set():
                message = subscription.get_message(timeout=1.0)
                if message is not None:
                    self._wake(message["channel"].decode(), message["data"].decode().split(" "))

    def _wake(self, channel: str, job_ids: list[str]) -> None:
        with self._lock:
            for job_id in job_ids:
                for event in self._events.get((channel, job_id), ()):
                    event.set()


def await_job(service: Service, job: Job, seconds: float) -> Job | None:
    """Return the job when it has ended, or as it is after `seconds`; None at once if too many wait already."""
    until = time.monotonic() + seconds
    with service.waiters.expect(job.id) as ended:
        while ended is not None:
            latest = service.store.read_job(job.id)
            if latest is None:
                raise job_gone(job.id)
            remaining = until - time.monotonic()
            if latest.status.is_terminal or remaining <= 0:
                return latest
            ended.wait(min(remaining, LOOK_SECONDS))
    return None


def job_gone(job_id: str) -> ServiceError:
    """Return the error of a job that was there."""
    return ServiceError("job_gone", f"Job {job_id} was deleted, or is past its retention.")
