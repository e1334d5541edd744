"""Errors to answers: the one table from code to status, and RFC 9457 for all of them."""

from __future__ import annotations

import errno
from typing import Any

import msgspec
import redis
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from api.current_request import get_request
from api.scopes import ScopeMissing
from shared import metrics
from shared.errors import ServiceError
from shared.logs import get_logger

logger = get_logger(__name__)

#: Code to status and title; the titles never change, so that callers may match on them.
PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed_json": (400, "The body is not valid JSON"),
    "malformed_csv": (400, "The file is not valid CSV"),
    "malformed_file": (400, "The file cannot be read"),
    "incomplete_upload": (400, "The upload was cut off"),
    "invalid_parameter": (400, "A parameter is not valid"),
    "unauthenticated": (401, "An API key is needed"),
    "forbidden": (403, "Not allowed"),
    "not_found": (404, "There is nothing here"),
    "unknown_model": (404, "No such model"),
    "unknown_job": (404, "No such job"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "job_not_finished": (409, "The job is not finished"),
    "job_canceled": (409, "The job was canceled"),
    "job_terminal": (409, "The job has already ended"),
    "idempotency_in_progress": (409, "The first request with this key is still being served"),
    "job_gone": (410, "The job was removed"),
    "length_required": (411, "The length of the body is needed"),
    "payload_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The media type is not supported"),
    "range_not_satisfiable": (416, "The range is outside of the result"),
    "schema_mismatch": (422, "The rows do not match the model's signature"),
    "column_collision": (422, "The file already has a column with that name"),
    "idempotency_conflict": (422, "The key was used with another payload"),
    "queue_full": (429, "Too many rows wait"),
    "rate_limited": (429, "Too many requests"),
    "model_error": (500, "The model failed"),
    "worker_lost": (500, "Scoring ended its worker"),
    "internal_error": (500, "Internal error"),
    "store_unavailable": (503, "The job store cannot be reached"),
    "overloaded": (503, "The service is overloaded"),
    "model_not_ready": (503, "The model is not ready"),
    "deadline_exceeded": (504, "The deadline passed"),
    "storage_full": (507, "The storage is full"),
}

_HTTP_CODES = {
    400: "invalid_parameter",
    404: "not_found",
    405: "method_not_allowed",
    411: "length_required",
    413: "payload_too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
}
_FULL = {errno.ENOSPC, errno.EDQUOT}
#: How a folder on a disk or a network says that it is not there, for now or for us.
_UNAVAILABLE = {errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.ENOTDIR}


def describe_problem(code: str, detail: str, instance: str, **members: Any) -> dict[str, Any]:
    """Return a problem document.

    Parameters
    ----------
    code : str
        One of `PROBLEMS`.
    detail : str
        What was wrong here and what was expected.
    instance : str
        Path of what it is about.
    **members
        Further members, such as ``errors``.
    """
    status, title = PROBLEMS[code]
    return {
        "type": f"urn:scorequeue:problem:{code.replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
    } | members


def answer_problem(
    code: str, detail: str, *, headers: dict[str, str] | None = None, retry_after: int | None = None, **members: Any
) -> Response:
    """Answer with a problem document; under ``/v2`` in the form of the Open Inference Protocol."""
    document = describe_problem(code, detail, get_request().path, **members)
    if get_request().path == "/v2" or get_request().path.startswith("/v2/"):
        response = Response(msgspec.json.encode({"error": detail}), document["status"], mimetype="application/json")
    else:
        response = Response(msgspec.json.encode(document), document["status"], mimetype="application/problem+json")
    response.headers.update(headers or {})
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    if document["status"] in (401, 403, 413, 429, 503, 507):
        metrics.REJECTED.labels(code).inc()
    return response


def install(app: Flask) -> None:
    """Answer every error of the app, Flask's own included, with a problem document."""
    app.register_error_handler(ServiceError, answer_service_error)
    app.register_error_handler(redis.RedisError, _answer_redis_error)
    app.register_error_handler(OSError, _answer_os_error)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, _answer_unknown_error)


def answer_service_error(error: ServiceError) -> Response:
    """Answer with what the error says."""
    members = {"errors": error.errors} if error.errors else {}
    headers = {}
    if error.code == "unauthenticated":
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, ScopeMissing):  # RFC 6750
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope}"'
    return answer_problem(error.code, error.detail, headers=headers, retry_after=error.retry_after, **members)


def _answer_redis_error(error: redis.RedisError) -> Response:
    if isinstance(error, redis.exceptions.OutOfMemoryError) or str(error).startswith("MISCONF"):
        logger.error("Redis takes no more", error=error)
        return answer_problem("overloaded", "The job store takes no more for now.", retry_after=5)
    if isinstance(error, redis.ResponseError):
        return _answer_unknown_error(error)
    logger.error("Redis does not answer", error=error)
    return answer_problem(
        "store_unavailable", "The job store did not answer in time; nothing was promised. Try again.", retry_after=1
    )


def _answer_os_error(error: OSError) -> Response:
    if error.errno in _FULL:
        logger.error("the file store is full", error=error)
        return answer_problem("storage_full", "The file store is full; the upload was not kept.", retry_after=60)
    if error.errno in _UNAVAILABLE:
        logger.error("the file store cannot be used", error=error)
        return answer_problem("store_unavailable", "The file store cannot be used.", retry_after=5)
    return _answer_unknown_error(error)


def _answer_http_error(error: HTTPException) -> Response:
    code = _HTTP_CODES.get(error.code or 500)
    if code is None:
        if (error.code or 500) < 500:
            code = "invalid_parameter"
        else:
            return _answer_unknown_error(error)
    details = {
        "not_found": f"There is nothing at {get_request().path}.",
        "method_not_allowed": f"{get_request().method} is not allowed at {get_request().path}.",
    }
    headers = {key: value for key, value in error.get_headers() if key in ("Allow", "Content-Range")}
    return answer_problem(code, details.get(code) or error.description or error.name, headers=headers)


def _answer_unknown_error(error: Exception) -> Response:
    # The caller learns nothing of the inside; the log has the place under the request's id.
    rule = get_request().url_rule
    logger.error("request failed", exc_info=error, route=rule.rule if rule else None)
    return answer_problem("internal_error", "An internal error occurred; the log has it under this request's id.")
