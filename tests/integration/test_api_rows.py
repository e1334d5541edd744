"""Rows jobs over HTTP: submit, poll, wait, fetch; the answers are the model's own."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from api import waiting
from shared.claims import RowsOutcome
from shared.jobs import Status
from shared.store import JobStore
from tests.api_under_test import IRIS_CLASSES, IRIS_ROWS, LINE_ANSWERS, LINE_ROWS, ApiUnderTest, assert_problem
from tests.small_models import IRIS_COLUMNS

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def by_name(rows: list[list[float]], names: list[str]) -> list[dict[str, float]]:
    """Write rows as objects, with the columns in another order than the signature's."""
    return [dict(reversed(list(zip(names, row, strict=True)))) for row in rows]


def read_result(api: ApiUnderTest, job_id: str) -> Any:
    """Give the result of a job that must have one."""
    response = api.http.get(f"/v1/jobs/{job_id}/result")
    assert (response.status_code, response.mimetype) == (200, "application/json"), response.text
    return response.get_json()


def test_submission_is_answered_at_once_with_where_to_look(api: ApiUnderTest) -> None:
    """A 202 brings the job, its address and when to look again."""
    response = api.post_rows(IRIS_ROWS, metadata={"campaign": "x"}, priority="high")
    job = response.get_json()

    assert response.status_code == 202
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert int(response.headers["Retry-After"]) >= 1
    assert "Preference-Applied" not in response.headers
    assert re.fullmatch(r"job_[0-9A-Z]{34}", job["id"])
    assert (job["kind"], job["status"], job["model"], job["priority"]) == ("rows", "queued", "iris:1", "high")
    assert job["row_counts"] == {"total": 3, "succeeded": 0, "failed": 0, "pending": 3}
    assert job["metadata"] == {"campaign": "x"}
    assert (job["progress"], job["attempts"], job["error"], job["retry_of"]) == (0, 0, None, None)
    assert (job["started_at"], job["finished_at"], job["gone_at"]) == (None, None, None)
    assert MOMENT.fullmatch(job["created_at"])

    polled = api.get_job(job["id"])
    assert polled["queue_position"] == 1
    assert {**polled, "queue_position": None} == {**job, "created_at": polled["created_at"], "queue_position": None}


@pytest.mark.parametrize("shape", ["lists", "objects"])
def test_classifier_answers_as_when_called_directly(api: ApiUnderTest, models: Path, shape: str) -> None:
    """Labels, probabilities and classes are the estimator's, whichever shape the rows have."""
    job_id = api.submit_rows(IRIS_ROWS if shape == "lists" else by_name(IRIS_ROWS, IRIS_COLUMNS))

    api.score()

    estimator = joblib.load(models / "iris" / "1" / "model.joblib")
    result = read_result(api, job_id)
    assert result["predictions"] == list(estimator.predict(np.array(IRIS_ROWS))) == IRIS_CLASSES
    assert result["classes"] == list(estimator.classes_)
    np.testing.assert_allclose(result["probabilities"], estimator.predict_proba(np.array(IRIS_ROWS)), rtol=1e-6)
    assert result["errors"] == []


@pytest.mark.parametrize("shape", ["lists", "objects"])
def test_regressor_answers_numbers_without_probabilities(api: ApiUnderTest, shape: str) -> None:
    """A regressor's result has its numbers, and neither probabilities nor classes."""
    job_id = api.submit_rows(LINE_ROWS if shape == "lists" else by_name(LINE_ROWS, ["a", "b"]), "line:1")

    api.score()

    result = read_result(api, job_id)
    np.testing.assert_allclose(result["predictions"], LINE_ANSWERS, rtol=1e-6)
    assert result.keys().isdisjoint({"probabilities", "classes"})


