"""Trace contexts as callers send them, and what is done without OpenTelemetry."""

from __future__ import annotations

import pytest

from shared import tracing


def test_without_an_sdk_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an SDK, or without OpenTelemetry at all, there is no span and nothing fails."""
    assert tracing.find_tracer() is None
    monkeypatch.setattr(tracing, "trace", None)
    assert tracing.find_tracer() is None
