"""Workers that behave: a recycled child warms again however long that takes, and SIGTERM loses and repeats nothing."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests import slow_model
from tests.conftest import WaitUntil
from tests.live_service import UP, LiveService

pytestmark = pytest.mark.timeout(400)

PATIENCE = 120.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """Start a service with one process for rows and a model that takes six seconds to load."""
    folder = tmp_path_factory.mktemp("slow")
    slow_model.register_slow_model(folder / "models")
    live = LiveService(folder, {"SCOREQUEUE_BATCH_ROWS": "20"})
    live.start([*UP, "--port", str(live.port), "--data", str(live.data), "--workers", "1"])
    yield live
    assert live.stop() == []


def ask(service: LiveService, method: str, path: str, body: object = None) -> Any:
    """Ask the service; give the document."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        response = connection.getresponse()
        document = json.loads(response.read())
        assert response.status < 300, document
        return document
    finally:
        connection.close()


def submit(service: LiveService, number: int) -> str:
    """Submit a row; give its job's id."""
    return str(ask(service, "POST", "/v1/jobs", {"model": "slow", "rows": [[float(number), 1.0]]})["id"])


def read_jobs(service: LiveService, job_ids: list[str]) -> list[dict[str, Any]]:
    """Give the records of jobs."""
    return [ask(service, "GET", f"/v1/jobs/{job_id}") for job_id in job_ids]


def test_killed_child_is_replaced_by_one_that_warms_again(service: LiveService, wait_until: WaitUntil) -> None:
    """A child that loads for longer than four seconds is not killed for it after it was recycled."""
    (child,) = service.list_children("rows worker")
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: service.list_children("rows worker") not in ([], [child]), 30, "another child")
    (second,) = service.list_children("rows worker")

    job_id = submit(service, 1)
    wait_until(lambda: read_jobs(service, [job_id])[0]["status"] == "succeeded", PATIENCE, "the job to end")

    assert service.list_children("rows worker") == [second]
    assert ask(service, "GET", f"/v1/jobs/{job_id}/result")["predictions"] == [2.0]


def test_worker_that_is_told_to_stop_drains(service: LiveService, wait_until: WaitUntil) -> None:
    """SIGTERM in the middle of a backlog: what was claimed is committed, the rest waits for the next worker."""
    job_ids = [submit(service, number) for number in range(100)]
    wait_until(lambda: any(job["status"] == "running" for job in read_jobs(service, job_ids)), PATIENCE, "a claim")
    worker = service.find_group("rows worker")
    assert worker is not None
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: service.find_group("rows worker") not in (None, worker), PATIENCE, "the next worker")

    def have_ended() -> bool:
        return all(job["status"] == "succeeded" for job in read_jobs(service, job_ids))

    wait_until(have_ended, PATIENCE, "all jobs to end")

    # No claim was lost on the way: each job was begun once.
    assert {job["attempts"] for job in read_jobs(service, job_ids)} == {1}
