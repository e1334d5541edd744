"""The contract, line by line: what a caller may count on, each line as one request and what must come of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from werkzeug.test import TestResponse

from shared.settings import Settings
from tests.api_under_test import IRIS_ROWS, ApiUnderTest, read_id

# One server will do: it is not Redis that is tested here.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)

ROWS = {"model": "iris", "rows": IRIS_ROWS}
CSV = b"id,a,b\n7,1,2\n8,x,3\n"
CSV_TYPE, NDJSON_TYPE, PARQUET_TYPE = "text/csv", "application/x-ndjson", "application/vnd.apache.parquet"
JOB = {
    "id", "kind", "status", "model", "row_counts", "progress", "rows_per_second", "eta_seconds", "queue_position",
    "created_at", "started_at", "finished_at", "gone_at", "attempts", "retry_of", "error", "metadata", "links",
}  # fmt: skip
EVIDENCE = {"model", "model_sha256", "micro_batch_rows", "queue_seconds", "predict_seconds"}
DAY = 24 * 3600


class Line(NamedTuple):
    """A line of the contract."""

    says: str
    call: str
    status: int
    send: Mapping[str, Any] = MappingProxyType({})
    code: str = ""
    #: Header fields to patterns of what they hold.
    fields: Mapping[str, str] = MappingProxyType({})
    #: Members that the answer has, at least.
    members: frozenset[str] | set[str] = frozenset()
    #: What the answer's text matches.
    shows: str = ""


def take(model: str = "line", kind: str = CSV_TYPE, data: bytes = CSV, **headers: str) -> dict[str, Any]:
    """Give what sends a file."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"query_string": {"model": model}, "data": data, "content_type": kind, "headers": named}


def rows(**headers: str) -> dict[str, Any]:
    """Give what sends rows."""
    return {"json": ROWS, "headers": {name.replace("_", "-"): value for name, value in headers.items()}}


def given(**headers: str) -> dict[str, Any]:
    """Give header fields alone."""
    return {"headers": {name.replace("_", "-"): value for name, value in headers.items()}}


