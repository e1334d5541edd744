"""``/v1/jobs``: submit, look, fetch, cancel, delete."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import redis
from flask import Blueprint, Response

from api import inputs, uploads
from api.answers import JsonResponse, answer_json, answer_tagged
from api.bodies import is_small
from api.callers import get_caller, get_tenant
from api.current_request import get_environ, get_request, get_service
from api.decoding import read_body
from api.file_options import FORMATS, FileForm, FileOptions, FileQuery, InputRequest
from api.limits import note_limits
from api.operations import JOB_LINKS, JSON, Answer, Body, describe
from api.paging import PageQuery, collect_page, link_next
from api.parameters import read_query
from api.preferences import confirm_wait, get_wait_seconds
from api.problems import PROBLEMS, answer_problem, describe_problem
from api.results import answer_file_errors, answer_file_result, fetch_result, read_result
from api.service import Service
from api.shapes import EndedJob, JobList, JobView, Preview, RowsResult
from api.submission import Options, Rows, submit_rows
from api.waiting import await_job, job_gone
from shared.errors import Fault, ServiceError
from shared.jobs import Job, Status
from shared.rows import check_rows, load_json, read_rows

blueprint = Blueprint("jobs", __name__)


class RowsRequest(Options):
    """The body of a rows job."""

    model: Annotated[str, msgspec.Meta(description="`name`, `name@alias` or `name:version`.")]
    rows: Rows


class JobQuery(PageQuery):
    """Which jobs to list."""

    status: Status | msgspec.UnsetType = msgspec.UNSET
    model: Annotated[str, msgspec.Meta(description="`name` or `name:version`.")] = ""
    kind: Literal["rows", "file"] | msgspec.UnsetType = msgspec.UNSET


class ResultQuery(msgspec.Struct, kw_only=True):
    """How much of a result is wanted."""

    partial: Annotated[bool, msgspec.Meta(description="Of a file: the chunks from the start, while it runs.")] = False


_ROWS_REQUEST = msgspec.json.Decoder(RowsRequest)
_FOR_JOB = ("unknown_job", "job_gone")
_TO_FIRST = {"jobs_show": {"job_id": "$response.body#/jobs/0/id"}}


@blueprint.post("/v1/jobs")
@describe(
    {
        200: Answer(
            says="With `Prefer: wait`, the job has ended; with `dry_run`, the first rows and the differences.",
            kind=(EndedJob, Preview),
            headers=("Location", "Preference-Applied"),
        ),
        202: Answer(
            says="The job is written down.",
            kind=JobView,
            headers=("Location", "Retry-After", "Preference-Applied"),
            links=JOB_LINKS,
        ),
    },
    query=FileQuery,
    headers=("Prefer", "Idempotency-Key", "Content-Encoding", "Content-Digest", "traceparent"),
    bodies={
        JSON: Body(kind=(RowsRequest, InputRequest), example={"model": "churn@champion", "rows": [[1.0, 2.0]]}),
        uploads.FORM: Body(kind=FileForm),
    }
    | {media_type: Body() for media_type in FORMATS},
    problems=(
        "malformed_json", "malformed_csv", "malformed_file", "incomplete_upload", "invalid_parameter", "not_found",
        "unknown_model", "length_required", "idempotency_in_progress", "job_gone", "payload_too_large",
        "unsupported_media_type", "schema_mismatch", "column_collision", "idempotency_conflict", "queue_full",
        "overloaded", "model_not_ready", "storage_full",
    ),
)  # fmt: skip
def submit() -> Response:
    """Take a job: rows in JSON, or a file."""
    service, caller, mimetype = get_service(), get_caller(), get_request().mimetype
    if mimetype == JSON and is_small():
        with service.limits.counting(caller):
            return _submit_json(service)
    service.limits.take_request(caller)
    if mimetype == JSON:
        return _submit_json(service)
    if mimetype in uploads.MEDIA_TYPES:
        taken = uploads.submit_file(service, caller.tenant)
        return answer_json(taken) if isinstance(taken, dict) else answer_submitted(taken)
    raise ServiceError(
        "unsupported_media_type",
        f"Content-Type {mimetype or '(none)'} is not taken here; send rows as application/json, or a file as "
        + " or ".join(uploads.MEDIA_TYPES)
        + ".",
    )


@blueprint.get("/v1/jobs/<job_id>")
@describe(
    {
        200: Answer(says="The job.", kind=JobView, headers=("ETag", "Preference-Applied")),
        304: Answer(says="It is as it was.", headers=("ETag",)),
    },
    headers=("Prefer", "If-None-Match"),
    problems=_FOR_JOB,
)
def show(job_id: str) -> Response:
    """Show a job; with ``Prefer: wait=n`` as soon as it has ended, or after n seconds."""
    service = get_service()
    seconds = get_wait_seconds(service.settings.max_wait_seconds)
    look = look_at_job(service, job_id)
    waits = seconds and not look.job.status.is_terminal
    ended = await_job(service, look.job, seconds) if waits else look.job
    # What was waited for is looked at anew.
    described = describe_job(service, ended) if waits and ended else _describe(look.job, look.position)
    response = answer_tagged(described)
    if seconds and ended:
        confirm_wait(response, seconds)
    if "HTTP_IF_NONE_MATCH" in get_environ():
        response.make_conditional(get_request())
    return response


@blueprint.get("/v1/jobs/<job_id>/result")
@describe(
    {
        200: Answer(
            says="The result: JSON of rows, and of a file the scored file in the format that `Accept` names.",
            kind=RowsResult,
            media_types=tuple(FORMATS),
            headers=("ETag", "Accept-Ranges", "Content-Disposition", "Scorequeue-Rows"),
        ),
        206: Answer(
            says="The range.",
            media_types=tuple(FORMATS),
            headers=("ETag", "Content-Range", "Accept-Ranges", "Content-Disposition", "Scorequeue-Rows"),
        ),
        304: Answer(says="The caller has it.", headers=("ETag", "Accept-Ranges", "Content-Disposition")),
    },
    query=ResultQuery,
    headers=("Range", "If-Range", "If-None-Match"),
    problems=(
        "invalid_parameter", *_FOR_JOB, "job_not_finished", "job_canceled", "range_not_satisfiable",
        "schema_mismatch", "malformed_csv", "malformed_file", "model_error", "worker_lost", "deadline_exceeded",
        "model_not_ready", "unknown_model", "overloaded",
    ),
)  # fmt: skip
def show_result(job_id: str) -> Response:
    """Answer with what was scored, or with why it was not."""
    service = get_service()
    look = look_at_job(service, job_id, with_result=True)
    job = look.job
    if (
        read_query(ResultQuery).partial
        and job.kind == "file"
        and job.status in (Status.QUEUED, Status.RUNNING, Status.FAILED)
    ):
        try:
            return answer_file_result(service, job, partial=True)
        except FileNotFoundError:
            raise job_gone(job_id) from None
    if job.status in (Status.SUCCEEDED, Status.PARTIALLY_SUCCEEDED):
        try:
            if job.kind == "file":
                return answer_file_result(service, job)
        except FileNotFoundError:  # files are removed before the record
            raise job_gone(job_id) from None
        result = fetch_result(service, job_id, look.result)
        if result is None:  # it was kept in the file store, and files are removed before the record
            raise job_gone(job_id)
        return JsonResponse(result)
    if job.status == Status.CANCELED:
        raise ServiceError("job_canceled", "The job was canceled; it has no result.")
    if job.status.is_terminal:
        return _answer_failed(job)
    raise ServiceError("job_not_finished", f"The job is {job.status}; its result is not there yet.", retry_after=1)


@blueprint.get("/v1/jobs/<job_id>/errors")
@describe({200: Answer(says="One failed row a line.", media_types=("application/x-ndjson",))}, problems=_FOR_JOB)
def show_errors(job_id: str) -> Response:
    """List the rows that failed, as NDJSON."""
    service = get_service()
    job = find_job(service, job_id)
    if job.kind == "file":
        try:
            return answer_file_errors(service, job)
        except FileNotFoundError:  # files are removed before the record
            raise job_gone(job_id) from None
    result = read_result(service, job_id)
    if result is None and job.status in (Status.SUCCEEDED, Status.PARTIALLY_SUCCEEDED):
        raise job_gone(job_id)
    errors = msgspec.json.decode(result)["errors"] if result else (job.problem or {}).get("errors", [])
    lines = b"".join(msgspec.json.encode(error) + b"\n" for error in errors)
    return Response(lines, mimetype="application/x-ndjson")


@blueprint.post("/v1/jobs/<job_id>/cancel")
@describe(
    {
        200: Answer(says="It is canceled.", kind=JobView),
        202: Answer(says="A file job: it will be when its running chunks have stopped.", kind=JobView),
    },
    problems=(*_FOR_JOB, "job_terminal"),
)
def cancel(job_id: str) -> Response:
    """Cancel a job: a rows job at once, a file job when its running chunks have stopped."""
    service = get_service()
    before = find_job(service, job_id)
    outcome = service.store.cancel(job_id, get_tenant())
    if outcome == "unknown":
        raise job_gone(job_id)
    if outcome not in ("canceled", "canceling") or (before.status.is_terminal and outcome != "canceled"):
        raise ServiceError("job_terminal", f"The job has already ended: it is {outcome}.")
    return answer_json(describe_job(service, find_job(service, job_id)), 200 if outcome == "canceled" else 202)


@blueprint.delete("/v1/jobs/<job_id>")
@describe({204: Answer(says="It is gone.")}, problems=_FOR_JOB)
def remove(job_id: str) -> Response:
    """Remove a job with its input and result; a commit that comes later is refused."""
    service = get_service()
    find_job(service, job_id)
    # First the record: a worker that reads it must find its files. The sweep takes what a crash leaves between.
    service.store.remove(job_id)
    service.files.remove(job_id)
    return Response(status=204)


@blueprint.get("/v1/jobs")
@describe(
    {200: Answer(says="A page of jobs.", kind=JobList, headers=("Link",), links=_TO_FIRST)},
    query=JobQuery,
    problems=("invalid_parameter",),
)
def list_jobs() -> Response:
    """List the caller's jobs, newest first, in pages."""
    service = get_service()
    query = read_query(JobQuery)
    wanted = {name: str(getattr(query, name)) for name in ("status", "model", "kind") if getattr(query, name)}
    found, cursor = collect_page(
        query,
        lambda after, most: service.store.list_jobs(get_tenant(), after=after, most=most),
        service.store.read_jobs,
        lambda job: _is_wanted(job, wanted),
        filtered=bool(wanted),
    )
    response = answer_json({"jobs": [_describe(job, None) for job in found], "next": cursor})
    return link_next(response, "/v1/jobs", wanted, query.limit, cursor)


