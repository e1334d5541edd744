"""How often a request asks Redis: at most twice for a submission, limits included, and once for a read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.api_under_test import IRIS_ROWS, ApiUnderTest, read_id


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
def test_a_submission_asks_twice_at_most(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """Key, limits of requests and rows, quota, idempotency and the job itself."""
    trips = count_round_trips(api, lambda: read_id(api.post_rows(IRIS_ROWS, headers=headers)), monkeypatch)

    assert 1 <= trips <= 2


def test_a_repetition_asks_once_more(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered with the first job, which must be read."""
    headers = {"Idempotency-Key": "again"}
    first = read_id(api.post_rows(IRIS_ROWS, headers=headers))

    trips = count_round_trips(api, lambda: api.post_rows(IRIS_ROWS, headers=headers), monkeypatch)

    assert trips <= 3
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
