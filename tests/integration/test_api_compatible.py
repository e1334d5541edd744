"""``/predict`` and ``/predict_batch``: the shapes of a hand-written Flask service, over the same queue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.api_under_test import IRIS_CLASSES, IRIS_ROWS, LINE_ANSWERS, LINE_ROWS, ApiUnderTest, assert_problem

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def scoring_api(api: ApiUnderTest) -> Iterator[ApiUnderTest]:
    """Give a front end behind which a worker scores."""
    api.listen()
    with api.scoring():
        yield api


def test_predict_answers_one_row(scoring_api: ApiUnderTest) -> None:
    """One row in, its label, its probabilities by class and the time it took."""
    response = scoring_api.http.post("/predict?model=iris", json={"features": IRIS_ROWS[2]})

    assert response.status_code == 200, response.text
    answer = response.get_json()
    assert set(answer) == {"prediction", "probability", "processing_time", "timestamp"}
    assert answer["prediction"] == "virginica"
    assert np.argmax(answer["probability"]) == 2
    assert sum(answer["probability"]) == pytest.approx(1)
    assert 0 < answer["processing_time"] < 60
    assert MOMENT.fullmatch(answer["timestamp"])


def test_predict_batch_answers_every_row_in_order(scoring_api: ApiUnderTest) -> None:
    """Several rows in, as many results, each with its index."""
    response = scoring_api.http.post("/predict_batch?model=iris:1", json={"features": IRIS_ROWS})

    assert response.status_code == 200, response.text
    answer = response.get_json()
    assert set(answer) == {"results", "total_count", "timestamp"}
    assert answer["total_count"] == 3
    assert [result["index"] for result in answer["results"]] == [0, 1, 2]
    assert [result["prediction"] for result in answer["results"]] == IRIS_CLASSES
    assert all(set(result) == {"index", "prediction", "probability"} for result in answer["results"])
    assert MOMENT.fullmatch(answer["timestamp"])


def test_regressor_has_no_probability(scoring_api: ApiUnderTest) -> None:
    """A regressor answers numbers; the probability is null."""
    one = scoring_api.http.post("/predict?model=line", json={"features": LINE_ROWS[1]}).get_json()
    assert one["prediction"] == pytest.approx(LINE_ANSWERS[1])
    assert one["probability"] is None

    several = scoring_api.http.post("/predict_batch?model=line", json={"features": LINE_ROWS}).get_json()
    np.testing.assert_allclose([result["prediction"] for result in several["results"]], LINE_ANSWERS, atol=1e-9)


def test_row_on_which_the_model_fails_is_told(scoring_api: ApiUnderTest) -> None:
    """A single failed row is the error of the request; among others it is a null with its reason."""
    assert_problem(scoring_api.http.post("/predict?model=line", json={"features": [1e308, 1e308]}), 500, "model_error")
    response = scoring_api.http.post("/predict_batch?model=line", json={"features": [[0, 0], [1e308, 1e308]]})
    good, bad = response.get_json()["results"]
    assert good["prediction"] == pytest.approx(1)
    assert bad["prediction"] is None
    assert bad["error"]


def test_default_model_needs_no_name(start_api: Callable[..., ApiUnderTest]) -> None:
    """With SCOREQUEUE_DEFAULT_MODEL the query may be left out; without it, two models must be told apart."""
    api = start_api(default_model="line")
    with api.scoring():
        api.listen()
        assert api.http.post("/predict", json={"features": [1, 2]}).get_json()["prediction"] == pytest.approx(9)

    problem = assert_problem(start_api().http.post("/predict", json={"features": [1, 2]}), 400, "invalid_parameter")
    assert "iris, line" in problem["detail"]


@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
def test_what_is_not_done_in_time_is_canceled(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Past the limit the caller gets a 504, and nobody scores for it any more."""
    monkeypatch.setattr("api.roundtrip.WAIT_SECONDS", 0.2)
    features = IRIS_ROWS[0] if path == "/predict" else IRIS_ROWS

    assert_problem(api.http.post(f"{path}?model=iris", json={"features": features}), 504, "deadline_exceeded")

    (job,) = api.http.get("/v1/jobs").get_json()["jobs"]
    assert job["status"] == "canceled"
    assert api.service.store.read_queue("rows:iris:1").outstanding_rows == 0