def test_result_and_record_carry_their_evidence(api: ApiUnderTest) -> None:
    """A result says which bytes scored it, in what company and how long that took; the record adds up."""
    first, second = api.submit_rows(), api.submit_rows(IRIS_ROWS[:1])

    api.score()

    sha256 = api.service.registry.manifest("iris", 1).sha256
    for job_id, rows in ((first, 3), (second, 1)):
        result, job = read_result(api, job_id), api.get_job(job_id)
        assert (result["model"], result["model_sha256"]) == (job["model"], job["model_sha256"]) == ("iris:1", sha256)
        assert result["micro_batch_rows"] == 4  # both jobs were scored in one call
        assert result["queue_seconds"] >= 0
        assert result["predict_seconds"] > 0
        assert (job["status"], job["progress"], job["attempts"]) == ("succeeded", 1, 1)
        assert job["row_counts"] == {"total": rows, "succeeded": rows, "failed": 0, "pending": 0}
        moments = [job[name] for name in ("created_at", "started_at", "finished_at", "gone_at")]
        assert all(MOMENT.fullmatch(moment) for moment in moments)
        assert moments == sorted(moments)


@pytest.mark.parametrize("reference", ["iris", "iris:1", "iris@champion"])
def test_version_is_fixed_at_submission(api: ApiUnderTest, reference: str) -> None:
    """A name, an alias and a version are all answered with the exact version."""
    assert api.get_job(api.submit_rows(model=reference))["model"] == "iris:1"


def test_waiting_submission_brings_the_result(api: ApiUnderTest) -> None:
    """With Prefer: wait the job comes back finished, with its result and its address."""
    api.listen()
    with api.scoring():
        response = api.post_rows(IRIS_ROWS, headers={"Prefer": "respond-async, wait=30"})

    job = response.get_json()
    assert response.status_code == 200, response.text
    assert response.headers["Preference-Applied"] == "wait=30"
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["result"]["predictions"]) == ("succeeded", IRIS_CLASSES)
    assert job["result"] == read_result(api, job["id"])


def test_waiting_submission_that_takes_too_long_is_a_202(api: ApiUnderTest) -> None:
    """What is not done within the wait is answered as without it, and goes on."""
    response = api.post_rows(IRIS_ROWS, headers={"Prefer": "wait=1"})

    assert response.status_code == 202
    assert response.headers["Preference-Applied"] == "wait=1"
    assert int(response.headers["Retry-After"]) >= 1
    assert response.get_json()["status"] == "queued"
    api.score()
    assert api.get_job(response.get_json()["id"])["status"] == "succeeded"


