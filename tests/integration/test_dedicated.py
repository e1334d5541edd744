"""Workers of some models alone: where wake-ups go, decided by who is alive."""

from __future__ import annotations

import pytest
import redis

from shared.jobs import Document
from shared.settings import Settings
from shared.store import JobStore
from shared.submissions import Submission
from shared.wakeups import ALL_MODELS, ONE_MODEL, WakeupPublisher
from tests.conftest import WaitUntil
from worker.duty import Duty


def submit(store: JobStore, queue: str) -> int:
    """Submit a row; give where the wake-up is to be published."""
    kind, model, version = queue.split(":")
    submission = Submission(
        id=store.make_id("t"), kind=kind, tenant="t", queue=queue, priority="normal", rows=1, deadline_seconds=60,
        retention_seconds=60, document=Document(model=model, version=int(version), model_sha256="0" * 64), payload=b"x",
    )  # fmt: skip
    return store.submit(submission, max_queue_rows=100).wakeup


def beat(store: JobStore, owner: str, duty: Duty, seconds: float = 30) -> None:
    """Let a process say that it lives."""
    store.beat(owner, lease_seconds=seconds, says={}, serves=duty.list_served())


def test_wakeups_go_to_those_who_can_take_them(store: JobStore) -> None:
    """To all while nobody is there for the model alone; to the dedicated alone if no other lives; else to both."""
    assert submit(store, "rows:churn:1") == ALL_MODELS  # nobody lives: whoever comes first

    beat(store, "dedicated", Duty(("rows",), ("churn", "fraud")))
    assert submit(store, "rows:churn:2") == ONE_MODEL
    assert submit(store, "rows:iris:1") == ALL_MODELS

    beat(store, "general", Duty(("rows",)))
    assert submit(store, "rows:churn:3") == ALL_MODELS | ONE_MODEL
    assert submit(store, "rows:iris:2") == ALL_MODELS


def test_a_mark_that_is_there_needs_no_second_wakeup(store: JobStore) -> None:
    """One wake-up is outstanding at a time, wherever it went."""
    beat(store, "dedicated", Duty(("rows",), ("churn",)))

    assert [submit(store, "rows:churn:1") for _ in range(3)] == [ONE_MODEL, 0, 0]


def test_a_dead_worker_is_served_nothing(store: JobStore, wait_until: WaitUntil) -> None:
    """When the lease of the only dedicated process is over, wake-ups go to the others again."""
    beat(store, "dedicated", Duty(("rows",), ("churn",)), seconds=0.05)
    assert submit(store, "rows:churn:2") == ONE_MODEL
    wait_until(lambda: not store.client.exists("sq:alive:dedicated"), 5, "the lease to end")

    assert submit(store, "rows:churn:1") == ALL_MODELS


def test_a_dedicated_rows_worker_leaves_files_to_the_others(store: JobStore) -> None:
    """Rows and files have workers of their own, dedicated or not."""
    beat(store, "dedicated", Duty(("rows",), ("churn",)))
    beat(store, "general", Duty(("files",)))
    store.client.sadd("sq:queues", "files:churn:1")

    assert submit(store, "rows:churn:1") == ONE_MODEL
    assert store.client.zscore("sq:serves", "files:*") is not None
    assert store.client.zscore("sq:serves", "files:churn") is None


@pytest.mark.parametrize(
    ("queue", "where", "lists"),
    [
        ("rows:churn:1", ALL_MODELS, ["rows"]),
        ("files:churn:1", ALL_MODELS, ["files"]),
        ("rows:churn:1", ONE_MODEL, ["rows.churn"]),
        ("files:my.model:2", ALL_MODELS | ONE_MODEL, ["files", "files.my.model"]),
    ],
)
def test_a_wakeup_lies_in_the_list_of_those_who_are_to_take_it(
    client: redis.Redis, redis_url: str, queue: str, where: int, lists: list[str]
) -> None:
    """Rows and files, all models and one: each message is where its own workers look for it, and nowhere else."""
    WakeupPublisher(Settings(redis_url=redis_url)).publish(queue, where)

    assert sorted(key.decode() for key in client.scan_iter() if client.type(key) == b"list") == lists
    assert [client.llen(name) for name in lists] == [1] * len(lists)


def test_a_duty_is_read_from_the_celery_queues() -> None:
    """A dedicated worker consumes ``rows.churn``; what it takes follows."""
    duty = Duty.of_queues(["rows.churn", "rows.my.model"], ["churn", "my.model"])

    assert duty == Duty(("rows",), ("churn", "my.model"))
    assert duty.takes_queue("rows:my.model:3")
    assert not duty.takes_queue("files:churn:1")
    assert not duty.takes_queue("rows:iris:1")
    assert Duty(("rows",)).takes_queue("rows:iris:1")
