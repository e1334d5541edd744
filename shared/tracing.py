"""Traces (W3C Trace Context): their ids go with every job; spans are recorded where an OpenTelemetry SDK is set up.

Nothing here needs OpenTelemetry to be installed. With its API but without an SDK nothing is recorded either.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext, Tracer

try:
    from opentelemetry import trace
except ImportError:
    trace = None  # type: ignore[assignment]

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NAME = "scorequeue"


def read_traceparent(text: str) -> str:
    """Return the ``traceparent`` that a caller sent; empty if it is none.

    One of a later version is read as far as this version goes, as the recommendation has it.
    """
    if not text:
        return ""
    found = _TRACEPARENT.fullmatch(text.strip())
    if found is None or (found[1] == "00" and found[5]):
        return ""
    return f"00-{found[2]}-{found[3]}-{found[4]}"


def find_trace_id(traceparent: str) -> str:
    """Return the id of a trace, by which logs are found; empty if there is none."""
    return traceparent[3:35]


def find_tracer() -> Tracer | None:
    """Return what records spans; None if nothing does."""
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return trace.get_tracer(_NAME)


def start_request(tracer: Tracer, traceparent: str) -> Span:
    """Begin the span of a request, as a child of its caller's."""
    parent = _parse(traceparent)
    context = None if parent is None else trace.set_span_in_context(trace.NonRecordingSpan(parent))
    return tracer.start_span("request", context=context, kind=trace.SpanKind.SERVER)


def write_traceparent(span: Span) -> str:
    """Return what a span's children are told of it."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def record_micro_batch(
    tracer: Tracer, seconds: float, traceparents: Iterable[str], attributes: Mapping[str, str | int | float]
) -> None:
    """Record the span of a micro-batch that ends now, linked to the requests whose rows were in it."""
    contexts = [context for context in map(_parse, traceparents) if context is not None]
    end = time.time_ns()
    span = tracer.start_span(
        "micro-batch",
        kind=trace.SpanKind.CONSUMER,
        links=[trace.Link(context) for context in contexts],
        attributes=dict(attributes),
        start_time=end - int(seconds * 1e9),
    )
    span.end(end)


def _parse(traceparent: str) -> SpanContext | None:
    if not traceparent:
        return None
    _, trace_id, span_id, flags = traceparent.split("-")
    return trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))
