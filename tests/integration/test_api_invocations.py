"""``/invocations``, ``/ping`` and ``/version``: bodies as MLflow's client writes them, through the same queue."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.api_under_test import IRIS_CLASSES, IRIS_ROWS, LINE_ANSWERS, LINE_ROWS, ApiUnderTest, assert_problem, read_id
from tests.small_models import IRIS_COLUMNS

# One server will do: it is not Redis that is tested here.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)

FRAME = pd.DataFrame(LINE_ROWS, columns=["a", "b"])


@pytest.fixture
def scoring_api(api: ApiUnderTest) -> Iterator[ApiUnderTest]:
    """Give a front end behind which a worker scores."""
    api.listen()
    with api.scoring():
        yield api


def invoke(api: ApiUnderTest, document: Any, model: str = "line", **members: Any) -> Any:
    """Ask in JSON, written as Python's `json` does: with NaN."""
    text = document if isinstance(document, str) else json.dumps(document)
    members = {"content_type": "application/json"} | members
    return api.http.post("/invocations", query_string={"model": model}, data=text, **members)


#: What MLflow 3's client sends of a frame, an array, a dictionary of arrays, and what its documents show.
BODIES: list[dict[str, Any]] = [
    {"dataframe_split": {"index": [0, 1, 2], "columns": ["a", "b"], "data": LINE_ROWS}},
    {"dataframe_split": {"columns": ["more", "b", "a"], "data": [["x", b, a] for a, b in LINE_ROWS]}},
    {"dataframe_split": {"columns": [0, 1], "data": LINE_ROWS}},
    {"dataframe_split": {"data": LINE_ROWS}},
    {"dataframe_records": [{"b": b, "more": None, "a": a} for a, b in LINE_ROWS]},
    {"instances": LINE_ROWS},
    {"instances": [{"a": a, "b": b} for a, b in LINE_ROWS]},
    {"inputs": LINE_ROWS},
    {"inputs": {"b": [b for _, b in LINE_ROWS], "a": [a for a, _ in LINE_ROWS]}, "params": None},
    {"inputs": [{"a": a, "b": b} for a, b in LINE_ROWS]},
]


def test_all_shapes_of_json(scoring_api: ApiUnderTest) -> None:
    """Each shape that MLflow has for a frame gives the same predictions, in the rows' order."""
    for document in BODIES:
        response = invoke(scoring_api, document)
        assert response.status_code == 200, response.text
        assert set(response.get_json()) == {"predictions"}
        assert response.get_json()["predictions"] == pytest.approx(LINE_ANSWERS), document


def test_labels_are_answered(scoring_api: ApiUnderTest) -> None:
    """A classifier answers labels, and the version may be named."""
    frame = {"columns": IRIS_COLUMNS, "data": IRIS_ROWS}

    assert invoke(scoring_api, {"dataframe_split": frame}, "iris:1").get_json() == {"predictions": IRIS_CLASSES}


@pytest.mark.parametrize("frame", [FRAME, FRAME.assign(more="x, y")[["more", "b", "a"]]])
def test_csv(scoring_api: ApiUnderTest, frame: pd.DataFrame) -> None:
    """A frame as pandas writes it, with its index or without, with a charset and a byte order mark."""
    for text in (
        frame.to_csv(index=False),
        frame.to_csv(),
        "\ufeff" + frame.to_csv(index=False, lineterminator="\r\n"),
    ):
        response = invoke(scoring_api, text, content_type="text/csv; charset=UTF-8")
        assert response.status_code == 200, response.text
        assert response.get_json()["predictions"] == pytest.approx(LINE_ANSWERS)


def test_what_a_client_asks_first(start_api: Callable[..., ApiUnderTest]) -> None:
    """``/ping`` depends on nothing, for whoever stops and starts the process by it; ``/version`` is a text."""
    api = start_api(redis_url="unix:///nowhere/r.sock")
    assert api.http.get("/ping").status_code == 200

    response = start_api().http.get("/version")
    assert (response.status_code, response.mimetype) == (200, "text/plain")
    assert response.text


