"""Rows jobs and file jobs through any sequence of events: the queue does what `QueueModel` says it should.

A hypothesis state machine submits, claims, commits, dies, cancels and lets time pass, in any order, on a real server;
after each step all that Redis holds is compared with the model. The steps are the same each time where ``CI`` is set
(hypothesis takes its profile "ci" there), and new ones elsewhere.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import Any

from hypothesis import settings, stateful
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from shared.claims import Claim, LedgerEntry, RowsOutcome
from shared.jobs import PRIORITIES, STREAMS, Document, Status
from shared.store import JobStore
from shared.submissions import Submission
from tests.leaks import find_leaks
from tests.queue_model import OFFERED, QUEUES, ModelJob, QueueModel

TENANT = "tests"
DOCUMENT = Document(model="iris", version=1, model_sha256="0" * 64)
OWNERS = ("first", "second")
RUN = settings(max_examples=100, stateful_step_count=25, deadline=None)
Request = tuple[str, str, tuple[int, ...]]
Held = tuple[str, Claim]


class QueueMachine(RuleBasedStateMachine):
    """Does the same to a store and to the model, and compares them."""

    jobs: Bundle[str] = Bundle("jobs")
    claims: Bundle[Held] = Bundle("claims")
    kinds = st.sampled_from(tuple(QUEUES))
    owners = st.sampled_from(OWNERS)
    #: A file may have more chunks than are offered at a time, or none.
    requests = st.tuples(st.just("rows"), st.sampled_from(PRIORITIES), st.tuples(st.integers(1, 4))) | st.tuples(
        st.just("file"), st.sampled_from(PRIORITIES), st.lists(st.integers(1, 4), max_size=5).map(tuple)
    )

    def __init__(self, store: JobStore) -> None:
        super().__init__()
        self.handled = sys.exc_info()[1]
        self.store, self.client = store, store.client
        self.client.flushall()
        self.model = QueueModel()
        self.numbers = itertools.count()
        self.claimed: list[Held] = []
        self.channel = self.client.pubsub()  # type: ignore[no-untyped-call]
        self.channel.subscribe("sq:ended")

    # Callers

    @initialize(target=jobs, requests=st.lists(requests, min_size=2, max_size=6))
    def begin(self, requests: list[Request]) -> Any:
        """Some jobs are there from the start."""
        return multiple(*(self.submit(request) for request in requests))

    @rule(target=jobs, request=requests)
    def submit(self, request: Request) -> str:
        """A job comes."""
        return self._send(ModelJob(f"job_{next(self.numbers):04}", *request))

    @rule(job_id=jobs)
    def repeat_submission(self, job_id: str) -> None:
        """The answer to a submission was cut off, and it comes again."""
        if job_id in self.model.jobs:
            self._send(self.model.jobs[job_id])

    @rule(job_id=jobs)
    def remove(self, job_id: str) -> None:
        """A caller removes a job, whatever its state."""
        job = self.model.jobs.get(job_id)
        assert self.store.remove(job_id) == (job is not None)
        if job:
            self.model.forget(job)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        """A caller takes a job back, whatever its state."""
        job = self.model.jobs.get(job_id)
        assert self.store.cancel(job_id, "somebody else") == "unknown"
        assert self.store.cancel(job_id, TENANT) == (self.model.cancel(job) if job else "unknown")

    @rule(held=claims)
    def cancel_claimed(self, held: Held) -> None:
        """A caller takes back a job that was claimed, and perhaps still is."""
        self.cancel(held[1].id)

    @rule(kind=kinds, paused=st.booleans())
    def pause(self, kind: str, paused: bool) -> None:
        """A queue is paused or resumed."""
        self.store.pause(QUEUES[kind], paused=paused)
        (self.model.paused.add if paused else self.model.paused.discard)(QUEUES[kind])

    # Workers

    @rule(target=claims, kind=kinds, owner=owners, max_rows=st.integers(1, 8))
    def claim(self, kind: str, owner: str, max_rows: int) -> Any:
        """A process takes work; if it was silent, it has a lease again, also for what it held before."""
        return multiple(*self._claim(kind, owner, max_rows))

    @rule(target=claims, kind=kinds, owner=owners, times=st.integers(1, 8))
    def claim_and_die(self, kind: str, owner: str, times: int) -> Any:
        """A process takes work and dies of it, again and again; its claims are known, for a late commit."""
        claimed: list[Held] = []
        for _ in range(times):
            claimed += self._claim(kind, owner, 8)
            self.fall_silent(owner)
            self.sweep()
        return multiple(*claimed)

    @rule(target=claims, kind=kinds, owner=owners, other=owners)
    def oversleep(self, kind: str, owner: str, other: str) -> Any:
        """A process is stopped for longer than its lease; another takes its work; then it goes on, and commits."""
        mine = self._claim(kind, owner, 8)
        self.fall_silent(owner)
        self.sweep()
        theirs = self._claim(kind, other, 8)
        self.wake_up(owner)
        return multiple(*mine, *theirs)

    @rule(first=claims, others=st.lists(claims, max_size=3), failed=st.integers(0, 4))
    def commit(self, first: Held, others: list[Held], failed: int) -> None:
        """A process commits some of all that it ever claimed: in time, late or twice."""
        self._commit([first, *(held for held in others if held[0] == first[0])], failed)

    @rule(held=claims)
    def hand_back(self, held: Held) -> None:
        """A process puts back a rows job that it cannot read, in time or late."""
        owner, claim = held
        if claim.chunk is not None:
            return
        self.store.hand_back(QUEUES["rows"], owner, [claim])
        if unit := self.model.find_held(owner, claim):
            self.model.hand_back(unit)

    @rule(owner=owners)
    def wake_up(self, owner: str) -> None:
        """A process that was stopped goes on: it commits all that it ever claimed, the oldest first."""
        self._commit([held for held in self.claimed if held[0] == owner], 0)

    @rule(owner=owners)
    def beat(self, owner: str) -> None:
        """A process says that it lives, perhaps after a long silence."""
        self.store.beat(owner, lease_seconds=600, says={})
        self.model.alive.add(owner)

    @rule(owner=owners)
    def fall_silent(self, owner: str) -> None:
        """The lease of a process ends; nobody knows whether it is dead."""
        self.client.delete(f"sq:alive:{owner}")
        self.model.alive.discard(owner)

    # Time and repair

    @rule()
    def sweep(self) -> None:
        """The sweep ends what waits at its deadline, and takes back what silent processes hold."""
        self.store.expire_jobs(100)
        self.model.expire(self.model.jobs.values())
        for queue in self.store.list_queues():
            silent = set(self.store.list_silent_owners(queue))
            assert silent >= {(unit.stream, unit.owner) for unit in self.model.list_lost(queue)}
            for stream, owner in sorted(silent):
                self._reclaim(queue, stream, owner)

    @rule(held=claims)
    def reclaim_late(self, held: Held) -> None:
        """A slow sweep comes to a process that it saw silent a while ago; it may be back."""
        for stream in STREAMS:
            self._reclaim(QUEUES["rows" if held[1].chunk is None else "file"], stream, held[0])

    @rule(job_id=jobs, seen=st.booleans())
    def pass_deadline(self, job_id: str, seen: bool) -> None:
        """The deadline of a job passes; the sweep sees it before anything else happens, or not."""
        job = self.model.jobs.get(job_id)
        if job and not job.status.is_terminal:
            self.client.hset(f"sq:job:{job_id}", "d", 1)
            self.client.zadd("sq:deadlines", {job_id: 1}, xx=True)
            job.past_deadline = True
        if seen:
            self.store.expire_jobs(100)
            self.model.expire(self.model.jobs.values())

    @rule(job_id=jobs, record_is_gone=st.booleans())
    def pass_retention(self, job_id: str, record_is_gone: bool) -> None:
        """The sweep removes a finished job; if none came for hours, the keys' own TTL was faster."""
        job = self.model.jobs.get(job_id)
        if job and job.status.is_terminal:
            self.client.zadd("sq:retention", {job_id: 1})
            if record_is_gone:
                self.client.delete(f"sq:job:{job_id}", f"sq:ledger:{job_id}")
            assert self.store.list_overdue(self.store.read_clock_ms(), 100) == [job_id]
            self.store.remove(job_id)
            self.model.forget(job)

    def teardown(self) -> None:
        """One live process finishes whatever is left, and leaves."""
        with contextlib.closing(self.channel):
            if sys.exc_info()[1] is self.handled:  # or a step has failed, and that is what is to be seen
                self._drain()

    # What holds after each step

    @invariant()
    def all_is_as_expected(self) -> None:
        """Redis holds what the model holds, and nothing else."""
        self._check_records()
        self._check_queues()
        self._check_indexes()

    def _check_records(self) -> None:
        expected = list(self.model.jobs.values())
        for job, record in zip(expected, self.store.read_jobs([job.id for job in expected]), strict=True):
            assert record is not None, job
            assert (record.status, record.attempts) == (job.status, job.attempts), job
            assert (record.succeeded, record.failed) == (job.succeeded, job.failed), job
            counts = record.describe(0, None)["row_counts"]
            assert counts["succeeded"] + counts["failed"] + counts["pending"] == counts["total"], job
            if job.kind == "rows":
                assert self.store.read_result(job.id) == job.results.get(None), job
            else:
                parts = {chunk: entry.part.encode() for chunk, entry in self.store.read_ledger(job.id).items()}
                assert parts == job.results, job

    def _check_queues(self) -> None:
        for queue in self.store.list_queues():
            units = self.model.list_units(queue)
            for stream, entries in zip(STREAMS, self._read_streams(queue), strict=True):
                assert entries == [(unit.job.id, unit.chunk, unit.owner) for unit in units if unit.stream == stream]
            state, counts = self.store.read_queue(queue), self.model.count(queue)
            assert {name: state.count(name) for name in counts} == counts

    def _check_indexes(self) -> None:
        jobs = self.model.jobs.values()
        with self.client.pipeline(transaction=False) as pipe:
            for index in (f"jobs:{TENANT}", f"dead:{TENANT}", "retention", "deadlines"):
                pipe.zrange(f"sq:{index}", 0, -1)
            listed, dead, retained, due = ({member.decode() for member in reply} for reply in pipe.execute())
        assert listed == {job.id for job in jobs}
        assert dead == self.model.dead_letters
        assert retained == {job.id for job in jobs if job.status.is_terminal}
        assert {job.id for job in jobs if job.has_deadline} <= due
        assert due <= {job.id for job in jobs if not job.status.is_terminal}
        assert sorted(self._read_told()) == sorted(self.model.told)
        self.model.told.clear()

    def _send(self, job: ModelJob) -> str:
        submission = Submission(
            id=job.id, kind=job.kind, tenant=TENANT, queue=job.queue, priority=job.priority, rows=sum(job.chunks),
            chunk_rows=job.chunks, payload=job.id.encode(), document=DOCUMENT,
            deadline_seconds=600, retention_seconds=600,
        )  # fmt: skip
        self.store.submit(submission, max_queue_rows=10**6, chunks_offered=OFFERED)
        if job.id not in self.model.jobs:
            self.model.submit(job)
        return job.id

    def _claim(self, kind: str, owner: str, max_rows: int) -> list[Held]:
        queue, is_file = QUEUES[kind], kind == "file"
        claimed = self.store.claim(
            queue, owner, lease_seconds=600, max_rows=max_rows, max_bytes=10**6, max_chunks=int(is_file)
        )
        if queue in self.model.paused or queue not in self.store.list_queues():
            assert not claimed.units
            return []
        self.model.alive.add(owner)
        waiting = {(unit.job.id, unit.chunk): unit for unit in self.model.list_waiting(queue)}
        taken = [waiting[claim.id, claim.chunk] for claim in claimed.units]
        for unit, claim in zip(taken, claimed.units, strict=True):
            assert (claim.attempt, claim.strikes, claim.rows) == (unit.attempt + 1, unit.strikes, unit.rows)
            assert claim.payload == (b"" if is_file else claim.id.encode())
        self._expire_at_claim(queue)
        self.model.claim(queue, owner, taken, 1 if is_file else max_rows)
        assert claimed.more_waits == bool(self.model.list_waiting(queue))
        held = [(owner, claim) for claim in claimed.units]
        self.claimed += held
        return held

    def _expire_at_claim(self, queue: str) -> None:
        """A claim ends what it finds overdue; how far it looks is its own affair, unless it takes less than it may."""
        overdue = [job for job in self.model.jobs.values() if job.queue == queue and job.is_overdue]
        records = self.store.read_jobs([job.id for job in overdue])
        self.model.expire([job for job, record in zip(overdue, records, strict=True) if record and record.finished])

    def _commit(self, batch: list[Held], failed: int) -> None:
        outcomes, expected = [], []
        for owner, claim in batch:
            bad, result = min(failed, claim.rows), f"{owner}-{claim.attempt}-{next(self.numbers)}"
            unit = self.model.find_held(owner, claim)
            if unit:
                self.model.commit(unit, bad, result.encode())
            if claim.chunk is not None:
                entry = LedgerEntry(result, 1, claim.rows - bad, bad, "")
                assert self.store.commit_chunk(owner, claim, entry, chunks_offered=OFFERED)[0] == (unit is not None)
                continue
            status = Status.SUCCEEDED if not bad else Status.FAILED if bad == claim.rows else Status.PARTIALLY_SUCCEEDED
            outcomes.append(RowsOutcome(claim.id, claim.attempt, status, claim.rows - bad, bad, result.encode()))
            expected.append(unit is not None)
        if outcomes:
            assert self.store.commit_rows(batch[0][0], outcomes) == expected

    def _reclaim(self, queue: str, stream: str, owner: str) -> None:
        lost = [unit for unit in self.model.list_lost(queue) if (unit.stream, unit.owner) == (stream, owner)]
        # Looked up again, since the end of a file job takes all its chunks with it.
        ends = [self.model.lose(unit) for unit in lost if unit.job.units.get(unit.chunk) is unit]
        assert self.store.reclaim(queue, stream, owner) == (sum(end[0] for end in ends), sum(end[1] for end in ends))

    def _drain(self) -> None:
        assert find_leaks(self.client) == []
        for owner in OWNERS:
            self.fall_silent(owner)
        self.sweep()
        for kind, queue in QUEUES.items():
            self.pause(kind, paused=False)
            while batch := self._claim(kind, "last", 100):
                self._commit(batch, 0)
            assert self.model.list_units(queue) == []
        self.store.leave("last")
        self.model.alive.clear()
        self.sweep()
        assert all(job.status.is_terminal for job in self.model.jobs.values())
        self.all_is_as_expected()
        assert find_leaks(self.client) == []
        for queue, stream in itertools.product(self.store.list_queues(), STREAMS):
            assert self.client.xinfo_consumers(f"sq:stream:{queue}:{stream}", "workers") == []

    def _read_streams(self, queue: str) -> Iterator[list[tuple[str, int | None, str | None]]]:
        """Yield for each stream id, chunk and owner of its entries, the oldest first."""
        with self.client.pipeline(transaction=False) as pipe:
            for stream in STREAMS:
                pipe.xrange(f"sq:stream:{queue}:{stream}")
                pipe.xpending_range(f"sq:stream:{queue}:{stream}", "workers", "-", "+", 1000)
            replies = pipe.execute()
        for entries, pending in zip(replies[::2], replies[1::2], strict=True):
            owners = {item["message_id"]: item["consumer"].decode() for item in pending}
            yield [(named[b"j"].decode(), _read_chunk(named), owners.pop(entry, None)) for entry, named in entries]
            assert not owners, "pending, but deleted"

    def _read_told(self) -> list[str]:
        """Return the ids of the jobs whose end was published since the last call."""
        self.channel.ping()
        told: list[str] = []
        while (message := self.channel.get_message(timeout=5))["type"] != "pong":
            told += message["data"].decode().split(" ") if message["type"] == "message" else []
        return told


def _read_chunk(named: dict[bytes, bytes]) -> int | None:
    return int(named[b"c"]) if named[b"c"] else None


def test_any_sequence_of_events_keeps_every_promise(store: JobStore) -> None:
    """One state for each job, one owner for each unit, the first result for good, counts that add up, and no leak."""
    stateful.run_state_machine_as_test(lambda: QueueMachine(store), settings=RUN)  # type: ignore[arg-type]
