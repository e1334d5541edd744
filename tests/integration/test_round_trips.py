"""How often a request asks Redis: once for a submission, and once for a read, limits included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.api_under_test import IRIS_ROWS, ApiUnderTest, read_id
from tests.conftest import WaitUntil


@pytest.fixture
def api(start_api: Callable[..., ApiUnderTest]) -> ApiUnderTest:
    """Give a front end with keys and limits of both kinds, that has served a request of each sort before."""
    api = start_api(
        api_keys="shop:secret", rate_limit="100000/second", row_limit="100000/second", max_tenant_jobs=1_000
    )
    api.http.environ_base["HTTP_AUTHORIZATION"] = "Bearer secret"
    job = api.submit_rows()
    api.score()
    api.http.get(f"/v1/jobs/{job}")
    api.submit_rows()  # so that a wake-up is on its way already
    return api


def count_round_trips(api: ApiUnderTest, call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """Count how often the request of a call writes to Redis; what it writes at once counts once."""
    writes: list[bytes] = []
    connections = api.service.store.client.connection_pool.connection_class
    send = connections.send_packed_command

    def note(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        writes.append(b"".join(command) if isinstance(command, list | tuple) else command)
        return send(self, command, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(connections, "send_packed_command", note)
        call()
    return len(writes)


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}], ids=["plain", "with a key"])
def test_a_submission_asks_once(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]) -> None:
    """Key, limits of requests and rows, quota, idempotency and the job itself."""
    trips = count_round_trips(api, lambda: read_id(api.post_rows(IRIS_ROWS, headers=headers)), monkeypatch)

    assert trips == 1


def test_a_repetition_asks_once_more(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered with the first job, which must be read."""
    headers = {"Idempotency-Key": "again"}
    first = read_id(api.post_rows(IRIS_ROWS, headers=headers))

    trips = count_round_trips(api, lambda: api.post_rows(IRIS_ROWS, headers=headers), monkeypatch)

    assert trips == 2
    assert read_id(api.post_rows(IRIS_ROWS, headers=headers)) == first


@pytest.mark.parametrize("path", ["", "/result"])
@pytest.mark.parametrize("is_scored", [True, False])
def test_a_read_asks_once(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch, path: str, is_scored: bool) -> None:
    """The job with its place in the queue, or its result, and the limit from which the read is taken."""
    job = api.submit_rows()
    if is_scored:
        api.score()

    trips = count_round_trips(api, lambda: api.http.get(f"/v1/jobs/{job}{path}"), monkeypatch)

    assert trips == 1
    assert "RateLimit" in api.http.get(f"/v1/jobs/{job}{path}").headers


def test_reads_are_limited_all_the_same(start_api: Callable[..., ApiUnderTest]) -> None:
    """What is left is told in each answer, and the read after the last is refused without the job."""
    api = start_api(rate_limit="3/hour")
    job = api.submit_rows()

    answers = [api.http.get(f"/v1/jobs/{job}") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit"].partition(";")[2][:3] for answer in answers] == ["r=1", "r=0", "r=0"]
    assert "row_counts" not in answers[-1].get_json()


def test_a_read_without_redis_is_refused(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is let through uncounted."""
    job = api.submit_rows()

    def refuse(*_: Any, **__: Any) -> None:
        raise redis.ConnectionError("gone")

    connections = api.service.store.client.connection_pool.connection_class
    with monkeypatch.context() as patch:
        patch.setattr(connections, "send_packed_command", refuse)
        assert api.http.get(f"/v1/jobs/{job}").status_code == 503


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"model": "iris", "rows": [[1]]}', 422),
        ('{"model": "iris", "rows"', 400),
        ('{"model": "no", "rows": []}', 404),
    ],
)
def test_what_is_refused_is_counted_too(start_api: Callable[..., ApiUnderTest], body: str, code: int) -> None:
    """Once, and the limit stands before the reason: else a stranger could ask for faults without end."""
    api = start_api(rate_limit="2/hour")

    answers = [api.http.post("/v1/jobs", data=body, content_type="application/json") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [code, code, 429]
    assert [answer.headers["RateLimit"].partition(";")[2][:3] for answer in answers] == ["r=1", "r=0", "r=0"]


def test_a_large_body_is_counted_before_it_is_read(start_api: Callable[..., ApiUnderTest]) -> None:
    """Once: the script that writes its job down does not count it again."""
    api = start_api(rate_limit="2/hour")
    rows = IRIS_ROWS * 1_000

    answers = [api.post_rows(rows) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert [answer.headers["RateLimit"].partition(";")[2][:3] for answer in answers] == ["r=1", "r=0", "r=0"]


@pytest.mark.parametrize(("limit", "is_logged"), [("1000/second", False), ("1000/day", True)])
def test_what_is_empty_at_once_is_not_written_to_the_log_of_redis(
    start_api: Callable[..., ApiUnderTest], wait_until: WaitUntil, limit: str, is_logged: bool
) -> None:
    """A read must not wait for the disk; what lasts longer than a restart of Redis is kept over one."""
    api = start_api(rate_limit=limit)
    store = api.service.store.client
    store.config_set("appendonly", "yes")
    try:
        wait_until(lambda: not store.info("persistence")["aof_rewrite_in_progress"], 10.0, "the log of Redis")
        job = api.submit_rows()
        before = store.info("persistence")["aof_current_size"]

        answer = api.http.get(f"/v1/jobs/{job}")

        assert answer.headers["RateLimit"].startswith('"requests";r=99')
        assert (store.info("persistence")["aof_current_size"] > before) == is_logged
    finally:
        store.config_set("appendonly", "no")
