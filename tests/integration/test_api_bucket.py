"""The whole service with its files in a bucket, and files that are in one already."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared.errors import StoreUnavailable
from tests.api_under_test import ApiUnderTest, assert_problem, read_id
from tests.bucket_server import NAME, connect_bucket, serve_bucket
from tests.conftest import WaitUntil
from tests.integration.test_api_formats import ANSWERS, CSV, NDJSON, PARQUET, RECORDS, WRITERS, fetch, read_records

#: What is tested is the bucket: one Redis is enough.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)

INCOMING = f"s3://{NAME}/incoming/"
DATA = b"a,b\n" + b"".join(b"%d,0.5\n" % index for index in range(3000))


@pytest.fixture(scope="module")
def bucket(
    tmp_path_factory: pytest.TempPathFactory, wait_until: WaitUntil
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """Serve a bucket."""
    with serve_bucket(tmp_path_factory.mktemp("moto"), wait_until) as served:
        yield served


@pytest.fixture
def start(
    bucket: tuple[subprocess.Popen[bytes], dict[str, str]],
    start_api: Callable[..., ApiUnderTest],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., ApiUnderTest]:
    """Give a function that starts the front end with all files in an empty bucket."""
    for name, value in bucket[1].items():
        monkeypatch.setenv(name, value)
    client = connect_bucket(bucket[1])
    for entry in client.list_objects_v2(Bucket=NAME).get("Contents", []):
        client.delete_object(Bucket=NAME, Key=entry["Key"])
    return lambda **settings: start_api(file_store=f"s3://{NAME}/store", input_prefixes=INCOMING, **settings)


def list_keys(environment: dict[str, str]) -> list[str]:
    """List what is in the store's part of the bucket."""
    found = connect_bucket(environment).list_objects_v2(Bucket=NAME, Prefix="store/jobs/").get("Contents", [])
    return [entry["Key"] for entry in found]


def put(name: str, data: bytes) -> str:
    """Put an object where jobs may name it; give its address."""
    connect_bucket(dict(os.environ)).put_object(Bucket=NAME, Key=f"incoming/{name}", Body=data)
    return INCOMING + name


@pytest.mark.parametrize("media_type", [CSV, NDJSON, PARQUET])
def test_file_goes_through_a_bucket(
    start: Callable[..., ApiUnderTest], bucket: tuple[Any, dict[str, str]], media_type: str
) -> None:
    """Upload, chunks, result, its other formats and its removal need no folder."""
    api = start(chunk_rows=1000)
    response = api.http.post(
        "/v1/jobs", query_string={"model": "line"}, data=WRITERS[media_type](RECORDS * 1000), content_type=media_type
    )
    job_id = read_id(response)
    api.score()

    for wanted in (CSV, NDJSON, PARQUET):
        found = read_records(fetch(api, job_id, wanted), wanted)
        assert [record["prediction"] for record in found] == ANSWERS * 1000
    part = api.http.get(f"/v1/jobs/{job_id}/result", headers={"Range": "bytes=5-9"})
    assert (part.status_code, len(part.data)) == (206, 5)
    assert len(list_keys(bucket[1])) > 4
    assert api.http.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert list_keys(bucket[1]) == []


def test_refused_upload_leaves_nothing_in_the_bucket(
    start: Callable[..., ApiUnderTest], bucket: tuple[Any, dict[str, str]]
) -> None:
    """A file that is cut off, or does not fit, is not there, nor are pieces of it."""
    api = start()

    cut_off = {"wsgi.input": io.BytesIO(DATA.replace(b"\n", b" " * 3000 + b"\n")), "CONTENT_LENGTH": str(20 << 20)}
    response = api.http.post("/v1/jobs", query_string={"model": "line"}, content_type=CSV, environ_overrides=cut_off)
    assert response.status_code == 400
    assert api.post_file(b"x,y\n1,2\n", "line").status_code == 422

    assert list_keys(bucket[1]) == []
    assert connect_bucket(bucket[1]).list_multipart_uploads(Bucket=NAME).get("Uploads", []) == []


def test_large_rows_jobs_and_retries_use_the_bucket(start: Callable[..., ApiUnderTest]) -> None:
    """Payloads and results that are too large for Redis, and the parts that a retry takes over, are in it as well."""
    api = start(inline_bytes=50, chunk_rows=1000)
    rows_job = api.submit_rows()
    job_id = api.submit_file(DATA.replace(b"1500,", b"x,"), "line")
    api.score()
    assert api.get_job(rows_job)["status"] == "succeeded"
    assert len(api.http.get(f"/v1/jobs/{rows_job}/result").get_json()["predictions"]) == 3

    retried = read_id(api.http.post(f"/v1/jobs/{job_id}/retry", data=DATA, content_type=CSV))
    api.score()

    assert api.get_job(retried)["status"] == "succeeded"
    assert fetch(api, retried, CSV) == fetch(api, score(api, DATA), CSV)


