"""Who may call and how much: keys and tenants, loopback without a key, rate limit, backpressure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.settings import InvalidSettings
from tests.api_under_test import IRIS_ROWS, ApiUnderTest, assert_problem

KEYS = "ann:secret-a,bob:secret-b,bare-secret"

StartApi = Callable[..., ApiUnderTest]


def bearer(secret: str) -> dict[str, str]:
    """Give the header of a caller."""
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer secret-", "Bearer secret-ax", "Basic secret-a",
        "secret-a", "Bearer ann:secret-a", "Bearer ann", "Bearer é", "Bearer secret-a,bob",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models", "/metrics", "/nowhere"])
def test_without_a_valid_key_nothing_is_told(start_api: StartApi, header: str | None, path: str) -> None:
    """A missing or wrong key is a 401 that says how to send one, also where there is nothing."""
    api = start_api(api_keys=KEYS)
    response = api.http.get(path, headers={} if header is None else {"Authorization": header})
    assert_problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert "secret" not in response.text


@pytest.mark.parametrize("header", ["Bearer secret-a", "bearer secret-a", "Bearer  secret-a", "Bearer bare-secret"])
def test_valid_key_is_served(start_api: StartApi, header: str) -> None:
    """A key alone or of a named tenant is enough; the scheme's case does not matter."""
    assert start_api(api_keys=KEYS).http.get("/v1/jobs", headers={"Authorization": header}).status_code == 200


def test_probes_need_no_key(start_api: StartApi) -> None:
    """Health and readiness are for machines without a secret."""
    api = start_api(api_keys=KEYS)
    assert api.http.get("/health").status_code == api.http.get("/ready").status_code == 200


def test_tenant_sees_only_its_own_jobs(start_api: StartApi) -> None:
    """Another tenant's job cannot be told from one that never was, whatever is asked of it."""
    api = start_api(api_keys=KEYS)
    job_id = api.post_rows(IRIS_ROWS, headers=bearer("secret-a")).get_json()["id"]

    for other in ("secret-b", "bare-secret"):
        for method, path in [("GET", ""), ("GET", "/result"), ("GET", "/errors"), ("POST", "/cancel"), ("DELETE", "")]:
            response = api.http.open(f"/v1/jobs/{job_id}{path}", method=method, headers=bearer(other))
            assert_problem(response, 404, "unknown_job")
        assert api.http.get("/v1/jobs", headers=bearer(other)).get_json()["jobs"] == []

    assert api.http.get(f"/v1/jobs/{job_id}", headers=bearer("secret-a")).get_json()["status"] == "queued"
    assert api.http.delete(f"/v1/jobs/{job_id}", headers=bearer("secret-a")).status_code == 204
    assert_problem(api.http.get(f"/v1/jobs/{job_id}", headers=bearer("secret-a")), 410, "job_gone")
    assert_problem(api.http.get(f"/v1/jobs/{job_id}", headers=bearer("secret-b")), 404, "unknown_job")


def test_keys_of_one_tenant_share_its_jobs(start_api: StartApi) -> None:
    """A second key with the same name is the same tenant: keys can be rotated."""
    api = start_api(api_keys="ann:old, ann:new")
    job_id = api.post_rows(IRIS_ROWS, headers=bearer("old")).get_json()["id"]
    assert api.http.get(f"/v1/jobs/{job_id}", headers=bearer("new")).status_code == 200


@pytest.mark.parametrize("keys", ["ann:", ":secret"])
def test_malformed_keys_are_an_error_at_the_start(start_api: StartApi, keys: str) -> None:
    """A key without a name or a secret stops the start instead of letting nobody, or everybody, in."""
    with pytest.raises(InvalidSettings, match="SCOREQUEUE_API_KEYS"):
        start_api(api_keys=keys)


