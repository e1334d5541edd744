"""What the standards say of every call: HEAD and OPTIONS, errors in one form, limits and compressed answers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.api_under_test import IRIS_ROWS, ApiUnderTest, assert_problem
from tests.described import name_path

# One server will do: it is not Redis that is tested here.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)

TENSOR = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}
#: These differ from one answer to the next by themselves.
MOVING = {"X-Request-Id", "Date", "RateLimit"}


def list_paths(api: ApiUnderTest, method: str) -> list[str]:
    """List a path for each route that takes a method, with names of what is there."""
    job_id = api.submit_rows()
    api.score()
    names = {"job_id": job_id, "name": "iris", "model": "iris", "version": 1, "alias": "champion", "asset": "docs.js"}
    rules = [rule for rule in api.app.url_map.iter_rules() if method in (rule.methods or set())]
    return [name_path(rule.rule).format(**names, delivery_id="none") for rule in rules]


def test_head_is_get_without_a_body(api: ApiUnderTest) -> None:
    """Wherever GET is answered, HEAD has the same status and fields, and nothing behind them (RFC 9110)."""
    paths = list_paths(api, "GET")

    for path in paths:
        get, head = api.http.get(path), api.http.head(path)
        assert head.status_code == get.status_code, path
        assert head.data == b"", path
        for name in set(get.headers.keys()) - MOVING - {"Content-Length"}:
            assert head.headers.get(name) == get.headers[name], (path, name)
        if path not in ("/metrics", "/ready"):  # whose text moves
            assert head.headers.get("Content-Length") == get.headers.get("Content-Length"), path
    assert len(paths) > 25


def test_options_names_the_methods(api: ApiUnderTest) -> None:
    """Everywhere OPTIONS names the methods that are taken, and each other one is a 405 with the same list."""
    for path in dict.fromkeys([*list_paths(api, "GET"), *list_paths(api, "POST"), *list_paths(api, "PUT")]):
        response = api.http.options(path)
        assert (response.status_code, response.data) == (200, b""), path
        allowed = {method.strip() for method in response.headers["Allow"].split(",")}
        assert ("GET" in allowed) == ("HEAD" in allowed)
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
            refused = api.http.open(path, method=method)
            assert refused.status_code == 405, (method, path)
            assert {one.strip() for one in refused.headers["Allow"].split(",")} == allowed


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code"),
    [
        ("GET", "/nothing", {}, 404, "not_found"),
        ("PATCH", "/v1/jobs", {}, 405, "method_not_allowed"),
        ("POST", "/v1/jobs", {"data": b"{}" * 200, "content_type": "application/json"}, 413, "payload_too_large"),
        ("POST", "/v1/jobs", {"data": b"x", "content_type": "text/plain"}, 415, "unsupported_media_type"),
        ("POST", "/predict", {"data": b"x", "content_type": "text/plain"}, 415, "unsupported_media_type"),
        ("GET", "/v1/jobs?boom", {}, 500, "internal_error"),
    ],
)  # fmt: skip
def test_errors_are_problems_and_under_v2_errors(
    start_api: Callable[..., ApiUnderTest], monkeypatch: pytest.MonkeyPatch,
    method: str, path: str, sent: dict[str, Any], status: int, code: str,
) -> None:  # fmt: skip
    """Also those of Flask itself and of what broke inside are problem documents (RFC 9457)."""
    api = start_api(max_body_bytes=300)

    def fail(*_: object, **__: object) -> None:
        raise ValueError("/secret")

    monkeypatch.setattr(api.service.store, "list_jobs", fail)
    assert_problem(api.http.open(path, method=method, **sent), status, code)


def test_inner_failure_has_the_protocols_form(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What broke inside is ``{"error": ...}`` under ``/v2``, and tells nothing of the inside."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("/secret")

    monkeypatch.setattr(api.service.store, "make_id", fail)
    response = api.http.post("/v2/models/line/infer", json=TENSOR)

    assert response.status_code == 500
    assert set(response.get_json()) == {"error"}
    assert "secret" not in response.text


def test_limits_are_told_in_every_protocol(start_api: Callable[..., ApiUnderTest]) -> None:
    """Every answer says what is left; past it 429 says when to come back, in the form of its protocol."""
    api = start_api(rate_limit="3/minute")

    left = [api.http.get(path).headers["RateLimit"] for path in ("/v2/models/iris", "/version", "/v1/models")]
    refused = [api.http.post(path, json=TENSOR) for path in ("/v2/models/line/infer", "/invocations", "/predict")]

    assert [text.split(";")[1] for text in left] == ["r=2", "r=1", "r=0"]
    for response in refused:
        assert response.status_code == 429
        assert int(response.headers["Retry-After"]) > 0
        assert response.headers["RateLimit-Policy"] == '"requests";q=3;w=60'
    assert set(refused[0].get_json()) == {"error"}
    assert_problem(refused[1], 429, "rate_limited")


def test_large_answers_of_every_protocol_are_compressed(api: ApiUnderTest) -> None:
    """Whoever takes gzip gets it for large JSON of the other protocols and of problems too."""
    api.listen()
    accepts = {"Accept-Encoding": "gzip"}
    with api.scoring():
        answers = [
            api.http.post("/predict_batch?model=iris", json={"features": IRIS_ROWS * 100}, headers=accepts),
            api.http.post("/invocations?model=iris", json={"instances": IRIS_ROWS * 400}, headers=accepts),
        ]
    answers.append(api.post_rows([["x"] * 4] * 100, headers=accepts))

    for response in answers:
        assert response.headers["Content-Encoding"] == "gzip"
        assert "Accept-Encoding" in response.headers["Vary"]
        assert json.loads(gzip.decompress(response.data))
