"""Requests that nobody should send: every call that reads a body refuses them in words, and never with a 500."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.settings import Settings
from tests.api_under_test import ApiUnderTest

# One server will do: it is not Redis that is tested here.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)

JSON = "application/json"
#: Calls that read JSON, with the name under which rows stand in it.
CALLS = {
    "POST /v1/jobs": "rows",
    "POST /predict?model=line": "features",
    "POST /predict_batch?model=line": "features",
    "POST /invocations?model=line": "instances",
    "POST /v2/models/line/infer": "inputs",
    "PUT /v1/models/line/aliases/tried": "versions",
}
DEEP = 100_000
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "a number": b"1",
    "a text": b'"rows"',
    "a list": b"[]",
    "an empty object": b"{}",
    "lists without end": b"[" * DEEP,
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "rows that are deep": b'{"model":"line","@":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "rows as deep as a parser goes": b'{"model":"line","@":' + b"[" * 900 + b"]" * 900 + b"}",
    "objects as deep as a parser goes": b'{"model":"line","@":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    "a number of a megabyte": b'{"model":"line","@":[[' + b"9" * (1 << 20) + b",1]]}",
    "a huge exponent": b'{"model":"line","@":[[1e999999999,1]]}',
    "a long fraction": b'{"model":"line","@":[[0.' + b"0" * 100_000 + b"1,1]]}",
    "an integer beyond 64 bits": b'{"model":"line","@":[[18446744073709551616,-9223372036854775809]]}',
    "minus zero": b'{"model":"line","@":[[-0.0,-0]]}',
    "a number that begins with zero": b'{"model":"line","@":[[01,1]]}',
    "hexadecimal": b'{"model":"line","@":[[0x10,1]]}',
    **{
        f"{word}": b'{"model":"line","@":[[%b,1]]}' % word.encode()
        for word in (
            "NaN",
            "nan",
            "-NaN",
            "Infinity",
            "-Infinity",
            "inf",
            "+1",
            "1.",
            ".5",
            "True",
            "None",
            "undefined",
        )
    },
    "NaN as a text": b'{"model":"line","@":[["NaN",1]]}',
    "a key twice": b'{"model":"line","@":[[1,2]],"@":"x"}',
    "a column twice": b'{"model":"line","@":[{"a":1,"a":"x","b":2}]}',
    "half a surrogate pair": b'{"model":"line","@":[["\\ud800",1]]}',
    "half a pair as a name": b'{"model":"line","@":[{"\\udfff":1,"a":1,"b":2}]}',
    "half a pair as the model": b'{"model":"\\ud800","@":[[1,2]]}',
    "half a pair in metadata": b'{"model":"line","@":[[1,2]],"metadata":{"a":"\\ud800"}}',
    "a zero character": b'{"model":"line\\u0000","@":[["\\u0000",1]]}',
    "not UTF-8": b'{"model":"line","@":[["\xff\xfe",1]]}',
    "overlong UTF-8": b'{"model":"line","@":[["\xc0\xaf",1]]}',
    "UTF-16": '{"model":"line","@":[[1,2]]}'.encode("utf-16"),
    "UTF-32": '{"model":"line","@":[[1,2]]}'.encode("utf-32"),
    "a byte order mark": b'\xef\xbb\xbf{"model":"line","@":[[1,2]]}',
    "a comment": b'{"model":"line",/* rows */"@":[[1,2]]}',
    "a way out of the folder": b'{"model":"../../etc/passwd","@":[[1,2]]}',
    "a header in a name": b'{"model":"line\\r\\nSet-Cookie: a=b","@":[[1,2]]}',
    "markup in a name": b'{"model":"<script>alert(1)</script>","@":[[1,2]]}',
    "a prototype": b'{"model":"line","__proto__":{"a":1},"constructor":1,"@":[{"__proto__":1}]}',
    "a thousand columns": b'{"model":"line","@":[[' + b",".join([b"1"] * 1000) + b"]]}",
    "rows of rows": b'{"model":"line","@":[[[1,2],[3,4]]]}',
    "objects in cells": b'{"model":"line","@":[[{"a":1},{"b":2}]]}',
}


@pytest.fixture(scope="module")
def hostile_api(
    redis_url: str, registered_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiUnderTest]:
    """Give a front end that waits for nothing: what is taken is answered with a 504."""
    folder = tmp_path_factory.mktemp("hostile")
    api = ApiUnderTest(
        Settings(
            redis_url=redis_url, models=registered_models, file_store=str(folder / "files"), max_wait_seconds=0.001,
        )
    )  # fmt: skip
    api.service.store.client.flushall()
    yield api
    api.close()


def send(api: ApiUnderTest, call: str, body: bytes, content_type: str = JSON, **headers: str) -> Any:
    """Send a body; whatever comes of it is described, quick to read, and no fault of ours."""
    method, path = call.split(" ")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = api.http.open(path, method=method, data=body, content_type=content_type, headers=named)
    assert response.status_code in (200, 202, 400, 404, 409, 411, 413, 415, 422, 503, 504), response.text[:500]
    if response.status_code == 503:  # a promotion, for which no worker is there
        assert method == "PUT"
    assert len(response.data) < 65536
    for secret in ("Traceback", ".py", "site-packages", "root:", "unix://"):
        assert secret not in response.text
    return response


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", BODIES)
def test_hostile_body_is_answered_in_words(hostile_api: ApiUnderTest, call: str, name: str) -> None:
    """Deep, huge, doubled, half, misspelt: each is taken for what it is, or refused with a reason."""
    send(hostile_api, call, BODIES[name].replace(b'"@"', f'"{CALLS[call]}"'.encode()))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "no-such", '"', "utf-8; charset=utf-7"])
def test_charset_of_json_changes_nothing(hostile_api: ApiUnderTest, call: str, charset: str) -> None:
    """JSON is UTF-8, whatever its type says: it is read as that, or its type is refused."""
    body = f'{{"model":"line","{CALLS[call]}":[["\u00e9",1]]}}'.encode("latin-1")

    response = send(hostile_api, call, body, f"{JSON}; charset={charset}")

    assert response.status_code in (400, 415)


@pytest.mark.parametrize("path", [
    "/v1/jobs/{}", "/v1/jobs/{}/result", "/v1/jobs/{}/errors", "/v1/models/{}", "/v1/models/{}/versions/1",
    "/v2/models/{}", "/v2/models/{}/ready", "/assets/{}", "/v1/webhook-deliveries/{}",
])  # fmt: skip
@pytest.mark.parametrize("name", [
    "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "..%5c..%5cwindows", "%2fetc%2fpasswd", "%00", "iris%00", "%ff", "%25s",
    "a%0d%0aSet-Cookie:%20x", "%c0%ae%c0%ae", "~root", "file:%2f%2f%2fetc%2fpasswd", "x" * 5000, "*", "sq:job:1",
    "{{7*7}}", "iris:-1", "iris:99999999999999999999", "iris@..", ".hidden", "iris%2f1%2fmanifest.json",
])  # fmt: skip
def test_no_name_leads_out(hostile_api: ApiUnderTest, path: str, name: str) -> None:
    """A name with dots, slashes, zeros, line ends or patterns in it is a name of nothing."""
    response = hostile_api.http.get(path.format(name))

    assert response.status_code in (404, 400), response.text
    assert "root:" not in response.text
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("field", ["X-Request-Id", "Idempotency-Key", "Prefer", "traceparent", "If-None-Match", "Range",
    "Content-Digest", "Accept", "Accept-Encoding", "Last-Event-ID", "Authorization", "Content-Encoding"])  # fmt: skip
@pytest.mark.parametrize("value", [
    "", " ", ",", ";", '"', "\u00e9", "\t", "x" * 8000, "wait=-1", "wait=99999999999999999999", "wait=1e9", "bytes=-",
    "bytes=9-1", "bytes=0-0," * 500, "sha-256=:!:", "gzip;q=x", "W/", "*", "%0d%0aSet-Cookie: a=b", "Bearer \u00e9",
])  # fmt: skip
def test_no_header_field_is_a_fault_of_ours(hostile_api: ApiUnderTest, field: str, value: str) -> None:
    """Whatever a field holds, it is read, ignored or refused; nothing of it becomes a field of the answer."""
    given = value.encode().decode("latin-1")
    body = b'{"model":"line","rows":[[1,2]]}'

    response = hostile_api.http.post("/v1/jobs", data=body, content_type=JSON, headers={field: given})

    assert response.status_code in (200, 202, 400, 415, 422), response.text
    assert "Set-Cookie" not in response.headers
    if field == "X-Request-Id":
        assert response.headers["X-Request-Id"].isalnum()


CELLS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    CELLS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("call", CALLS)
@FUZZ
@given(value=VALUES)
def test_any_json_is_taken_or_refused(hostile_api: ApiUnderTest, call: str, value: Any) -> None:
    """Any value in the place of the rows, with the NaN and the surrogates that Python writes."""
    send(hostile_api, call, json.dumps({"model": "line", CALLS[call]: value}).encode())


@pytest.mark.parametrize(("call", "content_type"), [
    *((call, JSON) for call in CALLS), ("POST /invocations?model=line", "text/csv"),
    *(
        ("POST /v1/jobs?model=line", kind)
        for kind in (
            "text/csv", "application/x-ndjson", "application/vnd.apache.parquet", "multipart/form-data; boundary=x",
        )
    ),
])  # fmt: skip
@FUZZ
@given(body=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_taken_or_refused(hostile_api: ApiUnderTest, call: str, content_type: str, body: bytes) -> None:
    """Any bytes in the place of a body."""
    send(hostile_api, call, body, content_type)


@FUZZ
@given(
    datatype=st.sampled_from(["FP32", "FP64", "INT64", "BOOL", "BYTES", "FP16", "UINT8", "X"]),
    shape=st.lists(st.integers(-1, 2**33), max_size=4) | st.just([1, 2]),
    size=st.integers(-1, 40) | st.just(16) | st.booleans() | st.floats() | st.none(),
    length=st.integers(-1, 400) | st.none(),
    binary=st.binary(max_size=40) | st.just(struct.pack("<2d", 1, 2)),
)
def test_any_binary_tensor_is_taken_or_refused(
    hostile_api: ApiUnderTest, datatype: str, shape: list[int], size: Any, length: int | None, binary: bytes
) -> None:
    """Any datatype, shape and length with any bytes behind them."""
    tensor = {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [tensor]}).encode()
    given = {"Inference_Header_Content_Length": str(len(text) if length is None else length)}
    send(hostile_api, "POST /v2/models/line/infer", text + binary, "application/octet-stream", **given)
