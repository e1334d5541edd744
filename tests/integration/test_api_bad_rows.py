"""Bad input to rows jobs: each is refused at once with what was wrong, where, and what was expected; none is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api_under_test import IRIS_ROWS, ApiUnderTest, assert_problem
from tests.small_models import IRIS_COLUMNS

GOOD_ROW = "[5.1, 3.5, 1.4, 0.2]"


@pytest.fixture(autouse=True)
def _keeps_nothing(api: ApiUnderTest) -> Any:
    """Whatever a test of this file sends is refused, and no job is left of it."""
    yield
    assert api.http.get("/v1/jobs").get_json()["jobs"] == []


def post(api: ApiUnderTest, body: str | bytes, content_type: str = "application/json") -> Any:
    """Send a body as it is."""
    return api.http.post("/v1/jobs", data=body, content_type=content_type)


def post_text(api: ApiUnderTest, rows: str) -> Any:
    """Send rows as they stand, in an otherwise good body."""
    return post(api, f'{{"model": "iris", "rows": {rows}}}')


NOT_JSON: dict[str, str | bytes] = {
    "empty": "",
    "a word": "hello",
    "cut off": '{"model": "iris", "rows": [[5.1, 3.5',
    "a comma too many": '{"model": "iris", "rows": [[5.1, 3.5, 1.4, 0.2],]}',
    "single quotes": "{'model': 'iris', 'rows': [[5.1, 3.5, 1.4, 0.2]]}",
    "two documents": '{"model": "iris", "rows": []} {}',
    "not UTF-8": b'{"model": "ir\xffis", "rows": [[5.1, 3.5, 1.4, 0.2]]}',
    "not UTF-8 in a column's name": b'{"model": "iris", "rows": [{"\xff": 1.0}]}',
    "not UTF-8 in a value": b'{"model": "iris", "rows": [["\xff", 3.5, 1.4, 0.2]]}',
    "UTF-16": f'{{"model": "iris", "rows": [{GOOD_ROW}]}}'.encode("utf-16"),
    "a byte order mark": f'{{"model": "iris", "rows": [{GOOD_ROW}]}}'.encode("utf-8-sig"),
    "zero bytes": b"\0" * 100,
    "nested without end": '{"model": "iris", "metadata": ' + '{"a":' * 100_000,
    "rows nested too deep": '{"model": "iris", "rows": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "rows nested in objects": '{"model": "iris", "rows": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}",
    "NaN in the wrong place": '{"model": NaN, "rows": [[5.1, 3.5, 1.4, 0.2]]}',
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_malformed(api: ApiUnderTest, body: str | bytes) -> None:
    """A body that no JSON parser takes is a 400."""
    assert_problem(post(api, body), 400, "malformed_json")


WRONG_SHAPE: dict[str, tuple[Any, str]] = {
    "a list": ([1, 2], "#"),
    "null": (None, "#"),
    "a text": ("iris", "#"),
    "empty": ({}, "#"),
    "no rows": ({"model": "iris"}, "#"),
    "no model": ({"rows": IRIS_ROWS}, "#"),
    "model is a number": ({"model": 1, "rows": IRIS_ROWS}, "#/model"),
    "unknown member": ({"model": "iris", "rows": IRIS_ROWS, "colour": "red"}, "#"),
    "unknown priority": ({"model": "iris", "rows": IRIS_ROWS, "priority": "urgent"}, "#/priority"),
    "deadline of nothing": ({"model": "iris", "rows": IRIS_ROWS, "deadline_seconds": 0}, "#/deadline_seconds"),
    "deadline before now": ({"model": "iris", "rows": IRIS_ROWS, "deadline_seconds": -5}, "#/deadline_seconds"),
    "deadline in years": ({"model": "iris", "rows": IRIS_ROWS, "deadline_seconds": 1e9}, "#/deadline_seconds"),
    "retention as text": ({"model": "iris", "rows": IRIS_ROWS, "retention_seconds": "1h"}, "#/retention_seconds"),
    "metadata as text": ({"model": "iris", "rows": IRIS_ROWS, "metadata": "x"}, "#/metadata"),
}


@pytest.mark.parametrize(("body", "pointer"), WRONG_SHAPE.values(), ids=WRONG_SHAPE)
def test_json_of_the_wrong_shape_is_refused(api: ApiUnderTest, body: Any, pointer: str) -> None:
    """The answer points to the member that is wrong."""
    problem = assert_problem(post(api, json.dumps(body)), 400, "invalid_parameter")
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]
    assert pointer in problem["detail"]


BAD_ROWS: dict[str, tuple[str, str, str | None, str]] = {
    "no row": ("[]", "#/rows", None, "malformed_row"),
    "rows is null": ("null", "#/rows", None, "malformed_row"),
    "rows is an object": ("{}", "#/rows", None, "malformed_row"),
    "rows is a text": ('"5.1,3.5"', "#/rows", None, "malformed_row"),
    "one flat row": (GOOD_ROW, "#/rows/0", None, "malformed_row"),
    "an empty row": ("[[]]", "#/rows/0", None, "malformed_row"),
    "row is null": (f"[{GOOD_ROW}, null]", "#/rows/1", None, "malformed_row"),
    "a column too few": (f"[{GOOD_ROW}, [5.1, 3.5, 1.4]]", "#/rows/1", None, "malformed_row"),
    "a column too many": ("[[5.1, 3.5, 1.4, 0.2, 1]]", "#/rows/0", None, "malformed_row"),
    "lists in a row": ("[[[5.1], [3.5], [1.4], [0.2]]]", "#/rows/0/0", "sepal_length", "type_error"),
    "a text": (f'[{GOOD_ROW}, [5.1, "x", 1.4, 0.2]]', "#/rows/1/1", "sepal_width", "type_error"),
    "a number as text": ('[[5.1, "3.5", 1.4, 0.2]]', "#/rows/0/1", "sepal_width", "type_error"),
    "true": ("[[5.1, true, 1.4, 0.2]]", "#/rows/0/1", "sepal_width", "type_error"),
    "null": ("[[5.1, 3.5, 1.4, null]]", "#/rows/0/3", "petal_width", "missing_value"),
    "NaN": (f"[{GOOD_ROW}, [5.1, 3.5, NaN, 0.2]]", "#/rows/1/2", "petal_length", "non_finite"),
    "Infinity": ("[[5.1, 3.5, Infinity, 0.2]]", "#/rows/0/2", "petal_length", "non_finite"),
    "-Infinity": ("[[5.1, 3.5, -Infinity, 0.2]]", "#/rows/0/2", "petal_length", "non_finite"),
    "1e999": ("[[5.1, 3.5, 1e999, 0.2]]", "#/rows/0/2", "petal_length", "non_finite"),
    "a huge integer": (f"[[5.1, 3.5, 1{'0' * 400}, 0.2]]", "#/rows/0/2", "petal_length", "non_finite"),
    "a monstrous integer": (f"[[5.1, 3.5, -1{'0' * 6000}, 0.2]]", "#/rows/0/2", "petal_length", "non_finite"),
    "object without a column": (
        '[{"sepal_length": 1, "sepal_width": 1, "petal_length": 1}]',
        "#/rows/0/petal_width",
        "petal_width",
        "missing_value",
    ),
    "object with NaN": (
        '[{"sepal_length": NaN, "sepal_width": 1, "petal_length": 1, "petal_width": 1}]',
        "#/rows/0/sepal_length",
        "sepal_length",
        "non_finite",
    ),
    "object with another column": (
        '[{"sepal_length": 1, "sepal_width": 1, "petal_length": 1, "petal_width": 1, "a/b~": 1}]',
        "#/rows/0/a~1b~0",
        "a/b~",
        "malformed_row",
    ),
    "lone surrogate as a column's name": (
        r'[{"sepal_length": 1, "sepal_width": 1, "petal_length": 1, "petal_width": 1, "\ud800": 1}]',
        r"#/rows/0/\ud800",
        r"\ud800",
        "malformed_row",
    ),
    "lone surrogate as a value": (r'[["\ud800", 3.5, 1.4, 0.2]]', "#/rows/0/0", "sepal_length", "type_error"),
}


@pytest.mark.parametrize(("rows", "pointer", "column", "code"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_row_is_named(api: ApiUnderTest, rows: str, pointer: str, column: str | None, code: str) -> None:
    """A row that does not fit the signature refuses the job and is named by row and column."""
    problem = assert_problem(post_text(api, rows), 422, "schema_mismatch")
    (fault,) = [fault for fault in problem["errors"] if fault["pointer"] == pointer]
    assert (fault.get("column"), fault["code"]) == (column, code)
    assert fault["detail"]
    assert problem["errors"][0]["pointer"] in problem["detail"]


def test_every_fault_is_listed_up_to_a_hundred(api: ApiUnderTest) -> None:
    """All faults come back at once, of whatever sort; of many the first hundred, and the count of all rows."""
    rows = [IRIS_ROWS[0], ["x", None, 1, 2], {"petal_width": "y"}, [1]]
    problem = assert_problem(api.post_rows(rows), 422, "schema_mismatch")
    assert [fault["pointer"] for fault in problem["errors"]] == [
        *("#/rows/1/0", "#/rows/1/1"),
        *(f"#/rows/2/{name}" for name in IRIS_COLUMNS),
        "#/rows/3",
    ]
    assert "3 of 4 rows" in problem["detail"]

    problem = assert_problem(api.post_rows([["x"] * 4] * 1000), 422, "schema_mismatch")
    assert len(problem["errors"]) == 100
    assert "1000 of 1000 rows" in problem["detail"]


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("irsi", "did you mean 'iris'"),
        ("nothing", "iris, line"),
        ("iris:2", "no version 2"),
        ("iris:0", "not a version"),
        ("iris:x", "not a version"),
        ("iris@latest", "no alias 'latest'"),
        ("", "iris, line"),
        ("../../etc/passwd", "iris, line"),
        ("iris/1", "iris, line"),
        ("i" * 10_000, "iris, line"),
        ("\ud800", "iris, line"),
        ("iris\n", "iris"),
    ],
)
def test_unknown_model_is_a_404_that_helps(api: ApiUnderTest, reference: str, says: str) -> None:
    """What the reference does not name is said, with what there is."""
    problem = assert_problem(api.post_rows(IRIS_ROWS, reference), 404, "unknown_model")
    assert says in problem["detail"]
    assert len(problem["detail"]) < 500


def test_broken_manifest_is_said_and_costs_only_its_model(api: ApiUnderTest, models: Path) -> None:
    """A version whose manifest cannot be used is not ready; the answer names file and field, never the folder."""
    manifest = models / "iris" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"sha256"', '"sha255"'))

    problem = assert_problem(api.post_rows(IRIS_ROWS), 503, "model_not_ready")

    assert "sha256" in problem["detail"]
    assert str(models) not in problem["detail"]
    assert [model["name"] for model in api.http.get("/v1/models").get_json()["models"]] == ["iris", "line"]
    taken = api.submit_rows([[1, 2]], "line")
    assert api.http.delete(f"/v1/jobs/{taken}").status_code == 204


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/xml", "application/x-www-form-urlencoded"])
def test_unsupported_media_type_is_a_415(api: ApiUnderTest, content_type: str) -> None:
    """Only what can be scored is taken, and the answer says what that is."""
    problem = assert_problem(
        api.http.post("/v1/jobs?model=iris", data=b"x", content_type=content_type), 415, "unsupported_media_type"
    )
    assert "application/json" in problem["detail"]
    assert "text/csv" in problem["detail"]


def test_too_many_rows_are_sent_to_a_file(start_api: Callable[..., ApiUnderTest]) -> None:
    """One row over the limit is a 413 that names the other way, even if that row is bad."""
    api = start_api(max_job_rows=3)
    for rows in ([IRIS_ROWS[0]] * 4, [["x"] * 4] * 4):
        problem = assert_problem(api.post_rows(rows), 413, "payload_too_large")
        assert "at most 3" in problem["detail"]
        assert "file" in problem["detail"]


@pytest.mark.parametrize("depth", [1, 31, 32, 500, 1100])
def test_metadata_that_is_taken_can_be_read(api: ApiUnderTest, depth: int) -> None:
    """Metadata nested too deep is refused at the submission; it never makes a job that cannot be shown."""
    metadata = '{"a":' * depth + "1" + "}" * depth
    response = post(api, f'{{"model": "iris", "rows": [{GOOD_ROW}], "metadata": {metadata}}}')

    if depth < 32:
        assert response.status_code == 202, response.text
        job_id = response.get_json()["id"]
        assert api.get_job(job_id)["metadata"] == json.loads(metadata)
        assert api.http.delete(f"/v1/jobs/{job_id}").status_code == 204
    else:
        assert_problem(response, 400, "malformed_json" if depth > 900 else "invalid_parameter")


@pytest.mark.parametrize(
    "metadata", [{"n": 10**30}, {"n": -(2**63)}, {"x": 1e300}, {"": None}, {"é": ["\n", True, {}, []]}]
)
def test_metadata_comes_back_as_it_was(api: ApiUnderTest, metadata: dict[str, Any]) -> None:
    """What a caller attaches to a job is returned unchanged."""
    job_id = api.submit_rows(metadata=metadata)

    assert api.get_job(job_id)["metadata"] == metadata
    assert api.http.delete(f"/v1/jobs/{job_id}").status_code == 204


def test_large_metadata_is_refused(api: ApiUnderTest) -> None:
    """Metadata is a note, not a second payload."""
    problem = assert_problem(api.post_rows(IRIS_ROWS, metadata={"x": "y" * 70_000}), 400, "invalid_parameter")
    assert "metadata" in problem["detail"]


def test_of_a_doubled_key_the_last_counts(api: ApiUnderTest) -> None:
    """JSON does not forbid a doubled name; the last one counts, in good rows and in bad ones alike."""
    rest = '"sepal_width": 1, "petal_length": 1, "petal_width": 1'
    bad_last = post_text(api, f'[{{"sepal_length": 1, {rest}, "sepal_length": "x"}}]')
    assert_problem(bad_last, 422, "schema_mismatch")

    good_last = post_text(api, f'[{{"sepal_length": "x", {rest}, "sepal_length": 1}}]')
    assert good_last.status_code == 202
    assert api.http.delete(good_last.headers["Location"]).status_code == 204
