"""Two tenants: whatever one asks of what is the other's, there is no such thing, and nothing happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.api_under_test import IRIS_ROWS, ApiUnderTest, assert_problem, read_id
from tests.small_models import IRIS_COLUMNS

ANN, BOB = {"Authorization": "Bearer secret-a"}, {"Authorization": "Bearer secret-b"}
#: Arguments of paths that name what belongs to a tenant, and the code of one that is not there.
OWNED = {"job_id": "unknown_job", "delivery_id": "not_found"}
#: Those that name what all tenants share: models, which only a scope of its own may change, and files of pages.
SHARED = {"name", "alias", "version", "model", "asset"}
LISTS = {"/v1/jobs": "jobs", "/v1/dead-letters": "dead_letters", "/v1/webhook-deliveries": "deliveries"}
CSV = (",".join(IRIS_COLUMNS) + "\n5.1,3.5,1.4,0.2\n").encode()

Belongings = dict[str, list[str]]


@pytest.fixture
def api(start_api: Callable[..., ApiUnderTest]) -> ApiUnderTest:
    """Give a front end with the keys of two tenants."""
    return start_api(api_keys="ann:secret-a,bob:secret-b", webhook_networks="127.0.0.0/8")


@pytest.fixture
def belongings(api: ApiUnderTest) -> Belongings:
    """Give what is ann's: jobs of each kind, finished and waiting, and the delivery of a webhook."""
    finished = [
        read_id(api.post_rows(IRIS_ROWS, headers=ANN, webhook={"url": "http://127.0.0.1:9/"})),
        read_id(api.post_file(CSV, headers=ANN)),
    ]
    api.score()
    waiting = [read_id(api.post_rows(IRIS_ROWS, headers=ANN)), read_id(api.post_file(CSV, headers=ANN))]
    deliveries = api.http.get("/v1/webhook-deliveries", headers=ANN).get_json()["deliveries"]
    return {"job_id": [*finished, *waiting], "delivery_id": [delivery["id"] for delivery in deliveries]}


def list_calls(api: ApiUnderTest) -> list[tuple[str, str, str]]:
    """List method, rule and argument of each call on what belongs to a tenant."""
    calls = []
    for rule in api.app.url_map.iter_rules():
        assert rule.arguments <= OWNED.keys() | SHARED, f"{rule.rule}: whose is it?"
        for argument in rule.arguments & OWNED.keys():
            calls += [(method, rule.rule, argument) for method in (rule.methods or set()) - {"OPTIONS"}]
    return calls


def show_all(api: ApiUnderTest) -> dict[str, Any]:
    """Give all that ann sees of her own."""
    return {path: api.http.get(path, headers=ANN).get_json() for path in LISTS}


def test_every_call_on_what_is_anothers_finds_nothing(api: ApiUnderTest, belongings: Belongings) -> None:
    """Each call that names a job or a delivery, with each of ann's, is a 404 to bob, and changes nothing."""
    before, calls = show_all(api), list_calls(api)
    assert len(calls) >= 12
    assert belongings["delivery_id"]

    for method, rule, argument in calls:
        for name in belongings[argument]:
            response = api.http.open(rule.replace(f"<{argument}>", name), method=method, headers=BOB, json={})
            if method == "HEAD":
                assert response.status_code == 404, rule
            else:
                assert_problem(response, 404, OWNED[argument])

    after = show_all(api)
    assert strip_positions(after) == strip_positions(before)


def test_lists_show_nothing_of_others(api: ApiUnderTest, belongings: Belongings) -> None:
    """Whatever is listed, with and without filters, bob sees none of ann's."""
    for path, name in LISTS.items():
        assert api.http.get(path, headers=BOB).get_json()[name] == []
    for query in ("status=succeeded", "kind=file", "model=iris", "limit=100"):
        assert api.http.get(f"/v1/jobs?{query}", headers=BOB).get_json()["jobs"] == []
    assert len(api.http.get("/v1/jobs", headers=ANN).get_json()["jobs"]) == len(belongings["job_id"])


def test_an_idempotency_key_is_the_tenants_own(api: ApiUnderTest) -> None:
    """The same key of two tenants names two jobs, and tells neither of the other's payload."""
    key = {"Idempotency-Key": "monday"}
    hers = read_id(api.post_rows(IRIS_ROWS, headers=ANN | key))

    his = read_id(api.post_rows(IRIS_ROWS[:1], headers=BOB | key))

    assert his != hers
    assert read_id(api.post_rows(IRIS_ROWS, headers=ANN | key)) == hers


def test_deleting_and_retrying_ones_own_is_possible(api: ApiUnderTest, belongings: Belongings) -> None:
    """The calls that bob was refused are ann's to make."""
    for job in belongings["job_id"]:
        assert api.http.delete(f"/v1/jobs/{job}", headers=ANN).status_code == 204
        assert_problem(api.http.get(f"/v1/jobs/{job}", headers=ANN), 410, "job_gone")
        assert_problem(api.http.get(f"/v1/jobs/{job}", headers=BOB), 404, "unknown_job")


def strip_positions(shown: dict[str, Any]) -> dict[str, Any]:
    """Leave out what moves by itself: how often a delivery was tried meanwhile."""
    jobs = [
        {name: job[name] for name in ("id", "status", "row_counts", "attempts")} for job in shown["/v1/jobs"]["jobs"]
    ]
    deliveries = [delivery["id"] for delivery in shown["/v1/webhook-deliveries"]["deliveries"]]
    return {"jobs": jobs, "dead": shown["/v1/dead-letters"], "deliveries": deliveries}
