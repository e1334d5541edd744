"""How much a tenant, or one key, may send: requests and rows in a time, and what it may have in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from werkzeug.test import TestResponse

from shared.errors import ServiceError
from shared.keys import KeyStore
from shared.limits import Limit, Limiter, LimitExceeded, parse_limit
from tests.api_under_test import IRIS_ROWS, ApiUnderTest, assert_problem
from tests.conftest import WaitUntil

StartApi = Callable[..., ApiUnderTest]
KEYS = "ann:secret-a,bob:secret-b"
CSV = b"a,b\n" + b"1,2\n" * 10
_SHORT = 2


def bearer(secret: str) -> dict[str, str]:
    """Give the header of a caller."""
    return {"Authorization": f"Bearer {secret}"}


def read_fields(response: TestResponse, header: str = "RateLimit") -> dict[str, dict[str, int]]:
    """Give the members of each limit in a header field."""
    fields = {}
    for item in response.headers[header].split(", "):
        name, *members = item.split(";")
        fields[name.strip('"')] = {member[0]: int(member[2:]) for member in members}
    return fields


def test_bucket_leaks_evenly(client: redis.Redis, store: object, wait_until: WaitUntil) -> None:
    """What was taken comes back little by little: there is no moment at which twice the limit would pass."""
    limiter, limit = Limiter(client), Limit("requests", "ann", 20, _SHORT)
    assert limiter.take([(limit, 20)])[0].remaining == 0
    with pytest.raises(LimitExceeded):
        limiter.take([(limit, 20)])
    # A tenth of a second gives one back, long before all are there.
    wait_until(lambda: can_take(limiter, limit, 1), 5, "one to come back")
    with pytest.raises(LimitExceeded):
        limiter.take([(limit, 20)])


def can_take(limiter: Limiter, limit: Limit, cost: int) -> bool:
    """Take, and tell whether it was allowed."""
    try:
        limiter.take([(limit, cost)])
    except LimitExceeded:
        return False
    return True


def test_refusal_says_when_to_come_back(client: redis.Redis, store: object) -> None:
    """Retry-After is when just this much will be there, and what is refused is not counted."""
    limiter, limit = Limiter(client), Limit("rows", "ann", 100, 1000)
    limiter.take([(limit, 90)])
    for _ in range(3):
        with pytest.raises(LimitExceeded, match="30 more are too many") as caught:
            limiter.take([(limit, 30)])
        assert 195 <= (caught.value.retry_after or 0) <= 200
        assert (caught.value.states[0].remaining, caught.value.states[0].reset_seconds) == (10, 900)
    assert limiter.take([(limit, 10)])[0].remaining == 0


def test_more_than_the_whole_is_taken_when_all_is_there(client: redis.Redis, store: object) -> None:
    """A job larger than its limit passes once, and is paid for before the next."""
    limiter, limit = Limiter(client), Limit("rows", "ann", 100, 1000)
    limiter.take([(limit, 250)])
    with pytest.raises(LimitExceeded) as caught:
        limiter.take([(limit, 1)])
    assert 1500 <= (caught.value.retry_after or 0) <= 1510


def test_several_limits_are_taken_from_together_or_not_at_all(client: redis.Redis, store: object) -> None:
    """What one limit refuses is not counted by the others."""
    limiter = Limiter(client)
    wide, narrow = Limit("requests", "ann", 10, 1000), Limit("key-requests", "k", 1, 1000)
    assert [state.remaining for state in limiter.take([(wide, 1), (narrow, 1)])] == [9, 0]
    with pytest.raises(LimitExceeded, match="this key"):
        limiter.take([(wide, 1), (narrow, 1)])
    assert limiter.take([(wide, 1)])[0].remaining == 8


def test_limit_is_exact_under_many_threads(redis_url: str, client: redis.Redis, store: object) -> None:
    """Of two hundred attempts at once just as many pass as are allowed."""
    limit, begin = Limit("requests", "ann", 50, 24 * 3600), threading.Barrier(8)

    def attempt(_: int) -> int:
        with redis.Redis.from_url(redis_url) as client:
            limiter = Limiter(client)
            begin.wait(10)
            return sum(can_take(limiter, limit, 1) for _ in range(25))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 50


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("100/second", (100, 1)),
        ("5000/10 minutes", (5000, 600)),
        ("3 per hour", (3, 3600)),
        (" 1/2 days ", (1, 172800)),
    ],
)
def test_limit_is_read(text: str, meaning: tuple[int, int]) -> None:
    """An amount and a time, as people write them."""
    assert parse_limit(text) == meaning


@pytest.mark.parametrize("text", ["", "quickly", "0/second", "-1/second", "1.5/second", "1/fortnight", "1/0 seconds"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    """What cannot be read is named, with an example."""
    with pytest.raises(ServiceError, match="100/second"):
        parse_limit(text)


def test_row_limit_counts_rows_of_a_tenant(start_api: StartApi) -> None:
    """Jobs are taken while their rows are left; refused ones cost nothing, and other tenants and calls go on."""
    api = start_api(api_keys=KEYS, row_limit="7/hour")

    answers = [api.post_rows(IRIS_ROWS, headers=bearer("secret-a")) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
    assert read_fields(answers[0]) == {"rows": {"r": 4, "t": 1543}}
    assert read_fields(answers[0], "RateLimit-Policy") == {"rows": {"q": 7, "w": 3600}}
    problem = assert_problem(answers[-1], 429, "rate_limited")
    assert "7 rows in 3600 s are allowed to this tenant; 3 more are too many" in problem["detail"]
    assert 1000 <= int(answers[-1].headers["Retry-After"]) <= 1030
    assert read_fields(answers[-1])["rows"]["r"] == 1
    assert api.post_rows(IRIS_ROWS[:1], headers=bearer("secret-a")).status_code == 202
    assert api.post_rows(IRIS_ROWS, headers=bearer("secret-b")).status_code == 202
    assert len(api.http.get("/v1/jobs", headers=bearer("secret-a")).get_json()["jobs"]) == 3
    assert api.list_kept_files() == []


def test_repetition_costs_no_rows(start_api: StartApi) -> None:
    """What is answered with the first job is not counted again, also when nothing is left."""
    api = start_api(row_limit="3/hour")
    answers = [api.post_rows(IRIS_ROWS, headers={"Idempotency-Key": "k"}) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.get_json()["id"] for answer in answers}) == 1
    assert_problem(api.post_rows(IRIS_ROWS), 429, "rate_limited")


def test_file_over_the_limit_is_owed(start_api: StartApi) -> None:
    """A file is taken while a row is left, whatever its rows; the next is refused before its body is read."""
    api = start_api(row_limit="4/hour")
    assert api.post_file(CSV, "line").status_code == 202
    for _ in range(2):
        refused = api.post_file(CSV, "line")
        assert_problem(refused, 429, "rate_limited")
        assert int(refused.headers["Retry-After"]) > 3600
    assert_problem(api.post_rows(IRIS_ROWS), 429, "rate_limited")
    assert len(api.http.get("/v1/jobs").get_json()["jobs"]) == 1


def test_rows_of_compatible_calls_count_too(start_api: StartApi) -> None:
    """The limit cannot be gone around by another endpoint."""
    api = start_api(row_limit="3/hour")
    with api.scoring():
        api.listen()
        answers = [api.http.post("/predict?model=iris", json={"features": IRIS_ROWS[0]}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


def test_key_may_have_limits_of_its_own(start_api: StartApi, client: redis.Redis) -> None:
    """A key's limits hold beside its tenant's; another key of the tenant is not held by them."""
    keys = KeyStore(client)
    scopes = ("jobs:read", "jobs:write")
    narrow = keys.create("ann", scopes, rate_limit="4/hour", row_limit="5/hour")[1]
    plain = keys.create("ann", scopes)[1]
    api = start_api(rate_limit="10/hour", row_limit="100/hour")

    answers = [api.post_rows(IRIS_ROWS, headers=bearer(narrow)) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [202, 429, 429, 429, 429]
    assert "to this key" in answers[1].get_json()["detail"]
    assert "4 requests in 3600 s are allowed to this key" in answers[4].get_json()["detail"]
    assert {name: field["r"] for name, field in read_fields(answers[0]).items()} == {
        "requests": 9, "key-requests": 3, "rows": 97, "key-rows": 2,
    }  # fmt: skip
    assert api.post_rows(IRIS_ROWS, headers=bearer(plain)).status_code == 202


def test_tenant_has_only_so_much_in_flight(start_api: StartApi, client: redis.Redis) -> None:
    """Jobs and rows in flight are limited for each tenant, and room is made by each end a job can have."""
    api = start_api(api_keys=KEYS, max_tenant_jobs=3, max_tenant_rows=8)

    def submit(secret: str = "secret-a", **members: Any) -> Any:
        return api.post_rows(IRIS_ROWS, headers=bearer(secret), **members)

    ids = [submit().get_json()["id"] for _ in range(2)]
    problem = assert_problem(submit(), 429, "queue_full")
    assert "6 rows of this tenant are in flight; its limit is 8" in problem["detail"]
    assert submit("secret-b").status_code == 202

    assert api.http.post(f"/v1/jobs/{ids[0]}/cancel", headers=bearer("secret-a")).status_code == 200
    assert submit().status_code == 202
    assert api.http.delete(f"/v1/jobs/{ids[1]}", headers=bearer("secret-a")).status_code == 204
    assert submit().status_code == 202
    assert submit().status_code == 429
    api.score()
    assert submit().status_code == 202
    api.score()
    assert {name.decode(): client.hgetall(name) for name in client.scan_iter("sq:flight:*")} == {
        f"sq:flight:{tenant}": {b"jobs": b"0", b"rows": b"0", b"bytes": b"0"} for tenant in ("ann", "bob")
    }


def test_bytes_in_flight_count_files_and_rows(start_api: StartApi) -> None:
    """A tenant's input that waits to be scored is limited in bytes; one job alone is always taken."""
    api = start_api(max_tenant_bytes=len(CSV) + 10)
    assert api.post_file(CSV, "line").status_code == 202
    refused = api.post_file(CSV, "line")
    assert f"{len(CSV)} bytes of this tenant" in assert_problem(refused, 429, "queue_full")["detail"]
    assert_problem(api.post_rows(IRIS_ROWS), 429, "queue_full")
    api.score()
    assert api.post_rows(IRIS_ROWS * 100).status_code == 202
    api.score()


def test_jobs_of_before_a_quota_do_not_count_against_it(start_api: StartApi, client: redis.Redis) -> None:
    """A quota that is set while jobs are in flight counts those that come from then on, and never below nothing."""
    start_api().submit_rows()
    api = start_api(max_tenant_jobs=1)
    api.submit_rows()
    api.score()
    assert client.hget("sq:flight:default", "jobs") == b"0"
