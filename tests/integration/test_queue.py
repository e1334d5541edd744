"""Rows jobs in the queue: claimed with a lease, committed once, taken back from the dead; on both servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from shared.claims import Claim, RowsOutcome
from shared.jobs import Document, Status
from shared.store import JobStore
from shared.submissions import QueueFull, Submission

QUEUE = "rows:iris:1"
TENANT = "tests"
DOCUMENT = Document(model="iris", version=1, model_sha256="0" * 64)
Submit = Callable[..., str]


@pytest.fixture
def submit(store: JobStore) -> Submit:
    """Return a function that submits a job and gives its id."""

    def submit_job(**changes: Any) -> str:
        job_id = changes.pop("id", None) or store.make_id(TENANT)
        limit = changes.pop("max_queue_rows", 1000)
        fields: dict[str, Any] = {
            "kind": "rows", "tenant": TENANT, "queue": QUEUE, "priority": "normal", "rows": 1,
            "deadline_seconds": 60, "retention_seconds": 60, "document": DOCUMENT, "payload": b"rows",
        }  # fmt: skip
        store.submit(Submission(id=job_id, **fields | changes), max_queue_rows=limit)
        return job_id

    return submit_job


def claim(store: JobStore, owner: str = "first", max_rows: int = 100) -> list[Claim]:
    """Claim as `owner`, with a lease of a minute."""
    return store.claim(QUEUE, owner, lease_seconds=60, max_rows=max_rows, max_bytes=10**6).units


def commit(store: JobStore, unit: Claim, owner: str = "first", result: bytes = b"{}") -> bool:
    """Commit one claimed job as succeeded."""
    return store.commit_rows(owner, [RowsOutcome(unit.id, unit.attempt, Status.SUCCEEDED, unit.rows, 0, result)])[0]


def lose(store: JobStore, owner: str = "first") -> None:
    """End the lease of `owner` as its death would, and sweep."""
    store.client.delete(f"sq:alive:{owner}")
    for stream, silent in list(store.list_silent_owners(QUEUE)):
        store.reclaim(QUEUE, stream, silent)


def read_status(store: JobStore, job_id: str) -> Status:
    """Return the status of a job that must exist."""
    job = store.read_job(job_id)
    assert job is not None
    return job.status


def assert_empty(store: JobStore) -> None:
    """Check that nothing waits, nothing is claimed and the counters say so."""
    state = store.read_queue(QUEUE)
    assert (state.waiting_units, state.waiting_rows, state.outstanding_rows) == (0, 0, 0)
    assert state.count("claimed_units") == 0


def test_job_is_queued_then_running_then_succeeded(store: JobStore, submit: Submit) -> None:
    """A job goes through its states, and its result is what was committed."""
    job_id = submit()
    assert read_status(store, job_id) == Status.QUEUED
    (unit,) = claim(store)
    assert read_status(store, job_id) == Status.RUNNING

    assert commit(store, unit, result=b'{"predictions":[1]}')

    assert read_status(store, job_id) == Status.SUCCEEDED
    assert store.read_result(job_id) == b'{"predictions":[1]}'
    assert_empty(store)


def test_submitting_twice_makes_one_job(store: JobStore, submit: Submit) -> None:
    """A submission that is repeated with the same id, after a cut connection, changes nothing."""
    job_id = submit()
    submit(id=job_id)

    assert [unit.id for unit in claim(store)] == [job_id]
    assert store.read_queue(QUEUE).count("submitted") == 1


def test_claim_stops_at_the_row_limit(store: JobStore, submit: Submit) -> None:
    """A claim takes jobs until their rows reach the limit, and says that more waits."""
    for _ in range(5):
        submit(rows=10)

    claimed = store.claim(QUEUE, "first", lease_seconds=60, max_rows=25, max_bytes=10**6)

    assert len(claimed.units) == 3
    assert claimed.more_waits


def test_claim_stops_at_the_byte_limit(store: JobStore, submit: Submit) -> None:
    """A claim of wide rows is bounded by their bytes."""
    for _ in range(5):
        submit(payload=b"x" * 1000)

    assert len(store.claim(QUEUE, "first", lease_seconds=60, max_rows=100, max_bytes=1500).units) == 2


def test_nothing_is_claimed_twice(store: JobStore, submit: Submit) -> None:
    """What one process holds, another does not get."""
    ids = {submit() for _ in range(10)}

    first, second = claim(store, "first", 5), claim(store, "second", 100)

    assert {unit.id for unit in first} | {unit.id for unit in second} == ids
    assert len(first) + len(second) == 10


def test_second_commit_is_refused(store: JobStore, submit: Submit) -> None:
    """A result that is stored never changes."""
    job_id = submit()
    (unit,) = claim(store)

    assert commit(store, unit, result=b"first")
    assert not commit(store, unit, result=b"second")

    assert store.read_result(job_id) == b"first"


def test_commit_of_a_lost_claim_is_refused(store: JobStore, submit: Submit) -> None:
    """A process that comes back after its lease ended cannot store what another scores now."""
    job_id = submit()
    (late,) = claim(store, "first")
    lose(store, "first")
    assert not commit(store, late, "first", b"late")
    (unit,) = claim(store, "second")
    assert not commit(store, late, "first", b"late")

    assert commit(store, unit, "second", b"right")

    assert store.read_result(job_id) == b"right"
    assert_empty(store)


def test_commit_needs_the_attempt_that_was_claimed(store: JobStore, submit: Submit) -> None:
    """Even the same owner commits only what it holds now, not what it held before."""
    submit()
    (old,) = claim(store, "first")
    lose(store, "first")
    (new,) = claim(store, "first")

    assert not commit(store, old, "first")
    assert commit(store, new, "first")


def test_claims_of_the_dead_are_tried_alone(store: JobStore, submit: Submit) -> None:
    """Jobs that were claimed beside a process that died come back one at a time."""
    ids = {submit() for _ in range(3)}
    claim(store, "first")
    lose(store, "first")

    seen = []
    for _ in range(3):
        (unit,) = claim(store, "second")
        assert commit(store, unit, "second")
        seen.append(unit.id)

    assert set(seen) == ids
    assert store.read_queue(QUEUE).count("redelivered") == 3
    assert_empty(store)


def test_live_claims_are_left_alone(store: JobStore, submit: Submit) -> None:
    """A process with a heartbeat keeps what it holds, however long it takes."""
    submit()
    (unit,) = claim(store)

    assert list(store.list_silent_owners(QUEUE)) == []
    assert store.reclaim(QUEUE, "normal", "first") == (0, 0)
    assert commit(store, unit)


def test_third_strike_makes_a_dead_letter(store: JobStore, submit: Submit, client: redis.Redis) -> None:
    """A job that ends its process three times when it is alone is given up, with the reason."""
    job_id = submit()
    for _ in range(4):  # once beside others perhaps, three times alone
        assert claim(store)
        lose(store)

    job = store.read_job(job_id)
    assert job is not None
    assert job.status == Status.FAILED
    assert job.problem is not None
    assert job.problem["code"] == "worker_lost"
    assert client.zscore(f"sq:dead:{TENANT}", job_id) is not None
    assert claim(store) == []
    assert_empty(store)


def test_deaths_beside_others_are_no_strikes(store: JobStore, submit: Submit) -> None:
    """A job that is claimed together with others does not pay for the death of its process."""
    for _ in range(2):
        submit()
    claim(store)
    lose(store)
    (unit,) = claim(store, "second")

    assert unit.strikes == 0


def test_waiting_work_is_not_held_up_by_trials(store: JobStore, submit: Submit) -> None:
    """Every second claim takes what waits, though a stream of suspects is there."""
    for _ in range(10):
        submit()
    claim(store)
    lose(store)
    fresh = submit()

    claimed = [unit.id for _ in range(2) for unit in claim(store, "second")]

    assert fresh in claimed


def test_no_priority_starves(store: JobStore, submit: Submit) -> None:
    """Of ten claims, with all priorities waiting, the low one gets its turn, also one job at a time."""
    for priority in ("high", "normal", "low"):
        for _ in range(20):
            submit(priority=priority)

    taken = [store.read_job(claim(store, max_rows=1)[0].id) for _ in range(10)]

    counts = {priority: sum(job is not None and job.priority == priority for job in taken)
              for priority in ("high", "normal", "low")}  # fmt: skip
    assert counts == {"high": 6, "normal": 3, "low": 1}


def test_full_queue_refuses_and_says_when(store: JobStore, submit: Submit) -> None:
    """Over the row limit a submission is refused, and nothing of it is kept."""
    submit(rows=90)
    store.sample_speed(QUEUE, 0, 0, 30.0)

    with pytest.raises(QueueFull) as refusal:
        submit(rows=20, max_queue_rows=100)

    assert refusal.value.retry_after == 3
    assert store.read_queue(QUEUE).waiting_rows == 90


def test_job_past_its_deadline_is_never_claimed(store: JobStore, submit: Submit, wait_until: Any) -> None:
    """A job that still waits at its deadline expires at the claim, though no sweep came."""
    job_id = submit(deadline_seconds=0.01)
    job = store.read_job(job_id)
    assert job is not None
    wait_until(lambda: store.read_clock_ms() > job.created + 20, 5, "the deadline")

    assert claim(store) == []

    assert read_status(store, job_id) == Status.EXPIRED
    assert_empty(store)


def test_sweep_expires_while_nobody_claims(store: JobStore, submit: Submit, wait_until: Any) -> None:
    """Jobs expire when all workers are busy or away."""
    job_id = submit(deadline_seconds=0.01)

    wait_until(lambda: store.expire_jobs(10), 5, "the deadline")

    assert read_status(store, job_id) == Status.EXPIRED
    assert_empty(store)


def test_expiry_at_a_claim_is_told(store: JobStore, submit: Submit, client: redis.Redis, wait_until: Any) -> None:
    """Who waits for a job learns of its end also when a claim, not the sweep, finds it past its deadline."""
    job_id = submit(deadline_seconds=0)

    with client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe("sq:ended")
        assert claim(store) == []
        message = wait_until(lambda: channel.get_message(timeout=1), 5, "the end to be told")

    assert message["data"].decode() == job_id


def test_deadline_counts_again_for_what_is_taken_back(store: JobStore, submit: Submit, client: redis.Redis) -> None:
    """A running job is past waiting; when its process is lost it waits again, and its deadline ends it."""
    job_id = submit()
    claim(store)
    client.hset(f"sq:job:{job_id}", "d", 1)
    client.zadd("sq:deadlines", {job_id: 1})
    store.expire_jobs(10)
    assert read_status(store, job_id) == Status.RUNNING

    lose(store)
    store.expire_jobs(10)

    assert read_status(store, job_id) == Status.EXPIRED
    assert_empty(store)


def test_canceled_job_refuses_the_late_commit(store: JobStore, submit: Submit) -> None:
    """Cancel is at once, also of a job that is being scored; its result is refused."""
    job_id = submit()
    (unit,) = claim(store)

    assert store.cancel(job_id, TENANT) == "canceled"
    assert not commit(store, unit)

    assert read_status(store, job_id) == Status.CANCELED
    assert store.read_result(job_id) is None
    assert_empty(store)


def test_strangers_cannot_cancel(store: JobStore, submit: Submit) -> None:
    """Another tenant's job is unknown."""
    job_id = submit()

    assert store.cancel(job_id, "somebody else") == "unknown"
    assert read_status(store, job_id) == Status.QUEUED