def test_no_place_to_wait_is_overload_not_lateness(start_api: Callable[..., ApiUnderTest]) -> None:
    """When too many requests wait already the caller is told to come back, and the job does not linger."""
    api = start_api(waiting_clients=0)
    response = api.http.post("/predict?model=iris", json={"features": IRIS_ROWS[0]})
    assert_problem(response, 503, "overloaded")
    assert response.headers["Retry-After"]
    assert api.service.store.read_queue("rows:iris:1").outstanding_rows == 0


BAD: list[tuple[str, Any, int, str, str | None]] = [
    ("/predict", {"features": [1, 2, 3]}, 422, "schema_mismatch", "#/features"),
    ("/predict", {"features": ["x", 2, 3, 4]}, 422, "schema_mismatch", "#/features/0"),
    ("/predict", {"features": [1, 2, None, 4]}, 422, "schema_mismatch", "#/features/2"),
    ("/predict", {"features": [1, 2, float("nan"), 4]}, 422, "schema_mismatch", "#/features/2"),
    ("/predict", {"features": IRIS_ROWS}, 422, "schema_mismatch", "#/features"),
    ("/predict", {"features": []}, 422, "schema_mismatch", "#/features"),
    ("/predict", {"features": None}, 422, "schema_mismatch", "#/features"),
    ("/predict", {"features": "1,2,3,4"}, 422, "schema_mismatch", "#/features"),
    ("/predict", {"feature": [1, 2, 3, 4]}, 400, "invalid_parameter", None),
    ("/predict", [1, 2, 3, 4], 400, "invalid_parameter", None),
    ("/predict", "1,2,3,4", 400, "invalid_parameter", None),
    ("/predict_batch", {"features": IRIS_ROWS[0]}, 422, "schema_mismatch", "#/features/0"),
    ("/predict_batch", {"features": []}, 422, "schema_mismatch", "#/features"),
    ("/predict_batch", {"features": [*IRIS_ROWS, [1]]}, 422, "schema_mismatch", "#/features/3"),
    ("/predict_batch", {"features": [[1, 2, 3, float("inf")]]}, 422, "schema_mismatch", "#/features/0/3"),
    ("/predict_batch", {}, 400, "invalid_parameter", None),
]


@pytest.mark.parametrize(("path", "body", "status", "code", "pointer"), BAD)
def test_bad_features_are_named(
    api: ApiUnderTest, path: str, body: Any, status: int, code: str, pointer: str | None
) -> None:
    """What is wrong with the features is said at once, with its place, and makes no job."""
    problem = assert_problem(api.http.post(f"{path}?model=iris", json=body), status, code)
    if pointer:
        assert problem["errors"][0]["pointer"] == pointer
        assert pointer in problem["detail"]
    assert api.http.get("/v1/jobs").get_json()["jobs"] == []


@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
def test_other_refusals_are_those_of_every_job(start_api: Callable[..., ApiUnderTest], path: str) -> None:
    """Unknown model, wrong media type, what is not JSON, and too much of it."""
    api = start_api(max_body_bytes=200, max_job_rows=2)
    assert_problem(api.http.post(f"{path}?model=none", json={"features": [1]}), 404, "unknown_model")
    assert_problem(api.http.post(f"{path}?model=iris", data=b"features=1"), 415, "unsupported_media_type")
    for text in ("", "{", "[" * 150):
        response = api.http.post(f"{path}?model=iris", data=text, content_type="application/json")
        assert_problem(response, 400, "malformed_json")
    response = api.http.post(f"{path}?model=iris", json={"features": [1] * 300})
    assert_problem(response, 413, "payload_too_large")
    response = api.http.post("/predict_batch?model=iris", json={"features": [[1, 2, 3, 4]] * 3})
    assert "at most 2" in assert_problem(response, 413, "payload_too_large")["detail"]
