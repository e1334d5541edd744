"""The job store: the only module that talks to Redis about jobs, chunks and queues.

Keys (all begin with ``sq:``; those marked P are permanent, the others have a TTL or belong to a live job):

======================  ======  ==================================================================
``job:{id}``            hash    the record (fields: see ``units.lua`` and `_read_job`)
``chunk:{id}:{n}``      hash    a chunk that is offered or claimed
``offered:{id}``        set     the chunks of a file that are offered or claimed
``ledger:{id}``         hash    the chunks of a file that are done: number to `LedgerEntry`
``stream:{queue}:{s}``  stream  P  what waits, by priority; ``trial`` for what is claimed alone
``queue:{queue}``       hash    P  counters, speed and pause of a queue
``queues``              set     P  names of all queues
``tenants``             set     P  names of all tenants
``wake:{queue}``        string  mark of an outstanding wake-up
``serves``              zset    what live workers serve (``rows:churn``, ``rows:*``) by the end of their lease
``prepare``             zset    versions that workers are asked to load and check, by the end of the asking
``once:{tenant}:{key}``  string  idempotency key: id and fingerprint of the first submission
``flight:{tenant}``     hash    P  jobs, rows and bytes in flight, if that is limited
``alive:{owner}``       string  lease of a process
``excused:{owner}``     string  mark of a process that lost its claims through no fault of a model
``workers``             zset    owners by last heartbeat
``jobs:{tenant}``       zset    ids in order of creation
``deadlines``           zset    ids by deadline, while they wait
``retention``           zset    ids by the time of their removal
``dead:{tenant}``       zset    dead letters
``litter``              set     P  canceled file jobs whose results the sweep removes
``id_key``              string  P  secret that marks ids as ours
``sweep``               string  lock of the sweep
======================  ======  ==================================================================

Others: ``limit:…`` (`shared.limits`), ``keys…`` (`shared.keys`), ``audit`` (`shared.audit`), and those of webhooks
(`shared.webhooks`).
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import redis

from shared import ids
from shared.claims import Claim, Claimed, LedgerEntry, RowsOutcome
from shared.errors import ServiceError
from shared.jobs import STREAMS, Document, Job, Status
from shared.limits import Limit, LimitState, encode_wanted, read_reply
from shared.line import Line
from shared.scripts import Scripts
from shared.submissions import QueueFull, QuotaExceeded, Quotas, Submission, Submitted

#: `look.lua` looks at the first three.
_JOB_FIELDS = (
    "s", "q", "xs", "kind", "t", "pr", "doc", "n", "ok", "bad", "c", "st", "f", "g", "a", "e", "sq",
)  # fmt: skip

#: Longest time after its creation at which a job can still be told from one that never was.
_REMEMBERED_MS = 400 * 24 * 3600 * 1000


#: Long enough for the sweep to take back what an excused owner held.
_EXCUSED_MS = 600_000


class Look(msgspec.Struct, frozen=True):
    """What is shown of a job."""

    job: Job | None
    #: In its queue, 1 being next; None if it does not wait.
    position: int | None
    #: Of a rows job, if it was asked for and is there.
    result: bytes | None
    #: What is left of the limits that the look was taken from.
    limits: list[LimitState]


class QueueState(msgspec.Struct, frozen=True):
    """What a queue holds."""

    queue: str
    counters: dict[str, str]
    ages_ms: dict[str, int]

    def count(self, name: str) -> int:
        """Return a counter, 0 if it was never counted."""
        return int(float(self.counters.get(name, "0")))

    @property
    def waiting_rows(self) -> int:
        """Rows that no worker has claimed."""
        return sum(self.count(f"rows:{name}") for name in STREAMS)

    @property
    def waiting_units(self) -> int:
        """Jobs or chunks that no worker has claimed."""
        return sum(self.count(f"units:{name}") for name in STREAMS)

    @property
    def outstanding_rows(self) -> int:
        """Rows that wait or are being scored: the signal to scale by."""
        return self.waiting_rows + self.count("claimed_rows")

    @property
    def paused(self) -> bool:
        """Whether nothing is claimed for now."""
        return "paused" in self.counters


class JobStore:
    """Jobs, chunks and queues in Redis.

    Parameters
    ----------
    client : redis.Redis
        From `shared.connection.connect`: bounded, without silent retries. All methods raise `redis.RedisError` when
        Redis does not answer in time.
    line : Line, optional
        See `shared.scripts.Scripts`.
    """

    def __init__(self, client: redis.Redis, line: Line | None = None) -> None:
        self.client = client
        self._scripts = Scripts(client, line)
        self._id_key: bytes | None = None
        self._id_key_lock = threading.Lock()

    # Submission

    def make_id(self, tenant: str) -> str:
        """Make the id of a new job."""
        return ids.make_job_id(self._read_id_key(), tenant)

    def was_issued(self, job_id: str, tenant: str, now_ms: int) -> bool:
        """Tell whether an unknown id was once a job of `tenant` (so that it is gone, not unknown)."""
        if not ids.is_issued(job_id, self._read_id_key(), tenant):
            return False
        return now_ms - ids.created_at_ms(job_id) < _REMEMBERED_MS

    def submit(
        self,
        submission: Submission,
        *,
        max_queue_rows: int,
        chunks_offered: int = 0,
        quotas: Quotas | None = None,
        request_limits: Sequence[Limit] = (),
        row_limits: Sequence[Limit] = (),
        note_limits: Callable[[list[LimitState]], None] = lambda _: None,
    ) -> Submitted:
        """Write a job down and offer its work; repeating it with the same id changes nothing.

        Parameters
        ----------
        quotas : Quotas, optional
            What the tenant may have in flight.
        request_limits : sequence of Limit
            From which the request is taken, whatever becomes of the job; once for an id.
        row_limits : sequence of Limit
            From which the job's rows are taken. A file is taken as long as one row is left, and the others are owed:
            how many it has is known when it is here.
        note_limits : callable
            Is told what is left of those that were taken from.

        Raises
        ------
        QueueFull
            More rows wait than `max_queue_rows`.
        QuotaExceeded, LimitExceeded
            The tenant, or its key, has had its share.
        ServiceError
            ``idempotency_conflict``: the key was used with another payload.
        """
        requests, rows = [(one, 1) for one in request_limits], [(one, submission.rows) for one in row_limits]
        taken, *reply = self._scripts.run(
            "submit",
            submission.id,
            submission.kind,
            submission.queue,
            submission.tenant,
            submission.priority,
            submission.rows,
            int(submission.deadline_seconds * 1000),
            int(submission.retention_seconds * 1000),
            msgspec.json.encode(submission.document),
            submission.payload,
            max_queue_rows,
            msgspec.json.encode(submission.chunk_rows),
            chunks_offered,
            submission.idempotency_key,
            submission.fingerprint,
            "" if submission.document.max_failed_rows is None else submission.document.max_failed_rows,
            _encode_done_chunks(submission),
            submission.bytes,
            msgspec.json.encode(quotas) if quotas else "",
            encode_wanted(rows),
            "" if submission.document.webhook is None else submission.document.webhook.encode(),
            encode_wanted(requests),
        )
        if taken:
            note_limits(read_reply(requests, taken))
        state, *reply = reply
        if state == b"full":
            raise QueueFull(reply[0], max_queue_rows, float(reply[1]))
        if state == b"quota":
            raise QuotaExceeded(reply[0].decode(), reply[1], reply[2])
        if state == b"limited":
            read_reply(rows, reply[0])
        if state == b"conflict":
            raise ServiceError(
                "idempotency_conflict", "This Idempotency-Key was used with another payload; use a new key for it."
            )
        if state == b"repeated":
            return Submitted(reply[0].decode(), None, 0)
        if rows:
            note_limits(read_reply(rows, reply[2]))
        return Submitted(submission.id, reply[1], reply[0])

    # Reading

    def look(self, job_id: str, *, limits: Sequence[Limit] = (), with_result: bool = False) -> Look:
        """Return all that is shown of a job, in one round trip; the look itself is taken from limits.

        Raises
        ------
        LimitExceeded
            There were too many.
        """
        wanted = [(limit, 1) for limit in limits]
        kind = "result" if with_result else ""
        taken, *shown = self._scripts.run("look", job_id, kind, encode_wanted(wanted), *_JOB_FIELDS)
        states = read_reply(wanted, taken) if limits else []
        record, before, result = shown
        job = _read_job(job_id, record)
        position = None if job is None or before is None else _find_position(job, int(before))
        return Look(job, position, result, states)

    def read_job(self, job_id: str, tenant: str | None = None) -> Job | None:
        """Return a job; None if there is none, or if it is not `tenant`'s."""
        jobs = self.read_jobs([job_id])
        job = jobs[0]
        return None if job is None or (tenant is not None and job.tenant != tenant) else job

    def read_jobs(self, job_ids: Sequence[str]) -> list[Job | None]:
        """Return jobs in the order of their ids, None for those that are gone."""
        with self.client.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(f"sq:job:{job_id}", _JOB_FIELDS)
            records = pipe.execute()
        return [_read_job(job_id, record) for job_id, record in zip(job_ids, records, strict=True)]

    def read_result(self, job_id: str) -> bytes | None:
        """Return the stored result of a rows job: the bytes to be served."""
        result: bytes | None = self.client.hget(f"sq:job:{job_id}", "r")  # type: ignore[assignment]
        return result

    def read_ledger(self, job_id: str) -> dict[int, LedgerEntry]:
        """Return the finished chunks of a file job by their number."""
        ledger: dict[bytes, bytes] = self.client.hgetall(f"sq:ledger:{job_id}")  # type: ignore[assignment]
        return {int(chunk): msgspec.json.decode(entry, type=LedgerEntry) for chunk, entry in ledger.items()}

    def read_position(self, job: Job) -> int | None:
        """Return a waiting job's place in its queue, 1 being next; None if it does not wait."""
        if job.sequence is None or job.stream is None or job.status != Status.QUEUED:
            return None
        taken: Any = self.client.hget(f"sq:queue:{job.queue}", f"taken:{job.stream}")
        return _find_position(job, int(taken or 0))

    def list_jobs(self, tenant: str, *, after: str | None, most: int) -> list[str]:
        """Return ids of a tenant's jobs, newest first.

        Parameters
        ----------
        after : str or None
            The last id of the page before.
        """
        top = f"({after}" if after else "+"
        found: list[bytes] = self.client.zrevrangebylex(f"sq:jobs:{tenant}", top, "-", start=0, num=most)  # type: ignore[assignment]
        return [job_id.decode() for job_id in found]

    def list_dead_letters(self, tenant: str, most: int) -> list[str]:
        """Return ids of a tenant's dead letters, the newest first."""
        found: list[bytes] = self.client.zrevrange(f"sq:dead:{tenant}", 0, most - 1)  # type: ignore[assignment]
        return [job_id.decode() for job_id in found]

    def read_payload(self, job_id: str) -> bytes | None:
        """Return the payload of a rows job, while it has one: until it ends, or for ever as a dead letter."""
        payload: bytes | None = self.client.hget(f"sq:job:{job_id}", "p")  # type: ignore[assignment]
        return payload

    # Claims

    def claim(
        self,
        queue: str,
        owner: str,
        *,
        lease_seconds: float,
        max_rows: int,
        max_bytes: int,
        max_chunks: int = 0,
        clear_wakeup: bool = False,
    ) -> Claimed:
        """Take waiting work, with a lease that lives as long as the heartbeat of `owner`.

        Parameters
        ----------
        clear_wakeup : bool
            Whether to clear the mark of the wake-up before: what is submitted from now on publishes again.
        """
        lease = int(lease_seconds * 1000)
        now, more, wake, units = self._scripts.run(
            "claim", queue, owner, lease, max_rows, max_bytes, max_chunks, int(clear_wakeup)
        )
        return Claimed(now, bool(more), wake, [_read_claim(unit) for unit in units])

    def commit_rows(self, owner: str, outcomes: Iterable[RowsOutcome]) -> list[bool]:
        """Store the ends of a micro-batch's jobs; False for each that `owner` no longer holds."""
        arguments: list[str | bytes | int] = []
        for end in outcomes:
            arguments += (end.id, end.attempt, end.status, end.succeeded, end.failed, end.result, end.problem)
        return [bool(stored) for stored in self._scripts.run("commit_rows", owner, *arguments)]

    def hand_back(self, queue: str, owner: str, claims: Iterable[Claim]) -> None:
        """Put rows jobs that `owner` cannot begin back into their queue; others may."""
        arguments: list[str | int] = []
        for claim in claims:
            arguments += (claim.id, claim.attempt)
        self._scripts.run("hand_back", queue, owner, *arguments)

    def commit_chunk(
        self,
        owner: str,
        claim: Claim,
        entry: LedgerEntry,
        *,
        chunks_offered: int,
        problem: bytes = b"",
        speed: float = 0.0,
    ) -> tuple[bool, int]:
        """Enter a scored chunk in the ledger and offer the file's next one.

        Parameters
        ----------
        problem : bytes
            What ends the job if too many of its rows have failed by now: the first fault of this chunk, as JSON.
        speed : float
            Rows per second of this chunk, for the size of later files' chunks; 0 if that tells nothing.

        Returns
        -------
        tuple of bool and int
            Whether it was stored (False: `owner` no longer holds it), and where to publish a wake-up.
        """
        stored, wake = self._scripts.run(
            "commit_chunk",
            claim.id,
            claim.chunk if claim.chunk is not None else "",
            owner,
            claim.attempt,
            entry.succeeded,
            entry.failed,
            msgspec.json.encode(entry),
            chunks_offered,
            problem,
            f"{speed:.1f}" if speed else "",
        )
        return bool(stored), int(wake)

    def beat(self, owner: str, *, lease_seconds: float, says: dict[str, Any], serves: Iterable[str] = ()) -> list[str]:
        """Renew the lease of a process.

        Parameters
        ----------
        says : dict
            Of itself; see `list_workers`.
        serves : iterable of str
            ``rows:churn``, or ``rows:*`` for all models.

        Returns
        -------
        list of str
            The preparations that are asked for, as ``name:version nonce``.
        """
        asked = self._scripts.run("beat", owner, int(lease_seconds * 1000), json.dumps(says), *serves)
        return [member.decode() for member in asked]

    def ask_to_prepare(self, asked: Iterable[str], seconds: float) -> None:
        """Ask all worker processes to load and check versions, ``name:version nonce``, for so long."""
        self._scripts.run("prepare", int(seconds * 1000), *asked)

    def leave(self, owner: str, *, excused: bool = False) -> None:
        """Give up a lease at once, at an orderly end.

        Parameters
        ----------
        excused : bool
            Whether no strike may stay on what `owner` still holds: Redis failed, not its process.
        """
        with self.client.pipeline(transaction=True) as pipe:
            if excused:
                pipe.set(f"sq:excused:{owner}", 1, px=_EXCUSED_MS)
            pipe.delete(f"sq:alive:{owner}")
            pipe.zrem("sq:workers", owner)
            pipe.execute()

    # Ends

    def cancel(self, job_id: str, tenant: str) -> str:
        """Cancel a job; return ``unknown``, ``canceled``, ``canceling`` or its terminal status."""
        reply: bytes = self._scripts.run("cancel", job_id, tenant)
        return reply.decode()

    def remove(self, *job_ids: str) -> int:
        """Forget the records of jobs, whatever their state; return how many there were."""
        return int(self._scripts.run("remove", *job_ids))

    def fail(self, job_id: str, code: str, detail: str) -> bool:
        """End a job that can never be scored; False if it has ended, or is gone."""
        return bool(self._scripts.run("fail", job_id, json.dumps({"code": code, "detail": detail})))

    # Queues

    def list_queues(self) -> list[str]:
        """Return the names of all queues."""
        names: set[bytes] = self.client.smembers("sq:queues")  # type: ignore[assignment]
        return sorted(name.decode() for name in names)

    def read_queue(self, queue: str) -> QueueState:
        """Return what a queue holds."""
        counters, ages = self._scripts.run("inspect_queue", queue)
        return QueueState(
            queue,
            {counters[i].decode(): counters[i + 1].decode() for i in range(0, len(counters), 2)},
            {name.decode(): age for name, age in ages},
        )

    def read_chunk_speed(self, queue: str) -> float | None:
        """Return the rows per second that one process lately scored of a chunk; None if that is not known."""
        speed: bytes | None = self.client.hget(f"sq:queue:{queue}", "chunk_speed")  # type: ignore[assignment]
        return None if speed is None else float(speed)

    def pause(self, queue: str, *, paused: bool) -> None:
        """Stop or resume claiming from a queue."""
        if paused:
            self.client.hset(f"sq:queue:{queue}", "paused", "1")
        else:
            self.client.hdel(f"sq:queue:{queue}", "paused")

    def sample_speed(self, queue: str, now_ms: int, rows_done: int, rows_per_second: float | None) -> None:
        """Note how far a queue is and, if it was measured, how fast."""
        fields: dict[str, str | int] = {"sampled_at": now_ms, "sampled_rows": rows_done}
        if rows_per_second is not None:
            fields["speed"] = f"{rows_per_second:.3f}"
        self.client.hset(f"sq:queue:{queue}", mapping=fields)  # type: ignore[arg-type]

    def list_workers(self) -> dict[str, dict[str, Any]]:
        """Return what each live worker process says of itself, by owner."""
        owners: list[bytes] = self.client.zrange("sq:workers", 0, -1)  # type: ignore[assignment]
        if not owners:
            return {}
        says: list[bytes | None] = self.client.mget([b"sq:alive:" + owner for owner in owners])  # type: ignore[assignment]
        return {owner.decode(): json.loads(said) for owner, said in zip(owners, says, strict=True) if said is not None}

    def read_heartbeat_ages(self) -> dict[str, float]:
        """Return the seconds since each worker process was last heard of."""
        now = self.read_clock_ms()
        beats: list[tuple[bytes, float]] = self.client.zrange("sq:workers", 0, -1, withscores=True)  # type: ignore[assignment]
        return {owner.decode(): max(0.0, (now - beat) / 1000) for owner, beat in beats}

    # Repair (see shared/sweep.py)

    def hold_sweep_lock(self, name: str) -> bool:
        """Take the lock of the sweep, if nobody has it; a holder that dies has it for 3 s."""
        return bool(self.client.set("sq:sweep", name, nx=True, px=3000))

    def pass_sweep_lock(self) -> None:
        """Let the next sweep, of any process, begin in a little under a second."""
        self.client.pexpire("sq:sweep", 900)

    def expire_jobs(self, most: int) -> int:
        """End jobs that still wait at their deadline; return how many were looked at."""
        return int(self._scripts.run("expire", most))

    def list_silent_owners(self, queue: str) -> Iterator[tuple[str, str]]:
        """Yield stream and owner of each consumer of `queue` whose lease is over."""
        for name in STREAMS:
            stream = f"sq:stream:{queue}:{name}"
            consumers: list[dict[str, Any]] = self.client.xinfo_consumers(stream, "workers")
            owners = [consumer["name"].decode() for consumer in consumers]
            if not owners:
                continue
            leases: list[bytes | None] = self.client.mget([f"sq:alive:{owner}" for owner in owners])  # type: ignore[assignment]
            yield from ((name, owner) for owner, lease in zip(owners, leases, strict=True) if lease is None)

    def reclaim(self, queue: str, stream: str, owner: str) -> tuple[int, int]:
        """Offer the claims of a silent process for trial; return units moved and dead letters made."""
        moved, dead, removed = self._scripts.run("reclaim", queue, stream, owner)
        while not removed and moved + dead > 0:
            more, more_dead, removed = self._scripts.run("reclaim", queue, stream, owner)
            moved, dead = moved + more, dead + more_dead
            if more + more_dead == 0:
                break
        return moved, dead

    def mark_wakeup(self, queue: str) -> int:
        """Mark a wake-up if the queue has a backlog and none is outstanding; return where to publish it."""
        return int(self._scripts.run("wake", queue))

    def list_overdue(self, now_ms: int, most: int) -> list[str]:
        """Return ids of jobs that are past their retention."""
        due: list[bytes] = self.client.zrangebyscore("sq:retention", "-inf", now_ms, start=0, num=most)  # type: ignore[assignment]
        return [job_id.decode() for job_id in due]

    def list_litter(self, most: int) -> list[str]:
        """Return ids of canceled file jobs whose results are still to be removed."""
        found: list[bytes] = self.client.srandmember("sq:litter", most)  # type: ignore[assignment]
        return [job_id.decode() for job_id in found]

    def forget_litter(self, *job_ids: str) -> None:
        """Note that the results of these jobs are gone."""
        self.client.srem("sq:litter", *job_ids)

    def forget_workers(self, before_ms: int) -> None:
        """Drop workers that were last heard of before `before_ms`."""
        self.client.zremrangebyscore("sq:workers", "-inf", before_ms)

    def read_clock_ms(self) -> int:
        """Return the Unix time in milliseconds by Redis's clock."""
        seconds, microseconds = self.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _read_id_key(self) -> bytes:
        with self._id_key_lock:
            if self._id_key is None:
                self.client.set("sq:id_key", secrets.token_bytes(32), nx=True)
                self._id_key = self.client.get("sq:id_key")  # type: ignore[assignment]
            assert self._id_key is not None
            return self._id_key