def test_removed_job_leaves_nothing(store: JobStore, submit: Submit, client: redis.Redis) -> None:
    """A job that is removed while it is scored leaves no key, and its commit is refused."""
    job_id = submit()
    (unit,) = claim(store)

    assert store.remove(job_id)
    assert not commit(store, unit)

    assert store.read_job(job_id) is None
    assert store.list_jobs(TENANT, after=None, most=10) == []
    assert not [key for key in client.scan_iter() if job_id.encode() in key]
    assert_empty(store)


def test_job_whose_record_went_first_leaves_nothing(store: JobStore, submit: Submit, client: redis.Redis) -> None:
    """After a stop so long that the record's own TTL came before any sweep, the sweep still clears the lists."""
    job_id = submit()
    (unit,) = claim(store)
    assert commit(store, unit)
    client.delete(f"sq:job:{job_id}")

    assert not store.remove(job_id)

    assert store.list_jobs(TENANT, after=None, most=10) == []


def test_paused_queue_gives_nothing(store: JobStore, submit: Submit) -> None:
    """A paused queue takes jobs and hands out none until it is resumed."""
    job_id = submit()
    store.pause(QUEUE, paused=True)
    assert claim(store) == []

    store.pause(QUEUE, paused=False)

    assert [unit.id for unit in claim(store)] == [job_id]


