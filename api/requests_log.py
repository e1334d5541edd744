"""What is kept of every request: its id, its metrics and, when it failed, a log line.

Around Flask, not within: what is read of the environment and added to a plain list costs a fraction there.
"""

from __future__ import annotations

import functools
import re
import secrets
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import structlog
from flask import Flask
from prometheus_client import Counter, Histogram

from api.current_request import get_environ, make_request
from shared import metrics, tracing
from shared.logs import get_logger

#: Where a request finds its trail in its environment.
_HERE = "scorequeue.trail"
_ROUTE = "scorequeue.route"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from opentelemetry.trace import Span, Tracer

logger = get_logger(__name__)


class _Trail:
    """By what a request is found again."""

    __slots__ = ("began", "request_id", "span", "traceparent")

    def __init__(self, environ: WSGIEnvironment, tracer: Tracer | None) -> None:
        given = environ.get("HTTP_X_REQUEST_ID", "")
        self.request_id = given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.began = time.perf_counter()
        self.traceparent = tracing.read_traceparent(environ.get("HTTP_TRACEPARENT", ""))
        self.span = None if tracer is None else tracing.start_request(tracer, self.traceparent)
        if self.span is not None:
            self.traceparent = tracing.write_traceparent(self.span)
        structlog.contextvars.bind_contextvars(request_id=self.request_id)
        if self.traceparent:
            structlog.contextvars.bind_contextvars(trace_id=tracing.find_trace_id(self.traceparent))
        else:  # the one of the request that this thread served before
            structlog.contextvars.unbind_contextvars("trace_id")


def install(app: Flask) -> None:
    """Give every request an id, tell it in the answer, and time it."""
    inner = app.wsgi_app
    # It is set up before the service is (docs/operations.md); to look for it costs more than all else here.
    tracer = tracing.find_tracer()

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        trail = environ[_HERE] = _Trail(environ, tracer)

        def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
            _note_answer(environ, trail, int(status[:3]))
            headers.append(("X-Request-Id", trail.request_id))
            return start_response(status, headers, error)

        return inner(environ, start)

    app.wsgi_app = serve  # type: ignore[method-assign]


def note_route(environ: WSGIEnvironment, rule: str) -> None:
    """Keep the rule of a request that is served without Flask, which would know it."""
    environ[_ROUTE] = rule


def get_request_id() -> str:
    """Return the id of the request that is being served: its caller's, or one that was made."""
    return _get_trail().request_id


def get_traceparent() -> str:
    """Return the trace context of the request that is being served: its span's, or its caller's; empty if none."""
    return _get_trail().traceparent


def _get_trail() -> _Trail:
    trail: _Trail = get_environ()[_HERE]
    return trail


def _note_answer(environ: WSGIEnvironment, trail: _Trail, status: int) -> None:
    method = environ["REQUEST_METHOD"]
    route = environ.get(_ROUTE)
    if route is None:
        rule = make_request(environ).url_rule
        route = rule.rule if rule else "unmatched"
    # A path outside the routes, or an invented method, would make a label out of whatever a stranger asks for.
    labels = (method if method in _METHODS else "other", route, str(status))
    count, seconds = _find_counters(*labels)
    count.inc()
    seconds.observe(time.perf_counter() - trail.began)
    if trail.span is not None:
        _end_span(trail.span, *labels)
    if status >= 500:
        logger.error("answered with an error", method=labels[0], route=labels[1], status=status)


@functools.cache
def _find_counters(method: str, route: str, status: str) -> tuple[Counter, Histogram]:
    return (
        metrics.HTTP_REQUESTS.labels(method, route, status),
        metrics.HTTP_SECONDS.labels(method, route, status),
    )


def _end_span(span: Span, method: str, route: str, status: str) -> None:
    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": int(status)})
    span.end()