def _find_position(job: Job, taken: int) -> int | None:
    return None if job.sequence is None else max(1, job.sequence - taken)


_DOCUMENT = msgspec.json.Decoder(Document)


def _read_job(job_id: str, record: list[bytes | None]) -> Job | None:
    status, queue, stream, kind, tenant, priority, document, rows, good, bad, *times, attempts, problem, place = record
    if not (kind and status and queue and tenant and priority and document):
        return None  # the fields that every record has are written at once
    created, started, finished, retention = times
    return Job(
        id=job_id,
        kind=kind.decode(),
        status=Status(status.decode()),
        tenant=tenant.decode(),
        priority=priority.decode(),
        document=_DOCUMENT.decode(document),
        rows=int(rows or 0),
        succeeded=int(good or 0),
        failed=int(bad or 0),
        created=int(created or 0),
        started=None if started is None else int(started),
        finished=None if finished is None else int(finished),
        retention=int(retention or 0),
        attempts=int(attempts or 0),
        problem=None if problem is None else msgspec.json.decode(problem),
        sequence=None if place is None else int(place),
        stream=stream.decode() if stream else None,
        queue=queue.decode(),
    )


def _encode_done_chunks(submission: Submission) -> bytes:
    done = submission.done_chunks.items()
    return msgspec.json.encode([(chunk, msgspec.json.encode(entry).decode(), entry.succeeded) for chunk, entry in done])


def _read_claim(unit: list[Any]) -> Claim:
    job_id, chunk, attempt, strikes, created, rows, payload, stream = unit
    return Claim(
        job_id.decode(), int(chunk) if chunk else None, int(attempt), strikes, created, rows, payload, stream.decode()
    )
