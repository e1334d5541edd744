"""Retry: a dead letter is put back as a new job; of a file only the failed rows are scored again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec
from flask import Blueprint, Response

from api.bodies import iterate_body
from api.callers import get_tenant
from api.current_request import get_request, get_service
from api.decoding import decode, decode_body, read_body
from api.file_options import MEDIA_TYPES, guess_format
from api.inputs import find_source
from api.intake import Intake
from api.jobs import answer_submitted, find_job
from api.operations import JOB_LINKS, JSON, Answer, Body, describe
from api.parameters import read_arguments
from api.requests_log import get_request_id, get_traceparent
from api.service import Service
from api.shapes import JobView
from api.submission import keep_payload, read_idempotency_key, resolve_model, submit_job, take_fingerprint
from api.uploads import check_upload
from shared.claims import LedgerEntry
from shared.errors import ServiceError
from shared.filestore import Source, Upload, earlier_parts
from shared.jobs import Document, Job, Status, queue_name
from shared.manifest import Manifest
from shared.plans import Plan
from shared.records import parse_header
from shared.submissions import Submission

blueprint = Blueprint("retries", __name__)


class RetryRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a retry."""

    model: str = ""
    #: Address of a corrected file.
    input: str = ""


@blueprint.post("/v1/jobs/<job_id>/retry")
@describe(
    {202: Answer(says="The new job.", kind=JobView, headers=("Location", "Retry-After"), links=JOB_LINKS)},
    headers=("Idempotency-Key",),
    bodies={JSON: Body(kind=RetryRequest, example={"model": "churn:4"})}
    | {media_type: Body() for media_type in MEDIA_TYPES.values()},
    body_required=False,
    problems=(
        "malformed_json", "malformed_csv", "malformed_file", "incomplete_upload", "invalid_parameter", "unknown_model",
        "unknown_job", "job_gone", "length_required", "job_not_finished", "job_terminal", "idempotency_in_progress",
        "payload_too_large", "unsupported_media_type", "schema_mismatch", "column_collision", "idempotency_conflict",
        "queue_full", "overloaded", "model_not_ready", "storage_full",
    ),
)  # fmt: skip
def retry(job_id: str) -> Response:
    """Put a dead letter back, or score the failed rows of a file again."""
    service = get_service()
    job = find_job(service, job_id)
    return answer_submitted(_retry_rows(service, job) if job.kind == "rows" else _retry_file(service, job))


def _retry_rows(service: Service, job: Job) -> Job:
    service.admission.check_rows()
    if get_request().content_length and _read_request(service) != RetryRequest():
        raise ServiceError("invalid_parameter", "A dead letter is put back as it was: send no model and no input.")
    payload = service.store.read_payload(job.id)
    if job.status != Status.FAILED or payload is None:
        raise ServiceError("job_terminal", f"Only dead letters are put back; this rows job is {job.status}.")
    payload = service.files.fetch(job.id, payload)
    document, new_id = job.document, service.store.make_id(job.tenant)
    return submit_job(
        service,
        Submission(
            id=new_id,
            kind=job.kind,
            tenant=job.tenant,
            queue=job.queue,
            priority=job.priority,
            rows=job.rows,
            deadline_seconds=service.settings.deadline_seconds,
            retention_seconds=service.settings.rows_retention_seconds,
            document=Document(
                model=document.model,
                version=document.version,
                model_sha256=document.model_sha256,
                metadata=document.metadata,
                webhook=document.webhook,
                request_id=get_request_id(),
                traceparent=get_traceparent(),
                retry_of=job.id,
            ),
            payload=keep_payload(service, new_id, payload),
            bytes=len(payload),
            idempotency_key=read_idempotency_key(),
            fingerprint=take_fingerprint(b""),
        ),
    )


def _retry_file(service: Service, job: Job) -> Job:
    """Score again what failed or was never scored, of the same file or of a corrected one.

    Raises
    ------
    ServiceError
        The job has not ended, or no row is left to score; the corrected file or the model does not fit.
    """
    if not job.status.is_terminal:
        raise ServiceError("job_not_finished", f"The job is {job.status}; retry it when it has ended.", retry_after=1)
    if job.succeeded == job.rows:
        raise ServiceError("job_terminal", "Every row of this job was scored; there is nothing to retry.")
    service.admission.check_file()
    is_sent = get_request().mimetype not in ("", "application/json") and bool(get_request().content_length != 0)
    wanted = RetryRequest(read_arguments().get("model", "")) if is_sent else _read_request(service)
    source = find_source(service, job.tenant, wanted.input) if wanted.input else None
    manifest = _choose_model(service, job, wanted.model)
    with service.receiving():
        new_id = service.store.make_id(job.tenant)
        upload = service.files.begin_upload(new_id)
        try:
            return _submit_retry(service, job, manifest, new_id, upload, source, is_sent=is_sent)
        except FileNotFoundError:  # files are removed before the record
            raise ServiceError("job_gone", f"The files of job {job.id} are gone.") from None
        finally:
            upload.discard()