LOCATION = {"Location": "/v1/jobs/job_.*", "Retry-After": r"\d+"}
JOBS = [
    Line("rows: 202, Location, Retry-After", "POST /v1/jobs", 202, rows(), fields=LOCATION, members=JOB),
    Line("a queued job is queued", "POST /v1/jobs", 202, rows(), shows='"status":"queued"'),
    Line("objects by column name", "POST /v1/jobs", 202, {"json": {"model": "line", "rows": [{"b": 1, "a": 2}]}}),
    Line("name:version", "POST /v1/jobs", 202, {"json": ROWS | {"model": "iris:1"}}, shows='"model":"iris:1"'),
    Line("name@alias", "POST /v1/jobs", 202, {"json": ROWS | {"model": "iris@champion"}}, shows='"model":"iris:1"'),
    Line(
        "every option of rows", "POST /v1/jobs", 202,
        {"json": ROWS | {
            "priority": "high", "deadline_seconds": 30, "retention_seconds": 3600, "metadata": {"campaign": "x"},
        }},
        shows='"metadata":{"campaign":"x"}',
    ),
    Line("a webhook is guarded", "POST /v1/jobs", 400, {"json": ROWS | {"webhook": {"url": "http://127.0.0.1/"}}},
         code="invalid_parameter"),
    Line("Prefer: wait, in vain: the 202", "POST /v1/jobs", 202, rows(Prefer="wait=1"), fields=LOCATION),
    Line("10,001 rows are too many", "POST /v1/jobs", 413, {"json": {"model": "line", "rows": [[1, 2]] * 10001}},
         code="payload_too_large"),
    Line("CSV", "POST /v1/jobs", 202, take(), fields=LOCATION, members=JOB, shows='"total":2'),
    Line("NDJSON", "POST /v1/jobs", 202, take(kind=NDJSON_TYPE, data=b'{"a":1,"b":2}\n'), fields=LOCATION),
    Line("what is no Parquet", "POST /v1/jobs", 400, take(kind=PARQUET_TYPE), code="malformed_file"),
    Line("what is no gzip", "POST /v1/jobs", 400, take(Content_Encoding="gzip"), code="malformed_file"),
    Line("an unknown encoding", "POST /v1/jobs", 415, take(Content_Encoding="br"), code="unsupported_media_type"),
    Line("another type", "POST /v1/jobs", 415, take(kind="text/xml"), code="unsupported_media_type"),
    Line("an input that is not allowed", "POST /v1/jobs", 400, {"json": {"model": "line", "input": "s3://no/x.csv"}},
         code="invalid_parameter"),
    Line("a wrong digest", "POST /v1/jobs", 400,
         take(Content_Digest="sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"), code="incomplete_upload"),
    Line("no columns of the model", "POST /v1/jobs", 422, take("iris"), code="schema_mismatch", members={"errors"}),
    Line("a name that scoring adds", "POST /v1/jobs", 422, take(data=b"a,b,prediction\n1,2,3\n"),
         code="column_collision"),
    Line("the record, with ETag", "GET /v1/jobs/{rows}", 200, fields={"ETag": ".+"}, members=JOB),
    Line("304", "GET /v1/jobs/{rows}", 304, given(If_None_Match="{rows_etag}"), fields={"ETag": ".+"}),
    Line("long polling", "GET /v1/jobs/{rows}", 200, given(Prefer="wait=1"), shows='"succeeded"'),
    Line("404", "GET /v1/jobs/job_0", 404, code="unknown_job"),
    Line("410", "GET /v1/jobs/{deleted}", 410, code="job_gone"),
    Line("a result of rows", "GET /v1/jobs/{rows}/result", 200,
         members=EVIDENCE | {"predictions", "probabilities", "classes", "errors"}),
    Line("a scored file", "GET /v1/jobs/{file}/result", 200, fields={
        "Content-Disposition": "attachment.*", "ETag": ".+", "Accept-Ranges": "bytes", "Content-Type": "text/csv.*",
    }, shows=r"^id,a,b,prediction,error_code,error_message\n7,1,2,9\S*,,\n8,x,3,,type_error,"),
    Line("a range", "GET /v1/jobs/{file}/result", 206, given(Range="bytes=0-1"),
         fields={"Content-Range": r"bytes 0-1/\d+"}, shows="^id$"),
    Line("a range outside", "GET /v1/jobs/{file}/result", 416, given(Range="bytes=9999-"),
         code="range_not_satisfiable"),
    Line("as NDJSON", "GET /v1/jobs/{file}/result", 200, given(Accept=NDJSON_TYPE),
         fields={"Content-Type": NDJSON_TYPE}, shows='"prediction":9'),
    Line("as Parquet", "GET /v1/jobs/{file}/result", 200, given(Accept=PARQUET_TYPE),
         fields={"Content-Type": PARQUET_TYPE}),
    Line("partial, of what is done", "GET /v1/jobs/{file}/result?partial=true", 200, shows="^id,a,b,prediction"),
    Line("not finished: 409", "GET /v1/jobs/{queued}/result", 409, code="job_not_finished",
         fields={"Retry-After": r"\d+"}),
    Line("canceled: 409", "GET /v1/jobs/{canceled}/result", 409, code="job_canceled"),
    Line("the errors", "GET /v1/jobs/{file}/errors", 200, fields={"Content-Type": NDJSON_TYPE},
         shows=r'"row":2.*"line":3.*"column":"a".*"code":"type_error".*"detail":'),
    Line("events", "GET /v1/jobs/{rows}/events", 200, fields={"Content-Type": "text/event-stream.*"},
         shows=r"id: \S+\nevent: done\ndata: "),
    Line("cancel of an ended job", "POST /v1/jobs/{rows}/cancel", 409, code="job_terminal"),
    Line("cancel of rows", "POST /v1/jobs/{to_cancel}/cancel", 200, shows='"status":"canceled"'),
    Line("retry of a file", "POST /v1/jobs/{file}/retry", 202, {"json": {}}, fields=LOCATION, shows='"retry_of":"job_'),
    Line("retry of rows that did not die", "POST /v1/jobs/{rows}/retry", 409, {"json": {}}, code="job_terminal"),
    Line("delete", "DELETE /v1/jobs/{to_delete}", 204),
    Line("a page", "GET /v1/jobs?limit=1", 200, fields={"Link": '</v1/jobs\\?.*after=job_.*>; rel="next"'}),
    Line("filters", "GET /v1/jobs?status=canceled&model=iris&kind=rows", 200, shows='^(?!.*"status":"succeeded")'),
    Line("a wrong filter", "GET /v1/jobs?status=done", 400, code="invalid_parameter"),
    Line("dead letters", "GET /v1/dead-letters", 200, members={"dead_letters"}),
    Line("rows that do not fit", "POST /v1/jobs", 422, {"json": {"model": "line", "rows": [[1, None], ["x", 2]]}},
         code="schema_mismatch", shows='"errors":.*missing_value.*type_error'),
    Line("a dry run", "POST /v1/jobs", 200, take() | {"query_string": {"model": "line", "dry_run": "true"}},
         members={"preview", "differences"}),
]  # fmt: skip
MODELS = [
    Line("models", "GET /v1/models", 200, members={"models"}),
    Line("a model", "GET /v1/models/iris", 200, members={"name", "aliases", "versions"}, shows='"champion":1'),
    Line("a version", "GET /v1/models/iris/versions/1", 200,
         members={"signature", "format", "sha256", "metrics", "backend", "ready", "warm_processes"}),
    Line("an unknown one", "GET /v1/models/none", 404, code="unknown_model"),
    Line("an unknown version", "GET /v1/models/iris/versions/9", 404, code="unknown_model"),
    Line("promotion", "PUT /v1/models/iris/aliases/tried", 200, {"json": {"version": 1}}, shows='"tried":1'),
    Line("by weight", "PUT /v1/models/iris/aliases/tried", 200, {"json": {"versions": {"1": 1.0}}}),
    Line("to a version that is not there", "PUT /v1/models/iris/aliases/tried", 404, {"json": {"version": 9}},
         code="unknown_model"),
]  # fmt: skip
COMPATIBLE = [
    Line("/predict", "POST /predict?model=iris", 200, {"json": {"features": IRIS_ROWS[0]}},
         members={"prediction", "probability", "processing_time", "timestamp"}, shows=r'"probability":\[\d'),
    Line("/predict_batch", "POST /predict_batch?model=line", 200, {"json": {"features": [[1, 2]]}},
         members={"results", "total_count", "timestamp"},
         shows=r'\{"index":0,"prediction":9\S*,"probability":null\}'),
    Line("a model must be named", "POST /predict", 400, {"json": {"features": [1, 2]}}, code="invalid_parameter"),
    Line("live", "GET /v2/health/live", 200),
    Line("ready", "GET /v2/health/ready", 200),
    Line("server", "GET /v2", 200, members={"name", "version", "extensions"}),
    Line("model", "GET /v2/models/iris", 200, members={"name", "versions", "platform", "inputs", "outputs"}),
    Line("version", "GET /v2/models/iris/versions/1", 200, members={"inputs", "outputs"}),
    Line("model ready", "GET /v2/models/iris/ready", 200),
    Line("version ready", "GET /v2/models/iris/versions/1/ready", 200),
    Line("one tensor", "POST /v2/models/line/infer", 200,
         {"json": {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}},
         members={"model_name", "outputs"}, shows='"name":"predictions"'),
    Line("a tensor a column", "POST /v2/models/line/versions/1/infer", 200,
         {"json": {"inputs": [{"name": n, "shape": [1], "datatype": "INT64", "data": [2]} for n in "ba"]}}),
    Line("errors", "POST /v2/models/none/infer", 404, {"json": {}}, members={"error"}),
    Line("respond-async", "POST /v2/models/line/infer", 202,
         {"json": {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]},
          "headers": {"Prefer": "respond-async"}}, fields=LOCATION | {"Preference-Applied": "respond-async"}),
    *[
        Line(f"/invocations: {name}", "POST /invocations?model=line", 200, {"json": {name: value}},
             members={"predictions"})
        for name, value in (
            ("dataframe_split", {"columns": ["a", "b"], "data": [[1, 2]]}), ("dataframe_records", [{"a": 1, "b": 2}]),
            ("instances", [[1, 2]]), ("inputs", {"a": [1], "b": [2]}),
        )
    ],
    Line("/invocations: CSV", "POST /invocations", 200, take(data=b"a,b\n1,2\n"), shows='"predictions":'),
    Line("respond-async", "POST /invocations?model=line", 202,
         {"json": {"instances": [[1, 2]]}, "headers": {"Prefer": "respond-async"}}, fields=LOCATION),
    Line("/ping", "GET /ping", 200),
    Line("/version", "GET /version", 200),
]  # fmt: skip
SERVICE = [
    Line("alive", "GET /health", 200),
    Line("ready, with workers", "GET /ready", 200, members={"workers"}),
    Line("metrics", "GET /metrics", 200, fields={"Content-Type": "text/plain.*"}, shows="scorequeue_redis_up 1"),
    Line("the document", "GET /openapi.json", 200, members={"openapi", "paths", "webhooks"}, shows='"3.1.0"'),
    Line("a page", "GET /docs", 200, fields={"Content-Type": "text/html.*"}),
    Line("another page", "GET /redoc", 200, fields={"Content-Type": "text/html.*"}),
    Line("the console", "GET /", 200, fields={"Content-Type": "text/html.*"}),
    Line("queues", "GET /v1/queues", 200, members={"queues", "workers"},
         shows='"depth":.*"rows":.*"oldest_age_seconds":.*"paused":'),
    Line("pause", "POST /v1/queues/iris/pause", 200, shows='"paused":true'),
    Line("resume", "POST /v1/queues/iris/resume", 200, shows='"paused":false'),
    Line("deliveries", "GET /v1/webhook-deliveries", 200, members={"deliveries"}),
    Line("replay of none", "POST /v1/webhook-deliveries/none/replay", 404, code="not_found"),
    Line("nothing there", "GET /nothing", 404, code="not_found"),
    Line("another method", "PUT /v1/jobs", 405, code="method_not_allowed", fields={"Allow": ".*POST.*"}),
    Line("no JSON", "POST /v1/jobs", 400, {"data": b"{", "content_type": "application/json"}, code="malformed_json"),
    Line("no CSV", "POST /v1/jobs", 400, take(data=b'a,b\n"1,2\n'), code="malformed_csv"),
    Line("HEAD", "HEAD /v1/jobs/{rows}", 200, fields={"ETag": ".+", "Content-Length": r"[1-9]\d*"}),
    Line("HEAD of a file", "HEAD /v1/jobs/{file}/result", 200, fields={"Content-Length": r"[1-9]\d*"}),
    Line("OPTIONS", "OPTIONS /v1/jobs", 200, fields={"Allow": "(?=.*GET)(?=.*HEAD)(?=.*POST)(?=.*OPTIONS).*"}),
    Line("a request's id", "GET /v1/jobs", 200, given(X_Request_Id="mine"), fields={"X-Request-Id": "mine"}),
    Line("an id that is made", "GET /v1/jobs", 200, fields={"X-Request-Id": "[0-9a-f]{16}"}),
    Line("gzip", "GET /openapi.json", 200, given(Accept_Encoding="gzip"), fields={"Content-Encoding": "gzip"}),
    Line("traceparent", "POST /v1/jobs", 202, rows(traceparent=f"00-{'a' * 32}-{'b' * 16}-01"), shows="a{32}-b{16}"),
]  # fmt: skip
LINES = JOBS + MODELS + COMPATIBLE + SERVICE


