"""Parquet and JSON lines, in and out: the same rows, in their order, whatever they are written as."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from werkzeug.test import TestResponse

from tests.api_under_test import ApiUnderTest, assert_problem, read_id
from worker.registration import register_model

#: What is tested are formats: one Redis is enough.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)

PARQUET, NDJSON, CSV = "application/vnd.apache.parquet", "application/x-ndjson", "text/csv"
#: Rows of ``line`` (y = 2a + 3b + 1), of which the second lacks a value.
RECORDS: list[dict[str, Any]] = [
    {"id": "first", "a": 1.0, "b": 2.0},
    {"id": "second", "a": None, "b": 0.5},
    {"id": 'say "hi"\n', "a": -3.0, "b": 0.25},
]
ANSWERS = [9.0, None, -4.25]
#: Rows of a model of mixed types; the zip codes are none of its columns.
TOWNS: list[dict[str, Any]] = [
    {"zip": "z02139", "city": "Rome", "old": True, "size": 1.5},
    {"zip": "z10115", "city": "Oslo", "old": False, "size": 2.25},
    {"zip": "z75001", "city": 'Bath, "Avon"', "old": True, "size": 3.75},
]


def write_parquet(records: list[dict[str, Any]], **options: Any) -> bytes:
    """Write records as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), sink, **options)
    return sink.getvalue()


def write_ndjson(records: list[dict[str, Any]]) -> bytes:
    """Write records as JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def write_csv(records: list[dict[str, Any]]) -> bytes:
    """Write records as CSV."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.Table.from_pylist(records), sink)
    return sink.getvalue().to_pybytes()


WRITERS = {CSV: write_csv, NDJSON: write_ndjson, PARQUET: write_parquet}


def post(api: ApiUnderTest, data: bytes, media_type: str, model: str = "line", **options: Any) -> TestResponse:
    """Submit a file; give the answer, whatever it is."""
    headers = options.pop("headers", None)
    query = {"model": model} | options
    return api.http.post("/v1/jobs", query_string=query, data=data, content_type=media_type, headers=headers)


def fetch(api: ApiUnderTest, job_id: str, media_type: str) -> bytes:
    """Fetch a result in a format."""
    response = api.http.get(f"/v1/jobs/{job_id}/result", headers={"Accept": media_type})
    assert response.status_code == 200, response.text
    assert response.mimetype == media_type
    assert int(response.headers["Content-Length"]) == len(response.data)
    return response.data


def read_records(data: bytes, media_type: str) -> list[dict[str, Any]]:
    """Read a result, its missing values as None."""
    if media_type == PARQUET:
        return pq.read_table(io.BytesIO(data)).to_pylist()
    if media_type == NDJSON:
        return [json.loads(line) for line in data.splitlines()]
    options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    return pyarrow.csv.read_csv(io.BytesIO(data), parse_options=parse, convert_options=options).to_pylist()


@pytest.mark.parametrize("wanted", WRITERS)
@pytest.mark.parametrize("sent", WRITERS)
def test_each_format_becomes_each_other(api: ApiUnderTest, sent: str, wanted: str) -> None:
    """Rows, values, predictions and errors are the same whatever the file came as and is fetched as."""
    job_id = read_id(post(api, WRITERS[sent](RECORDS), sent))
    api.score()

    job = api.get_job(job_id)
    found = read_records(fetch(api, job_id, wanted), wanted)

    assert (job["status"], job["row_counts"]["failed"]) == ("partially_succeeded", 1)
    assert [record["prediction"] for record in found] == ANSWERS
    assert [record["error_code"] for record in found] == [None, "missing_value", None]
    assert [{name: record[name] for name in ("id", "a", "b")} for record in found] == RECORDS
    assert list(found[0]) == ["id", "a", "b", "prediction", "error_code", "error_message"]
    errors = [json.loads(line) for line in api.http.get(f"/v1/jobs/{job_id}/errors").data.splitlines()]
    assert [(error["row"], error["column"], error["code"]) for error in errors] == [(2, "a", "missing_value")]


