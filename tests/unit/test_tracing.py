"""Trace contexts as callers send them, and what is done without OpenTelemetry."""

from __future__ import annotations

import pytest

from shared import tracing

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_without_an_sdk_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an SDK, or without OpenTelemetry at all, there is no span and nothing fails."""
    assert tracing.find_tracer() is None
    assert tracing.start_request(PARENT) is None
    monkeypatch.setattr(tracing, "trace", None)
    assert tracing.find_tracer() is None
    assert tracing.start_request(PARENT) is None