@pytest.mark.parametrize(
    ("document", "status", "code", "says"),
    [
        ("{", 400, "malformed_json", "JSON"),
        ("[[1, 2]]", 400, "invalid_parameter", "dataframe_split"),
        ({}, 400, "invalid_parameter", "dataframe_split"),
        ({"instances": LINE_ROWS, "inputs": LINE_ROWS}, 400, "invalid_parameter", "with one of"),
        ({"instances": LINE_ROWS, "params": {"temperature": 1}}, 400, "invalid_parameter", "params"),
        ({"dataframe_split": LINE_ROWS}, 400, "invalid_parameter", '"data"'),
        ({"dataframe_split": {"data": LINE_ROWS, "rows": 1}}, 400, "invalid_parameter", "'rows'"),
        ({"dataframe_split": {"data": LINE_ROWS, "columns": "ab"}}, 400, "invalid_parameter", "list of names"),
        ({"dataframe_split": {"data": LINE_ROWS, "columns": ["a", "B"]}}, 422, "schema_mismatch", "b"),
        ({"dataframe_split": {"data": [[1, 2, 3]], "columns": ["a", "b", "a"]}}, 422, "schema_mismatch", "a"),
        ({"dataframe_split": {"data": [[1]], "columns": ["b", "a"]}}, 422, "schema_mismatch", "data/0: expected"),
        ({"dataframe_split": {"data": [[1, math.nan]]}}, 422, "schema_mismatch", "split/data/0/1 (column b)"),
        ({"dataframe_split": {"data": [[math.inf, 1]]}}, 422, "schema_mismatch", "finite"),
        ({"dataframe_split": {"data": []}}, 422, "schema_mismatch", "at least one row"),
        ({"dataframe_records": LINE_ROWS}, 400, "invalid_parameter", "list of objects"),
        ({"dataframe_records": [{"a": 1}]}, 422, "schema_mismatch", "b"),
        ({"dataframe_records": [{"a": 1, "b": 2}, {"a": 1}]}, 422, "schema_mismatch", "#/dataframe_records/1/b"),
        ({"dataframe_records": [{"a": 1, "b": "two"}]}, 422, "schema_mismatch", "expected a number"),
        ({"dataframe_records": [{"a": 1, "b": [2]}]}, 422, "schema_mismatch", "expected a number"),
        ({"instances": [1, 2]}, 422, "schema_mismatch", "#/instances/0"),
        ({"instances": "x"}, 400, "invalid_parameter", "list of rows"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, 400, "invalid_parameter", "same length"),
        ({"inputs": {"a": 1, "b": 2}}, 400, "invalid_parameter", "same length"),
        ({"inputs": {"a": [1]}}, 422, "schema_mismatch", "b"),
        ({"instances": [["\ud800", 1]]}, 422, "schema_mismatch", "expected a number"),
        ({"instances": [[1, 2]] * 10001}, 413, "payload_too_large", "10000"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(api: ApiUnderTest, document: Any, status: int, code: str, says: str) -> None:
    """Each fault of a frame is a problem that says where it is and what was expected."""
    assert says in json.dumps(assert_problem(invoke(api, document), status, code), ensure_ascii=False).replace(
        '\\"', '"'
    )


@pytest.mark.parametrize(
    ("text", "status", "code", "says"),
    [
        (b"", 400, "malformed_csv", "header"),
        (b"a,b\n", 422, "schema_mismatch", "at least one row"),
        (b"a,b\n1\n", 400, "malformed_csv", "1 fields"),
        (b"a,b\n1,\xff\n", 400, "malformed_csv", "UTF-8"),
        (b'a,b\n1,"2\n', 400, "malformed_csv", "CSV"),
        (b"a,c\n1,2\n", 422, "schema_mismatch", "b"),
        (b"a,b\n1,x\n", 422, "schema_mismatch", "expected a number"),
        (b"a,b\n1,NA\n", 422, "schema_mismatch", "missing"),
        (b"a,b\n1,1e999\n", 422, "schema_mismatch", "finite"),
    ],
)  # fmt: skip
def test_csv_that_does_not_fit_is_named(api: ApiUnderTest, text: bytes, status: int, code: str, says: str) -> None:
    """Each fault of a CSV body is a problem that says what was expected."""
    response = api.http.post("/invocations?model=line", data=text, content_type="text/csv")

    assert says in json.dumps(assert_problem(response, status, code))


def test_other_refusals_are_those_of_every_call(api: ApiUnderTest) -> None:
    """Unknown or unnamed model, another type or charset, another method."""
    assert_problem(invoke(api, BODIES[0], "none"), 404, "unknown_model")
    assert_problem(invoke(api, BODIES[0], ""), 400, "invalid_parameter")
    for kind in ("application/xml", "application/json; charset=utf-16", "text/csv; charset=latin-1"):
        assert_problem(invoke(api, BODIES[0], content_type=kind), 415, "unsupported_media_type")
    assert_problem(api.http.get("/invocations"), 405, "method_not_allowed")


def test_the_model_may_be_a_default(start_api: Callable[..., ApiUnderTest]) -> None:
    """Clients of MLflow name no model: the server's default is meant."""
    api = start_api(default_model="line")
    api.listen()
    with api.scoring():
        response = api.http.post("/invocations", json={"inputs": LINE_ROWS})

    assert response.get_json()["predictions"] == pytest.approx(LINE_ANSWERS)


def test_a_caller_may_prefer_a_job(scoring_api: ApiUnderTest) -> None:
    """``Prefer: respond-async`` gives a job, whose result is there later."""
    job_id = read_id(invoke(scoring_api, BODIES[0], headers={"Prefer": "respond-async"}))

    scoring_api.http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=30"})
    result = scoring_api.http.get(f"/v1/jobs/{job_id}/result").get_json()
    np.testing.assert_allclose(result["predictions"], LINE_ANSWERS, atol=1e-9)
