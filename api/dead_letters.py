"""Dead letters: jobs that were given up, with the reason."""

from __future__ import annotations

from flask import Blueprint, Response

from api.answers import answer_json
from api.callers import get_tenant
from api.current_request import get_service
from api.jobs import describe_job
from api.operations import Answer, describe
from api.shapes import DeadLetters

blueprint = Blueprint("dead_letters", __name__)

_MOST = 200


@blueprint.get("/v1/dead-letters")
@describe({200: Answer(says="The dead letters.", kind=DeadLetters)})
def list_dead_letters() -> Response:
    """List the caller's dead letters, the newest first."""
    service = get_service()
    ids = service.store.list_dead_letters(get_tenant(), _MOST)
    jobs = [describe_job(service, job) for job in service.store.read_jobs(ids) if job is not None]
    return answer_json({"dead_letters": jobs})
