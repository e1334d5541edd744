"""A network that fails between the service and Redis: cut, late, half-open. No job is lost, doubled or stuck."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.jobs import Job, Status
from shared.settings import Settings
from shared.store import JobStore
from shared.sweep import Sweep
from shared.wakeups import WakeupPublisher
from tests.api_under_test import LINE_ANSWERS, LINE_ROWS, ApiUnderTest, assert_problem, read_id
from tests.chaos.proxy import Proxy
from tests.conftest import WaitUntil
from worker.process import WorkerProcess

QUEUE = "rows:line:1"
#: Words that only one sort of request has: the document of a submission, the result in a commit, a claim.
SUBMISSION, COMMIT, CLAIM = b'"model_sha256"', b'"predictions"', (b"EVALSHA", QUEUE.encode(), b"$8\r\n33554432")
#: Seconds that a process may be silent.
LEASE_SECONDS = 1.0


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    """Give a link to the server that a test can break."""
    link = Proxy(redis_url.removeprefix("unix://"))
    yield link
    link.close()


@pytest.fixture
def broken_api(start_api: Callable[..., ApiUnderTest], proxy: Proxy) -> ApiUnderTest:
    """Give the front end behind the link, its scripts loaded and its connections open."""
    api = start_api(redis_url=proxy.url)
    api.submit_rows(LINE_ROWS, "line")
    api.http.delete(f"/v1/jobs/{list_ids(api)[0]}")
    return api


@pytest.fixture
def make_worker(redis_url: str, models: Path, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Return a function that starts a worker process behind a link, or beside it."""
    workers: list[WorkerProcess] = []

    def make(url: str = redis_url) -> WorkerProcess:
        settings = Settings(
            redis_url=url, models=models, file_store=str(tmp_path / "files"), lease_seconds=LEASE_SECONDS
        )
        worker = WorkerProcess(settings, queues=["rows", "files"])
        worker.start()
        workers.append(worker)
        return worker

    yield make
    for worker in workers:
        worker.stop()


@pytest.fixture
def sweep(api: ApiUnderTest) -> Sweep:
    """Give a sweep that is beside the link, like every other process."""
    publisher = WakeupPublisher(api.settings)
    return Sweep(JobStore(api.service.store.client), api.service.files, publisher, "tests")


def list_ids(api: ApiUnderTest) -> list[str]:
    """List the jobs there are."""
    return [job["id"] for job in api.http.get("/v1/jobs").get_json()["jobs"]]


def measure(act: Callable[[], Any]) -> tuple[Any, float]:
    """Do something; give what it returned and the seconds it took."""
    began = time.monotonic()
    return act(), time.monotonic() - began


def read_job(api: ApiUnderTest, job_id: str) -> Job:
    """Read a job that must exist."""
    job: Job | None = api.service.store.read_job(job_id)
    assert job is not None
    return job


def assert_scored_once(api: ApiUnderTest, job_id: str) -> None:
    """Check that a job has its one right result, and that nothing is left of it in the queue."""
    assert api.http.get(f"/v1/jobs/{job_id}/result").get_json()["predictions"] == pytest.approx(LINE_ANSWERS)
    state = api.service.store.read_queue(QUEUE)
    assert (state.outstanding_rows, state.count("finished:succeeded")) == (0, len(list_ids(api)))


@pytest.mark.parametrize("after_bytes", [0, 5])
def test_a_submission_whose_answer_is_cut_off_makes_one_job(
    api: ApiUnderTest, broken_api: ApiUnderTest, proxy: Proxy, after_bytes: int
) -> None:
    """Redis carried it out and nobody heard: it is repeated under the same id, answered 202, and there is one job."""
    proxy.cut_answer(SUBMISSION, after_bytes=after_bytes)

    answer = broken_api.post_rows(LINE_ROWS, "line")

    assert proxy.sprung.is_set()
    assert list_ids(api) == [read_id(answer)]
    assert api.service.store.read_queue(QUEUE).waiting_units == 1


def test_a_submission_over_a_slow_link_is_refused_in_time_and_not_doubled(
    api: ApiUnderTest, broken_api: ApiUnderTest, proxy: Proxy, wait_until: WaitUntil
) -> None:
    """Three seconds of delay: 503 within two, and at most one job when everything has arrived at last."""
    proxy.delay(3.0)

    answer, seconds = measure(lambda: broken_api.post_rows(LINE_ROWS, "line"))

    assert_problem(answer, 503, "store_unavailable")
    assert seconds < 3
    wait_until(proxy.is_quiet, 10, "the late bytes to arrive")
    assert len(list_ids(api)) <= 1
    proxy.heal()
    assert read_id(broken_api.post_rows(LINE_ROWS, "line")) in list_ids(api)
    assert len(list_ids(api)) <= 2


def test_a_half_open_link_is_no_hang_and_heals(
    api: ApiUnderTest, broken_api: ApiUnderTest, proxy: Proxy, wait_until: WaitUntil
) -> None:
    """A link on which nothing arrives: every call answers 503 soon; when it is back, so is the service."""
    job_id = broken_api.submit_rows(LINE_ROWS, "line")
    proxy.hang()

    for path in (f"/v1/jobs/{job_id}", "/v1/jobs", "/v1/queues"):
        answer, seconds = measure(lambda path=path: broken_api.http.get(path))  # type: ignore[misc]
        assert_problem(answer, 503, "store_unavailable")
        assert seconds < 3
    answer, seconds = measure(lambda: broken_api.post_rows(LINE_ROWS, "line"))
    assert_problem(answer, 503, "store_unavailable")
    assert seconds < 3
    assert broken_api.http.get("/health").status_code == 200
    assert broken_api.http.get("/ready").get_json()["missing"] == ["redis"]

    proxy.heal()
    wait_until(proxy.is_quiet, 10, "the held bytes to arrive")
    assert read_id(broken_api.post_rows(LINE_ROWS, "line")) in list_ids(api)
    assert len(list_ids(api)) <= 3


