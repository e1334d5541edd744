"""``/predict`` and ``/predict_batch``: the shapes of a hand-written Flask service, through the same queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response

from api.answers import answer_json
from api.current_request import get_request, get_service
from api.decoding import read_body
from api.operations import JSON, Answer, Body, describe
from api.parameters import read_query
from api.roundtrip import PROBLEMS, score_now
from api.service import Service
from api.shapes import Prediction, Predictions
from api.submission import Row, Rows, resolve_model
from shared.errors import ServiceError
from shared.manifest import Manifest
from shared.rows import check_rows, load_json, read_rows
from shared.values import Values

blueprint = Blueprint("compatible", __name__)

_PROBLEMS = (
    "malformed_json", "malformed_file", "incomplete_upload", "invalid_parameter", "payload_too_large",
    "unsupported_media_type", *PROBLEMS,
)  # fmt: skip


class ModelQuery(msgspec.Struct, kw_only=True):
    """Which model is meant."""

    model: Annotated[
        str, msgspec.Meta(description="May be left out when one model is registered, or a default is set.")
    ] = ""


class FeaturesRequest(msgspec.Struct, kw_only=True):
    """One row."""

    features: Row


class FeatureRowsRequest(msgspec.Struct, kw_only=True):
    """Several rows."""

    features: Rows


_FEATURES = msgspec.json.Decoder(FeatureRowsRequest)


@blueprint.post("/predict")
@describe(
    {200: Answer(says="The answer.", kind=Prediction)},
    query=ModelQuery,
    headers=("Idempotency-Key",),
    bodies={JSON: Body(kind=FeaturesRequest, example={"features": [5.1, 3.5, 1.4, 0.2]})},
    problems=_PROBLEMS,
)
def predict() -> Response:
    """Score one row: ``{"features": [...]}``."""
    began = time.perf_counter()
    result = _score(get_service(), single=True)
    if result["errors"]:
        raise ServiceError("model_error", result["errors"][0]["detail"])
    return answer_json(
        {
            "prediction": result["predictions"][0],
            "probability": _probability(result, 0),
            "processing_time": round(time.perf_counter() - began, 6),
            "timestamp": _now(),
        }
    )


@blueprint.post("/predict_batch")
@describe(
    {200: Answer(says="The answers, in the rows' order.", kind=Predictions)},
    query=ModelQuery,
    headers=("Idempotency-Key",),
    bodies={JSON: Body(kind=FeatureRowsRequest, example={"features": [[5.1, 3.5, 1.4, 0.2]]})},
    problems=_PROBLEMS,
)
def predict_batch() -> Response:
    """Score several rows: ``{"features": [[...], ...]}``."""
    result = _score(get_service(), single=False)
    results = [
        {"index": index, "prediction": prediction, "probability": _probability(result, index)}
        for index, prediction in enumerate(result["predictions"])
    ]
    for error in result["errors"]:
        results[error["row"]]["error"] = error["detail"]
    return answer_json({"results": results, "total_count": len(results), "timestamp": _now()})


def _score(service: Service, *, single: bool) -> dict[str, Any]:
    body = _read_json_body(service)
    manifest = resolve_model(service, read_query(ModelQuery).model)
    values = _read_features(body, manifest, None if single else service.settings.max_job_rows)
    return score_now(service, manifest, values, body)


def _read_json_body(service: Service) -> bytes:
    if get_request().mimetype != "application/json":
        raise ServiceError("unsupported_media_type", 'Send JSON: {"features": [...]} as application/json.')
    with service.receiving():
        return read_body(service.settings.max_body_bytes)


def _read_features(body: bytes, manifest: Manifest, max_rows: int | None) -> Values:
    """Read several rows, or, without `max_rows`, a single one."""
    try:
        features = bytes(_FEATURES.decode(body).features)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Something is not as it should be: look again, cell by cell, to say what and where.
        return _check_features(_pick_features(load_json(body)), manifest, max_rows)
    if max_rows is not None:
        return read_rows(features, manifest.signature, max_rows=max_rows, pointer="#/features")
    return _read_single(lambda: read_rows(b"[%b]" % features, manifest.signature, max_rows=1, pointer="#/features"))


def _pick_features(document: Any) -> Any:
    if not isinstance(document, dict) or "features" not in document:
        raise ServiceError("invalid_parameter", 'Expected an object with "features".')
    return document["features"]


def _check_features(features: Any, manifest: Manifest, max_rows: int | None) -> Values:
    """Check several rows, or, without `max_rows`, a single one."""
    if max_rows is not None:
        return check_rows(features, manifest.signature, max_rows=max_rows, pointer="#/features")
    return _read_single(lambda: check_rows([features], manifest.signature, max_rows=1, pointer="#/features"))


def _read_single(read: Callable[[], Values]) -> Values:
    """Read a single row: where it is wrong, its number would only confuse."""
    try:
        return read()
    except ServiceError as error:
        for fault in error.errors:
            fault["pointer"] = fault["pointer"].replace("#/features/0", "#/features", 1)
        detail = error.detail.replace("#/features/0", "#/features", 1)
        raise ServiceError(error.code, detail, errors=error.errors) from None


def _probability(result: dict[str, Any], index: int) -> list[float] | None:
    """Return the probabilities of a row, a list by class; None for a regressor."""
    probabilities = result.get("probabilities")
    return probabilities[index] if probabilities else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
