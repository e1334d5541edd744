"""``/v2``: the Open Inference Protocol (KServe, Triton, MLServer), translated to the same queue.

Errors are ``{"error": ...}`` here, with the status that they have everywhere.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response

from api.answers import answer_json
from api.cells import load_document, read_cells
from api.current_request import get_request, get_service
from api.decoding import read_body
from api.operations import JOB_LINKS, JSON, Answer, Body, describe
from api.roundtrip import PROBLEMS, Result, score_as_preferred
from api.service import Service, look_at_stores
from api.shapes import InferenceAnswer, InferenceModel, InferenceServer, JobView, Live, ModelReady, Ready
from api.tensors import (
    BINARY_SIZE,
    Datatype,
    InputTensor,
    OutputTensor,
    Parameters,
    choose_datatype,
    read_tensor,
    write_binary,
    write_json,
)
from shared import VERSION
from shared.errors import ServiceError
from shared.manifest import Manifest
from shared.signature import Column, Signature
from shared.values import Values

blueprint = Blueprint("inference", __name__)

_OCTETS = "application/octet-stream"
#: Clients that send JSON alone often do not say so.
_MEDIA_TYPES = ("", JSON, _OCTETS)
_JSON_LENGTH = "Inference-Header-Content-Length"
_DATATYPES: dict[str, Datatype] = {"number": "FP64", "boolean": "BOOL", "text": "BYTES"}
_EXAMPLE = {
    "inputs": [{"name": "rows", "shape": [2, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2, 6.3, 3.3, 6.0, 2.5]}]
}


class RequestedOutput(msgspec.Struct, kw_only=True):
    """An output that is asked for; ``parameters.binary_data``: as bytes behind the JSON."""

    name: str
    parameters: Parameters = {}


class InferenceRequest(msgspec.Struct, kw_only=True):
    """Rows, as one tensor of all columns in the model's order, or one tensor a column by name."""

    inputs: Annotated[list[InputTensor], msgspec.Meta(min_length=1)]
    id: str | None = None
    outputs: Annotated[list[RequestedOutput], msgspec.Meta(description="None: all.")] = []
    parameters: Parameters = {}


@blueprint.get("/v2/health/live")
@describe({200: Answer(says="It lives.", kind=Live)})
def show_live() -> Response:
    """Answer that the process lives."""
    return answer_json({"live": True})


@blueprint.get("/v2/health/ready")
@describe(
    {
        200: Answer(says="Requests can be taken.", kind=Ready),
        503: Answer(says="Requests cannot be taken.", kind=Ready),
    }
)
def show_ready() -> Response:
    """Answer whether requests can be taken."""
    missing = look_at_stores(get_service())
    if missing:
        return answer_json({"ready": False, "error": f"Not there: {', '.join(missing)}."}, 503)
    return answer_json({"ready": True})


@blueprint.get("/v2")
@describe({200: Answer(says="The server.", kind=InferenceServer)})
def show_server() -> Response:
    """Show name, version and extensions of the server."""
    return answer_json({"name": "scorequeue", "version": VERSION, "extensions": ["binary_tensor_data"]})


@blueprint.get("/v2/models/<model>")
@blueprint.get("/v2/models/<model>/versions/<int:version>")
@describe({200: Answer(says="The model.", kind=InferenceModel)}, problems=("unknown_model", "model_not_ready"))
def show_model(model: str, version: int | None = None) -> Response:
    """Show which tensors a model takes and answers."""
    service = get_service()
    manifest = _resolve(service, model, version)
    return answer_json(
        {
            "name": manifest.name,
            "versions": [str(number) for number in service.registry.versions(manifest.name)],
            "platform": f"scikit-learn_{manifest.format}",
            "inputs": [
                {"name": column.name, "datatype": _choose_input_datatype(column), "shape": [-1, 1]}
                for column in manifest.signature.columns
            ],
            "outputs": _describe_outputs(manifest.signature),
        }
    )


@blueprint.get("/v2/models/<model>/ready")
@blueprint.get("/v2/models/<model>/versions/<int:version>/ready")
@describe({200: Answer(says="It is ready.", kind=ModelReady)}, problems=("unknown_model", "model_not_ready"))
def show_model_ready(model: str, version: int | None = None) -> Response:
    """Answer whether a model can be asked."""
    service = get_service()
    manifest = _resolve(service, model, version)
    service.fleet.check_ready(manifest.reference)
    return answer_json({"name": manifest.name, "ready": True})


