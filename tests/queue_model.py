"""The queue in a few lines of Python, without Redis: what must come of each event."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from shared.claims import Claim
from shared.jobs import STREAMS, Status

QUEUES = {"rows": "rows:iris:1", "file": "files:iris:1"}
#: Chunks of one file that are waiting or claimed at a time.
OFFERED = 2
MAX_STRIKES = 3
#: A chunk is tried twice more without the model, only to mark its rows as failed.
MAX_CHUNK_STRIKES = MAX_STRIKES + 2


@dataclass(eq=False)
class Unit:
    """What is claimed and committed: a rows job (its chunk is None), or a chunk that was offered."""

    job: ModelJob
    chunk: int | None
    rows: int
    stream: str
    #: Its place among all that was ever offered.
    place: int
    owner: str | None = None
    attempt: int = 0
    strikes: int = 0


@dataclass
class ModelJob:
    """A job as it should be; a rows job is one of a single chunk."""

    id: str
    kind: str
    priority: str
    chunks: tuple[int, ...]
    status: Status = Status.QUEUED
    units: dict[int | None, Unit] = field(default_factory=dict, repr=False)
    offered: int = 0
    succeeded: int = 0
    failed: int = 0
    attempts: int = 0
    results: dict[int | None, bytes] = field(default_factory=dict)
    canceling: bool = False
    past_deadline: bool = False

    @property
    def queue(self) -> str:
        """The queue it waits in."""
        return QUEUES[self.kind]

    @property
    def has_deadline(self) -> bool:
        """Whether its waiting may end it: a file that was begun waits as long as it must."""
        return self.status == Status.QUEUED and not (self.kind == "file" and self.attempts)

    @property
    def is_overdue(self) -> bool:
        """Whether it still waits, past its deadline."""
        return self.has_deadline and self.past_deadline


class QueueModel:
    """What the queues should hold."""

    def __init__(self) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.alive: set[str] = set()
        self.paused: set[str] = set()
        self.dead_letters: set[str] = set()
        self.told: list[str] = []
        self._totals = {queue: Counter[str]() for queue in QUEUES.values()}
        self._places = itertools.count()

    def list_units(self, queue: str) -> list[Unit]:
        """List what waits and what is claimed, the oldest entry first."""
        units = [unit for job in self.jobs.values() if job.queue == queue for unit in job.units.values()]
        return sorted(units, key=lambda unit: unit.place)

    def list_waiting(self, queue: str) -> list[Unit]:
        """List what waits, the oldest entry first."""
        return [unit for unit in self.list_units(queue) if unit.owner is None]

    def list_lost(self, queue: str) -> list[Unit]:
        """List what is claimed by processes without a lease."""
        return [unit for unit in self.list_units(queue) if unit.owner is not None and unit.owner not in self.alive]

    def find_held(self, owner: str, claim: Claim) -> Unit | None:
        """Find what a claim still has the right to commit."""
        job = self.jobs.get(claim.id)
        unit = job.units.get(claim.chunk) if job else None
        return unit if unit and (unit.owner, unit.attempt) == (owner, claim.attempt) else None

    def count(self, queue: str) -> Counter[str]:
        """Count what ever happened in a queue, and what it holds."""
        counts = self._totals[queue].copy()
        for name in ("claimed", *STREAMS):
            units = [unit for unit in self.list_units(queue) if name == ("claimed" if unit.owner else unit.stream)]
            names = ("claimed_units", "claimed_rows") if name == "claimed" else (f"units:{name}", f"rows:{name}")
            counts[names[0]], counts[names[1]] = len(units), sum(unit.rows for unit in units)
        return counts

    def submit(self, job: ModelJob) -> None:
        """Write a job down."""
        self.jobs[job.id] = job
        self._totals[job.queue]["submitted"] += 1
        self._offer(job)
        if not job.chunks:
            self._end(job, Status.SUCCEEDED)
            self.told.pop()  # it ends before anybody can wait for it

    def claim(self, queue: str, owner: str, taken: list[Unit], max_rows: int) -> None:
        """Take the oldest units of each stream until there are `max_rows`; or one alone from the trial stream.

        On trial is a strike, until it is committed. Overdue jobs must have expired before.
        """
        left = [unit for unit in self.list_waiting(queue) if unit not in taken]
        is_trial = any(unit.stream == "trial" for unit in taken)
        is_full = sum(unit.rows for unit in taken) >= max_rows
        assert all(unit.place < other.place for unit in taken for other in left if unit.stream == other.stream)
        assert len(taken) == 1 if is_trial else sum(unit.rows for unit in taken[:-1]) < max_rows
        assert is_trial or is_full or all(unit.stream == "trial" for unit in left)
        assert taken or not left
        for unit in taken:
            assert unit.owner is None
            assert not unit.job.is_overdue
            unit.owner = owner
            unit.attempt += 1
            unit.strikes += is_trial
            unit.job.status = Status.RUNNING
            unit.job.attempts = max(unit.job.attempts, unit.attempt)

    def commit(self, unit: Unit, failed: int, result: bytes) -> None:
        """Store the result of a unit, of whose rows so many failed."""
        job = unit.job
        del job.units[unit.chunk]
        job.results[unit.chunk] = result
        job.succeeded += unit.rows - failed
        job.failed += failed
        self._totals[job.queue].update(rows_succeeded=unit.rows - failed, rows_failed=failed)
        if job.canceling:
            self._end_canceled(job)
        elif len(job.results) < len(job.chunks):
            self._offer(job)
        elif job.failed == 0:
            self._end(job, Status.SUCCEEDED)
        else:
            self._end(job, Status.PARTIALLY_SUCCEEDED if job.succeeded else Status.FAILED)

    def hand_back(self, unit: Unit) -> None:
        """Put a rows job that was claimed to the end of the stream it came from; it has no strike for that."""
        unit.strikes -= unit.stream == "trial"
        unit.owner, unit.place = None, next(self._places)
        unit.job.status = Status.QUEUED

    def lose(self, unit: Unit) -> tuple[int, int]:
        """Take a unit from a lost process, for trial or for good; return units moved and dead letters made."""
        job = unit.job
        if job.canceling:
            del job.units[unit.chunk]
            self._end_canceled(job)
            return 0, 0
        if unit.strikes >= (MAX_STRIKES if unit.chunk is None else MAX_CHUNK_STRIKES):
            job.failed = sum(job.chunks) - job.succeeded
            self._end(job, Status.FAILED)
            if unit.chunk is not None:
                return 0, 0
            self.dead_letters.add(job.id)
            self._totals[job.queue]["dead_letters"] += 1
            return 0, 1
        unit.owner, unit.stream, unit.place = None, "trial", next(self._places)
        self._totals[job.queue]["redelivered"] += 1
        if all(other.owner is None for other in job.units.values()):
            job.status = Status.QUEUED
        return 1, 0

    def cancel(self, job: ModelJob) -> str:
        """Take a job back: a rows job at once, a file job when its running chunks have stopped."""
        if job.status.is_terminal:
            return job.status
        job.canceling = True
        job.units = {chunk: unit for chunk, unit in job.units.items() if chunk is not None and unit.owner}
        self._end_canceled(job)
        return Status.CANCELED if job.status.is_terminal else "canceling"

    def expire(self, jobs: Iterable[ModelJob]) -> None:
        """End jobs at their deadline, if they still wait."""
        for job in jobs:
            if job.is_overdue:
                self._end(job, Status.EXPIRED)

    def forget(self, job: ModelJob) -> None:
        """Remove a job, whatever its state."""
        if not job.status.is_terminal:
            self._end(job, Status.CANCELED)
        del self.jobs[job.id]
        self.dead_letters.discard(job.id)

    def _offer(self, job: ModelJob) -> None:
        while len(job.units) < OFFERED and job.offered < len(job.chunks):
            chunk = None if job.kind == "rows" else job.offered
            job.units[chunk] = Unit(job, chunk, job.chunks[job.offered], job.priority, next(self._places))
            job.offered += 1

    def _end_canceled(self, job: ModelJob) -> None:
        if not job.units:
            self._end(job, Status.CANCELED)

    def _end(self, job: ModelJob, status: Status) -> None:
        assert not job.status.is_terminal, "a terminal status never changes"
        job.status = status
        job.units = {}
        if status == Status.CANCELED:
            job.results = {}  # nobody can fetch them
        self._totals[job.queue][f"finished:{status}"] += 1
        self.told.append(job.id)