@pytest.mark.parametrize("wanted", WRITERS)
def test_classes_keep_their_types(api: ApiUnderTest, wanted: str) -> None:
    """A classifier's labels and probabilities come in every format."""
    header = "sepal_length,sepal_width,petal_length,petal_width\n"
    job_id = read_id(post(api, (header + "5.1,3.5,1.4,0.2\n6.3,3.3,6.0,2.5\n").encode(), CSV, "iris"))
    api.score()

    found = read_records(fetch(api, job_id, wanted), wanted)

    assert [record["prediction"] for record in found] == ["setosa", "virginica"]
    assert all(abs(sum(v for k, v in record.items() if k.startswith("probability_")) - 1) < 1e-9 for record in found)


def test_file_is_given_back_as_it_came(api: ApiUnderTest) -> None:
    """Who asks for nothing, or for what there is not, gets the format of the input; the name says which."""
    for media_type, ending in ((CSV, "csv"), (NDJSON, "ndjson"), (PARQUET, "parquet")):
        job_id = read_id(post(api, WRITERS[media_type](RECORDS), media_type))
        api.score()
        for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
            response = api.http.get(f"/v1/jobs/{job_id}/result", headers=accept)
            assert response.mimetype == media_type
            assert f".scored.{ending}" in response.headers["Content-Disposition"]
            assert response.headers["Vary"] == "Accept"