def test_waiting_poll_ends_with_the_job(api: ApiUnderTest, wait_until: Callable[..., object]) -> None:
    """A long poll is answered when the job ends, not before and not at its own limit."""
    api.listen()
    job_id = api.submit_rows()
    answers: list[Any] = []

    def poll() -> None:
        answers.append(api.app.test_client().get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=50"}))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    wait_until(lambda: any(job_id in key for key in list(api.service.waiters._events)), 10, "the poll to wait")
    assert not answers

    api.score()
    thread.join(30)

    assert answers[0].status_code == 200
    assert answers[0].get_json()["status"] == "succeeded"
    assert answers[0].headers["Preference-Applied"] == "wait=50"


def test_lost_message_of_an_end_does_not_cost_the_wait(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the listener a waiting request looks for itself now and then."""
    monkeypatch.setattr("api.waiting.LOOK_SECONDS", 0.1)
    with api.scoring():
        assert api.post_rows(IRIS_ROWS, headers={"Prefer": "wait=30"}).status_code == 200
    assert waiting.LOOK_SECONDS < 10


def test_too_many_waiters_are_answered_at_once(start_api: Callable[..., ApiUnderTest]) -> None:
    """When no place to wait is left the preference is not honoured, and the answer does not claim it."""
    api = start_api(waiting_clients=0)

    submitted = api.post_rows(IRIS_ROWS, headers={"Prefer": "wait=30"})
    polled = api.http.get(submitted.headers["Location"], headers={"Prefer": "wait=30"})

    assert (submitted.status_code, polled.status_code) == (202, 200)
    assert "Preference-Applied" not in submitted.headers
    assert "Preference-Applied" not in polled.headers


def test_unchanged_job_is_not_sent_again(api: ApiUnderTest) -> None:
    """The ETag of a job gives 304 until the job changes."""
    address = f"/v1/jobs/{api.submit_rows()}"
    etag = api.http.get(address).headers["ETag"]

    same = api.http.get(address, headers={"If-None-Match": etag})
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", etag)

    api.score()
    changed = api.http.get(address, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag
    assert api.http.get(address, headers={"If-None-Match": changed.headers["ETag"]}).status_code == 304


def test_result_is_refused_until_the_job_is_finished(api: ApiUnderTest) -> None:
    """A queued and a running job answer 409 and when to try again."""
    job_id = api.submit_rows()
    response = api.http.get(f"/v1/jobs/{job_id}/result")
    assert "queued" in assert_problem(response, 409, "job_not_finished")["detail"]
    assert int(response.headers["Retry-After"]) >= 1

    api.service.store.claim("rows:iris:1", "someone", lease_seconds=60, max_rows=10, max_bytes=10**6)
    response = api.http.get(f"/v1/jobs/{job_id}/result")
    assert "running" in assert_problem(response, 409, "job_not_finished")["detail"]
    assert response.headers["Retry-After"]


def test_rows_of_which_some_fail_are_partially_succeeded(api: ApiUnderTest) -> None:
    """A row on which the model failed has null and its error; the others have their answers."""
    job_id = api.submit_rows([[0, 0], [1e308, 1e308], [1, 2]], "line")

    api.score()

    job, result = api.get_job(job_id), read_result(api, job_id)
    assert (job["status"], job["progress"]) == ("partially_succeeded", 1)
    assert job["row_counts"] == {"total": 3, "succeeded": 2, "failed": 1, "pending": 0}
    np.testing.assert_allclose([result["predictions"][0], result["predictions"][2]], [1, 9])
    assert result["predictions"][1] is None
    (error,) = result["errors"]
    assert error["row"] == 1
    assert error["detail"]
    lines = api.http.get(f"/v1/jobs/{job_id}/errors")
    assert lines.mimetype == "application/x-ndjson"
    assert [line["row"] for line in map(lines.json_module.loads, lines.text.splitlines())] == [1]


def test_job_of_which_every_row_fails_is_failed(api: ApiUnderTest) -> None:
    """The result of a failed job is its problem document, and the record carries the same."""
    job_id = api.submit_rows([[1e308, 1e308]], "line")

    api.score()

    problem = assert_problem(api.http.get(f"/v1/jobs/{job_id}/result"), 500, "model_error")
    job = api.get_job(job_id)
    assert job["status"] == "failed"
    assert job["row_counts"] == {"total": 1, "succeeded": 0, "failed": 1, "pending": 0}
    assert (job["error"]["code"], job["error"]["detail"]) == ("model_error", problem["detail"])
    assert (job["error"]["status"], job["error"]["instance"]) == (500, f"/v1/jobs/{job_id}")
    (listed,) = api.http.get("/v1/jobs?status=failed").get_json()["jobs"]
    assert listed == job


def test_commit_that_comes_after_the_cancel_is_refused(api: ApiUnderTest, store: JobStore) -> None:
    """A canceled job stays canceled, whatever a worker that had claimed it says."""
    job_id = api.submit_rows()
    (unit,) = store.claim("rows:iris:1", "late", lease_seconds=60, max_rows=10, max_bytes=10**6).units

    canceled = api.http.post(f"/v1/jobs/{job_id}/cancel")

    assert (canceled.status_code, canceled.get_json()["status"]) == (200, "canceled")
    assert store.commit_rows("late", [RowsOutcome(job_id, unit.attempt, Status.SUCCEEDED, 3, 0, b"{}")]) == [False]
    assert api.get_job(job_id)["status"] == "canceled"
    assert_problem(api.http.get(f"/v1/jobs/{job_id}/result"), 409, "job_canceled")
