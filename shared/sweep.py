"""The sweep: the periodic repair that wakes, reclaims, expires and cleans.

A thread in every API process and every worker parent, not a Celery task: it has to run just when every worker is
busy. One process at a time holds the lock, for a second, so that there is one sweep a second in all.
"""

from __future__ import annotations

import threading
import time

import redis

from shared import audit
from shared.filestore import FileStore
from shared.ids import created_at_ms, looks_like_id
from shared.logs import get_logger
from shared.store import JobStore, QueueState
from shared.wakeups import WakeupPublisher
from shared.webhooks import DeliveryStore

INTERVAL_SECONDS = 1.0
#: A sweep is bounded by these counts, so that it never holds Redis or the lock for long.
_MOST_EXPIRED = 500
_MOST_REMOVED = 1000
_MOST_CLEANED = 20
_FORGET_WORKERS_MS = 60_000
_ORPHANS_EVERY_MS = 300_000
_ORPHAN_AGE_MS = 3_600_000

logger = get_logger(__name__)


class Sweep:
    """Repairs what lost processes and lost messages left behind.

    Parameters
    ----------
    store : JobStore
    files : FileStore
    publisher : WakeupPublisher
    name : str
        Of this process, for the lock.
    """

    def __init__(self, store: JobStore, files: FileStore, publisher: WakeupPublisher, name: str) -> None:
        self._store = store
        self._files = files
        self._publisher = publisher
        self._name = name
        self._stop = threading.Event()
        self._reachable = True
        self._orphans_due = 0
        self._deliveries = DeliveryStore(store.client)

    def start(self) -> None:
        """Sweep once a second in a thread of its own, until `stop`."""
        threading.Thread(target=self._run, name="sweep", daemon=True).start()

    def stop(self) -> None:
        """End the thread after the sweep that is under way."""
        self._stop.set()

    def run_once(self) -> None:
        """Do one whole sweep, whoever holds the lock."""
        now = self._store.read_clock_ms()
        while self._store.expire_jobs(_MOST_EXPIRED) == _MOST_EXPIRED:
            pass
        for queue in self._store.list_queues():
            for stream, owner in list(self._store.list_silent_owners(queue)):
                moved, dead = self._store.reclaim(queue, stream, owner)
                if moved or dead:
                    logger.warning(
                        "took back the claims of a lost process",
                        queue=queue, owner=owner, moved=moved, dead_letters=dead,
                    )  # fmt: skip
            self._measure_speed(self._store.read_queue(queue), now)
            if where := self._store.mark_wakeup(queue):
                self._publisher.publish(queue, where)
        self._remove_overdue(now)
        self._remove_litter()
        self._store.forget_workers(now - _FORGET_WORKERS_MS)
        self._clean_up(now)
        audit.log_waiting(self._store.client)

    def _remove_overdue(self, now: int) -> None:
        """Remove jobs past their retention, for half of the sweep's second at most."""
        until = time.monotonic() + INTERVAL_SECONDS / 2
        while job_ids := self._store.list_overdue(now, _MOST_REMOVED):
            for job_id in job_ids:
                self._files.remove(job_id)  # first the files: a record without them is swept again
            self._store.remove(*job_ids)
            if time.monotonic() > until:
                return

    def _remove_litter(self) -> None:
        """Remove what was scored of canceled files; their inputs stay until their retention ends, for a retry."""
        job_ids = self._store.list_litter(_MOST_CLEANED)
        for job_id in job_ids:
            self._files.remove_results(job_id)
        if job_ids:
            self._store.forget_litter(*job_ids)

    def _clean_up(self, now: int) -> None:
        """Remove what nobody refers to any more: names of webhook deliveries, and files without a job.

        Those are of processes that died between keeping a file and writing its job down.
        """
        if now < self._orphans_due:
            return
        self._orphans_due = now + _ORPHANS_EVERY_MS
        self._deliveries.trim()
        job_ids = [
            name
            for name in self._files.list_jobs()
            if looks_like_id(name) and now - created_at_ms(name) > _ORPHAN_AGE_MS
        ]
        for job_id, job in zip(job_ids, self._store.read_jobs(job_ids), strict=True):
            # An upload of hours is no orphan: its job is written down when it is whole.
            if job is None and self._files.read_age_seconds(job_id) > _ORPHAN_AGE_MS / 1000:
                logger.warning("removed files without a job", job=job_id)
                self._files.remove(job_id)

    def _measure_speed(self, state: QueueState, now: int) -> None:
        """Note the rows per second of a queue that is busy, for an honest ``Retry-After``."""
        done = state.count("rows_succeeded") + state.count("rows_failed")
        elapsed = (now - state.count("sampled_at")) / 1000
        rows = done - state.count("sampled_rows")
        self._store.sample_speed(
            state.queue,
            now,
            done,
            rows / elapsed if state.waiting_rows and rows > 0 and 0 < elapsed < 10 else None,
        )

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            try:
                if self._store.hold_sweep_lock(self._name):
                    self.run_once()
                    self._store.pass_sweep_lock()
                self._say_reachable(None)
            except redis.RedisError as error:
                self._say_reachable(error)
            except Exception:  # the thread must outlive any fault of one sweep, or nothing is repaired any more
                logger.exception("the sweep failed; it is tried again in a second")

    def _say_reachable(self, error: redis.RedisError | None) -> None:
        if (error is None) != self._reachable:
            self._reachable = error is None
            if error is None:
                logger.info("Redis answers again; sweeping")
            else:
                logger.warning("Redis does not answer; the sweep waits for it", error=str(error))
