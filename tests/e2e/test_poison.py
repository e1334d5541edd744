"""Poison among innocent jobs, in the whole service: it harms only itself."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests import toxic_model
from tests.conftest import WaitUntil
from tests.live_service import UP, LiveService

pytestmark = pytest.mark.timeout(600)

INNOCENTS = 60
#: Four ends of a process, each followed by a lease and a new start, and for a hanging one by its time limit; and as
#: much again for a busy machine.
PATIENCE = 180.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """Start a service with a toxic model, in which a claim may take five seconds."""
    folder = tmp_path_factory.mktemp("poison")
    toxic_model.register_toxic_model(folder / "models")
    live = LiveService(folder, {"SCOREQUEUE_TASK_SECONDS": "5"})
    live.start([*UP, "--port", str(live.port), "--data", str(live.data), "--workers", "2"])
    yield live
    assert live.stop() == []


def ask(service: LiveService, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Ask the service; give status and document."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def submit(service: LiveService, row: list[float]) -> str:
    """Submit a row; give its job's id."""
    status, job = ask(service, "POST", "/v1/jobs", {"model": "toxic", "rows": [row]})
    assert status == 202, job
    return str(job["id"])


def wait_for_ends(service: LiveService, job_ids: list[str], wait_until: WaitUntil) -> dict[str, dict[str, Any]]:
    """Wait until jobs have ended; give them by id."""
    ended: dict[str, dict[str, Any]] = {}

    def look() -> bool:
        for job_id in set(job_ids) - set(ended):
            status, job = ask(service, "GET", f"/v1/jobs/{job_id}")
            # On a machine that is busy beyond measure Redis may take more than its second: ask again.
            if status == 200 and job["status"] not in ("queued", "running"):
                ended[job_id] = job
        return len(ended) == len(job_ids)

    wait_until(look, PATIENCE, "all jobs to end")
    return ended


@pytest.fixture(scope="module")
def ends(service: LiveService, wait_until: WaitUntil) -> dict[float, list[dict[str, Any]]]:
    """Submit innocent and toxic jobs, mixed; give how they ended, by the first column of their row."""
    poisons = [*toxic_model.DEADLY, *toxic_model.HARMFUL]
    rows = [[float(number), 0.5] for number in (*range(INNOCENTS), *poisons)]
    random.Random(7).shuffle(rows)
    submitted = {submit(service, row): row[0] for row in rows}
    ended = wait_for_ends(service, list(submitted), wait_until)
    by_first: dict[float, list[dict[str, Any]]] = {}
    for job_id, job in ended.items():
        by_first.setdefault(submitted[job_id], []).append(job)
    return by_first


def test_innocent_jobs_all_succeed(service: LiveService, ends: dict[float, list[dict[str, Any]]]) -> None:
    """Each job beside the poison is scored, and rightly, however often a worker died with it."""
    for first in range(INNOCENTS):
        (job,) = ends[first]
        assert job["status"] == "succeeded", job
        status, result = ask(service, "GET", f"/v1/jobs/{job['id']}/result")
        assert (status, result["predictions"]) == (200, [first + 0.5])


@pytest.mark.parametrize("poison", toxic_model.HARMFUL)
def test_poison_that_fails_fails_alone(
    service: LiveService, ends: dict[float, list[dict[str, Any]]], poison: int
) -> None:
    """A row on which the model raises, runs out of memory or answers nonsense fails with `model_error`."""
    (job,) = ends[poison]

    assert (job["status"], job["error"]["code"]) == ("failed", "model_error")
    status, problem = ask(service, "GET", f"/v1/jobs/{job['id']}/result")
    assert (status, problem["code"]) == (500, "model_error")
    assert problem["errors"][0]["pointer"] == "#/rows/0"


@pytest.mark.parametrize("poison", toxic_model.DEADLY)
def test_poison_that_kills_or_hangs_becomes_a_dead_letter(
    service: LiveService, ends: dict[float, list[dict[str, Any]]], poison: int
) -> None:
    """A job that ended its process three times, alone, is given up, and says why."""
    (job,) = ends[poison]

    assert (job["status"], job["error"]["code"]) == ("failed", "worker_lost")
    assert "3 times" in job["error"]["detail"]
    # Once beside others, three times alone; or more often beside others, if other poison was there.
    assert job["attempts"] >= 4
    status, problem = ask(service, "GET", f"/v1/jobs/{job['id']}/result")
    assert (status, problem["code"]) == (500, "worker_lost")


def test_only_the_deadly_are_dead_letters(service: LiveService, ends: dict[float, list[dict[str, Any]]]) -> None:
    """The list of dead letters has each deadly job with its reason, and no innocent one."""
    status, answer = ask(service, "GET", "/v1/dead-letters")

    assert status == 200
    letters = {job["id"]: job["error"]["code"] for job in answer["dead_letters"]}
    assert letters == {ends[poison][0]["id"]: "worker_lost" for poison in toxic_model.DEADLY}


def test_a_dead_letter_can_be_put_back(
    service: LiveService, ends: dict[float, list[dict[str, Any]]], wait_until: WaitUntil
) -> None:
    """A retry is a new job that says what it repeats; as toxic as the first, it ends like that one."""
    (dead,) = ends[toxic_model.EXITS]

    status, job = ask(service, "POST", f"/v1/jobs/{dead['id']}/retry")

    assert status == 202, job
    assert job["retry_of"] == dead["id"] != job["id"]
    (again,) = wait_for_ends(service, [job["id"]], wait_until).values()
    assert (again["status"], again["error"]["code"], again["retry_of"]) == ("failed", "worker_lost", dead["id"])
    assert ask(service, "GET", f"/v1/jobs/{dead['id']}")[1]["finished_at"] == dead["finished_at"]
