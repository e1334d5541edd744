"""``/v1/models``: what is registered, what it expects, whether it is ready, and which version an alias means."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response

from api.answers import answer_json
from api.callers import get_tenant
from api.current_request import get_service
from api.decoding import read_body
from api.operations import JSON, Answer, Body, describe
from api.promotion import promote
from api.service import Service
from api.shapes import ModelList, ModelView, MovedAlias, VersionView
from shared.aliases import Target, point_at
from shared.errors import ServiceError
from shared.fleet import Fleet
from shared.logs import get_logger
from shared.manifest import Manifest
from shared.references import BrokenManifest, UnknownModel

blueprint = Blueprint("models", __name__)
logger = get_logger(__name__)

_MOST_BODY_BYTES = 64 * 1024
_TO_MODEL = {"models_show_model": {"name": "$response.body#/models/0/name"}}
_TO_VERSION = {"models_show_version": {"name": "$response.body#/name", "version": "$response.body#/versions/0/version"}}
_Version = Annotated[int, msgspec.Meta(ge=1)]


class AliasRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a promotion, in either of the forms that follow."""

    version: _Version | None = None
    versions: dict[_Version, float] | None = None
    shadow: _Version | None = None


class VersionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A promotion to one version; and perhaps another one that scores unseen beside it."""

    version: _Version
    shadow: _Version | None = None


class SharesRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A promotion to several versions by weight; the weights add up to 1."""

    versions: Annotated[dict[_Version, Annotated[float, msgspec.Meta(gt=0, le=1)]], msgspec.Meta(min_length=1)]
    shadow: _Version | None = None


@blueprint.get("/v1/models")
@describe({200: Answer(says="All models.", kind=ModelList, links=_TO_MODEL)})
def list_models() -> Response:
    """List the models with their versions and aliases."""
    service = get_service()
    fleet = _read_fleet(service)
    return answer_json({"models": [_describe_model(service, name, fleet) for name in service.registry.names()]})


@blueprint.get("/v1/models/<name>")
@describe({200: Answer(says="The model.", kind=ModelView, links=_TO_VERSION)}, problems=("unknown_model",))
def show_model(name: str) -> Response:
    """Show a model, all its versions and aliases."""
    service = get_service()
    _check_name(service, name)
    return answer_json(_describe_model(service, name, _read_fleet(service)))


@blueprint.get("/v1/models/<name>/versions/<int:version>")
@describe({200: Answer(says="The version.", kind=VersionView)}, problems=("unknown_model", "not_found"))
def show_version(name: str, version: int) -> Response:
    """Show a version: its signature, metrics and evidence, and whether it is ready."""
    service = get_service()
    if version not in service.registry.versions(name):
        service.registry.manifest(name, version)  # raises, with the versions that there are
    return answer_json(_describe_version(service, name, version, _read_fleet(service)))


@blueprint.put("/v1/models/<name>/aliases/<alias>")
@describe(
    {200: Answer(says="The model, with its alias moved.", kind=MovedAlias)},
    bodies={JSON: Body(kind=(VersionRequest, SharesRequest), example={"version": 1})},
    problems=(
        "malformed_json", "malformed_file", "invalid_parameter", "incomplete_upload", "unknown_model",
        "payload_too_large", "unsupported_media_type", "model_not_ready", "overloaded",
    ),
)  # fmt: skip
def move_alias(name: str, alias: str) -> Response:
    """Point an alias at a version, once every worker has it warm and its golden sample is right."""
    service = get_service()
    target = _read_target(read_body(_MOST_BODY_BYTES))
    _check_name(service, name)
    checked_by = promote(service, name, alias, target, caller=get_tenant())
    return answer_json(_describe_model(service, name, _read_fleet(service)) | {"checked_by": checked_by})


def _read_target(body: bytes) -> Target:
    try:
        wanted = msgspec.json.decode(body, type=AliasRequest)
    except msgspec.ValidationError as error:
        raise ServiceError("invalid_parameter", f"{error}.".replace("$.", "")) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ServiceError("malformed_json", f"The body is not JSON: {error}.") from None
    if (wanted.version is None) == (wanted.versions is None):
        raise ServiceError("invalid_parameter", 'Expected {"version": 3} or {"versions": {"3": 0.9, "4": 0.1}}.')
    versions = point_at(wanted.version).versions if wanted.version is not None else wanted.versions or {}
    try:
        return Target(versions, wanted.shadow)
    except ValueError as error:
        raise ServiceError("invalid_parameter", f"{error}.") from None


def _check_name(service: Service, name: str) -> None:
    if not service.registry.versions(name):
        raise UnknownModel(name, service.registry.names())


def _read_fleet(service: Service) -> Fleet:
    return Fleet(service.store.list_workers().values())


def _describe_model(service: Service, name: str, fleet: Fleet) -> dict[str, Any]:
    return {
        "name": name,
        "aliases": _describe_aliases(service, name),
        "versions": [_describe_version(service, name, version, fleet) for version in service.registry.versions(name)],
    }


def _describe_aliases(service: Service, name: str) -> dict[str, Any]:
    try:
        return {alias: target.describe() for alias, target in service.registry.aliases(name).items()}
    except BrokenManifest as error:  # whoever uses one is told; the rest of the list must not go with it
        logger.error("the aliases of a model cannot be read", model=name, reason=error.detail)
        return {}


def _describe_version(service: Service, name: str, version: int, fleet: Fleet) -> dict[str, Any]:
    try:
        manifest = service.registry.manifest(name, version)
    except BrokenManifest as error:
        state = {"ready": False, "not_ready_reason": error.detail, "warm_processes": 0}
        return {"name": name, "version": version, "aliases": _list_aliases(service, name, version), **state}
    fault = fleet.find_fault(manifest.reference)
    return describe_manifest(manifest) | {
        "aliases": _list_aliases(service, name, version),
        "ready": fault is None,
        "not_ready_reason": fault,
        "warm_processes": fleet.warm[manifest.reference],
    }


def _list_aliases(service: Service, name: str, version: int) -> list[str]:
    """List the aliases of which a version is a part, as their shadow too."""
    with contextlib.suppress(BrokenManifest):
        return sorted(alias for alias, meant in service.registry.aliases(name).items() if version in meant.all_versions)
    return []


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return what callers may know of a version: all but what its training data were like."""
    document: dict[str, Any] = msgspec.to_builtins(manifest)
    golden = document.pop("golden_sample")
    del document["quality"]
    return document | {"golden_rows": 0 if golden is None else len(golden["rows"])}
