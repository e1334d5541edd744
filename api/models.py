"""``/v1/models``: what is registered, and what it expects."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, Response

from api.service import Service, answer_json, get_service
from shared.manifest import Manifest
from shared.references import UnknownModel

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
def list_models() -> Response:
    """List the models with their versions and aliases."""
    service = get_service()
    return answer_json({"models": [_describe_model(service, name) for name in service.registry.names()]})


@blueprint.get("/v1/models/<name>")
def show_model(name: str) -> Response:
    """Show a model, all its versions and aliases."""
    service = get_service()
    if not service.registry.versions(name):
        raise UnknownModel(name, service.registry.names())
    return answer_json(_describe_model(service, name))


@blueprint.get("/v1/models/<name>/versions/<int:version>")
def show_version(name: str, version: int) -> Response:
    """Show a version: its signature, metrics and evidence."""
    service = get_service()
    manifest = service.registry.manifest(name, version)
    return answer_json(_describe_version(manifest, _count_warm(service)))


def _describe_model(service: Service, name: str) -> dict[str, Any]:
    warm = _count_warm(service)
    versions = [manifest for manifest in service.registry.all_versions() if manifest.name == name]
    return {
        "name": name,
        "aliases": {alias: target.describe() for alias, target in service.registry.aliases(name).items()},
        "versions": [_describe_version(manifest, warm) for manifest in versions],
    }


def _describe_version(manifest: Manifest, warm: dict[str, int]) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(manifest)
    # Rows of the training data are for the workers alone.
    golden = document.pop("golden_sample")
    return document | {
        "golden_rows": 0 if golden is None else len(golden["rows"]),
        "warm_processes": warm.get(manifest.reference, 0),
    }


def _count_warm(service: Service) -> dict[str, int]:
    counts: dict[str, int] = {}
    for says in service.store.list_workers().values():
        for reference in says.get("warm", ()):
            counts[reference] = counts.get(reference, 0) + 1
    return counts
