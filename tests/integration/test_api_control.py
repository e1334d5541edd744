"""Dead letters, pausing, and the doors that close before Redis or the disk is full; over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from shared.store import JobStore
from tests.api_under_test import IRIS_CLASSES, IRIS_ROWS, ApiUnderTest, assert_problem, read_id

QUEUE = "rows:iris:1"


def kill_by(api: ApiUnderTest, job_id: str, times: int = 4) -> None:
    """Let the only waiting job lose its process so many times."""
    store: JobStore = api.service.store
    for _ in range(times):
        claimed = store.claim(QUEUE, "victim", lease_seconds=60, max_rows=1, max_bytes=1)
        assert [unit.id for unit in claimed.units] == [job_id]
        store.client.delete("sq:alive:victim")
        for stream, owner in list(store.list_silent_owners(QUEUE)):
            store.reclaim(QUEUE, stream, owner)


def test_dead_letter_is_listed_with_its_reason(api: ApiUnderTest) -> None:
    """A job that was given up is listed, says why, and answers with that problem."""
    job_id = api.submit_rows(metadata={"campaign": "x"})
    kill_by(api, job_id)

    (letter,) = api.http.get("/v1/dead-letters").get_json()["dead_letters"]

    assert (letter["id"], letter["status"], letter["error"]["code"]) == (job_id, "failed", "worker_lost")
    assert_problem(api.http.get(f"/v1/jobs/{job_id}/result"), 500, "worker_lost")


def test_dead_letter_comes_back_as_a_new_job(api: ApiUnderTest) -> None:
    """Retry makes a new job with the same rows; the dead letter stays until it is dropped."""
    job_id = api.submit_rows(metadata={"campaign": "x"})
    kill_by(api, job_id)

    new_id = read_id(api.http.post(f"/v1/jobs/{job_id}/retry"))
    api.score()

    again = api.get_job(new_id)
    assert (again["status"], again["retry_of"], again["metadata"]) == ("succeeded", job_id, {"campaign": "x"})
    assert api.http.get(f"/v1/jobs/{new_id}/result").get_json()["predictions"] == IRIS_CLASSES
    assert api.get_job(job_id)["status"] == "failed"
    assert api.http.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert api.http.get("/v1/dead-letters").get_json()["dead_letters"] == []


def test_only_dead_letters_are_put_back(api: ApiUnderTest) -> None:
    """A job that waits or has succeeded is not scored a second time."""
    job_id = api.submit_rows()
    assert_problem(api.http.post(f"/v1/jobs/{job_id}/retry"), 409, "job_terminal")
    api.score()
    assert_problem(api.http.post(f"/v1/jobs/{job_id}/retry"), 409, "job_terminal")


@pytest.mark.parametrize("model", ["iris", "iris:1", "iris@champion"])
def test_paused_model_takes_jobs_and_scores_none(api: ApiUnderTest, model: str) -> None:
    """A paused queue says so, keeps what comes, and goes on when it is resumed."""
    job_id = api.submit_rows()
    paused = api.http.post(f"/v1/queues/{model}/pause").get_json()["queues"]
    assert {queue["kind"]: queue["paused"] for queue in paused} == {"rows": True, "files": True}
    api.score()
    assert api.get_job(job_id)["status"] == "queued"

    api.http.post(f"/v1/queues/{model}/resume")
    api.score()

    assert api.get_job(job_id)["status"] == "succeeded"


def test_unknown_queue_cannot_be_paused(api: ApiUnderTest) -> None:
    """Pausing a model that is not registered is a 404."""
    assert_problem(api.http.post("/v1/queues/nobody/pause"), 404, "unknown_model")


@pytest.fixture
def small_memory(client: redis.Redis) -> Any:
    """Let the server have a little more memory than it uses; give it back afterwards."""
    yield lambda more: client.config_set("maxmemory", client.info("memory")["used_memory"] + more)
    client.config_set("maxmemory", 0)


def test_jobs_are_refused_before_memory_is_full(api: ApiUnderTest, small_memory: Callable[[int], None]) -> None:
    """Over 80 % of Redis's memory a submission is a 503; what waits is scored all the same."""
    job_id = api.submit_rows()
    small_memory(100_000)
    api.service.admission.look_again()

    problem = assert_problem(api.post_rows(IRIS_ROWS), 503, "overloaded")
    api.score()

    assert "memory" in problem["detail"]
    assert api.get_job(job_id)["status"] == "succeeded"


def test_job_that_redis_itself_refuses_is_an_overload(api: ApiUnderTest, small_memory: Callable[[int], None]) -> None:
    """When memory ran out since the last look, the answer is the same 503, and nothing is kept."""
    api.submit_rows()
    small_memory(-100_000)

    assert_problem(api.post_rows(IRIS_ROWS), 503, "overloaded")

    assert len(api.http.get("/v1/jobs").get_json()["jobs"]) == 1


def test_queue_drains_when_memory_is_full(api: ApiUnderTest, small_memory: Callable[[int], None]) -> None:
    """At the very limit jobs still are claimed, committed and read."""
    job_ids = [api.submit_rows() for _ in range(20)]
    small_memory(-100_000)

    api.score()

    assert {api.get_job(job_id)["status"] for job_id in job_ids} == {"succeeded"}


def test_nothing_is_taken_when_the_disk_is_nearly_full(start_api: Callable[..., ApiUnderTest]) -> None:
    """Below the room that must stay free, rows are a 503 and files a 507, and nothing is kept."""
    api = start_api(min_free_bytes=2**60)

    assert_problem(api.post_rows(IRIS_ROWS), 503, "overloaded")
    assert_problem(api.post_file(b"a,b\n1,2\n", "line"), 507, "storage_full")
    assert api.list_kept_files() == []


def test_large_rows_and_results_go_through_the_file_store(
    start_api: Callable[..., ApiUnderTest], client: redis.Redis
) -> None:
    """A payload over the limit is no burden to Redis; the answer is the same, and goes with its job."""
    api = start_api(inline_bytes=50)
    job_id = api.submit_rows()
    assert client.hget(f"sq:job:{job_id}", "p") == b"@rows"

    api.score()

    assert client.hget(f"sq:job:{job_id}", "r") == b"@result-1"
    assert api.http.get(f"/v1/jobs/{job_id}/result").get_json()["predictions"] == IRIS_CLASSES
    api.http.delete(f"/v1/jobs/{job_id}")
    assert api.list_kept_files() == []