@pytest.mark.parametrize(
    ("address", "served"),
    [
        ("127.0.0.1", True), ("127.8.9.10", True), ("::1", True), ("10.0.0.7", False), ("192.0.2.1", False),
        ("2001:db8::1", False), ("0.0.0.0", False), ("not an address", False),
    ],
)  # fmt: skip
def test_without_keys_only_this_machine_is_served(api: ApiUnderTest, address: str, served: bool) -> None:
    """No key configured: a caller from elsewhere is refused and told what to set."""
    response = api.http.get("/v1/jobs", environ_overrides={"REMOTE_ADDR": address})
    if served:
        assert response.status_code == 200
    else:
        assert "SCOREQUEUE_API_KEYS" in assert_problem(response, 403, "forbidden")["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=192.0.2.1"}, {"X-Real-IP": "192.0.2.1"},
        {"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=lambda headers: next(iter(headers)) + " " + next(iter(headers.values())),
)  # fmt: skip
def test_without_keys_nobody_is_served_through_another(api: ApiUnderTest, headers: dict[str, str]) -> None:
    """No key configured: neither a proxy's callers nor a page of another site get in by this machine's address."""
    assert_problem(api.http.get("/v1/jobs", headers=headers), 403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:8000"},
        {"Host": "[::1]:8000"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=lambda headers: next(iter(headers)) + " " + next(iter(headers.values())),
)
def test_without_keys_this_machine_may_use_any_of_its_names(api: ApiUnderTest, headers: dict[str, str]) -> None:
    """A browser or a program on this machine is served."""
    assert api.http.get("/v1/jobs", headers=headers).status_code == 200


def test_key_opens_the_service_to_other_machines(start_api: StartApi) -> None:
    """With a key, where a caller comes from does not matter."""
    api = start_api(api_keys=KEYS)
    elsewhere = {"REMOTE_ADDR": "192.0.2.1"}
    assert api.http.get("/v1/jobs", headers=bearer("secret-a"), environ_overrides=elsewhere).status_code == 200


def test_rate_limit_counts_down_and_refuses(start_api: StartApi) -> None:
    """Every answer tells what is left; past the limit it is a 429 with when to come back, for this tenant alone."""
    api = start_api(api_keys=KEYS, rate_limit="3/hour")

    answers = [api.http.get("/v1/jobs", headers=bearer("secret-a")) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    left = [answer.headers["RateLimit"].split(";")[1] for answer in answers]
    assert left == ["r=2", "r=1", "r=0", "r=0", "r=0"]
    for answer in answers:
        assert answer.headers["RateLimit-Policy"] == '"requests";q=3;w=3600'
    assert_problem(answers[-1], 429, "rate_limited")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 3600
    assert api.http.get("/v1/jobs", headers=bearer("secret-b")).status_code == 200
    for path in ("/health", "/ready"):
        assert api.http.get(path).status_code == 200
    assert api.http.get("/metrics", headers=bearer("secret-a")).status_code == 200


def test_rate_limit_holds_over_processes(start_api: StartApi) -> None:
    """Two API processes count together."""
    apis = [start_api(rate_limit="4/hour") for _ in range(2)]
    statuses = [api.http.get("/v1/jobs").status_code for _ in range(3) for api in apis]
    assert statuses == [200] * 4 + [429] * 2


def test_without_a_rate_limit_no_fields_are_sent(api: ApiUnderTest) -> None:
    """Nothing is said of a limit that is not there."""
    assert "RateLimit" not in api.http.get("/v1/jobs").headers


def test_malformed_rate_limit_is_an_error_at_the_start(start_api: StartApi) -> None:
    """A limit that cannot be read stops the start."""
    with pytest.raises(InvalidSettings, match="SCOREQUEUE_RATE_LIMIT"):
        start_api(rate_limit="quickly")


def test_full_queue_refuses_until_it_drains(start_api: StartApi) -> None:
    """Rows over the limit are a 429 with Retry-After; other models are taken, and this one again when drained."""
    api = start_api(max_queue_rows=5)
    api.submit_rows()

    def submit(**members: Any) -> Any:
        return api.post_rows(IRIS_ROWS, **members)

    refused = submit()
    assert "limit is 5" in assert_problem(refused, 429, "queue_full")["detail"]
    assert int(refused.headers["Retry-After"]) >= 1
    assert len(api.http.get("/v1/jobs").get_json()["jobs"]) == 1
    assert submit(priority="high").status_code == 429
    assert submit(headers={"Prefer": "wait=20"}).status_code == 429
    assert api.post_rows(IRIS_ROWS[:2]).status_code == 202
    assert api.post_rows([[1, 2]], "line").status_code == 202

    api.score()
    assert submit().status_code == 202


def test_retry_after_follows_the_measured_speed(start_api: StartApi) -> None:
    """How long to wait is the backlog by the speed that the sweep measured."""
    api = start_api(max_queue_rows=300)
    api.submit_rows(IRIS_ROWS * 100)
    api.service.store.sample_speed("rows:iris:1", api.service.store.read_clock_ms(), 0, 10.0)

    refused = api.post_rows(IRIS_ROWS)

    assert_problem(refused, 429, "queue_full")
    assert 28 <= int(refused.headers["Retry-After"]) <= 32
