"""Waiting for jobs to end: one subscription a process, told once a micro-batch; Redis is not polled."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import redis

from shared.connection import connect
from shared.logs import get_logger

_CHANNEL = "sq:finished"
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
        self._events: dict[str, list[threading.Event]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def start(self) -> None:
        """Listen in a thread, until `stop` or the end of the process."""
        threading.Thread(target=self._run, name="waiters", daemon=True).start()

    def stop(self) -> None:
        """End the thread within a second or so."""
        self._stop.set()

    @contextlib.contextmanager
    def expect(self, job_id: str) -> Iterator[threading.Event | None]:
        """Register interest in a job's end before looking at it, so that its end cannot slip between.

        Yields
        ------
        threading.Event or None
            Set when the job has ended; None when too many wait already.
        """
        if not self._places.acquire(blocking=False):
            yield None
            return
        event = threading.Event()
        with self._lock:
            self._events.setdefault(job_id, []).append(event)
        try:
            yield event
        finally:
            with self._lock:
                self._events[job_id].remove(event)
                if not self._events[job_id]:
                    del self._events[job_id]
            self._places.release()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                logger.warning("not told of finished jobs for now; who waits looks for itself", error=str(error))
                self._stop.wait(0.5)

    def _listen(self) -> None:
        with connect(self._redis_url) as client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe(_CHANNEL)
            while not self._stop.is_set():
                message = subscription.get_message(timeout=1.0)
                if message is not None:
                    self._wake(message["data"].decode().split(" "))

    def _wake(self, job_ids: list[str]) -> None:
        with self._lock:
            for job_id in job_ids:
                for event in self._events.get(job_id, ()):
                    event.set()