def score(api: ApiUnderTest, data: bytes) -> str:
    """Score a file; give its job's id."""
    job_id = api.submit_file(data, "line")
    api.score()
    return job_id


@pytest.mark.parametrize("media_type", [CSV, NDJSON, PARQUET])
@pytest.mark.parametrize("packed", [False, True])
def test_file_in_a_bucket_is_scored_where_it_is(
    start: Callable[..., ApiUnderTest], bucket: tuple[Any, dict[str, str]], media_type: str, packed: bool
) -> None:
    """A job may name an object by its address; the format is told from its name, and so is compression."""
    api = start(chunk_rows=1000)
    data = WRITERS[media_type](RECORDS * 1000)
    ending = {CSV: "csv", NDJSON: "ndjson", PARQUET: "parquet"}[media_type]
    address = put(f"rows.{ending}" + (".gz" if packed else ""), gzip.compress(data) if packed else data)

    job_id = read_id(api.http.post("/v1/jobs", json={"model": "line", "input": address}))

    assert api.get_job(job_id)["row_counts"]["total"] == 3000
    assert any(key.endswith("/input") for key in list_keys(bucket[1])) == packed
    api.score()
    found = read_records(fetch(api, job_id, media_type), media_type)
    assert [record["prediction"] for record in found] == ANSWERS * 1000
    assert "rows.scored." in api.http.get(f"/v1/jobs/{job_id}/result").headers["Content-Disposition"]


def test_result_of_a_named_file_needs_it_no_more(start: Callable[..., ApiUnderTest]) -> None:
    """When it was scored the object may go: the result has its own copy of the records."""
    api = start()
    address = put("rows.csv", DATA)
    job_id = read_id(api.http.post("/v1/jobs", json={"model": "line", "input": address}))
    api.score()
    connect_bucket(dict(os.environ)).delete_object(Bucket=NAME, Key="incoming/rows.csv")

    assert fetch(api, job_id, CSV).count(b"\n") == 3001
    assert len(read_records(fetch(api, job_id, PARQUET), PARQUET)) == 3000


@pytest.mark.parametrize("media_type", [CSV, PARQUET])
def test_file_that_changes_under_its_job_fails_it(start: Callable[..., ApiUnderTest], media_type: str) -> None:
    """An object that is replaced before it was scored ends the job clearly: it is not what was planned."""
    api = start()
    name = "rows.csv" if media_type == CSV else "rows.parquet"
    job_id = read_id(
        api.http.post("/v1/jobs", json={"model": "line", "input": put(name, WRITERS[media_type](RECORDS))})
    )
    put(name, WRITERS[media_type](RECORDS * 2))

    api.score()

    job = api.get_job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "malformed_file")
    assert "altered" in job["error"]["detail"]


@pytest.mark.parametrize(
    "address",
    [
        f"s3://{NAME}/other/rows.csv",
        "s3://elsewhere/incoming/rows.csv",
        "file:///etc/passwd",
        INCOMING,
        f"{INCOMING}../other/rows.csv",
        f"{INCOMING}./../../other/rows.csv",
        "/etc/passwd",
        "",
    ],
)
def test_only_allowed_addresses_are_taken(start: Callable[..., ApiUnderTest], address: str) -> None:
    """What is not under an allowed prefix is refused, whether it exists or not."""
    api = start()

    assert_problem(api.http.post("/v1/jobs", json={"model": "line", "input": address}), 400, "invalid_parameter")


def test_addresses_may_be_of_each_tenant(start: Callable[..., ApiUnderTest], start_api: Callable[..., Any]) -> None:
    """A prefix may hold the tenant's name: then nobody names the files of others."""
    start()
    api = start_api(input_prefixes=f"s3://{NAME}/incoming/{{tenant}}/")
    mine, theirs = put("default/rows.csv", DATA), put("other/rows.csv", DATA)

    assert api.http.post("/v1/jobs", json={"model": "line", "input": mine}).status_code == 202
    assert_problem(api.http.post("/v1/jobs", json={"model": "line", "input": theirs}), 400, "invalid_parameter")


def test_prefix_is_a_folder(start: Callable[..., ApiUnderTest], start_api: Callable[..., Any]) -> None:
    """A prefix without a slash at its end does not let in what only begins like it."""
    start()
    api = start_api(input_prefixes=f"s3://{NAME}/incoming/{{tenant}}")
    mine, theirs = put("default/rows.csv", DATA), put("default-too/rows.csv", DATA)

    assert api.http.post("/v1/jobs", json={"model": "line", "input": mine}).status_code == 202
    assert_problem(api.http.post("/v1/jobs", json={"model": "line", "input": theirs}), 400, "invalid_parameter")