@blueprint.post("/v2/models/<model>/infer")
@blueprint.post("/v2/models/<model>/versions/<int:version>/infer")
@describe(
    {
        200: Answer(
            says="The outputs; those that are asked for in binary stand behind the JSON.",
            kind=InferenceAnswer,
            media_types=(_OCTETS,),
            headers=(_JSON_LENGTH,),
        ),
        202: Answer(
            says="With `Prefer: respond-async`: the job.",
            kind=JobView,
            headers=("Location", "Retry-After", "Preference-Applied"),
            links=JOB_LINKS,
        ),
    },
    headers=("Prefer-Async", "Idempotency-Key", "Content-Encoding", _JSON_LENGTH, "traceparent"),
    bodies={JSON: Body(kind=InferenceRequest, example=_EXAMPLE), _OCTETS: Body()},
    problems=(
        "malformed_json", "malformed_file", "incomplete_upload", "invalid_parameter", "payload_too_large",
        "unsupported_media_type", *PROBLEMS,
    ),
)  # fmt: skip
def infer(model: str, version: int | None = None) -> Response:
    """Score the rows of tensors."""
    service = get_service()
    if get_request().mimetype not in _MEDIA_TYPES:
        raise ServiceError("unsupported_media_type", f"Content-Type: expected {JSON} or {_OCTETS}.")
    manifest = _resolve(service, model, version)
    with service.receiving():
        body = read_body(service.settings.max_body_bytes)
    wanted, tensors = _read_request(body)
    outputs = _choose_outputs(wanted, manifest.signature)
    values = _read_rows(wanted.inputs, tensors, manifest.signature, service.settings.max_job_rows)
    result = score_as_preferred(service, manifest, values, body)
    return result if isinstance(result, Response) else _answer(manifest, wanted, outputs, result)


def _resolve(service: Service, model: str, version: int | None) -> Manifest:
    return service.registry.resolve(model if version is None else f"{model}:{version}")


def _choose_input_datatype(column: Column) -> Datatype:
    return "INT64" if column.type == "long" else _DATATYPES[column.holds]


def _describe_outputs(signature: Signature) -> list[dict[str, Any]]:
    answers = signature.answers
    labels = [label for output in answers for label in output.classes or ()]
    shape = [-1] if len(answers) == 1 else [-1, len(answers)]
    datatype = choose_datatype(labels) if labels else "FP64"
    outputs: list[dict[str, Any]] = [{"name": "predictions", "datatype": datatype, "shape": shape}]
    if labels and answers[0].gives_probabilities:
        outputs.append({"name": "probabilities", "datatype": "FP64", "shape": [-1, len(labels)]})
    return outputs


def _read_request(body: bytes) -> tuple[InferenceRequest, list[list[Any]]]:
    """Read the request and, for each of its inputs, the cells."""
    head, rest = _split_body(body)
    try:
        wanted = msgspec.convert(load_document(head), InferenceRequest)
    except msgspec.ValidationError as error:
        raise ServiceError("invalid_parameter", f"{error}.") from None
    except UnicodeEncodeError:
        raise ServiceError("invalid_parameter", "A name or a text has half of a surrogate pair.") from None
    binaries: list[bytes | None] = []
    for tensor in wanted.inputs:
        size = tensor.parameters.get(BINARY_SIZE)
        if size is None:
            binaries.append(None)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest):
            raise ServiceError(
                "invalid_parameter",
                f"{BINARY_SIZE} of input {tensor.name[:100]!r}: expected a whole number of bytes, at most the "
                f"{len(rest)} that are left behind the JSON.",
            )
        binaries.append(rest[:size])
        rest = rest[size:]
    if rest:
        raise ServiceError("invalid_parameter", f"{len(rest)} bytes at the end belong to no input.")
    return wanted, [read_tensor(tensor, binary) for tensor, binary in zip(wanted.inputs, binaries, strict=True)]


def _split_body(body: bytes) -> tuple[bytes, bytes]:
    text = get_request().headers.get(_JSON_LENGTH)
    if text is None:
        return body, b""
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) <= len(body)):
        raise ServiceError("invalid_parameter", f"{_JSON_LENGTH}: expected at most the {len(body)} bytes of the body.")
    return body[: int(text)], body[int(text) :]


def _choose_outputs(wanted: InferenceRequest, signature: Signature) -> list[tuple[str, bool]]:
    """Return the names of the outputs, and for each whether it is to be binary."""
    names = [output["name"] for output in _describe_outputs(signature)]
    binary = bool(wanted.parameters.get("binary_data_output", False))
    if not wanted.outputs:
        return [(name, binary) for name in names]
    for output in wanted.outputs:
        if output.name not in names:
            shown = output.name[:100]
            raise ServiceError("invalid_parameter", f"No output {shown!r}; there is {' and '.join(names)}.")
        if "classification" in output.parameters:
            raise ServiceError("invalid_parameter", "classification is not supported; ask for probabilities.")
    return [(output.name, bool(output.parameters.get("binary_data", binary))) for output in wanted.outputs]