@pytest.mark.parametrize("wanted", WRITERS)
@pytest.mark.parametrize("sent", WRITERS)
def test_broken_download_resumes(api: ApiUnderTest, sent: str, wanted: str) -> None:
    """A range of a result is that of the whole, in every format, under a strong ETag."""
    job_id = read_id(post(api, WRITERS[sent](RECORDS * 50), sent))
    api.score()
    whole = fetch(api, job_id, wanted)

    headers = {"Accept": wanted, "Range": f"bytes={len(whole) // 2}-"}
    half = api.http.get(f"/v1/jobs/{job_id}/result", headers=headers)

    assert (half.status_code, half.data) == (206, whole[len(whole) // 2 :])
    assert half.headers["Content-Range"] == f"bytes {len(whole) // 2}-{len(whole) - 1}/{len(whole)}"
    etag = half.headers["ETag"]
    again = api.http.get(f"/v1/jobs/{job_id}/result", headers={"Accept": wanted, "If-None-Match": etag})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("media_type", [NDJSON, PARQUET])
def test_chunks_together_are_the_whole(start_api: Any, media_type: str) -> None:
    """A file of many chunks gives the same result as one of one chunk."""
    records = [{"a": index / 7, "b": -index, "id": str(index)} for index in range(2500)]
    results = []
    for rows in (1000, 10_000):
        api = start_api(chunk_rows=rows)
        job_id = read_id(post(api, WRITERS[media_type](records), media_type))
        api.score()
        results.append(read_records(fetch(api, job_id, media_type), media_type))

    assert results[0] == results[1]
    assert [record["id"] for record in results[0]] == [record["id"] for record in records]


@pytest.mark.parametrize("media_type", [NDJSON, PARQUET])
def test_columns_that_are_missing_are_named(api: ApiUnderTest, media_type: str) -> None:
    """A file without a column of the model is refused before anything is scored, with the nearest names."""
    data = WRITERS[media_type]([{"A": 1.0, "b": 2.0}])

    problem = assert_problem(post(api, data, media_type), 422, "schema_mismatch")

    assert [(fault["column"], fault["code"]) for fault in problem["errors"]] == [("a", "missing_column")]
    assert "did you mean A?" in problem["errors"][0]["detail"]
    assert api.list_kept_files() == []


def test_column_of_another_type_is_refused(api: ApiUnderTest) -> None:
    """A Parquet column that holds no numbers is refused as a whole."""
    problem = assert_problem(post(api, write_parquet([{"a": "x", "b": 2.0}]), PARQUET), 422, "schema_mismatch")

    assert [(fault["column"], fault["code"]) for fault in problem["errors"]] == [("a", "type_error")]


@pytest.mark.parametrize("media_type", WRITERS)
def test_columns_that_would_collide_need_a_prefix(api: ApiUnderTest, media_type: str) -> None:
    """A file that has a column of an added name is refused, unless the added ones begin otherwise."""
    data = WRITERS[media_type]([{"a": 1.0, "b": 2.0, "prediction": 5.0}])

    assert_problem(post(api, data, media_type), 422, "column_collision")

    job_id = read_id(post(api, data, media_type, column_prefix="new_"))
    api.score()
    (record,) = read_records(fetch(api, job_id, media_type), media_type)
    assert (record["prediction"], record["new_prediction"]) == (5.0, 9.0)


def test_cut_off_parquet_is_not_taken(api: ApiUnderTest) -> None:
    """A Parquet file without its end is incomplete, whatever its length says; nothing is kept."""
    data = write_parquet(RECORDS * 100)

    for cut in (data[:-1], data[: len(data) // 2], data[:3]):
        assert post(api, cut, PARQUET).status_code == 400
    stream = {"wsgi.input": io.BytesIO(data[:-8]), "wsgi.input_terminated": True}
    response = api.http.post("/v1/jobs", query_string={"model": "line"}, content_type=PARQUET, environ_overrides=stream)
    assert_problem(response, 400, "incomplete_upload")
    assert api.list_kept_files() == []


def test_parquet_needs_no_length(api: ApiUnderTest) -> None:
    """A Parquet file that comes without a length is known to be whole by its end mark."""
    stream = {"wsgi.input": io.BytesIO(write_parquet(RECORDS)), "wsgi.input_terminated": True}

    response = api.http.post("/v1/jobs", query_string={"model": "line"}, content_type=PARQUET, environ_overrides=stream)

    assert response.status_code == 202, response.text
    assert response.get_json()["row_counts"]["total"] == 3


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"\n", "line 1"),
        (b"[1, 2]\n", "not a JSON object"),
        (b'{"a": 1', "not JSON"),
        (b"a,b\n1,2\n", "not JSON"),
    ],
)
def test_what_does_not_begin_with_an_object_is_refused(api: ApiUnderTest, data: bytes, detail: str) -> None:
    """JSON lines begin with an object; else the file is refused as a whole."""
    problem = assert_problem(post(api, data, NDJSON), 400, "malformed_file")

    assert detail in problem["detail"]


def test_json_lines_need_a_length(api: ApiUnderTest) -> None:
    """Plain lines without length and digest could have been cut off: 411."""
    stream = {"wsgi.input": io.BytesIO(write_ndjson(RECORDS)), "wsgi.input_terminated": True}

    response = api.http.post("/v1/jobs", query_string={"model": "line"}, content_type=NDJSON, environ_overrides=stream)

    assert_problem(response, 411, "length_required")


@pytest.mark.parametrize("media_type", [NDJSON, PARQUET])
def test_compressed_uploads_are_unpacked(api: ApiUnderTest, media_type: str) -> None:
    """Each format may come in gzip."""
    data = gzip.compress(WRITERS[media_type](RECORDS))

    job_id = read_id(post(api, data, media_type, headers={"Content-Encoding": "gzip"}))

    api.score()
    assert len(read_records(fetch(api, job_id, media_type), media_type)) == 3


@pytest.mark.parametrize("name", ["rows.parquet", "rows.ndjson", "rows.csv.gz", "rows.jsonl.gz"])
def test_form_tells_the_format_by_the_name_of_its_file(api: ApiUnderTest, name: str) -> None:
    """A browser's form with a file of any format, compressed or not, is taken; the result is named after it."""
    media_type = next(t for t, part in ((PARQUET, "parquet"), (NDJSON, "json"), (CSV, "csv")) if part in name)
    data = WRITERS[media_type](RECORDS)
    data = gzip.compress(data) if name.endswith(".gz") else data
    fields = {"file": (io.BytesIO(data), name, "application/octet-stream"), "model": "line"}

    job_id = read_id(api.http.post("/v1/jobs", data=fields, content_type="multipart/form-data"))

    api.score()
    response = api.http.get(f"/v1/jobs/{job_id}/result")
    assert [record["prediction"] for record in read_records(response.data, media_type)] == ANSWERS
    assert "filename=rows.scored." in response.headers["Content-Disposition"]


@pytest.mark.parametrize("media_type", [NDJSON, PARQUET])
def test_failed_rows_are_scored_again_from_a_corrected_file(start_api: Any, media_type: str) -> None:
    """A retry scores the failed rows of the corrected file, and takes over the others."""
    api = start_api(chunk_rows=1000)
    records = [{"a": float(index), "b": 1.0} for index in range(2500)]
    broken: list[dict[str, Any]] = [dict(record) for record in records]
    broken[3]["a"] = broken[1200]["b"] = None
    job_id = read_id(post(api, WRITERS[media_type](broken), media_type))
    api.score()

    response = api.http.post(f"/v1/jobs/{job_id}/retry", data=WRITERS[media_type](records), content_type=media_type)

    retried = read_id(response)
    api.score()
    assert api.get_job(retried)["status"] == "succeeded"
    found = read_records(fetch(api, retried, media_type), media_type)
    assert [record["prediction"] for record in found] == [2 * index + 4.0 for index in range(2500)]


def test_row_groups_need_not_fit_the_chunks(start_api: Any) -> None:
    """Parquet files of one large row group, of many small ones, and of empty ones are cut alike."""
    api = start_api(chunk_rows=700)
    records = [{"a": float(index), "b": 0.0} for index in range(5000)]

    for group in (10_000, 997, 10):
        job_id = read_id(post(api, write_parquet(records, row_group_size=group), PARQUET))
        api.score()
        found = read_records(fetch(api, job_id, PARQUET), PARQUET)
        assert [record["prediction"] for record in found] == [2 * index + 1.0 for index in range(5000)]


def test_parquet_without_rows_has_a_result(api: ApiUnderTest) -> None:
    """A file of columns alone becomes one with the new columns, in every format."""
    table = pa.table({"a": pa.array([], pa.float64()), "b": pa.array([], pa.int32())})
    sink = io.BytesIO()
    pq.write_table(table, sink)

    job_id = read_id(post(api, sink.getvalue(), PARQUET))

    assert api.get_job(job_id)["status"] == "succeeded"
    written = pq.read_table(io.BytesIO(fetch(api, job_id, PARQUET)))
    assert (written.num_rows, written.schema.names) == (0, ["a", "b", "prediction", "error_code", "error_message"])
    assert fetch(api, job_id, CSV) == b"a,b,prediction,error_code,error_message\n"


def test_damaged_parquet_fails_its_job_clearly(start_api: Any) -> None:
    """A file whose footer is whole and whose pages are not ends as failed, and says that it is damaged."""
    api = start_api()
    data = bytearray(write_parquet([{"a": index / 7, "b": index / 3} for index in range(5000)]))
    data[100:4000] = bytes(3900)

    job_id = read_id(post(api, bytes(data), PARQUET))
    api.score()

    job = api.get_job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "malformed_file")
    assert "damaged" in job["error"]["detail"]


