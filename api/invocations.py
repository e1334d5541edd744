"""``/invocations``, ``/ping`` and ``/version``: what MLflow's clients ask for, translated to the same queue."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response

from api.answers import answer_json
from api.cells import load_document, read_cells
from api.compatible import ModelQuery
from api.current_request import get_request, get_service
from api.decoding import read_body
from api.frames import SHAPES, read_csv, read_frame
from api.operations import JOB_LINKS, JSON, Answer, Body, describe
from api.parameters import read_query
from api.roundtrip import PROBLEMS, score_as_preferred
from api.shapes import Invocations, JobView
from api.submission import resolve_model
from shared import VERSION
from shared.errors import ServiceError

blueprint = Blueprint("invocations", __name__)

_CSV = "text/csv"
_EXAMPLE = {
    "dataframe_split": {
        "columns": ["sepal_length", "sepal_width", "petal_length", "petal_width"],
        "data": [[5.1, 3.5, 1.4, 0.2]],
    }
}
_Cells = list[list[Any] | dict[str, Any]]


class SplitFrame(msgspec.Struct, kw_only=True):
    """A frame as pandas writes it with ``orient="split"``."""

    data: _Cells
    columns: list[str | int] | None = None
    index: list[Any] | None = None


class SplitRequest(msgspec.Struct, kw_only=True):
    """A frame with its columns' names apart."""

    dataframe_split: SplitFrame


class RecordsRequest(msgspec.Struct, kw_only=True):
    """A frame as a list of records."""

    dataframe_records: list[dict[str, Any]]


class InstancesRequest(msgspec.Struct, kw_only=True):
    """A list of rows or of records."""

    instances: Annotated[list[Any], msgspec.Meta(min_length=1)]


class InputsRequest(msgspec.Struct, kw_only=True):
    """A list of rows or of records, or an object of columns."""

    inputs: list[Any] | dict[str, list[Any]]


@blueprint.get("/ping")
@describe({200: Answer(says="It lives.", media_types=("text/plain",))})
def ping() -> Response:
    """Answer that the process lives, as `/health` does."""
    return Response("\n", mimetype="text/plain")


@blueprint.get("/version")
@describe({200: Answer(says="The version of this service, not of MLflow.", media_types=("text/plain",))})
def show_version() -> Response:
    """Tell the version of this service."""
    return Response(VERSION, mimetype="text/plain")


@blueprint.post("/invocations")
@describe(
    {
        200: Answer(says="A prediction a row; null where a row failed.", kind=Invocations),
        202: Answer(
            says="With `Prefer: respond-async`: the job.",
            kind=JobView,
            headers=("Location", "Retry-After", "Preference-Applied"),
            links=JOB_LINKS,
        ),
    },
    query=ModelQuery,
    headers=("Prefer-Async", "Idempotency-Key", "Content-Encoding", "traceparent"),
    bodies={
        JSON: Body(
            kind=(SplitRequest, RecordsRequest, InstancesRequest, InputsRequest),
            example=_EXAMPLE,
        ),
        _CSV: Body(),
    },
    problems=(
        "malformed_json", "malformed_csv", "malformed_file", "incomplete_upload", "invalid_parameter",
        "payload_too_large", "unsupported_media_type", *PROBLEMS,
    ),
)  # fmt: skip
def invoke() -> Response:
    """Score a frame, in any of the forms in which MLflow's clients send one."""
    service = get_service()
    if get_request().mimetype not in (JSON, _CSV):
        expected = f"{JSON} with one of {', '.join(SHAPES)}, or {_CSV}"
        raise ServiceError("unsupported_media_type", f"Content-Type: expected {expected}.")
    if get_request().mimetype_params.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise ServiceError("unsupported_media_type", "Content-Type: expected the charset utf-8.")
    manifest = resolve_model(service, read_query(ModelQuery).model)
    with service.receiving():
        body = read_body(service.settings.max_body_bytes)
    signature = manifest.signature
    frame = read_csv(body, signature) if get_request().mimetype == _CSV else read_frame(load_document(body), signature)
    values = read_cells(frame.rows, signature, max_rows=service.settings.max_job_rows, pointer=frame.pointer)
    result = score_as_preferred(service, manifest, values, body)
    if isinstance(result, Response):
        return result
    errors = {"errors": result["errors"]} if result["errors"] else {}
    return answer_json({"predictions": result["predictions"], **errors})