@pytest.mark.parametrize("fault", ["hangs", "refuses"])
def test_a_broker_that_is_away_holds_up_no_submission(
    start_api: Callable[..., ApiUnderTest], proxy: Proxy, fault: str
) -> None:
    """A wake-up that cannot be published is left to the sweep: the job is taken at once, each time."""
    api = start_api(broker_url=proxy.url)
    api.submit_rows(LINE_ROWS, "line")
    if fault == "hangs":
        proxy.hang()
    else:
        proxy.close()

    for _ in range(3):
        api.service.store.client.delete(f"sq:wake:{QUEUE}")  # or only the first would publish
        answer, seconds = measure(lambda: api.post_rows(LINE_ROWS, "line"))
        read_id(answer)
        assert seconds < 2


def test_a_connection_that_is_cut_costs_nothing(api: ApiUnderTest, broken_api: ApiUnderTest, proxy: Proxy) -> None:
    """A pooled connection that died in the meantime is replaced within the same request."""
    proxy.cut()

    job_id = read_id(broken_api.post_rows(LINE_ROWS, "line"))

    assert list_ids(api) == [job_id]


def test_a_commit_whose_answer_is_cut_off_stands(
    api: ApiUnderTest, proxy: Proxy, make_worker: Callable[..., WorkerProcess], sweep: Sweep
) -> None:
    """Redis committed and the worker does not know: the result stands, and nobody scores the job again."""
    worker = make_worker(proxy.url)
    api.submit_rows(LINE_ROWS, "line")
    worker.score_rows(QUEUE)  # from here on Redis has the scripts
    job_id = api.submit_rows(LINE_ROWS, "line")
    proxy.cut_answer(COMMIT)

    with pytest.raises(redis.ConnectionError):
        worker.score_rows(QUEUE)
    first = api.http.get(f"/v1/jobs/{job_id}/result").get_data()
    worker.score_rows(QUEUE)
    sweep.run_once()

    assert api.http.get(f"/v1/jobs/{job_id}/result").get_data() == first
    assert read_job(api, job_id).attempts == 1
    assert_scored_once(api, job_id)


def test_a_claim_whose_answer_is_cut_off_is_given_to_others(
    api: ApiUnderTest, proxy: Proxy, make_worker: Callable[..., WorkerProcess], sweep: Sweep, wait_until: WaitUntil
) -> None:
    """Redis gave the job to a worker that does not know and lives on: it must not keep it for ever."""
    worker = make_worker(proxy.url)
    worker.score_rows(QUEUE)
    job_id = api.submit_rows(LINE_ROWS, "line")
    proxy.cut_answer(*CLAIM)

    with pytest.raises(redis.ConnectionError):
        worker.score_rows(QUEUE)
    assert read_job(api, job_id).status == Status.RUNNING

    def score() -> bool:
        sweep.run_once()
        worker.score_rows(QUEUE)
        return read_job(api, job_id).status == Status.SUCCEEDED

    wait_until(score, 10, "the job to be taken back and scored")
    assert_scored_once(api, job_id)


def test_outages_are_no_strikes(
    api: ApiUnderTest, proxy: Proxy, make_worker: Callable[..., WorkerProcess], sweep: Sweep, wait_until: WaitUntil
) -> None:
    """However often a job is lost because Redis was away, while tried alone too, it is scored and no dead letter."""
    worker = make_worker(proxy.url)
    worker.score_rows(QUEUE)
    job_id = api.submit_rows(LINE_ROWS, "line")

    def take_back() -> bool:
        sweep.run_once()
        return read_job(api, job_id).status == Status.QUEUED

    for _ in range(5):
        proxy.cut_answer(*CLAIM)
        with pytest.raises(redis.ConnectionError):
            worker.score_rows(QUEUE)
        wait_until(take_back, 10, "the job to be taken back")
    worker.score_rows(QUEUE)

    assert read_job(api, job_id).attempts == 6
    assert_scored_once(api, job_id)


def test_a_late_commit_of_a_worker_that_was_cut_off_is_refused(
    api: ApiUnderTest, proxy: Proxy, make_worker: Callable[..., WorkerProcess], sweep: Sweep, wait_until: WaitUntil
) -> None:
    """Half-open past its lease: another worker scores the job, and the late commit of the first changes nothing."""
    slow, quick = make_worker(proxy.url), make_worker()
    job_id = api.submit_rows(LINE_ROWS, "line")
    proxy.hang_at(COMMIT)
    with ThreadPoolExecutor(1) as pool:
        scoring = pool.submit(slow.score_rows, QUEUE)
        assert proxy.sprung.wait(10)

        def score() -> bool:
            sweep.run_once()
            quick.score_rows(QUEUE)
            return read_job(api, job_id).status == Status.SUCCEEDED

        wait_until(score, 10, "the job to be taken back and scored")
        result = api.http.get(f"/v1/jobs/{job_id}/result").get_data()
        proxy.heal()
        wait_until(proxy.is_quiet, 10, "the late commit to arrive")
        scoring.exception(20)

    assert api.http.get(f"/v1/jobs/{job_id}/result").get_data() == result
    assert read_job(api, job_id).attempts == 2
    assert_scored_once(api, job_id)
