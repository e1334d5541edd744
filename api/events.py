"""``/v1/jobs/{id}/events``: a job's way to its end as Server-Sent Events.

Each event's id says what it told, so that a client that comes back with ``Last-Event-ID`` hears nothing twice and
misses nothing: no history is kept for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from flask import Blueprint, Response

from api.callers import get_tenant
from api.current_request import get_request, get_service
from api.jobs import describe_job, find_job
from api.operations import Answer, describe
from api.service import Service
from api.waiting import LOOK_SECONDS
from shared.errors import ServiceError
from shared.jobs import Job

blueprint = Blueprint("events", __name__)

#: A comment is sent so often, to find out that nobody listens any more.
_COMMENT_SECONDS = 10.0


@blueprint.get("/v1/jobs/<job_id>/events")
@describe(
    {
        200: Answer(says="Events, each with an `id`; their data are the job.", media_types=("text/event-stream",)),
        204: Answer(says="The job has ended, and its end was heard."),
    },
    headers=("Last-Event-ID",),
    problems=("unknown_job", "job_gone", "overloaded"),
)
def stream_events(job_id: str) -> Response:
    """Stream ``status`` and ``progress`` as they come, and ``done`` at the end.

    A stream ends after a minute, so that it cannot hold a thread for ever; clients of SSE come back by themselves.
    """
    service = get_service()
    job = find_job(service, job_id)
    last = get_request().headers.get("Last-Event-ID", "")
    if job.status.is_terminal and last == _identify_state(job):
        return Response(status=204)  # there is no more to tell: by this a browser stops coming back
    stack = contextlib.ExitStack()
    changed = stack.enter_context(service.waiters.expect(job.id, moves=True))
    if changed is None:
        stack.close()
        raise ServiceError("overloaded", "Too many requests wait already; poll the job instead.", retry_after=1)
    response = Response(_generate(service, job, get_tenant(), changed, last), mimetype="text/event-stream")
    response.call_on_close(stack.close)  # also when the client has gone before the first event
    response.headers["Cache-Control"] = "no-store"
    return response


def _generate(service: Service, job: Job, tenant: str, changed: threading.Event, last: str) -> Iterator[bytes]:
    until = time.monotonic() + service.settings.max_wait_seconds
    spoke = time.monotonic()
    yield b"retry: 1000\n\n"
    latest = service.store.read_job(job.id, tenant)
    while latest is not None:
        event, last = _make_event(service, latest, last)
        if event or time.monotonic() - spoke > _COMMENT_SECONDS:
            yield event or b": still here\n\n"
            spoke = time.monotonic()
        remaining = until - time.monotonic()
        if latest.status.is_terminal or remaining <= 0:
            return
        changed.wait(min(remaining, LOOK_SECONDS))
        changed.clear()  # before the look: what comes after it sets it again
        latest = service.store.read_job(job.id, tenant)


def _identify_state(job: Job) -> str:
    return f"{job.status}-{job.attempts}-{job.succeeded}-{job.failed}"


def _make_event(service: Service, job: Job, last: str) -> tuple[bytes, str]:
    """Return what is new since the event `last`, and its id."""
    identity = _identify_state(job)
    if identity == last:
        return b"", last
    kind = "done" if job.status.is_terminal else "progress" if last.startswith(f"{job.status}-") else "status"
    data: dict[str, Any] = describe_job(service, job)
    return f"id: {identity}\nevent: {kind}\ndata: {msgspec.json.encode(data).decode()}\n\n".encode(), identity
