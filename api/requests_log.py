"""What is kept of every request: its id, its metrics and, when it failed, a log line."""

from __future__ import annotations

import re
import secrets
import time

import structlog
from flask import Flask, Response, g, request

from shared import metrics
from shared.logs import get_logger

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")

logger = get_logger(__name__)


def install(app: Flask) -> None:
    """Give every request an id and time it."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    g.began = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    seconds = time.perf_counter() - g.began
    # A path outside the routes, or an invented method, would make a label out of whatever a stranger asks for.
    method = request.method if request.method in _METHODS else "other"
    labels = (method, request.url_rule.rule if request.url_rule else "unmatched", str(response.status_code))
    metrics.HTTP_REQUESTS.labels(*labels).inc()
    metrics.HTTP_SECONDS.labels(*labels).observe(seconds)
    if response.status_code >= 500:
        logger.error("answered with an error", method=request.method, path=request.path, status=response.status_code)
    return response
