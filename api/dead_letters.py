"""Dead letters: jobs that were given up, with the reason; and putting one back as a new job."""

from __future__ import annotations

from flask import Blueprint, Response, request

from api.callers import get_tenant
from api.jobs import answer_submitted, describe_job, find_job
from api.service import answer_json, get_service
from api.submission import keep_payload, submit_job
from shared.errors import ServiceError
from shared.jobs import Document, Status
from shared.store import Submission

blueprint = Blueprint("dead_letters", __name__)

_MOST = 200


@blueprint.get("/v1/dead-letters")
def list_dead_letters() -> Response:
    """List the caller's dead letters, the newest first."""
    service = get_service()
    ids = service.store.list_dead_letters(get_tenant(), _MOST)
    jobs = [describe_job(service, job) for job in service.store.read_jobs(ids) if job is not None]
    return answer_json({"dead_letters": jobs})


@blueprint.post("/v1/jobs/<job_id>/retry")
def retry(job_id: str) -> Response:
    """Put a dead letter back as a new job, with the same rows and the same model version."""
    service = get_service()
    service.admission.check_rows()
    job = find_job(service, job_id)
    if request.content_length:
        raise ServiceError("invalid_parameter", "A dead letter is put back as it was: send no body.")
    payload = service.store.read_payload(job_id)
    if job.kind != "rows" or job.status != Status.FAILED or payload is None:
        raise ServiceError("job_terminal", f"Only dead letters are put back; this {job.kind} job is {job.status}.")
    payload = service.files.fetch(job_id, payload)
    document, new_id = job.document, service.store.make_id(job.tenant)
    return answer_submitted(
        submit_job(
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
                    retry_of=job.id,
                ),
                payload=keep_payload(service, new_id, payload),
            ),
        )
    )
