"""The life of a job over HTTP: unknown, canceled, expired, deleted, past its retention; and the list of jobs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.claims import RowsOutcome
from shared.jobs import Status
from shared.store import JobStore
from shared.sweep import Sweep
from tests.api_under_test import IRIS_ROWS, LINE_ROWS, ApiUnderTest, assert_problem

WaitUntil = Callable[..., object]
#: An id that looks right and was never issued.
STRANGE_ID = "job_01ARZ3NDEKTSV4RRFFQ69G5FAVABCDEF00"

CALLS = [
    ("GET", ""),
    ("GET", "/result"),
    ("GET", "/errors"),
    ("POST", "/cancel"),
    ("DELETE", ""),
]


@pytest.fixture
def sweep(api: ApiUnderTest) -> Sweep:
    """Give the sweep, to be run by hand."""
    return Sweep(api.service.store, api.service.files, api.service.publisher, "test")


def follow_pages(api: ApiUnderTest, address: str) -> list[list[str]]:
    """Give the ids on each page of a list, going by its Link header."""
    pages = []
    while address:
        assert len(pages) < 20, "the list has no end"
        response = api.http.get(address)
        assert response.status_code == 200, response.text
        pages.append([job["id"] for job in response.get_json()["jobs"]])
        link = response.headers.get("Link", "")
        assert (not link) == (response.get_json()["next"] is None)
        address = link.removeprefix("<").removesuffix('>; rel="next"')
    return pages


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("job_id", [STRANGE_ID, "job_1", "x", "..%2f..%2fetc", "job_%00", "j" * 5000, "é%ff"])
def test_unknown_job_is_a_404(api: ApiUnderTest, method: str, path: str, job_id: str) -> None:
    """Whatever is asked of a job that never was is answered with unknown_job, or with not_found for no id at all."""
    response = api.http.open(f"/v1/jobs/{job_id}{path}", method=method)
    assert_problem(response, 404, "not_found" if "%2f" in job_id else "unknown_job")


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
def test_deleted_job_is_gone(api: ApiUnderTest, store: JobStore, state: str) -> None:
    """After DELETE every call answers 410, and a commit that comes later is refused."""
    job_id = api.submit_rows()
    if state == "succeeded":
        api.score()
    if state == "running":
        (unit,) = store.claim("rows:iris:1", "late", lease_seconds=60, max_rows=10, max_bytes=10**6).units

    response = api.http.delete(f"/v1/jobs/{job_id}")

    assert (response.status_code, response.data) == (204, b"")
    if state == "running":
        assert store.commit_rows("late", [RowsOutcome(job_id, unit.attempt, Status.SUCCEEDED, 3, 0, b"{}")]) == [False]
    for method, path in CALLS:
        assert_problem(api.http.open(f"/v1/jobs/{job_id}{path}", method=method), 410, "job_gone")
    assert api.http.get("/v1/jobs").get_json()["jobs"] == []
    assert api.service.store.read_queue("rows:iris:1").outstanding_rows == 0


def test_job_past_its_retention_is_gone(api: ApiUnderTest, sweep: Sweep, wait_until: WaitUntil) -> None:
    """The sweep removes what was kept long enough, files included; the job is then gone, not unknown."""
    rows_id = api.submit_rows(retention_seconds=0.05)
    file_id = api.submit_file(b"a,b\n1,2\n", "line", retention_seconds=0.05)
    kept_id = api.submit_rows()
    api.score()
    assert api.list_kept_files() != []

    def is_gone() -> bool:
        sweep.run_once()
        return api.service.store.read_jobs([rows_id, file_id]) == [None, None]

    wait_until(is_gone, 10, "the sweep to remove both jobs")

    for job_id in (rows_id, file_id):
        assert_problem(api.http.get(f"/v1/jobs/{job_id}"), 410, "job_gone")
        assert_problem(api.http.get(f"/v1/jobs/{job_id}/result"), 410, "job_gone")
    assert api.list_kept_files() == []
    assert api.get_job(kept_id)["status"] == "succeeded"


def test_cancel_takes_a_waiting_job_out_of_the_queue(api: ApiUnderTest) -> None:
    """A queued job is canceled at once and is never scored; its row counts still add up."""
    canceled, kept = api.submit_rows(), api.submit_rows(LINE_ROWS, "line")

    response = api.http.post(f"/v1/jobs/{canceled}/cancel")

    assert (response.status_code, response.get_json()["status"]) == (200, "canceled")
    api.score()
    job = api.get_job(canceled)
    assert (job["status"], job["started_at"]) == ("canceled", None)
    assert job["finished_at"]
    assert sum(job["row_counts"][name] for name in ("succeeded", "failed", "pending")) == job["row_counts"]["total"]
    assert_problem(api.http.get(f"/v1/jobs/{canceled}/result"), 409, "job_canceled")
    assert api.get_job(kept)["status"] == "succeeded"
    assert api.http.post(f"/v1/jobs/{canceled}/cancel").status_code == 200, "a repeated cancel changes nothing"


def test_cancel_of_a_finished_job_is_refused(api: ApiUnderTest) -> None:
    """A terminal status never changes: 409, and the result is still there."""
    job_id = api.submit_rows()
    api.score()

    assert "succeeded" in assert_problem(api.http.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_terminal")["detail"]

    assert api.get_job(job_id)["status"] == "succeeded"
    assert api.http.get(f"/v1/jobs/{job_id}/result").status_code == 200


def test_file_job_is_canceled_when_its_running_chunks_have_stopped(start_api: Callable[..., ApiUnderTest]) -> None:
    """While a chunk is being scored the answer is 202; with its commit the job is canceled."""
    api = start_api(chunk_rows=10)
    waiting = api.submit_file(b"a,b\n" + b"1,2\n" * 30, "line")
    assert api.http.post(f"/v1/jobs/{waiting}/cancel").status_code == 200

    running = api.submit_file(b"a,b\n" + b"1,2\n" * 30, "line")
    claimed = api.service.store.claim(
        "files:line:1", "other", lease_seconds=60, max_rows=1, max_bytes=1, max_chunks=1
    ).units
    assert len(claimed) == 1
    response = api.http.post(f"/v1/jobs/{running}/cancel")

    assert (response.status_code, response.get_json()["status"]) == (202, "running")
    assert api.http.post(f"/v1/jobs/{running}/cancel").status_code == 202
    api.service.store.client.delete("sq:alive:other")
    for stream, owner in list(api.service.store.list_silent_owners("files:line:1")):
        api.service.store.reclaim("files:line:1", stream, owner)
    assert api.get_job(running)["status"] == "canceled"
    assert_problem(api.http.get(f"/v1/jobs/{running}/result"), 409, "job_canceled")


def test_job_that_waits_at_its_deadline_expires(api: ApiUnderTest, sweep: Sweep, wait_until: WaitUntil) -> None:
    """An expired job was not scored, and its result is a 504."""
    job_id = api.submit_rows(deadline_seconds=0.05)

    def has_expired() -> bool:
        sweep.run_once()
        return bool(api.get_job(job_id)["status"] == "expired")

    wait_until(has_expired, 10, "the job to expire")

    assert_problem(api.http.get(f"/v1/jobs/{job_id}/result"), 504, "deadline_exceeded")
    job = api.get_job(job_id)
    assert (job["error"]["code"], job["error"]["status"], job["attempts"]) == ("deadline_exceeded", 504, 0)
    assert_problem(api.http.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_terminal")


def test_list_has_pages_newest_first(api: ApiUnderTest) -> None:
    """Following the links gives every job once, from the newest to the oldest, and then ends."""
    made = [api.submit_rows(IRIS_ROWS[:1]) for _ in range(7)]

    pages = follow_pages(api, "/v1/jobs?limit=3")

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [job_id for page in pages for job_id in page] == sorted(made, reverse=True)
    assert follow_pages(api, "/v1/jobs?limit=7") == [sorted(made, reverse=True)]


def test_list_is_filtered(api: ApiUnderTest) -> None:
    """Status, model and kind each choose, together and over pages; the links keep them."""
    iris = [api.submit_rows(IRIS_ROWS[:1]) for _ in range(3)]
    line = [api.submit_rows(LINE_ROWS, "line") for _ in range(3)]
    file = api.submit_file(b"a,b\n1,2\n", "line")
    api.http.post(f"/v1/jobs/{line[0]}/cancel")

    def find(query: str) -> list[str]:
        return sorted(job_id for page in follow_pages(api, f"/v1/jobs?limit=1&{query}") for job_id in page)

    assert find("model=iris") == sorted(iris)
    assert find("model=iris:1") == sorted(iris)
    assert find("kind=file") == [file]
    assert find("status=canceled") == [line[0]]
    assert find("status=queued&model=line&kind=rows") == sorted(line[1:])
    assert find("model=nothing%26limit=9") == []


@pytest.mark.parametrize(
    "query",
    [f"limit={text}" for text in ("0", "-1", "201", "ten", "1.5", "", "9" * 5000, "%C2%B2")]
    + ["status=done", "kind=table"],
)
def test_wrong_filter_is_refused(api: ApiUnderTest, query: str) -> None:
    """A filter that cannot be meant is a 400 that says what is expected."""
    detail = assert_problem(api.http.get(f"/v1/jobs?{query}"), 400, "invalid_parameter")["detail"]
    assert query.partition("=")[0] in detail
    assert "expected" in detail


def test_priorities_are_claimed_by_turns(start_api: Callable[..., ApiUnderTest]) -> None:
    """With all priorities waiting, most of the first claims are high, and low is not left out."""
    api = start_api(batch_rows=10)
    ids = {
        priority: [api.submit_rows(IRIS_ROWS[:1], priority=priority) for _ in range(10)]
        for priority in ("low", "normal", "high")
    }

    units = api.service.store.claim("rows:iris:1", "one", lease_seconds=60, max_rows=10, max_bytes=10**6).units

    taken = [unit.id for unit in units]
    counts = {priority: len(set(taken) & set(jobs)) for priority, jobs in ids.items()}
    assert counts == {"high": 6, "normal": 3, "low": 1}
