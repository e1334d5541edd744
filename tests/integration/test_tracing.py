"""W3C Trace Context: a caller's trace goes through API, job, worker and logs, with an OpenTelemetry SDK or without."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
import redis
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared import tracing
from tests.api_under_test import IRIS_ROWS, ApiUnderTest

# One server will do: it is not Redis that is tested here.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Record spans as an SDK does; give where they are found."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The global one can be set once a process, and would stay for all later tests.
    monkeypatch.setattr(tracing.trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(tracing.trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def test_a_callers_trace_is_kept_with_the_job(api: ApiUnderTest) -> None:
    """Rows and files keep it; what is none, or all zeros, is dropped and refuses nothing."""
    headers = {"traceparent": PARENT}
    assert api.post_rows(IRIS_ROWS, headers=headers).get_json()["traceparent"] == PARENT
    assert api.post_file(b"a,b\n1,2\n", "line", headers=headers).get_json()["traceparent"] == PARENT
    later = {"traceparent": f"cc-{TRACE}-{SPAN}-00-what-may-come"}
    assert api.post_rows(IRIS_ROWS, headers=later).get_json()["traceparent"] == f"00-{TRACE}-{SPAN}-00"
    for text in (
        "", "x", PARENT.upper(), f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"{PARENT}-more", PARENT[:-1], PARENT * 1000,
    ):  # fmt: skip
        response = api.post_rows(IRIS_ROWS, headers={"traceparent": text})
        assert (response.status_code, response.get_json()["traceparent"]) == (202, None)


def test_the_trace_is_in_the_logs_of_api_and_worker(
    api: ApiUnderTest, log: Callable[[], str], client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What API and workers say of a request or its job carries the trace's id."""
    headers = {"traceparent": PARENT}
    rows = api.post_rows(IRIS_ROWS, headers=headers).get_json()["id"]
    file = api.post_file(b"a,b\n1,2\n", "line", headers=headers).get_json()["id"]
    client.hset(f"sq:job:{rows}", "p", b"\x01")  # no payload
    api.service.files.remove(file)
    structlog.contextvars.clear_contextvars()  # a worker is another process
    api.score()

    def fail(*_: object, **__: object) -> None:
        raise ValueError

    monkeypatch.setattr(api.service.store, "list_jobs", fail)
    assert api.http.get("/v1/jobs", headers=headers).status_code == 500

    told = {line["event"]: line.get("trace_id") for line in map(json.loads, log().splitlines())}
    for event in ("a payload cannot be read", "a file job is given up", "request failed"):
        assert told[event] == TRACE


def test_spans_are_recorded_where_an_sdk_is(spans: InMemorySpanExporter, api: ApiUnderTest) -> None:
    """A request's span is a child of its caller's; a micro-batch's span is linked from all the requests in it."""
    first = api.post_rows(IRIS_ROWS, headers={"traceparent": PARENT})
    second = api.post_rows(IRIS_ROWS)
    file = api.post_file(b"a,b\n1,2\n", "line", headers={"traceparent": PARENT})
    api.score()

    found = spans.get_finished_spans()
    requests = [span for span in found if span.name == "POST /v1/jobs"]
    assert [f"{span.context.trace_id:032x}" == TRACE for span in requests] == [True, False, True]
    assert requests[0].parent is not None
    assert f"{requests[0].parent.span_id:016x}" == SPAN
    assert requests[1].parent is None
    assert requests[0].attributes["http.response.status_code"] == 202
    kept = [response.get_json()["traceparent"][36:52] for response in (first, second, file)]
    assert kept == [f"{span.context.span_id:016x}" for span in requests]
    rows_batch, chunk = [span for span in found if span.name == "micro-batch"]
    assert [f"{link.context.span_id:016x}" for link in rows_batch.links] == kept[:2]
    assert (rows_batch.attributes["jobs"], rows_batch.attributes["rows"]) == (2, 6)
    assert [f"{link.context.span_id:016x}" for link in chunk.links] == kept[2:]