@pytest.mark.parametrize("wanted", [PARQUET, NDJSON])
def test_finished_chunks_are_given_in_each_format(start_api: Any, wanted: str) -> None:
    """While the job runs, what is done can be had in another format than the file's."""
    api = start_api(chunk_rows=500)
    records = [{"a": float(index), "b": 0.0} for index in range(2000)]
    job_id = read_id(post(api, write_csv(records), CSV))
    worker = api.make_worker()
    worker._chunks._score_or_fail("files:line:1", "line", 1, worker._chunks._claim("files:line:1", clear_wakeup=True))

    response = api.http.get(f"/v1/jobs/{job_id}/result?partial=true", headers={"Accept": wanted})

    assert response.headers["Scorequeue-Rows"] == "500"
    assert len(read_records(response.data, wanted)) == 500


def test_malformed_records_have_their_row_in_each_format(api: ApiUnderTest) -> None:
    """CSV records of too few or too many fields keep their places, with what can be told of them."""
    job_id = api.submit_file(b"a,b\n1,2\n5\n\n6,7,8\n3,4\n", "line")
    api.score()

    for wanted in (PARQUET, NDJSON):
        found = read_records(fetch(api, job_id, wanted), wanted)
        assert [record["prediction"] for record in found] == [9.0, None, None, None, 19.0]
        assert [record["error_code"] for record in found] == [None, *["malformed_row"] * 3, None]
        assert [record["a"] for record in found] == [1.0, 5.0, None, 6.0, 3.0]


