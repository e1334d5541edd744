"""What is kept of every request: its id, its metrics and, when it failed, a log line."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING

import structlog
from flask import Flask, Response, g, request

from shared import metrics, tracing
from shared.logs import get_logger

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")

if TYPE_CHECKING:
    from opentelemetry.trace import Span

logger = get_logger(__name__)


def install(app: Flask) -> None:
    """Give every request an id and time it."""
    app.before_request(_begin)
    app.after_request(_end)


def get_request_id() -> str:
    """Return the id of the request that is being served: its caller's, or one that was made."""
    request_id: str = g.request_id
    return request_id


def get_traceparent() -> str:
    """Return the trace context of the request that is being served: its span's, or its caller's; empty if none."""
    traceparent: str = g.traceparent
    return traceparent


def get_route() -> str:
    """Return the rule that the request met: a path may hold what its caller sent."""
    return request.url_rule.rule if request.url_rule else "unmatched"


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    g.began = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    g.traceparent = tracing.read_traceparent(request.headers.get("traceparent", ""))
    g.span = tracing.start_request(g.traceparent)
    if g.span is not None:
        g.traceparent = tracing.write_traceparent(g.span)
    if g.traceparent:
        structlog.contextvars.bind_contextvars(trace_id=tracing.find_trace_id(g.traceparent))


def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    seconds = time.perf_counter() - g.began
    # A path outside the routes, or an invented method, would make a label out of whatever a stranger asks for.
    method = request.method if request.method in _METHODS else "other"
    labels = (method, get_route(), str(response.status_code))
    metrics.HTTP_REQUESTS.labels(*labels).inc()
    metrics.HTTP_SECONDS.labels(*labels).observe(seconds)
    if g.span is not None:
        _end_span(g.span, *labels)
    if response.status_code >= 500:
        logger.error("answered with an error", method=method, route=get_route(), status=response.status_code)
    return response


def _end_span(span: Span, method: str, route: str, status: str) -> None:
    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": int(status)})
    span.end()
