"""What an answer and the log may tell: no server, no inside, no key and nothing of what a caller sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis
import structlog

from shared.codec import encode_values
from shared.keys import KeyStore
from shared.values import Values
from tests.api_under_test import IRIS_ROWS, ApiUnderTest, assert_problem

StartApi = Callable[..., ApiUnderTest]
SENT = "7777777.25"
FIELDS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200), ("GET", "/v1/jobs", 200), ("GET", "/v1/models", 200), ("GET", "/metrics", 200),
        ("GET", "/nowhere", 404), ("DELETE", "/v1/jobs", 405), ("POST", "/v1/jobs", 415), ("GET", "/v1/jobs/x", 404),
        ("GET", "/v1/jobs?limit=x", 400),
    ],
)  # fmt: skip
def test_every_answer_has_the_fields_of_security(api: ApiUnderTest, method: str, path: str, status: int) -> None:
    """Also errors say what a browser may do with them: nothing, in no frame, and keep it for nobody else."""
    response = api.http.open(path, method=method)
    assert response.status_code == status
    for name, value in FIELDS.items():
        assert response.headers[name] == value, name
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "private" in response.headers["Cache-Control"]


def test_pages_run_nothing_but_our_own(api: ApiUnderTest) -> None:
    """A page may load scripts of this service alone, and nobody may put it into a frame."""
    response = api.http.get("/docs")
    assert response.mimetype == "text/html"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy


def test_internal_error_tells_nothing_of_the_inside(
    api: ApiUnderTest, log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is a bare 500; the log has the place and the request's id, and neither the message nor a path."""

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError(f"/srv/secret: {SENT}")

    monkeypatch.setattr(api.service.store, "list_jobs", fail)
    response = api.http.get("/v1/jobs", headers={"X-Request-Id": "the-one"})
    problem = assert_problem(response, 500, "internal_error")
    assert SENT not in json.dumps(problem)
    lines = [json.loads(line) for line in log().splitlines()]
    [line] = [line for line in lines if line["event"] == "request failed"]
    assert (line["exception"], line["request_id"]) == ("ValueError", "the-one")
    assert line["where"][-1].endswith("fail")
    for hidden in (SENT, "/srv", ".py", "Traceback"):
        assert hidden not in json.dumps(lines)


def test_log_holds_no_key_and_nothing_of_what_was_sent(
    start_api: StartApi, client: redis.Redis, log: Callable[[], str]
) -> None:
    """Good and bad requests, jobs that fail and webhooks that cannot be sent: their numbers and keys are not logged."""
    api = start_api(api_keys="env:of-the-settings", webhook_networks="127.0.0.0/8")
    key = KeyStore(client).create("ann", ("jobs:read", "jobs:write"))[1]
    for shown in (key, "of-the-settings", key + "x", "of-a-stranger"):
        headers = {"Authorization": f"Bearer {shown}", "Idempotency-Key": f"once-{SENT}"}
        api.post_rows([[float(SENT)] * 4], headers=headers, webhook={"url": f"http://127.0.0.1:9/{SENT}"})
        api.post_rows([[SENT, "x", None, float(SENT)]], headers=headers)
        api.http.post("/v1/jobs", data=f'{{"model": "iris", "rows": [[{SENT}', headers=headers)
        api.http.post("/v1/jobs", data="[" * 5000, content_type="application/json", headers=headers)
        api.post_file(f"a,b\n{SENT},x\n".encode(), "line", headers=headers)
        api.post_file(f'a,b\n"{SENT},x\n'.encode(), "line", headers=headers)
        api.http.get(f"/v1/jobs/{SENT}?after={SENT}", headers=headers)
        api.http.post("/v1/models", headers=headers)
    api.score()
    from api.webhook_sender import WebhookSender

    sender = WebhookSender(api.settings, api.service.deliveries, api.service.store)
    claimed = api.service.deliveries.claim(10, most_of_one=10, lease_seconds=60)
    assert claimed
    for delivery in claimed:
        sender.send(delivery)
    text = log()
    assert '"webhook not delivered"' in text
    assert '"request refused"' in text
    for hidden in (SENT, key.rpartition("_")[2], "of-the-settings", "of-a-stranger"):
        assert hidden not in text
    assert api.post_rows(IRIS_ROWS, headers={"Authorization": f"Bearer {key}"}).status_code == 202


def test_request_id_goes_with_the_job_into_the_workers_log(
    api: ApiUnderTest, log: Callable[[], str], client: redis.Redis
) -> None:
    """By one id a request is found in its answer, in its job, and in what a worker says of it."""
    rows = api.post_rows(IRIS_ROWS, headers={"X-Request-Id": "request-of-rows"})
    file = api.post_file(b"a,b\n1,2\n", "line", headers={"X-Request-Id": "request-of-a-file"})
    assert (rows.get_json()["request_id"], file.get_json()["request_id"]) == ("request-of-rows", "request-of-a-file")
    client.hset(f"sq:job:{rows.get_json()['id']}", "p", encode_values(Values(np.zeros((1, 1)))))
    api.service.files.remove(file.get_json()["id"])
    structlog.contextvars.clear_contextvars()  # a worker is another process
    api.score()
    lines = [json.loads(line) for line in log().splitlines()]
    told = {line["event"]: line["request_id"] for line in lines if "job" in line}
    assert told["a payload cannot be read"] == "request-of-rows"
    assert told["a file job is given up"] == "request-of-a-file"
    assert api.get_job(rows.get_json()["id"])["request_id"] == "request-of-rows"
