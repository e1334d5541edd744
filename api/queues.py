"""``/v1/queues``: what waits for which model, and pausing it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from api.answers import answer_json
from api.current_request import get_service
from api.operations import Answer, describe
from api.service import Service
from api.shapes import Queues
from shared.fleet import Fleet
from shared.jobs import parse_queue, queue_name
from shared.wakeups import CELERY_QUEUES

blueprint = Blueprint("queues", __name__)

_PROBLEMS = ("unknown_model", "model_not_ready")


@blueprint.get("/v1/queues")
@describe({200: Answer(says="The queues.", kind=Queues)})
def list_queues() -> Response:
    """Show what waits, for each model version that was ever used."""
    service = get_service()
    fleet = Fleet(service.store.list_workers().values())
    queues = [_describe_queue(service, queue, fleet) for queue in service.store.list_queues()]
    return answer_json({"queues": queues, "workers": len(fleet.says)})


@blueprint.post("/v1/queues/<model>/pause")
@describe({200: Answer(says="The queues of the model.", kind=Queues)}, problems=_PROBLEMS)
def pause_queue(model: str) -> Response:
    """Stop claiming a model's jobs; they are still taken, and wait."""
    return _set_paused(model, paused=True)


@blueprint.post("/v1/queues/<model>/resume")
@describe({200: Answer(says="The queues of the model.", kind=Queues)}, problems=_PROBLEMS)
def resume_queue(model: str) -> Response:
    """Claim a model's jobs again."""
    return _set_paused(model, paused=False)


def _set_paused(model: str, *, paused: bool) -> Response:
    service = get_service()
    queues = _find_queues(service, model)
    for queue in queues:
        service.store.pause(queue, paused=paused)
        if not paused and (where := service.store.mark_wakeup(queue)):
            service.publisher.publish(queue, where)
    fleet = Fleet(service.store.list_workers().values())
    return answer_json({"queues": [_describe_queue(service, queue, fleet) for queue in queues]})


def _find_queues(service: Service, model: str) -> list[str]:
    """Return the queues of a version, of those that an alias means, or of all versions if only the name is given."""
    manifest = service.registry.resolve(model)
    _, alias_of, alias = model.partition("@")
    versions = [manifest.version]
    if alias_of:
        versions = sorted(service.registry.aliases(manifest.name)[alias].versions)
    elif model == manifest.name:
        versions = service.registry.versions(manifest.name)
    return [queue_name(kind, manifest.name, version) for version in versions for kind in CELERY_QUEUES]


def _describe_queue(service: Service, queue: str, fleet: Fleet) -> dict[str, Any]:
    state = service.store.read_queue(queue)
    kind, model, version = parse_queue(queue)
    serving = [says for says in fleet.list_serving(model) if kind in says.get("queues", ())]
    return {
        "kind": kind,
        "model": f"{model}:{version}",
        "depth": state.waiting_units,
        "rows": state.waiting_rows,
        "outstanding_rows": state.outstanding_rows,
        "depth_by_priority": {name: state.count(f"units:{name}") for name in state.ages_ms},
        "oldest_age_seconds": max(state.ages_ms.values(), default=0) / 1000,
        "rows_per_second": float(state.counters.get("speed", 0)) or None,
        "paused": state.paused,
        "workers": len(serving),
        "warm_workers": sum(f"{model}:{version}" in says.get("warm", ()) for says in serving),
    }
