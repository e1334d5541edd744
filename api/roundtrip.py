"""A round trip through the queue: rows in, their result out, while the caller waits or not (RFC 7240)."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Response

from api.callers import get_tenant
from api.jobs import answer_submitted
from api.preferences import confirm_async, get_wait_seconds, prefers_async
from api.results import read_result
from api.service import Service
from api.submission import Options, submit_rows
from api.waiting import await_job
from shared.errors import ServiceError
from shared.jobs import Job, Status
from shared.manifest import Manifest
from shared.values import Values

Result = dict[str, Any]

#: A caller here holds a connection; one that wants to wait longer submits a job.
WAIT_SECONDS = 30.0

#: What may come of it, beside what is wrong with the request.
PROBLEMS = (
    "unknown_model", "job_canceled", "job_gone", "idempotency_in_progress", "schema_mismatch", "idempotency_conflict",
    "queue_full", "model_error", "worker_lost", "overloaded", "model_not_ready", "storage_full", "deadline_exceeded",
)  # fmt: skip


def score_now(service: Service, manifest: Manifest, values: Values, body: bytes) -> Result:
    """Score rows and return their result.

    Parameters
    ----------
    body : bytes
        As it was sent: what a repetition under the same idempotency key must equal.

    Raises
    ------
    ServiceError
        ``deadline_exceeded``: not scored in time, the job is canceled; ``overloaded``: too many wait here already; or
        why the job failed.
    """
    submitted = submit_rows(service, get_tenant(), manifest, values, Options(), body)
    seconds = min(WAIT_SECONDS, service.settings.max_wait_seconds)
    job = await_job(service, submitted, seconds)
    if job is None:
        service.store.cancel(submitted.id, get_tenant())
        raise ServiceError("overloaded", "Too many requests wait for their answers here; try again.", retry_after=1)
    if not job.status.is_terminal:
        service.store.cancel(job.id, get_tenant())
        raise ServiceError("deadline_exceeded", f"Not scored within {seconds:g} s; the job was canceled.")
    return _take_result(service, job)


def score_as_preferred(service: Service, manifest: Manifest, values: Values, body: bytes) -> Result | Response:
    """Score rows as `score_now`; but a caller who prefers ``respond-async`` is answered with the job.

    With ``respond-async, wait=5`` the job is the answer if there is no result after five seconds.
    """
    if not prefers_async():
        return score_now(service, manifest, values, body)
    job = submit_rows(service, get_tenant(), manifest, values, Options(), body)
    seconds = get_wait_seconds(service.settings.max_wait_seconds)
    ended = await_job(service, job, seconds) if seconds else None
    if ended is not None and ended.status.is_terminal:
        return _take_result(service, ended)
    return confirm_async(answer_submitted(job))


def _take_result(service: Service, job: Job) -> Result:
    if job.status not in (Status.SUCCEEDED, Status.PARTIALLY_SUCCEEDED):
        problem = job.problem or {"code": "job_canceled", "detail": "The job was canceled."}
        raise ServiceError(problem["code"], problem["detail"])
    result = read_result(service, job.id)
    if result is None:
        raise ServiceError("job_gone", "The job was deleted before its result could be read.")
    decoded: Result = msgspec.json.decode(result)
    return decoded
