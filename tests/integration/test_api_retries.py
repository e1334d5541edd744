"""Retry of a file: the failed rows are scored again, the others stay as they are, and the result is the whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api_under_test import ApiUnderTest, assert_problem, read_id

StartApi = Callable[..., ApiUnderTest]

BAD = b"id,a,b\nr0,0,0\nr1,x,1\nr2,2,2\nr3,3,3\nr4,4,\nr5,5,5\nr6,6,6\nr7,7"
GOOD = b"id,a,b\nr0,0,9\nr1,1,1\nr2,2,9\nr3,3,9\nr4,4,4\nr5,5,9\nr6,6,9\nr7,7,7"


@pytest.fixture
def small(start_api: StartApi) -> ApiUnderTest:
    """Give a front end that cuts files into chunks of three rows."""
    return start_api(chunk_rows=3, chunks_offered=2)


def post_retry(api: ApiUnderTest, job_id: str, data: bytes | None = None, **options: Any) -> Any:
    """Ask for a retry, with a corrected file or as it is."""
    headers = options.pop("headers", None)
    path = f"/v1/jobs/{job_id}/retry"
    if data is None:
        return api.http.post(path, json=options, headers=headers) if options else api.http.post(path, headers=headers)
    return api.http.post(path, query_string=options, data=data, content_type="text/csv", headers=headers)


def score(api: ApiUnderTest, data: bytes, **options: Any) -> str:
    """Score a file; give its job."""
    job_id = api.submit_file(data, "line", **options)
    api.score()
    return job_id


def read_lines(api: ApiUnderTest, job_id: str) -> list[bytes]:
    """Give the lines of a result."""
    response = api.http.get(f"/v1/jobs/{job_id}/result")
    assert response.status_code == 200, response.text
    return response.data.splitlines(keepends=True)


def test_corrected_file_gives_a_whole_result(small: ApiUnderTest) -> None:
    """Only the rows that had failed are taken from the corrected file; the others keep their bytes and answers."""
    first = score(small, BAD)
    before = read_lines(small, first)
    wholly_new = read_lines(small, score(small, GOOD))

    second = read_id(post_retry(small, first, GOOD))
    job = small.get_job(second)
    assert job["retry_of"] == first
    assert job["row_counts"] == {"total": 8, "succeeded": 0, "failed": 0, "pending": 8}
    small.score()

    job = small.get_job(second)
    assert (job["status"], job["row_counts"]["succeeded"], job["model"]) == ("succeeded", 8, "line:1")
    failed = {2, 5, 8}  # lines of the result, whose first is the header
    assert read_lines(small, second) == [
        wholly_new[line] if line in failed else before[line] for line in range(len(before))
    ]
    assert small.http.get(f"/v1/jobs/{second}/errors").data == b""


def test_chunks_without_a_failure_are_not_scored_again(small: ApiUnderTest) -> None:
    """What succeeded whole counts as done at once, and is not even offered; the first job may go meanwhile."""
    data = b"id,a,b\n" + b"".join(b"r%d,%d,1\n" % (row, row) for row in range(9)) + b"r9,x,1\n"
    first = score(small, data)

    second = read_id(post_retry(small, first))
    assert small.get_job(second)["row_counts"] == {"total": 10, "succeeded": 9, "failed": 0, "pending": 1}
    assert small.service.store.read_queue("files:line:1").outstanding_rows == 1
    whole = read_lines(small, first)
    small.http.delete(f"/v1/jobs/{first}")
    small.score()

    assert read_lines(small, second) == whole
    assert small.get_job(second)["status"] == "partially_succeeded"
    (error,) = [json.loads(line) for line in small.http.get(f"/v1/jobs/{second}/errors").data.splitlines()]
    assert (error["row"], error["line"]) == (10, 11)


def test_what_was_never_scored_is_scored_by_a_retry(small: ApiUnderTest) -> None:
    """A job that stopped early, or was canceled, goes on as a new one."""
    first = score(small, BAD, on_row_error="fail")
    assert small.get_job(first)["status"] == "failed"
    canceled = small.submit_file(GOOD, "line")
    small.http.post(f"/v1/jobs/{canceled}/cancel")

    stopped = read_id(post_retry(small, first, GOOD))
    small.score()
    resumed = read_id(post_retry(small, canceled))
    small.score()

    assert small.get_job(stopped)["status"] == small.get_job(resumed)["status"] == "succeeded"
    assert len(read_lines(small, stopped)) == 9
    assert read_lines(small, resumed) == read_lines(small, score(small, GOOD))


def test_retry_of_a_retry_goes_on_from_there(small: ApiUnderTest) -> None:
    """Failures may be mended in several steps; each has the successes of those before."""
    first = score(small, BAD)
    half = GOOD.replace(b"r4,4,4", b"r4,4,?")
    second = read_id(post_retry(small, first, half))
    small.score()
    third = read_id(post_retry(small, second, GOOD))
    small.score()
    direct = read_id(post_retry(small, first, GOOD))
    small.score()

    assert small.get_job(second)["row_counts"]["failed"] == 1
    assert read_lines(small, third) == read_lines(small, direct)


def test_retry_that_cannot_be_is_refused(small: ApiUnderTest) -> None:
    """Other rows, another header or model, nothing to do, not done yet: each is told, and nothing is kept."""
    first = score(small, BAD)
    kept = small.list_kept_files()

    short = assert_problem(post_retry(small, first, GOOD[:-9]), 422, "schema_mismatch")
    header = assert_problem(post_retry(small, first, GOOD.replace(b"id,", b"no,")), 422, "schema_mismatch")
    other = assert_problem(post_retry(small, first, model="iris"), 422, "schema_mismatch")
    assert_problem(post_retry(small, first, model="none"), 404, "unknown_model")
    assert_problem(post_retry(small, first, colour="red"), 400, "invalid_parameter")
    whole = score(small, GOOD)
    assert_problem(post_retry(small, whole), 409, "job_terminal")
    assert_problem(post_retry(small, "job_unknown"), 404, "unknown_job")

    assert "7 rows" in short["detail"]
    assert "8" in short["detail"]
    assert "header" in header["detail"]
    assert "classes" in other["detail"]
    small.http.delete(f"/v1/jobs/{whole}")
    assert small.list_kept_files() == kept
    waiting = small.submit_file(BAD, "line")
    assert_problem(post_retry(small, waiting), 409, "job_not_finished")


def test_repeated_retry_makes_one_job(small: ApiUnderTest) -> None:
    """Under the same Idempotency-Key the first retry is answered again."""
    first = score(small, BAD)
    key = {"Idempotency-Key": "again"}

    ids = {read_id(post_retry(small, first, GOOD, headers=key)) for _ in range(2)}

    assert len(ids) == 1
    assert_problem(post_retry(small, first, headers=key), 422, "idempotency_conflict")
    other = score(small, BAD)
    assert_problem(post_retry(small, other, GOOD, headers=key), 422, "idempotency_conflict")
    small.score()


NUMBERS = st.sampled_from(["0", "1.5", '"2"', " 3", "x", "", "inf", '"a\nb"'])
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(rows=ROWS, newline=st.sampled_from(["\n", "\r\n"]), ends=st.booleans())
def test_merged_rows_are_those_of_either_run(small: ApiUnderTest, rows: list[Any], newline: str, ends: bool) -> None:
    """Whatever the rows: a failed one has the corrected file's bytes and answer, every other one those of the first."""

    def write(pairs: list[tuple[Any, Any]]) -> bytes:
        text = newline.join(["a,b", *(f"{a},{b}" for a, b in pairs)])
        return (text + newline if ends else text).encode()

    first = score(small, write([(a, b) for a, b, _, _ in rows]))
    corrected = write([(a, b) for _, _, a, b in rows])
    expected = read_lines_of_records(small, score(small, corrected))
    before = read_lines_of_records(small, first)
    failed = {json.loads(line)["row"] for line in small.http.get(f"/v1/jobs/{first}/errors").data.splitlines()}
    if not failed:
        assert_problem(post_retry(small, first, corrected), 409, "job_terminal")
        return

    answer = post_retry(small, first, corrected)
    if small.get_job(first)["status"] == "failed":
        assert len(failed) == len(rows)
    second = read_id(answer)
    small.score()

    merged = read_lines_of_records(small, second)
    assert merged == [expected[row] if row in failed else before[row] for row in range(len(rows) + 1)]


def read_lines_of_records(api: ApiUnderTest, job_id: str) -> list[bytes]:
    """Give the records of a scored file, its header first; where none was scored, what partial gives."""
    from shared.records import find_records

    data = api.http.get(f"/v1/jobs/{job_id}/result", query_string={"partial": "true"}).data
    table = find_records(data, b",")
    return [data[start:end] for start, end in zip(table.starts, table.ends, strict=True)]