class Setting(NamedTuple):
    """A front end with jobs in several states."""

    api: ApiUnderTest
    names: dict[str, str]


@pytest.fixture(scope="module")
def setting(redis_url: str, registered_models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """Give a front end behind which a worker scores, with jobs in the states that the lines name."""
    folder = tmp_path_factory.mktemp("contract")
    models = shutil.copytree(registered_models, folder / "models")
    api = ApiUnderTest(Settings(redis_url=redis_url, models=models, file_store=str(folder / "files")))
    api.service.store.client.flushall()
    api.listen()
    names = {"rows": api.submit_rows(), "file": api.submit_file(CSV, "line")}
    api.score()
    assert api.get_job(names["file"])["status"] == "partially_succeeded"
    names["rows_etag"] = api.http.get(f"/v1/jobs/{names['rows']}").headers["ETag"]
    api.http.post("/v1/queues/iris/pause")
    names |= {name: api.submit_rows() for name in ("queued", "canceled", "deleted", "to_cancel", "to_delete")}
    assert api.http.post(f"/v1/jobs/{names['canceled']}/cancel").status_code == 200
    assert api.http.delete(f"/v1/jobs/{names['deleted']}").status_code == 204
    with api.scoring():
        yield Setting(api, names)
    api.close()


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.call.partition('?')[0]}: {line.says}")
def test_line_of_the_contract(setting: Setting, line: Line) -> None:
    """The call is answered with the status, header fields and members that the contract says."""
    api, names = setting
    # A paused queue keeps jobs as they are; what the compatible calls ask must be scored.
    api.http.post(f"/v1/queues/iris/{'resume' if line in COMPATIBLE else 'pause'}")
    method, path = line.call.split(" ")
    send = dict(line.send)
    if "headers" in send:
        etag = names["rows_etag"]
        send["headers"] = {name: text.replace("{rows_etag}", etag) for name, text in send["headers"].items()}

    response = api.http.open(path.format(**names), method=method, **send)

    assert response.status_code == line.status, response.text
    for name, pattern in line.fields.items():
        assert re.fullmatch(pattern, response.headers.get(name, "")), (name, response.headers.get(name))
    if line.code:
        problem = json.loads(response.get_data())
        assert response.mimetype == "application/problem+json"
        assert {"type", "title", "status", "detail", "instance"} <= set(problem)
        assert (problem["code"], problem["status"]) == (line.code, line.status)
    if line.members:
        assert line.members <= set(json.loads(response.get_data()))
    if line.shows:
        assert re.search(line.shows, response.get_data().decode(), re.S), response.text[:2000]


