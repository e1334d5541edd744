"""Submission: a checked job becomes a record in Redis and, if nobody is on the way yet, a wake-up."""

from __future__ import annotations

import hashlib
import math
import time
from typing import Annotated, Any, Literal

import msgspec
import redis

from api.callers import get_caller
from api.current_request import get_environ, get_request
from api.limits import note_limits
from api.outbound import check_address
from api.requests_log import get_request_id, get_traceparent
from api.service import Service
from shared.codec import encode_values
from shared.errors import ServiceError
from shared.filestore import ROWS
from shared.jobs import Document, Job, Status, Webhook, queue_name
from shared.manifest import Manifest
from shared.submissions import Submission, Submitted
from shared.values import Values

_DAY = 24 * 3600
Priority = Literal["high", "normal", "low"]
DeadlineSeconds = Annotated[float, msgspec.Meta(gt=0, le=30 * _DAY)]
RetentionSeconds = Annotated[float, msgspec.Meta(gt=0, le=30 * _DAY)]

#: Rows are left as they came until the model's signature is known (`shared.rows`).
_CELL = {"type": ["number", "string", "boolean", "null"]}
_ROW = {"anyOf": [{"type": "array", "items": _CELL}, {"type": "object", "additionalProperties": _CELL}]}
Row = Annotated[
    msgspec.Raw,
    msgspec.Meta(description="A list in the order of the model's columns, or an object.", extra_json_schema=_ROW),
]
Rows = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        description="Lists in the order of the model's columns, or objects by their names; at most 10,000.",
        extra_json_schema={"type": "array", "minItems": 1, "items": _ROW},
    ),
]

#: Metadata is kept with the job and read at every look at it; and what is nested deeper than this may be readable at
#: one place of the program and not at another.
_MOST_METADATA_BYTES = 64 * 1024
_MOST_METADATA_LEVELS = 32

#: A submission whose answer was cut off is repeated if there is time left to answer within 2 s.
_REPEAT_WITHIN_SECONDS = 0.9


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a caller may ask for with any job."""

    priority: Priority = "normal"
    deadline_seconds: DeadlineSeconds | None = None
    retention_seconds: RetentionSeconds | None = None
    metadata: dict[str, Any] | None = None
    webhook: Webhook | None = None

    def __post_init__(self) -> None:
        # A query, unlike JSON, can say "nan", and no comparison refuses it.
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{name}: expected a number")


def submit_rows(
    service: Service, tenant: str, manifest: Manifest, values: Values, options: Options, body: bytes
) -> Job:
    """Submit a rows job.

    Parameters
    ----------
    values : Values
        Checked against the manifest's signature, and with its codes.
    body : bytes
        As it was sent: what a repetition under the same idempotency key must equal.

    Returns
    -------
    Job
        As it was written down.

    Raises
    ------
    QueueFull
        Backpressure.
    redis.RedisError
        The job store does not answer; nothing was promised.
    """
    check_options(service, options)
    service.admission.check_rows()
    job_id, payload = service.store.make_id(tenant), encode_values(values)
    idempotency_key = read_idempotency_key()
    return submit_job(
        service,
        Submission(
            id=job_id,
            kind="rows",
            tenant=tenant,
            queue=queue_name("rows", manifest.name, manifest.version),
            priority=options.priority,
            rows=len(values),
            deadline_seconds=options.deadline_seconds or service.settings.deadline_seconds,
            retention_seconds=options.retention_seconds or service.settings.rows_retention_seconds,
            document=make_document(manifest, options),
            payload=keep_payload(service, job_id, payload),
            bytes=len(payload),
            idempotency_key=idempotency_key,
            fingerprint=take_fingerprint(body) if idempotency_key else "",
        ),
    )


def keep_payload(service: Service, job_id: str, payload: bytes) -> bytes:
    """Return what stands in the record for a payload: itself, or a reference if it is large."""
    if len(payload) <= service.settings.inline_bytes:
        return payload
    return service.files.write_blob(job_id, ROWS, payload)


def check_options(service: Service, options: Options) -> None:
    """Check what the types cannot tell.

    Raises
    ------
    ServiceError
        ``invalid_parameter``: the metadata is too large or nested too deep, or the webhook may not be called.
    """
    _check_metadata(options.metadata)
    if options.webhook is not None:
        check_address(options.webhook.url, service.webhooks.networks)


def make_document(manifest: Manifest, options: Options, **members: Any) -> Document:
    """Return the part of a job's record that never changes."""
    return Document(
        model=manifest.name,
        version=manifest.version,
        model_sha256=manifest.sha256,
        metadata=options.metadata,
        webhook=options.webhook,
        request_id=get_request_id(),
        traceparent=get_traceparent(),
        **members,
    )