def _read_rows(inputs: list[InputTensor], tensors: list[list[Any]], signature: Signature, max_rows: int) -> Values:
    """Put the cells of tensors together to rows."""
    rows = _split_rows(inputs[0], tensors[0], signature) if len(inputs) == 1 else None
    if rows is None:
        rows = _join_columns(inputs, tensors, signature)
    return read_cells(rows, signature, max_rows=max_rows, pointer="#/inputs")


def _split_rows(tensor: InputTensor, cells: list[Any], signature: Signature) -> list[Any] | None:
    """Return the rows of a tensor that holds all columns; None if it may be one column by name."""
    width = len(signature.columns)
    if len(tensor.shape) == 2 and tensor.shape[1] == width:
        return [cells[start : start + width] for start in range(0, len(cells), width)]
    if tensor.name in signature.column_names:
        return None
    raise ServiceError(
        "schema_mismatch",
        f"Input {tensor.name[:100]!r} has the shape {tensor.shape}; expected [rows, {width}], or one input for each "
        f"column by name: {', '.join(signature.column_names[:10])}.",
    )


def _join_columns(inputs: list[InputTensor], tensors: list[list[Any]], signature: Signature) -> list[Any]:
    found: dict[str, list[Any]] = {}
    for tensor, cells in zip(inputs, tensors, strict=True):
        if tensor.name in found or tensor.name not in signature.column_names:
            why = "stands there twice" if tensor.name in found else "is no column of the model"
            raise ServiceError("schema_mismatch", f"Input {tensor.name[:100]!r} {why}.")
        if len(tensor.shape) > 2 or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
            raise ServiceError(
                "schema_mismatch",
                f"Input {tensor.name[:100]!r} has the shape {tensor.shape}; expected [rows] or [rows, 1] of a column.",
            )
        if tensor.shape[0] != inputs[0].shape[0]:
            detail = f"Input {tensor.name[:100]!r} has {tensor.shape[0]} rows, and the first has {inputs[0].shape[0]}."
            raise ServiceError("schema_mismatch", detail)
        found[tensor.name] = cells
    missing = [name for name in signature.column_names if name not in found]
    if missing:
        raise ServiceError("schema_mismatch", f"Not among the inputs: {', '.join(missing[:10])}.")
    return [list(row) for row in zip(*(found[name] for name in signature.column_names), strict=True)]


def _answer(manifest: Manifest, wanted: InferenceRequest, outputs: list[tuple[str, bool]], result: Result) -> Response:
    if result["errors"]:
        # The protocol has no place for a row without an answer.
        first = result["errors"][0]
        raise ServiceError(
            "model_error", f"{len(result['errors'])} rows failed; the first, row {first['row']}: {first['detail']}"
        )
    described = {output["name"]: output for output in _describe_outputs(manifest.signature)}
    tensors, binaries = [], []
    for name, is_binary in outputs:
        cells, shape = _flatten_output(result[name])
        datatype = described[name]["datatype"]
        tensor = OutputTensor(name=name, shape=shape, datatype=datatype)
        if is_binary:
            binaries.append(write_binary(datatype, cells))
            tensor.parameters = {BINARY_SIZE: len(binaries[-1])}
        else:
            tensor.data = write_json(datatype, cells)
        tensors.append(tensor)
    evidence = {key: result[key] for key in ("model_sha256", "micro_batch_rows", "queue_seconds", "predict_seconds")}
    document = {
        "model_name": manifest.name,
        "model_version": str(manifest.version),
        **({} if wanted.id is None else {"id": wanted.id}),
        "outputs": tensors,
        "parameters": evidence,
    }
    if not binaries:
        return answer_json(document)
    head = msgspec.json.encode(document)
    headers = {_JSON_LENGTH: str(len(head))}
    return Response(b"".join([head, *binaries]), 200, headers, mimetype=_OCTETS)


def _flatten_output(values: list[Any]) -> tuple[list[Any], list[int]]:
    """Return cells and shape of predictions or probabilities: a value a row, a list, or a list for each output."""
    if not values or not isinstance(values[0], list):
        return values, [len(values)]
    cells = [cell for row in values for cell in row]
    if cells and isinstance(cells[0], list):
        cells = [cell for part in cells for cell in part]
    return cells, [len(values), len(cells) // len(values)]