def test_one_wakeup_is_outstanding_at_a_time(store: JobStore, submit: Submit) -> None:
    """Only the first submission publishes, until a worker has cleared the mark."""

    def publishes() -> bool:
        submission = Submission(
            id=store.make_id(TENANT), kind="rows", tenant=TENANT, queue=QUEUE, priority="normal", rows=1,
            deadline_seconds=60, retention_seconds=60, document=DOCUMENT, payload=b"rows",
        )  # fmt: skip
        return store.submit(submission, max_queue_rows=100).wakeup

    assert [publishes(), publishes()] == [True, False]
    store.claim(QUEUE, "first", lease_seconds=60, max_rows=100, max_bytes=1000, clear_wakeup=True)
    assert publishes()


def test_copied_entry_scores_nothing_twice(store: JobStore, submit: Submit, client: redis.Redis) -> None:
    """A stream entry that is there twice, for whatever reason, is dropped at its claim."""
    job_id = submit()
    client.xadd(f"sq:stream:{QUEUE}:normal", {"j": job_id, "c": "", "q": 1})

    units = claim(store)

    assert [unit.id for unit in units] == [job_id]
    assert commit(store, units[0])
    assert_empty(store)


def test_lists_are_newest_first_and_paged(store: JobStore, submit: Submit) -> None:
    """Pages of ids follow one another without a gap."""
    ids = [submit() for _ in range(5)]

    first = store.list_jobs(TENANT, after=None, most=3)
    second = store.list_jobs(TENANT, after=first[-1], most=3)

    assert first + second == sorted(ids, reverse=True)