def test_waiting_answers_with_the_result(setting: Setting) -> None:
    """``Prefer: wait`` of a job that finishes in time: 200, the job with its result, and ``Preference-Applied``."""
    setting.api.http.post("/v1/queues/iris/resume")

    response = setting.api.post_rows(IRIS_ROWS, headers={"Prefer": "wait=10"})

    assert response.status_code == 200, response.text
    assert response.headers["Preference-Applied"] == "wait=10"
    assert JOB | {"result"} <= set(response.get_json())
    assert set(response.get_json()["result"]) >= EVIDENCE


def test_idempotency_key_names_a_submission(setting: Setting) -> None:
    """The same key again is the first job; with another payload it is a conflict."""
    headers = {"Idempotency-Key": '"a-key"'}

    first = setting.api.post_rows(IRIS_ROWS, headers=headers)
    again = setting.api.post_rows(IRIS_ROWS, headers=headers)
    other: TestResponse = setting.api.post_rows(IRIS_ROWS[:1], headers=headers)

    assert read_id(first) == read_id(again)
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_conflict")


def test_retention_counts_from_the_end(setting: Setting) -> None:
    """Rows are kept for an hour, files for a day, if nothing else is asked for."""
    for name, seconds in (("rows", 3600), ("file", DAY)):
        job = setting.api.get_job(setting.names[name])
        assert _read_seconds(job["gone_at"]) - _read_seconds(job["finished_at"]) == pytest.approx(seconds, abs=0.01)


def _read_seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