@pytest.mark.parametrize("wanted", [CSV, NDJSON, PARQUET])
@pytest.mark.parametrize("sent", [CSV, NDJSON, PARQUET])
def test_texts_and_truth_values_come_back_in_each_format(api: ApiUnderTest, sent: str, wanted: str) -> None:
    """What a model of mixed types reads is the caller's own in every result, and its answers are the pipeline's."""
    frame = pd.DataFrame(TOWNS)
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough")
    pipeline = make_pipeline(encode, LinearRegression()).fit(frame[["city", "old", "size"]], [1.0, 2.5, 3.0])
    register_model(pipeline, "town", registry=api.service.registry, sample=frame[["city", "old", "size"]])

    job_id = read_id(post(api, WRITERS[sent](TOWNS), sent, "town"))
    api.make_worker().score_chunks("files:town:1")

    assert api.get_job(job_id)["status"] == "succeeded"
    found = read_records(fetch(api, job_id, wanted), wanted)
    for name in ("zip", "city", "size"):
        assert [str(record[name]) for record in found] == [str(town[name]) for town in TOWNS], name
    assert [str(record["old"]).lower() for record in found] == [str(town["old"]).lower() for town in TOWNS]
    assert [record["prediction"] for record in found] == pipeline.predict(frame[["city", "old", "size"]]).tolist()


def test_column_of_texts_takes_no_numbers(api: ApiUnderTest) -> None:
    """A Parquet column of another kind than the model's is refused with its name, before a row is read."""
    frame = pd.DataFrame(TOWNS)[["city", "size"]]
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough")
    pipeline = make_pipeline(encode, LinearRegression()).fit(frame, [1.0, 2.5, 3.0])
    register_model(pipeline, "town", registry=api.service.registry, sample=frame)

    response = post(api, write_parquet([{"city": 1, "size": "x"}]), PARQUET, "town")

    problem = assert_problem(response, 422, "schema_mismatch")
    assert [(fault["column"], fault["detail"]) for fault in problem["errors"]] == [
        ("city", "the column is of type int64, expected texts"),
        ("size", "the column is of type string, expected numbers"),
    ]


def test_padding_of_json_lines_costs_no_more_than_other_bytes(api: ApiUnderTest) -> None:
    """A line with megabytes of white space is scored like any other, and comes back as it was."""
    lines = [b'{"a": 1, "b": 2' + b" " * (2 << 20) + b"}" + b"\t" * (2 << 20), b'{"a": 0, "b": 0}']

    job_id = read_id(post(api, b"\n".join(lines) + b"\n", NDJSON))
    api.score()

    found = fetch(api, job_id, NDJSON)
    assert [json.loads(line)["prediction"] for line in found.splitlines()] == [9.0, 1.0]
    assert b" " * (2 << 20) in found
