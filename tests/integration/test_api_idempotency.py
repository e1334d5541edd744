"""A caller that repeats itself under the same Idempotency-Key gets the first job, and no second one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api_under_test import IRIS_CLASSES, IRIS_ROWS, ApiUnderTest, assert_problem, read_id

CSV = b"a,b\n1,2\n3,4\n"


@pytest.mark.parametrize("key", ["abc", '"abc"'], ids=["bare", "quoted"])
def test_repetition_answers_the_first_job(api: ApiUnderTest, key: str) -> None:
    """A repeated submission is answered with the first job, also when that has ended."""
    first = read_id(api.post_rows(IRIS_ROWS, headers={"Idempotency-Key": key}))
    assert read_id(api.post_rows(IRIS_ROWS, headers={"Idempotency-Key": '"abc"'})) == first
    api.score()

    again = api.post_rows(IRIS_ROWS, headers={"Idempotency-Key": key, "Prefer": "wait=5"})

    assert again.get_json()["id"] == first
    assert again.get_json()["result"]["predictions"] == IRIS_CLASSES
    assert len(api.http.get("/v1/jobs").get_json()["jobs"]) == 1


def test_key_with_another_payload_is_a_conflict(api: ApiUnderTest) -> None:
    """The same key for other rows is refused, and makes nothing."""
    api.post_rows(IRIS_ROWS, headers={"Idempotency-Key": "abc"})

    assert_problem(api.post_rows(IRIS_ROWS[:1], headers={"Idempotency-Key": "abc"}), 422, "idempotency_conflict")

    assert len(api.http.get("/v1/jobs").get_json()["jobs"]) == 1


def test_files_are_repeated_too(api: ApiUnderTest) -> None:
    """A file that is uploaded twice under one key is one job, with one input; another file is refused."""
    headers = {"Idempotency-Key": "abc"}
    first = read_id(api.post_file(CSV, "line", headers))

    assert read_id(api.post_file(CSV, "line", headers)) == first
    assert_problem(api.post_file(CSV + b"5,6\n", "line", headers), 422, "idempotency_conflict")

    assert [name for name in api.list_kept_files() if name.endswith("input")] == [f"jobs/{first}/input"]


def test_repetition_of_a_removed_job_is_gone(api: ApiUnderTest) -> None:
    """The key remembers a job that was deleted, and does not make another."""
    job_id = read_id(api.post_rows(IRIS_ROWS, headers={"Idempotency-Key": "abc"}))
    api.http.delete(f"/v1/jobs/{job_id}")

    assert_problem(api.post_rows(IRIS_ROWS, headers={"Idempotency-Key": "abc"}), 410, "job_gone")


def test_two_at_once_make_one_job(api: ApiUnderTest) -> None:
    """Repetitions that arrive together are one job."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda _: api.app.test_client().post(
                    "/v1/jobs", json={"model": "iris", "rows": IRIS_ROWS}, headers={"Idempotency-Key": "abc"}
                ),
                range(8),
            )
        )

    assert len({read_id(answer) for answer in answers}) == 1
    assert len(api.http.get("/v1/jobs").get_json()["jobs"]) == 1


@pytest.mark.parametrize("key", ['""', "x" * 256, "a\tb", "é"])
def test_strange_keys_are_refused(api: ApiUnderTest, key: str) -> None:
    """A key is 1 to 255 printable characters."""
    assert_problem(api.post_rows(IRIS_ROWS, headers={"Idempotency-Key": key}), 400, "invalid_parameter")


def test_compatible_endpoints_do_not_answer_another_row(api: ApiUnderTest) -> None:
    """The key of one row is refused for another one, and for another endpoint."""
    headers = {"Idempotency-Key": "abc"}
    with api.scoring():
        api.listen()
        first = api.http.post("/predict?model=line", json={"features": [1, 2]}, headers=headers)
        other_row = api.http.post("/predict?model=line", json={"features": [100, 200]}, headers=headers)
        other_model = api.http.post("/predict?model=line@champion", json={"features": [1, 2]}, headers=headers)

    assert first.get_json()["prediction"] == pytest.approx(9.0)
    assert_problem(other_row, 422, "idempotency_conflict")
    assert_problem(other_model, 422, "idempotency_conflict")
