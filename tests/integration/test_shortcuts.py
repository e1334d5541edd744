"""The calls that come most are served without Flask's routing and contexts, and nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api import shortcuts
from tests.api_under_test import IRIS_ROWS, ApiUnderTest

pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)

ROWS = {"model": "iris", "rows": IRIS_ROWS}
#: Method, path and what else is sent; JOB and FILE stand for a job that has ended.
CALLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "job": ("GET", "/v1/jobs/JOB", {}),
    "job by HEAD": ("HEAD", "/v1/jobs/JOB", {}),
    "job with a query": ("GET", "/v1/jobs/JOB?x=1", {}),
    "job that is known": ("GET", "/v1/jobs/JOB", {"headers": {"If-None-Match": "*"}}),
    "job that is waited for": ("GET", "/v1/jobs/JOB", {"headers": {"Prefer": "wait=1"}}),
    "result": ("GET", "/v1/jobs/JOB/result", {}),
    "result by HEAD": ("HEAD", "/v1/jobs/JOB/result", {}),
    "result of a file": ("GET", "/v1/jobs/FILE/result", {}),
    "range of a file": ("GET", "/v1/jobs/FILE/result", {"headers": {"Range": "bytes=2-9"}}),
    "range past the end": ("GET", "/v1/jobs/FILE/result", {"headers": {"Range": "bytes=99999-"}}),
    "wrong query": ("GET", "/v1/jobs/JOB/result?partial=perhaps", {}),
    "no such job": ("GET", "/v1/jobs/job_x", {}),
    "no such result": ("GET", "/v1/jobs/%2e%2e/result", {}),
    "slash at the end": ("GET", "/v1/jobs/JOB/", {}),
    "other method": ("PUT", "/v1/jobs/JOB", {}),
    "submission": ("POST", "/v1/jobs", {"json": ROWS}),
    "submission with options": ("POST", "/v1/jobs", {"json": ROWS | {"priority": "high", "metadata": {"a": [1]}}}),
    "dry run of a file": ("POST", "/v1/jobs?model=iris&dry_run=true", {"data": b"a\n1\n", "content_type": "text/csv"}),
    "rows that do not fit": ("POST", "/v1/jobs", {"json": {"model": "iris", "rows": [[1, "x"]]}}),
    "no JSON": ("POST", "/v1/jobs", {"data": b"{", "content_type": "application/json"}),
    "no such model": ("POST", "/v1/jobs", {"json": {"model": "none", "rows": [[1]]}}),
    "other type": ("POST", "/v1/jobs", {"data": b"x", "content_type": "text/x"}),
    "no type": ("POST", "/v1/jobs", {}),
}
#: What is another at each call.
_OWN = ("X-Request-Id", "RateLimit", "Location")


@pytest.fixture
def api(start_api: Callable[..., ApiUnderTest]) -> ApiUnderTest:
    """Give a front end with a key and limits."""
    api = start_api(api_keys="shop:secret", rate_limit="100000/hour", row_limit="100000/hour")
    api.http.environ_base["HTTP_AUTHORIZATION"] = "Bearer secret"
    return api


@pytest.fixture
def ended(api: ApiUnderTest) -> dict[str, str]:
    """Give the ids of a rows job and a file job that were scored."""
    jobs = {"JOB": api.submit_rows(), "FILE": api.post_file(b"a,b\n1,2\n3,4\n", "line").get_json()["id"]}
    api.score()
    return jobs


def answer(api: ApiUnderTest, ended: dict[str, str], name: str) -> tuple[int, dict[str, str], Any]:
    """Make a call; return its status, header fields and body without what is another at each call."""
    method, path, more = CALLS[name]
    for word, job_id in ended.items():
        path = path.replace(word, job_id)
    response = api.http.open(path, method=method, **more)
    body = response.get_json(silent=True) if response.is_json and method != "HEAD" else response.get_data()
    if name.startswith("submission"):
        body = sorted(body)
    fields = {key: value for key, value in response.headers if key not in _OWN}
    if name.startswith("submission"):
        fields.pop("Content-Length")
    assert all(key in response.headers for key in _OWN[: 2 if response.status_code != 405 else 1])
    return response.status_code, fields, body


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_answered_as_flask_would(
    api: ApiUnderTest, ended: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Status, header fields and body are the same, whether it goes well or not."""
    found = answer(api, ended, name)
    monkeypatch.setattr(shortcuts, "_find_view", lambda *_: None)

    assert found == answer(api, ended, name)


@pytest.mark.parametrize("name", ["job", "job by HEAD", "result", "result of a file", "submission"])
def test_what_goes_well_does_not_come_to_flask(
    api: ApiUnderTest, ended: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its contexts are most of what such a call would cost."""
    monkeypatch.setattr(api.app, "request_context", None)

    assert answer(api, ended, name)[0] < 300


def test_a_refusal_is_counted_and_audited_once(start_api: Callable[..., ApiUnderTest], log: Callable[[], str]) -> None:
    """It is passed on to Flask, which must not find out anew who calls."""
    api = start_api(api_keys="shop:secret")

    assert api.http.get("/v1/jobs/job_x").status_code == 401
    assert log().count("unauthenticated") == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/jobs"), *((method, f"/v1/jobs/x{end}") for method in ("GET", "HEAD") for end in ("", "/result"))],
)
def test_a_shortcut_leads_where_flask_would(api: ApiUnderTest, method: str, path: str) -> None:
    """A rule that is changed in one place and not in the other is noticed here."""
    found = shortcuts._find_view(method, path)
    assert found is not None

    rule, arguments = api.app.url_map.bind("").match(path, method, return_rule=True)

    assert found == (rule.rule, api.app.view_functions[rule.endpoint], tuple(arguments.values()))