def _check_metadata(metadata: dict[str, Any] | None) -> None:
    if metadata is None:
        return
    level: list[Any] = [metadata]
    for _ in range(_MOST_METADATA_LEVELS):
        level = [
            value
            for parent in level
            for value in (parent.values() if isinstance(parent, dict) else parent if isinstance(parent, list) else ())
        ]
    if level:
        raise ServiceError("invalid_parameter", f"metadata: expected at most {_MOST_METADATA_LEVELS} levels.")
    if len(msgspec.json.encode(metadata)) > _MOST_METADATA_BYTES:
        raise ServiceError("invalid_parameter", f"metadata: expected at most {_MOST_METADATA_BYTES} bytes of JSON.")


def submit_job(service: Service, submission: Submission) -> Job:
    """Write a job down and publish a wake-up if none is outstanding.

    Returns
    -------
    Job
        The new one; or the first, if the caller repeats itself under the same idempotency key.
    """
    try:
        service.fleet.check_ready(f"{submission.document.model}:{submission.document.version}")
        submitted = _write(service, submission)
    except ServiceError:
        service.files.remove(submission.id)  # refused, so surely not written down
        raise
    if submitted.wakeup:
        service.publisher.publish(submission.queue, submitted.wakeup)
    if submitted.created is not None:
        return _describe_new(submission, submitted.created)
    if submitted.id != submission.id:
        service.files.remove(submission.id)  # what was kept for a job that is not made
    job = service.store.look(submitted.id).job
    if job is None:
        raise ServiceError("job_gone", f"The first job of this Idempotency-Key, {submitted.id}, was removed.")
    return job


def read_idempotency_key() -> str:
    """Return the caller's ``Idempotency-Key``, quoted as the draft has it or not; empty if there is none.

    Raises
    ------
    ServiceError
        ``invalid_parameter``: it is empty, longer than 255 characters, or not printable ASCII.
    """
    given: str | None = get_environ().get("HTTP_IDEMPOTENCY_KEY")
    if given is None:
        return ""
    text = given.strip()
    key = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    if not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        raise ServiceError("invalid_parameter", "Idempotency-Key: expected 1 to 255 printable ASCII characters.")
    return key


def take_fingerprint(body: bytes) -> str:
    """Return a digest of all that a repetition under the same idempotency key must equal."""
    return hashlib.blake2b(b"%b\n%b" % (get_request().full_path.encode(), body), digest_size=16).hexdigest()


def _describe_new(submission: Submission, created: int) -> Job:
    return Job(
        id=submission.id,
        kind=submission.kind,
        status=Status.QUEUED if submission.rows else Status.SUCCEEDED,
        tenant=submission.tenant,
        priority=submission.priority,
        document=submission.document,
        rows=submission.rows,
        succeeded=0,
        failed=0,
        created=created,
        started=None,
        finished=None if submission.rows else created,
        retention=int(submission.retention_seconds * 1000),
        attempts=0,
        problem=None,
        sequence=None,
        stream=None,
        queue=submission.queue,
    )


def _write(service: Service, submission: Submission) -> Submitted:
    began = time.monotonic()
    try:
        return _write_once(service, submission)
    except (redis.ConnectionError, redis.TimeoutError):
        # Whether it was written is unknown; writing it again under the same id is safe, and makes it known.
        if time.monotonic() - began > _REPEAT_WITHIN_SECONDS:
            raise
        return _write_once(service, submission)


def _write_once(service: Service, submission: Submission) -> Submitted:
    caller = get_caller()
    return service.store.submit(
        submission,
        max_queue_rows=service.settings.max_queue_rows,
        chunks_offered=service.settings.chunks_offered,
        quotas=service.limits.quotas,
        request_limits=service.limits.list_request_limits(caller),
        row_limits=service.limits.list_row_limits(caller),
        note_limits=note_limits,
    )


def resolve_model(service: Service, reference: str) -> Manifest:
    """Return the version that `reference`, or the default model if it is empty, means now.

    Raises
    ------
    ServiceError
        ``unknown_model``, or ``invalid_parameter`` if a model must be named.
    """
    if reference:
        return service.registry.resolve(reference)
    if service.settings.default_model:
        return service.registry.resolve(service.settings.default_model)
    names = service.registry.names()
    if len(names) != 1:
        raise ServiceError(
            "invalid_parameter",
            f"Name a model with ?model=; there are {', '.join(names) or 'none'} "
            "and SCOREQUEUE_DEFAULT_MODEL is not set.",
        )
    return service.registry.resolve(names[0])