def test_store_that_fails_at_a_footer_is_not_the_fault_of_the_file(
    start: Callable[..., ApiUnderTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Parquet file whose footer cannot be fetched is not called malformed."""

    def fail(*_: object) -> bytes:
        raise StoreUnavailable("the file store failed")

    api = start()
    monkeypatch.setattr("shared.bucket.Bucket.read_range", fail)

    response = api.http.post(
        "/v1/jobs", query_string={"model": "line"}, data=WRITERS[PARQUET](RECORDS), content_type=PARQUET
    )

    assert_problem(response, 503, "store_unavailable")


@pytest.mark.parametrize("name", ["fixed.csv", "fixed.csv.gz"])
def test_corrected_file_may_be_named_too(start: Callable[..., ApiUnderTest], name: str) -> None:
    """A retry takes the corrected file from a bucket, and its result is that of the good file."""
    api = start(chunk_rows=1000)
    job_id = score(api, DATA.replace(b"\n1500,", b"\nx,"))
    assert api.get_job(job_id)["row_counts"]["failed"] == 1
    address = put(name, gzip.compress(DATA) if name.endswith(".gz") else DATA)

    retried = read_id(api.http.post(f"/v1/jobs/{job_id}/retry", json={"input": address}))
    api.score()

    assert api.get_job(retried)["status"] == "succeeded"
    assert fetch(api, retried, CSV) == fetch(api, score(api, DATA), CSV)
    assert_problem(api.http.post(f"/v1/jobs/{job_id}/retry", json={"input": "/tmp/x"}), 400, "invalid_parameter")


def test_missing_object_is_not_found(start: Callable[..., ApiUnderTest]) -> None:
    """An allowed address at which nothing is gets 404."""
    api = start()

    response = api.http.post("/v1/jobs", json={"model": "line", "input": INCOMING + "none.csv"})

    assert_problem(response, 404, "not_found")


def test_named_file_has_options_and_a_dry_run(start: Callable[..., ApiUnderTest]) -> None:
    """The options of a file stand beside ``input``; a misspelt one is refused; a dry run shows the first rows."""
    api = start()
    address = put("rows.csv", DATA.replace(b",", b";"))

    body = {"model": "line", "input": address, "delimiter": ";"}
    assert_problem(api.http.post("/v1/jobs", json=body | {"delimeter": ";"}), 400, "invalid_parameter")
    with api.scoring():
        shown = api.http.post("/v1/jobs", json=body | {"dry_run": True}).get_json()
    assert [row["prediction"] for row in shown["preview"]][:2] == [2.5, 4.5]
    first, again = (
        api.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": '"k"'}).get_json()["id"] for _ in "12"
    )
    assert first == again


def test_store_that_is_away_is_told_and_nothing_is_lost(
    start_api: Callable[..., ApiUnderTest],
    tmp_path_factory: pytest.TempPathFactory,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the bucket does not answer, uploads are 503 and `/ready` says why; a chunk that fails goes on later."""
    with serve_bucket(tmp_path_factory.mktemp("away"), wait_until) as (server, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        api = start_api(file_store=f"s3://{NAME}")
        job_id = api.submit_file(DATA, "line")
        server.send_signal(19)  # it is there and does not answer
        server.kill()
        server.wait()

        assert_problem(api.post_file(DATA, "line"), 503, "store_unavailable")
        assert api.http.get("/ready").get_json()["missing"] == ["file_store"]
        worker = api.make_worker()
        with pytest.raises(OSError, match="file store"):
            worker.score_chunks("files:line:1")
        assert api.get_job(job_id)["status"] in ("queued", "running")


def test_store_that_stays_away_fails_the_job(
    start_api: Callable[..., ApiUnderTest], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """When the store has failed often enough the job ends, says why, and can be retried."""
    api = start_api()
    job_id = api.submit_file(DATA, "line")
    monkeypatch.setattr("worker.files.STORE_ATTEMPTS", 1)
    monkeypatch.setattr("shared.filestore.FileStore.write_part", _fail)

    api.score()

    job = api.get_job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "store_unavailable")
    assert_problem(api.http.get(f"/v1/jobs/{job_id}/result"), 503, "store_unavailable")
    monkeypatch.undo()
    retried = read_id(api.http.post(f"/v1/jobs/{job_id}/retry"))
    api.score()
    assert api.get_job(retried)["status"] == "succeeded"


def _fail(*_: object) -> None:
    raise OSError(5, "Input/output error")
