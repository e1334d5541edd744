"""A job's way to its end as Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.api_under_test import ApiUnderTest, assert_problem


class Event(NamedTuple):
    """One event of a stream."""

    id: str
    kind: str
    data: dict[str, Any]


def read_events(api: ApiUnderTest, job_id: str, last: str = "") -> list[Event]:
    """Read a stream to its end."""
    headers = {"Last-Event-ID": last} if last else {}
    response = api.http.get(f"/v1/jobs/{job_id}/events", headers=headers)
    assert response.status_code == 200
    assert response.mimetype == "text/event-stream"
    events = []
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            events.append(Event(fields["id"], fields["event"], json.loads(fields["data"])))
    return events


def test_stream_tells_a_job_to_its_end(api: ApiUnderTest) -> None:
    """The first event is the state, the last one is done, with the whole record."""
    api.listen()
    job_id = api.submit_rows()

    with api.scoring():
        events = read_events(api, job_id)

    assert events[0].kind in ("status", "done")
    assert events[-1].kind == "done"
    assert events[-1].data["status"] == "succeeded"


def test_stream_of_a_file_shows_progress(start_api: Callable[..., ApiUnderTest]) -> None:
    """Counts add up in every event and only grow."""
    api = start_api(chunk_rows=1)
    api.listen()
    job_id = api.submit_file(b"a,b\n" + b"1,2\n" * 20, "line")

    with api.scoring():
        events = read_events(api, job_id)

    done = [event.data["row_counts"]["succeeded"] for event in events]
    assert done == sorted(done)
    assert done[-1] == 20
    assert all(sum(e.data["row_counts"][name] for name in ("succeeded", "failed", "pending")) == 20 for e in events)


def test_client_that_comes_back_hears_nothing_twice(api: ApiUnderTest) -> None:
    """With Last-Event-ID of the last event there is no more to tell, and a browser stops coming back."""
    api.listen()
    job_id = api.submit_rows()
    api.score()
    (event,) = read_events(api, job_id)

    again = api.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": event.id})
    assert again.status_code == 204


def test_stream_ends_after_a_while(start_api: Callable[..., ApiUnderTest]) -> None:
    """A job that waits for ever does not hold a thread for ever."""
    api = start_api(max_wait_seconds=0.2)
    job_id = api.submit_rows()

    (event,) = read_events(api, job_id)

    assert event.data["status"] == "queued"


def test_too_many_streams_are_refused(start_api: Callable[..., ApiUnderTest]) -> None:
    """When all places to wait are taken the answer is a problem, not a stream that hangs."""
    api = start_api(waiting_clients=1)
    job_id = api.submit_rows()

    with api.service.waiters.expect(job_id):
        assert_problem(api.http.get(f"/v1/jobs/{job_id}/events"), 503, "overloaded")


def test_stream_of_a_failed_job_ends_with_its_problem(api: ApiUnderTest) -> None:
    """The last event of a job that failed carries why, as the record does."""
    job_id = api.submit_rows([[1e308, 1e308]], "line")
    api.score()

    (event,) = read_events(api, job_id)

    assert (event.kind, event.data["status"]) == ("done", "failed")
    assert event.data["error"] == api.get_job(job_id)["error"]
    assert event.data["error"]["instance"] == f"/v1/jobs/{job_id}"
