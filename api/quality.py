"""``/v1/models/{name}/quality``: what the rows of each version were like, beside its training sample."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response

from api.answers import answer_json
from api.current_request import get_service
from api.operations import Answer, describe
from api.parameters import read_query
from api.shapes import ModelQuality
from shared.jobs import format_time
from shared.manifest import Manifest
from shared.quality import ScoreBins, expect_shift, measure_shift
from shared.quality_counts import Counted, name_version, start_of_recent
from shared.references import UnknownModel

blueprint = Blueprint("quality", __name__)


class QualityQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Of which version."""

    version: Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType = msgspec.UNSET


@blueprint.get("/v1/models/<name>/quality")
@describe(
    {200: Answer(says="What was counted.", kind=ModelQuality)},
    query=QualityQuery,
    problems=("invalid_parameter", "unknown_model"),
)
def show_quality(name: str) -> Response:
    """Show what was counted of a model's versions in all, and in this hour and the one before."""
    service, query = get_service(), read_query(QualityQuery)
    if not service.registry.versions(name):
        raise UnknownModel(name, service.registry.names())
    if query.version is not msgspec.UNSET:
        manifests = [service.registry.manifest(name, query.version)]
    else:
        manifests = [manifest for manifest in service.registry.all_versions() if manifest.name == name]
    counted = service.quality.read([name_version(manifest) for manifest in manifests])
    since = format_time(start_of_recent(time.time()) * 1000)
    versions = [
        _describe_version(manifest, total, recent) for manifest, (total, recent) in zip(manifests, counted, strict=True)
    ]
    return answer_json({"name": name, "recent_since": since, "versions": versions})


def _describe_version(manifest: Manifest, total: Counted, recent: Counted) -> dict[str, Any]:
    return {
        "version": manifest.version,
        "training": _describe_training(manifest),
        "total": _describe_counted(manifest, total),
        "recent": _describe_counted(manifest, recent),
    }


def _describe_training(manifest: Manifest) -> dict[str, Any] | None:
    reference = manifest.quality
    if reference is None:
        return None
    names = manifest.signature.column_names
    return {
        "rows": reference.rows,
        "columns": [{"name": name, "missing": count} for name, count in zip(names, reference.missing, strict=True)],
        "scores": [{"name": score.name, "edges": score.edges, "counts": score.counts} for score in reference.scores],
    }


def _describe_counted(manifest: Manifest, counted: Counted) -> dict[str, Any]:
    scores = () if manifest.quality is None else manifest.quality.scores
    return {
        "rows": counted.rows,
        "since": None if counted.since is None else format_time(counted.since * 1000),
        "columns": [_describe_column(manifest, counted, place) for place in range(len(manifest.signature.columns))],
        "scores": [_describe_score(score, counted, place) for place, score in enumerate(scores)],
    }


def _describe_column(manifest: Manifest, counted: Counted, place: int) -> dict[str, Any]:
    column = manifest.signature.columns[place]
    is_ranged = column.min is not None
    return {
        "name": column.name,
        "missing": counted.missing(place),
        "unseen": 0 if is_ranged else counted.outside(place),
        "out_of_range": counted.outside(place) if is_ranged else 0,
        "refused": counted.refused(place),
    }


def _describe_score(score: ScoreBins, counted: Counted, place: int) -> dict[str, Any]:
    """Describe a distribution; what is not well above `psi_by_chance` says nothing."""
    found = counted.bins(place, len(score.counts))
    if not any(found):
        return {"name": score.name, "psi": None, "psi_by_chance": None, "counts": found}
    return {
        "name": score.name,
        "psi": round(measure_shift(score.counts, found), 4),
        "psi_by_chance": round(expect_shift(score.counts, found), 4),
        "counts": found,
    }
