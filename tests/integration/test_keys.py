"""API keys: made and revoked by a command, kept as digests, told apart by scope, and in the audit trail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import structlog
from werkzeug.test import TestResponse

from api.__main__ import main
from api.scopes import ANY_KEY, PAGES, PROBES, find_scope
from shared.connection import connect
from shared.keys import SCOPES
from shared.settings import Settings
from tests.api_under_test import IRIS_ROWS, ApiUnderTest, assert_problem
from tests.conftest import WaitUntil

StartApi = Callable[..., ApiUnderTest]
RunCommand = Callable[..., Any]


@pytest.fixture
def run_command(redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Return a function that runs ``python -m api`` in this process; it gives what is printed as JSON."""
    monkeypatch.setenv("SCOREQUEUE_REDIS_URL", redis_url)

    def run(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*words, "--json"]) == code
        written = capsys.readouterr()
        return json.loads(written.out) if code == 0 else written.err

    return run


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """Give the log lines of the audit trail, as they come."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def bearer(key: str) -> dict[str, str]:
    """Give the header of a caller."""
    return {"Authorization": f"Bearer {key}"}


def make_key(run_command: RunCommand, *words: str, tenant: str = "ann") -> str:
    """Make a key; give it."""
    return str(run_command("keys", "create", "--tenant", tenant, *words)["key"])


def test_key_is_shown_once_and_only_its_digest_is_kept(
    api: ApiUnderTest, client: redis.Redis, run_command: RunCommand
) -> None:
    """What Redis holds of a key lets nobody in, and no list shows the key again."""
    made = run_command("keys", "create", "--tenant", "ann")
    secret = made["key"].rpartition("_")[2]

    assert made["key"].startswith(f"sq_{made['id']}_")
    assert len(secret) == 40
    assert api.http.get("/v1/jobs", headers=bearer(made["key"])).status_code == 200
    listed = run_command("keys", "list")
    assert [key["id"] for key in listed] == [made["id"]]
    assert secret not in json.dumps(listed)
    for name in client.scan_iter():
        assert secret.encode() not in client.dump(name)  # type: ignore[operator]
    record = json.loads(client.hget("sq:keys", made["id"]))  # type: ignore[arg-type]
    assert_problem(api.http.get("/v1/jobs", headers=bearer(record["digest"])), 401, "unauthenticated")


def test_key_is_printed_alone_for_people(
    redis_url: str, store: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --json the key alone is on standard output, so that a shell can take it; what it is, beside it."""
    monkeypatch.setenv("SCOREQUEUE_REDIS_URL", redis_url)
    assert main(["keys", "create", "--tenant", "ann", "--scopes", "jobs:read", "--expires", "12h"]) == 0
    written = capsys.readouterr()
    assert written.out.strip().startswith("sq_")
    assert "jobs:read" in written.err
    assert main(["keys", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split("\t")[1:4] == ["ann", "live", "jobs:read"]


def test_first_key_ends_the_days_without_one(api: ApiUnderTest, run_command: RunCommand, wait_until: WaitUntil) -> None:
    """From the first key on everybody needs one, on this machine too, and for good: revoking it opens nothing."""
    assert api.http.get("/v1/jobs").status_code == 200
    made = run_command("keys", "create", "--tenant", "ann")
    wait_until(lambda: api.http.get("/v1/jobs").status_code == 401, 2, "the key to be needed")
    run_command("keys", "revoke", made["id"])
    wait_until(
        lambda: api.http.get("/v1/jobs", headers=bearer(made["key"])).status_code == 401, 2, "the key to be refused"
    )
    assert_problem(api.http.get("/v1/jobs"), 401, "unauthenticated")


def test_revoked_key_is_refused_by_every_process_within_a_second(
    start_api: StartApi, run_command: RunCommand, wait_until: WaitUntil
) -> None:
    """Processes that just let a key in know within a second that they may not any more."""
    made = run_command("keys", "create", "--tenant", "ann")
    apis = [start_api() for _ in range(3)]

    def read_statuses() -> list[int]:
        return [api.http.get("/v1/jobs", headers=bearer(made["key"])).status_code for api in apis]

    wait_until(lambda: read_statuses() == [200, 200, 200], 2, "the key to be known")
    assert run_command("keys", "revoke", made["id"])["state"] == "revoked"
    revoked = time.monotonic()
    wait_until(lambda: read_statuses() == [401, 401, 401], 5, "the key to be refused")
    assert time.monotonic() - revoked < 1.0
    refused = assert_problem(apis[0].http.get("/v1/jobs", headers=bearer(made["key"])), 401, "unauthenticated")
    assert "revoked" in refused["detail"]


def test_two_keys_of_a_tenant_live_side_by_side(api: ApiUnderTest, run_command: RunCommand) -> None:
    """A key is changed without a gap: the next one sees the same jobs while the old one still works."""
    old, new = make_key(run_command), make_key(run_command)
    job_id = api.post_rows(IRIS_ROWS, headers=bearer(old)).get_json()["id"]
    for key in (old, new):
        assert api.http.get(f"/v1/jobs/{job_id}", headers=bearer(key)).status_code == 200
    other = make_key(run_command, tenant="bob")
    wait_for_key(api, other)
    assert_problem(api.http.get(f"/v1/jobs/{job_id}", headers=bearer(other)), 404, "unknown_job")


def wait_for_key(api: ApiUnderTest, key: str) -> None:
    """Make the process look at the keys anew, as it does twice a second."""
    api.service.keys._copy = api.service.keys._copy.__class__({}, -1, 0.0)
    assert api.http.get("/v1/models", headers=bearer(key)).status_code in (200, 403)


def test_key_ends_at_its_time(api: ApiUnderTest, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """An expired key is refused and says so to who holds it; it stays in the list."""
    key = make_key(run_command, "--expires", "12h")
    assert api.http.get("/v1/jobs", headers=bearer(key)).status_code == 200
    later = time.time() + 12 * 3600
    monkeypatch.setattr("api.keyring.time.time", lambda: later)
    assert "expired" in assert_problem(api.http.get("/v1/jobs", headers=bearer(key)), 401, "unauthenticated")["detail"]
    monkeypatch.setattr("api.__main__.time.time", lambda: later)
    assert run_command("keys", "list")[0]["state"] == "expired"


@pytest.mark.parametrize(
    "words",
    [
        ["--tenant", "a b"], ["--tenant", ""], ["--tenant", "a:b"], ["--tenant", "a", "--rate-limit", "often"],
        ["--tenant", "a", "--row-limit", "0/second"], ["--tenant", "a", "--expires", "2020-01-01"],
    ],
)  # fmt: skip
def test_wrong_key_is_not_made(run_command: RunCommand, store: object, words: list[str]) -> None:
    """A name that cannot be part of a key in Redis, a limit that is none, or a time that has passed: exit code 2."""
    assert "error: " in run_command("keys", "create", *words, code=2)
    assert run_command("keys", "list") == []


@pytest.mark.parametrize("words", [["--scopes", "jobs:all"], ["--scopes", ""], ["--expires", "soon"]])
def test_wrong_option_is_wrong_use(run_command: RunCommand, words: list[str]) -> None:
    """A scope or a time that cannot be read is told by the parser."""
    with pytest.raises(SystemExit, match="2"):
        run_command("keys", "create", "--tenant", "ann", *words)


def test_unknown_key_cannot_be_revoked(run_command: RunCommand, store: object) -> None:
    """A wrong id is an error, and not silently nothing."""
    assert "no key nothing" in run_command("keys", "revoke", "nothing", code=2)


def test_without_redis_the_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code tells wrong use from a store that is away."""
    monkeypatch.setenv("SCOREQUEUE_REDIS_URL", "redis://127.0.0.1:1/0")
    assert main(["keys", "list"]) == 3
    assert "Redis does not answer" in capsys.readouterr().err


def test_last_use_is_noted(api: ApiUnderTest, run_command: RunCommand) -> None:
    """A key that nobody uses any more can be found."""
    key = make_key(run_command)
    make_key(run_command, tenant="bob")
    assert api.http.get("/v1/jobs", headers=bearer(key)).status_code == 200
    used = {listed["tenant"]: listed["last_used_at"] for listed in run_command("keys", "list")}
    assert used["bob"] is None
    assert used["ann"] is not None


CALLS = [
    ("jobs:read", "GET", "/v1/jobs", 200),
    ("jobs:read", "GET", "/v1/jobs/x", 404),
    ("jobs:read", "GET", "/v1/jobs/x/result", 404),
    ("jobs:read", "GET", "/v1/jobs/x/errors", 404),
    ("jobs:read", "GET", "/v1/jobs/x/events", 404),
    ("jobs:read", "GET", "/v1/dead-letters", 200),
    ("jobs:write", "POST", "/v1/jobs", 415),
    ("jobs:write", "POST", "/v1/jobs/x/cancel", 404),
    ("jobs:write", "POST", "/v1/jobs/x/retry", 404),
    ("jobs:write", "DELETE", "/v1/jobs/x", 404),
    ("jobs:write", "POST", "/predict", 415),
    ("jobs:write", "POST", "/predict_batch", 415),
    ("models:read", "GET", "/v1/models", 200),
    ("models:read", "GET", "/v1/models/iris/versions/1", 200),
    ("models:read", "GET", "/v1/queues", 200),
    ("models:write", "POST", "/v1/queues/iris/pause", 200),
    ("models:write", "POST", "/v1/queues/iris/resume", 200),
    ("metrics:read", "GET", "/metrics", 200),
]


def test_each_scope_opens_its_calls_and_no_others(api: ApiUnderTest, run_command: RunCommand) -> None:
    """Of five keys with one scope each, one is let in by each call; the others get 403 and the scope's name."""
    keys = {scope: make_key(run_command, "--scopes", scope) for scope in SCOPES}
    for scope, method, path, status in CALLS:
        for own, key in keys.items():
            response: TestResponse = api.http.open(path, method=method, headers=bearer(key))
            if own == scope:
                assert response.status_code == status, (own, path, response.text)
            else:
                assert scope in assert_problem(response, 403, "forbidden")["detail"]
                assert scope in response.headers["WWW-Authenticate"]


def test_every_route_is_thought_of(api: ApiUnderTest) -> None:
    """Each rule of the app is a probe, a page without data, for any key, or has a scope: none is so by oversight."""
    rules = [rule for rule in api.app.url_map.iter_rules() if rule.rule not in PROBES | PAGES | ANY_KEY]
    forgotten = [
        f"{method} {rule.rule}"
        for rule in rules
        for method in rule.methods or ()
        if find_scope(rule.rule, method) not in SCOPES
    ]
    assert forgotten == [], "add them to api/scopes.py"


def test_key_for_metrics_reads_nothing_else(start_api: StartApi) -> None:
    """The setting that a monitor's key is laid in with opens /metrics alone."""
    api = start_api(metrics_key="of-the-monitor", api_keys="ann:secret-a")
    assert api.http.get("/metrics", headers=bearer("of-the-monitor")).status_code == 200
    assert_problem(api.http.get("/v1/jobs", headers=bearer("of-the-monitor")), 403, "forbidden")
    assert api.http.get("/metrics", headers=bearer("secret-a")).status_code == 200


def test_keys_of_the_settings_and_of_the_store_both_count(start_api: StartApi, run_command: RunCommand) -> None:
    """A deployment that lays a key in can have others made by command."""
    api = start_api(api_keys="ann:secret-a")
    key = make_key(run_command, tenant="ann")
    job_id = api.post_rows(IRIS_ROWS, headers=bearer("secret-a")).get_json()["id"]
    assert api.http.get(f"/v1/jobs/{job_id}", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize("change", ["secret", "id", "case", "cut", "longer"])
def test_almost_a_key_is_no_key(api: ApiUnderTest, run_command: RunCommand, change: str) -> None:
    """A key with a wrong secret, or the secret under another's id, lets nobody in, and the answer tells neither."""
    key, other = make_key(run_command), make_key(run_command)
    _, key_id, secret = key.split("_")
    shown = {
        "secret": f"sq_{key_id}_{secret[:-1]}{'a' if secret[-1] != 'a' else 'b'}",
        "id": f"sq_{other.split('_')[1]}_{secret}",
        "case": key.swapcase(),
        "cut": key[:-1],
        "longer": key + "x",
    }[change]
    problem = assert_problem(api.http.get("/v1/jobs", headers=bearer(shown)), 401, "unauthenticated")
    assert key_id not in json.dumps(problem)


def test_key_events_and_refusals_are_in_the_audit_trail(
    api: ApiUnderTest, run_command: RunCommand, events: list[Any]
) -> None:
    """Making, revoking and refusing are a line each, with who and which, and never with a key."""
    from shared import audit

    made = run_command("keys", "create", "--tenant", "ann", "--scopes", "models:read")
    api.http.get("/v1/jobs", headers=bearer(made["key"]))
    api.http.get("/v1/jobs", headers=bearer("of-a-stranger"))
    api.http.get("/v1/jobs")
    run_command("keys", "revoke", made["id"])
    for _ in range(2):
        audit.log_waiting(api.service.store.client)

    trail = [line for line in events if line.get("audit")]
    assert [(line["event"], line.get("code"), line.get("key")) for line in trail] == [
        ("request refused", "forbidden", made["id"]),
        ("request refused", "unauthenticated", None),
        ("request refused", "unauthenticated", None),
        ("key created", None, made["id"]),
        ("key revoked", None, made["id"]),
    ]
    assert trail[0]["route"] == "/v1/jobs"
    assert trail[3]["tenant"] == "ann"
    assert "@" in trail[3]["by"]
    text = json.dumps(events)
    assert made["key"].rpartition("_")[2] not in text
    assert "of-a-stranger" not in text


def test_without_redis_no_stored_key_lets_anybody_in(
    start_api: StartApi, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that may have been revoked meanwhile is not believed: the answer is 503, also where there is no data."""
    api = start_api()
    key = make_key(run_command)
    assert api.http.get("/v1/models", headers=bearer(key)).status_code == 200

    api.service.keys._store = type(api.service.keys._store)(connect("redis://127.0.0.1:1/0"))
    api.service.keys._copy = api.service.keys._copy.__class__(api.service.keys._copy.keys, 1, 0.0)

    for path in ("/v1/models", "/metrics"):
        assert_problem(api.http.get(path, headers=bearer(key)), 503, "store_unavailable")
        assert_problem(api.http.get(path), 503, "store_unavailable")


def test_settings_name_the_key_for_metrics() -> None:
    """It is read like every other setting."""
    assert Settings.from_env({"SCOREQUEUE_METRICS_KEY": "x"}).metrics_key == "x"
