"""File jobs in the queue: chunks are offered a few at a time, committed once each, and end the job together."""

from __future__ import annotations

import pytest

from shared.claims import Claim, LedgerEntry
from shared.jobs import Document, Status
from shared.store import JobStore
from shared.submissions import Submission

QUEUE = "files:iris:1"
TENANT = "tests"
OFFERED = 2


def submit(store: JobStore, *chunk_rows: int) -> str:
    """Submit a file job with chunks of so many rows."""
    job_id = store.make_id(TENANT)
    submission = Submission(
        id=job_id, kind="file", tenant=TENANT, queue=QUEUE, priority="normal", rows=sum(chunk_rows),
        deadline_seconds=60, retention_seconds=60, chunk_rows=chunk_rows,
        document=Document(model="iris", version=1, model_sha256="0" * 64),
    )  # fmt: skip
    store.submit(submission, max_queue_rows=1000, chunks_offered=OFFERED)
    return job_id


def claim(store: JobStore, owner: str = "first") -> Claim | None:
    """Claim one chunk."""
    units = store.claim(QUEUE, owner, lease_seconds=60, max_rows=1, max_bytes=1, max_chunks=1).units
    return units[0] if units else None


def commit(store: JobStore, unit: Claim, owner: str = "first", failed: int = 0) -> bool:
    """Commit a chunk."""
    entry = LedgerEntry(f"{unit.chunk}-{unit.attempt}", 10, unit.rows - failed, failed, "")
    return store.commit_chunk(owner, unit, entry, chunks_offered=OFFERED)[0]


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


def test_chunks_are_offered_a_few_at_a_time(store: JobStore) -> None:
    """Each commit offers the next chunk; the last one ends the job."""
    job_id = submit(store, 5, 5, 5, 3)
    assert store.read_queue(QUEUE).waiting_units == OFFERED

    order = []
    while (unit := claim(store)) is not None:
        assert read_status(store, job_id) == Status.RUNNING
        assert commit(store, unit)
        order.append(unit.chunk)

    job = store.read_job(job_id)
    assert job is not None
    assert order == [0, 1, 2, 3]
    assert (job.status, job.succeeded, job.failed) == (Status.SUCCEEDED, 18, 0)
    assert sorted(store.read_ledger(job_id)) == order
    assert store.read_queue(QUEUE).outstanding_rows == 0


def test_files_take_turns(store: JobStore) -> None:
    """A small file that comes after a large one does not wait for all of it."""
    large = submit(store, *[10] * 50)
    small = submit(store, 1)

    turns = 0
    while read_status(store, small) != Status.SUCCEEDED:
        unit = claim(store)
        assert unit is not None
        assert commit(store, unit)
        turns += 1

    assert turns <= OFFERED + 1
    assert store.cancel(large, TENANT) == "canceled"


def test_chunk_of_a_lost_process_runs_again(store: JobStore) -> None:
    """The chunk is claimed by another; the first one's commit is refused."""
    job_id = submit(store, 5)
    late = claim(store, "first")
    assert late is not None
    lose(store, "first")
    again = claim(store, "second")
    assert again is not None
    assert again.attempt == late.attempt + 1

    assert not commit(store, late, "first")
    assert commit(store, again, "second")

    job = store.read_job(job_id)
    assert job is not None
    assert (job.succeeded, job.attempts) == (5, 2)
    assert store.read_ledger(job_id)[0].part == "0-2"


@pytest.mark.parametrize(
    ("failed", "status"), [(0, "succeeded"), (2, "partially_succeeded"), (5, "failed")], ids=["none", "some", "all"]
)
def test_status_tells_whether_rows_failed(store: JobStore, failed: int, status: str) -> None:
    """A file job has succeeded only if no row failed."""
    job_id = submit(store, 5)
    unit = claim(store)
    assert unit is not None

    commit(store, unit, failed=failed)

    assert read_status(store, job_id) == status


def test_file_without_rows_has_succeeded_at_once(store: JobStore) -> None:
    """A header alone is a legal file."""
    assert read_status(store, submit(store)) == Status.SUCCEEDED


def test_cancel_waits_for_running_chunks(store: JobStore) -> None:
    """A file job is canceled when its running chunks have stopped; the others never start."""
    job_id = submit(store, 5, 5, 5)
    unit = claim(store)
    assert unit is not None

    assert store.cancel(job_id, TENANT) == "canceling"
    assert claim(store, "second") is None
    commit(store, unit)

    assert read_status(store, job_id) == Status.CANCELED
    assert store.read_queue(QUEUE).outstanding_rows == 0


def test_cancel_does_not_wait_for_the_dead(store: JobStore) -> None:
    """The chunk of a lost process does not keep a canceled job alive."""
    job_id = submit(store, 5)
    claim(store)
    store.cancel(job_id, TENANT)

    lose(store)

    assert read_status(store, job_id) == Status.CANCELED


def test_job_whose_chunk_cannot_be_written_fails(store: JobStore) -> None:
    """After three strikes a chunk's rows are marked without the model; if that fails too, the job does."""
    job_id = submit(store, 5)
    strikes = []
    while (unit := claim(store)) is not None:
        strikes.append(unit.strikes)
        lose(store)

    job = store.read_job(job_id)
    assert job is not None
    assert strikes == [0, 0, 1, 2, 3, 4]
    assert job.status == Status.FAILED
    assert job.problem is not None
    assert job.problem["code"] == "worker_lost"


def test_rows_of_a_job_that_was_given_up_add_up(store: JobStore) -> None:
    """When a chunk is given up, all rows that are not scored count as failed."""
    job_id = submit(store, 5, 5, 5)
    unit = claim(store)
    assert unit is not None
    assert commit(store, unit)
    while claim(store) is not None:
        lose(store)

    job = store.read_job(job_id)
    assert job is not None
    assert (job.status, job.succeeded, job.failed) == (Status.FAILED, 5, 10)


def test_job_that_can_never_be_scored_is_ended(store: JobStore) -> None:
    """A file whose input is gone fails at once, with its reason, and its chunks with it."""
    job_id = submit(store, 5, 5)
    unit = claim(store)
    assert unit is not None

    assert store.fail(job_id, "internal_error", "The input is gone.")
    assert not store.fail(job_id, "internal_error", "again")
    assert not commit(store, unit)

    job = store.read_job(job_id)
    assert job is not None
    assert job.problem == {"code": "internal_error", "detail": "The input is gone."}
    assert (job.status, job.failed) == (Status.FAILED, 10)
    assert store.read_queue(QUEUE).outstanding_rows == 0


def test_removed_file_job_refuses_its_commit(store: JobStore) -> None:
    """A chunk that is scored while its job is deleted commits to nothing."""
    job_id = submit(store, 5, 5, 5)
    unit = claim(store)
    assert unit is not None

    store.remove(job_id)

    assert not commit(store, unit)
    assert store.read_queue(QUEUE).outstanding_rows == 0