def _read_request(service: Service) -> RetryRequest:
    body = read_body(service.settings.max_body_bytes)
    try:
        return msgspec.json.decode(body or b"{}", type=RetryRequest)
    except msgspec.ValidationError as error:
        raise ServiceError("invalid_parameter", f"The body of a retry: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ServiceError("malformed_json", f"The body is not JSON: {error}.") from None


def _choose_model(service: Service, job: Job, wanted: str) -> Manifest:
    document = job.document
    manifest = resolve_model(service, wanted or f"{document.model}:{document.version}")
    if manifest.signature.answers != document.outputs:
        raise ServiceError(
            "schema_mismatch",
            f"{manifest.reference} answers with other classes or outputs than {document.model}:{document.version}, "
            "which scored the other rows; the result would not be one table. Submit the file as a new job.",
        )
    return manifest


def _check_columns(service: Service, document: Document, plan: Plan, manifest: Manifest) -> None:
    """Refuse a version that needs columns of which it is not known that the file has them."""
    if plan.format == "csv":
        known = parse_header(plan.header, document.delimiter.encode())
    else:  # what the version before needed was there
        known = list(service.registry.manifest(document.model, document.version).signature.column_names)
    lacking = sorted(set(manifest.signature.column_names) - set(known))
    if lacking:
        raise ServiceError(
            "schema_mismatch",
            f"{manifest.reference} needs columns that the file was not found to have: {', '.join(lacking[:5])}. "
            "Submit the file as a new job.",
        )


def _submit_retry(
    service: Service,
    job: Job,
    manifest: Manifest,
    new_id: str,
    upload: Upload,
    source: Source | None,
    *,
    is_sent: bool,
) -> Job:
    plan = msgspec.json.decode(service.files.read_plan(job.id), type=Plan)
    _check_columns(service, job.document, plan, manifest)
    ledger = service.store.read_ledger(job.id)
    digest = hashlib.blake2b(f"{job.id} {manifest.reference} ".encode(), digest_size=16)
    limit = service.settings.max_file_bytes
    if is_sent:
        check_upload((MEDIA_TYPES[plan.format],))
        plan = _take_correction(service, job, plan, manifest, decode_body(iterate_body(limit), limit), upload, digest)
    elif source is not None:
        blocks = decode(source.iterate(), guess_format(source.name)[1], limit)
        plan = _take_correction(service, job, plan, manifest, blocks, upload, digest)
    elif not plan.source:
        upload.take_input(job.id)
    done, merged = _take_parts(job.id, ledger, upload)
    upload.keep(msgspec.json.encode(plan))
    submission = Submission(
        id=new_id,
        kind="file",
        tenant=get_tenant(),
        queue=queue_name("files", manifest.name, manifest.version),
        priority=job.priority,
        rows=plan.rows,
        bytes=plan.file_bytes,
        deadline_seconds=service.settings.deadline_seconds,
        retention_seconds=service.settings.file_retention_seconds,
        document=msgspec.structs.replace(
            job.document,
            model=manifest.name,
            version=manifest.version,
            model_sha256=manifest.sha256,
            retry_of=job.id,
            request_id=get_request_id(),
            traceparent=get_traceparent(),
            merged_chunks=merged,
        ),
        chunk_rows=tuple(chunk.rows for chunk in plan.chunks),
        done_chunks=done,
        idempotency_key=read_idempotency_key(),
        fingerprint=digest.hexdigest(),
    )
    return submit_job(service, submission)


def _take_correction(
    service: Service,
    job: Job,
    plan: Plan,
    manifest: Manifest,
    blocks: Iterator[bytes],
    upload: Upload,
    digest: hashlib.blake2b,
) -> Plan:
    """Take the corrected file into the file store, cut where the first one was."""
    intake = Intake(
        plan.format,
        delimiter=job.document.delimiter,
        chunk_bytes=service.settings.chunk_bytes,
        chunk_rows=service.settings.chunk_rows,
        cut_rows=[chunk.rows for chunk in plan.chunks],
    )
    for block in blocks:
        digest.update(block)
        intake.feed(block)
        upload.write(block)
    corrected = intake.finish(upload.close_input())
    if corrected.rows != plan.rows:
        raise ServiceError(
            "schema_mismatch",
            f"The corrected file has {corrected.rows} rows, and job {job.id} has {plan.rows}; each needs its own.",
        )
    if corrected.header != plan.header:
        raise ServiceError("schema_mismatch", "The corrected file's header is not that of the first, byte for byte.")
    intake.check_columns(manifest, job.document.column_prefix)
    return corrected


def _take_parts(
    job_id: str, ledger: dict[int, LedgerEntry], upload: Upload
) -> tuple[dict[int, LedgerEntry], tuple[int, ...]]:
    """Take over what the first job scored; return the chunks without a failed row, and those with some."""
    done, merged, names = {}, [], []
    for chunk, entry in ledger.items():
        if entry.failed == 0:
            names.append((entry.part, entry.part))
            done[chunk] = entry
        elif entry.succeeded:
            part, errors = earlier_parts(chunk)
            names += [(entry.part, part), (entry.errors_part, errors)]
            merged.append(chunk)
    upload.take_parts(job_id, names)
    return done, tuple(sorted(merged))
