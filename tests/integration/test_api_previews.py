"""Dry runs: the first rows scored and the differences told, at once, and nothing left of it."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pytest

from tests.api_under_test import ApiUnderTest, assert_problem
from tests.integration.test_api_formats import CSV, NDJSON, PARQUET, RECORDS, WRITERS

#: One Redis is enough.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)


def preview(api: ApiUnderTest, data: bytes, media_type: str = CSV, **options: Any) -> dict[str, Any]:
    """Ask for a dry run; give the answer."""
    headers = options.pop("headers", None)
    query = {"model": "line", "dry_run": "true"} | options
    with api.scoring():
        response = api.http.post("/v1/jobs", query_string=query, data=data, content_type=media_type, headers=headers)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.get_json()
    assert answer["model"] == "line:1"
    assert api.list_kept_files() == []
    assert api.http.get("/v1/jobs").get_json()["jobs"] == []
    return answer


@pytest.mark.parametrize("media_type", [CSV, NDJSON, PARQUET])
def test_first_rows_are_scored_and_no_job_is_made(api: ApiUnderTest, media_type: str) -> None:
    """A dry run shows each row with its prediction or its error, and leaves neither job nor file."""
    answer = preview(api, WRITERS[media_type](RECORDS), media_type)

    assert [row["prediction"] for row in answer["preview"]] == [9.0, None, -4.25]
    assert [row["id"] for row in answer["preview"]] == [record["id"] for record in RECORDS]
    differences = [(fault["column"], fault["code"]) for fault in answer["differences"]]
    assert differences == [("a", "missing_value"), ("id", "unused_column")]
    assert answer["differences"][0]["detail"].startswith("1 row(s); the first: row 2")


def test_no_more_than_a_hundred_rows_are_shown(api: ApiUnderTest) -> None:
    """Of a large file only the head is scored, and the rest need not even be good."""
    data = b"a,b\n" + b"1,2\n" * 150 + b'"never closed'

    answer = preview(api, data)

    assert [row["prediction"] for row in answer["preview"]] == [9.0] * 100


def test_head_of_a_compressed_file_is_enough(api: ApiUnderTest) -> None:
    """A gzip file that was cut off can be looked at: its beginning is all that is asked for."""
    data = gzip.compress(b"a,b\n" + b"".join(b"%d,2\n" % (i * 7919 % 10007) for i in range(100_000)))

    answer = preview(api, data[: len(data) // 2], headers={"Content-Encoding": "gzip"})

    assert len(answer["preview"]) == 100


def test_missing_columns_are_told_without_scoring(api: ApiUnderTest) -> None:
    """Without a column of the model there is no preview, and its name and the nearest ones are told."""
    answer = preview(api, b"A,b,prediction\n1,2,3\n")

    assert answer["preview"] is None
    differences = {fault["column"]: fault for fault in answer["differences"]}
    assert differences["a"]["code"] == "missing_column"
    assert "did you mean A?" in differences["a"]["detail"]
    assert differences["prediction"]["code"] in ("column_collision", "unused_column")
    assert differences["A"]["code"] == "unused_column"


def test_form_can_be_a_dry_run(api: ApiUnderTest) -> None:
    """The options of a form come with it, also after the file."""
    fields = {"file": (io.BytesIO(b"a,b\n1,2\n"), "rows.csv"), "model": "line", "dry_run": "true"}

    with api.scoring():
        response = api.http.post("/v1/jobs", data=fields, content_type="multipart/form-data")

    assert response.status_code == 200, response.text
    assert [row["prediction"] for row in response.get_json()["preview"]] == [9.0]


def test_rubbish_is_refused_as_ever(api: ApiUnderTest) -> None:
    """A dry run of what is no file is the same error as a job of it."""
    query = {"model": "line", "dry_run": "true"}

    response = api.http.post("/v1/jobs", query_string=query, data=b"\0\1\2\n", content_type=CSV)

    assert_problem(response, 400, "malformed_csv")


def test_dry_run_without_workers_is_told(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no worker scores the rows in time that is said, and nothing is left."""
    monkeypatch.setattr("api.previews._WAIT_SECONDS", 0.3)
    query = {"model": "line", "dry_run": "true"}

    response = api.http.post("/v1/jobs", query_string=query, data=b"a,b\n1,2\n", content_type=CSV)

    assert_problem(response, 503, "overloaded")
    assert api.list_kept_files() == []
