"""A worker that gets nowhere while work waits takes itself down; one that works, or has nothing to do, stays."""

from __future__ import annotations

import os
import socket

import pytest

from shared.jobs import Document
from shared.store import JobStore
from shared.submissions import Submission
from worker.duty import Duty
from worker.watchdog import Watchdog


@pytest.fixture
def ended() -> list[bool]:
    """Collect the times that the worker was taken down."""
    return []


def watch(store: JobStore, ended: list[bool]) -> Watchdog:
    """Make a watchdog without patience that has looked once at a worker with one process."""
    store.beat("child", lease_seconds=60, says={"host": socket.gethostname(), "parent": os.getpid(), "tasks": 0})
    watchdog = Watchdog(store, Duty(("rows",)), 0.0, lambda: ended.append(True))
    watchdog.look()
    return watchdog


def submit(store: JobStore, queue: str = "rows:iris:1") -> str:
    """Let a job wait."""
    job_id = store.make_id("tests")
    store.submit(
        Submission(
            id=job_id, kind="rows", tenant="tests", queue=queue, priority="normal", rows=1, payload=b"rows",
            deadline_seconds=60, retention_seconds=60, document=Document(model="iris", version=1, model_sha256=""),
        ),
        max_queue_rows=10,
    )  # fmt: skip
    return job_id


def test_worker_without_progress_ends(store: JobStore, ended: list[bool]) -> None:
    """Work waits, and none of this worker's processes did a task: it ends."""
    submit(store)
    watchdog = watch(store, ended)

    watchdog.look()

    assert ended


def test_working_worker_stays(store: JobStore, ended: list[bool]) -> None:
    """A worker whose processes do tasks stays, however much waits."""
    submit(store)
    watchdog = watch(store, ended)

    for tasks in (1, 2):
        says = {"host": socket.gethostname(), "parent": os.getpid(), "tasks": tasks}
        store.beat("child", lease_seconds=60, says=says)
        watchdog.look()

    assert not ended


def test_worker_that_still_loads_its_models_stays(store: JobStore, ended: list[bool]) -> None:
    """As long as no process of it lives yet, the worker is not blamed."""
    submit(store)
    watchdog = watch(store, ended)
    store.leave("child")

    for _ in range(2):
        watchdog.look()

    assert not ended


@pytest.mark.parametrize("reason", ["nothing waits", "paused", "another worker's"])
def test_idle_worker_stays(store: JobStore, ended: list[bool], reason: str) -> None:
    """A worker that has nothing to do stays."""
    if reason == "paused":
        submit(store)
        store.pause("rows:iris:1", paused=True)
    elif reason == "another worker's":
        submit(store, "files:iris:1")
    watchdog = watch(store, ended)

    watchdog.look()

    assert not ended