def _submit_json(service: Service) -> Response:
    with service.receiving():
        body = read_body(service.settings.max_body_bytes)
    wanted = _read_request(service, body)
    if isinstance(wanted, FileOptions):
        service.limits.take_request(get_caller())
        taken = inputs.submit_input(service, get_tenant(), wanted)
        return answer_json(taken) if isinstance(taken, dict) else answer_submitted(taken)
    return _submit_rows(service, wanted, body)


def _submit_rows(service: Service, wanted: RowsRequest, body: bytes) -> Response:
    manifest = service.registry.resolve(wanted.model)
    values = read_rows(wanted.rows, manifest.signature, max_rows=service.settings.max_job_rows)
    seconds = get_wait_seconds(service.settings.max_wait_seconds)
    job = submit_rows(service, get_tenant(), manifest, values, wanted, body)
    if not seconds:
        return answer_submitted(job, None)
    try:
        ended = await_job(service, job, seconds)
        if ended is None:
            return answer_submitted(job, None)
        if not ended.status.is_terminal:
            return confirm_wait(answer_submitted(ended, describe_job(service, ended)), seconds)
        result = read_result(service, job.id)
    except redis.RedisError:
        # The job is written down; that the store went away while we waited takes nothing back.
        return answer_submitted(job, None)
    document = describe_job(service, ended) | {"result": msgspec.Raw(result) if result else None}
    headers = {"Location": f"/v1/jobs/{job.id}"}
    return confirm_wait(answer_json(document, 200, headers), seconds)


