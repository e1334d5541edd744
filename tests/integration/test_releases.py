"""Two releases side by side: while a service is updated, old and new workers share the queues."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import shared.codec
from shared.jobs import Status
from tests.api_under_test import LINE_ANSWERS, LINE_ROWS, ApiUnderTest

QUEUE = "rows:line:1"


def be_newer(patch: pytest.MonkeyPatch) -> None:
    """Let this process write and read payloads as a later release would."""
    patch.setattr(shared.codec, "_PLAIN", 3)
    patch.setattr(shared.codec, "_WITH_OTHERS", 4)


def test_worker_leaves_jobs_of_a_newer_release_to_newer_workers(
    start_api: Callable[..., ApiUnderTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of this release scores what it can read, and puts the rest back, uncounted and without a strike."""
    api = start_api()
    old = api.submit_rows(LINE_ROWS, "line")
    with monkeypatch.context() as patch:
        be_newer(patch)
        new = api.submit_rows(LINE_ROWS, "line")
    worker = api.make_worker()

    said = [worker.score_rows(QUEUE) for _ in range(5)]  # claimed again and again it is still no poison

    assert "jobs=1 rows=3" in said[0]
    assert all("jobs=0 rows=0" in line for line in said[1:])
    assert api.get_job(old)["status"] == Status.SUCCEEDED
    assert api.get_job(new)["status"] == Status.QUEUED
    with monkeypatch.context() as patch:
        be_newer(patch)
        worker.score_rows(QUEUE)
        assert api.get_job(new)["status"] == Status.SUCCEEDED
    assert api.http.get(f"/v1/jobs/{new}/result").get_json()["predictions"] == LINE_ANSWERS
    state = api.service.store.read_queue(QUEUE)
    assert (state.waiting_units, state.outstanding_rows) == (0, 0)


def test_job_put_back_from_trial_has_no_strike(
    start_api: Callable[..., ApiUnderTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is tried alone by a worker that cannot read it never becomes a dead letter for that."""
    api = start_api()
    store = api.service.store
    with monkeypatch.context() as patch:
        be_newer(patch)
        job = api.submit_rows(LINE_ROWS, "line")
    store.claim(QUEUE, "lost", lease_seconds=5, max_rows=10, max_bytes=10_000)
    store.leave("lost")
    store.reclaim(QUEUE, "normal", "lost")
    worker = api.make_worker()

    for _ in range(5):
        worker.score_rows(QUEUE)

    claimed = store.claim(QUEUE, "other", lease_seconds=5, max_rows=10, max_bytes=10_000)
    assert [(unit.id, unit.stream, unit.strikes) for unit in claimed.units] == [(job, "trial", 0)]
    store.cancel(job, "default")


def test_deadline_still_counts_for_a_job_that_is_put_back(
    start_api: Callable[..., ApiUnderTest], monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., object]
) -> None:
    """A job that no worker here can read does not wait for ever: it expires at its deadline."""
    api = start_api()
    with monkeypatch.context() as patch:
        be_newer(patch)
        job = api.submit_rows(LINE_ROWS, "line", deadline_seconds=1)
    api.make_worker().score_rows(QUEUE)

    wait_until(lambda: api.service.store.expire_jobs(10), 10, "the deadline")

    assert api.get_job(job)["status"] == Status.EXPIRED