def _read_request(service: Service, body: bytes) -> RowsRequest | FileOptions:
    try:
        return _ROWS_REQUEST.decode(body)
    except msgspec.ValidationError as error:
        reference = inputs.read_input(service, body)
        if reference is not None:
            return reference
        reason, _, place = str(error).partition(" - at ")
        pointer = "#" + place.strip("`$").replace(".", "/") if place else "#"
        fault: Fault = {"pointer": pointer, "detail": reason, "code": "invalid_parameter"}
        raise ServiceError("invalid_parameter", f"{pointer}: {reason}", errors=[fault]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Python's NaN and Infinity are not JSON, but their row can be told.
        document = load_json(body)
        if isinstance(document, dict) and isinstance(document.get("model"), str) and "rows" in document:
            signature = service.registry.resolve(document["model"]).signature
            check_rows(document["rows"], signature, max_rows=service.settings.max_job_rows)
        raise ServiceError("malformed_json", f"The body is not JSON: {error}.") from None


def find_job(service: Service, job_id: str) -> Job:
    """Return the caller's job.

    Raises
    ------
    ServiceError
        ``job_gone`` if it was removed, ``unknown_job`` if there never was one, or it is another's.
    """
    job = service.store.read_job(job_id, get_tenant())
    if job is None:
        raise _explain_absence(service, job_id)
    return job


class _Seen(NamedTuple):
    job: Job
    position: int | None
    result: bytes | None


def look_at_job(service: Service, job_id: str, *, with_result: bool = False) -> _Seen:
    """Return the caller's job, its place in the queue and its result, and count the request, in one round trip.

    Raises
    ------
    ServiceError
        As `find_job`; or ``rate_limited``.
    """
    caller = get_caller()
    limits = service.limits.list_request_limits(caller)
    look = service.store.look(job_id, limits=limits, with_result=with_result)
    note_limits(look.limits)
    if look.job is None or look.job.tenant != caller.tenant:
        raise _explain_absence(service, job_id)
    return _Seen(look.job, look.position, look.result)


def _explain_absence(service: Service, job_id: str) -> ServiceError:
    if service.store.was_issued(job_id, get_tenant(), time.time_ns() // 1_000_000):
        return job_gone(job_id)
    return ServiceError("unknown_job", "There is no such job.")


def describe_job(service: Service, job: Job) -> dict[str, Any]:
    """Describe a job as the contract shows it, with its place in the queue and its problem in full."""
    return _describe(job, service.store.read_position(job))


def _describe(job: Job, position: int | None) -> dict[str, Any]:
    document = job.describe(time.time_ns() // 1_000_000, position)
    if job.problem is not None:
        document["error"] = _expand_problem(job)
    return document


def _expand_problem(job: Job) -> dict[str, Any]:
    problem = job.problem or {}
    code = problem.get("code", "internal_error")
    members = {"errors": problem["errors"]} if problem.get("errors") else {}
    return describe_problem(
        code if code in PROBLEMS else "internal_error", problem.get("detail", ""), f"/v1/jobs/{job.id}", **members
    )


def _answer_failed(job: Job) -> Response:
    problem = _expand_problem(job)
    members = {"errors": problem["errors"]} if "errors" in problem else {}
    return answer_problem(problem["code"], problem["detail"], **members)


def answer_submitted(job: Job, document: dict[str, Any] | None = None) -> Response:
    """Answer 202 for a job that is written down."""
    description = document or job.describe(job.created, None)
    return answer_json(description, 202, {"Location": f"/v1/jobs/{job.id}", "Retry-After": "1"})


def _is_wanted(job: Job, wanted: dict[str, str]) -> bool:
    model = wanted.get("model")
    return (
        wanted.get("status", job.status) == job.status
        and wanted.get("kind", job.kind) == job.kind
        and (model is None or model in (job.document.model, f"{job.document.model}:{job.document.version}"))
    )
