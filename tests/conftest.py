"""What all tests share: a clean environment, and waiting with a bound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

WaitUntil = Callable[..., object]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith(("SCOREQUEUE_", "PROMETHEUS_MULTIPROC")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """Return the one way to wait: until a predicate holds, within a bound."""

    def wait(predicate: Callable[[], object], timeout: float, description: str) -> object:
        deadline = time.monotonic() + timeout
        while True:
            found = predicate()
            if found:
                return found
            if time.monotonic() > deadline:
                pytest.fail(f"waited {timeout:g} s in vain for {description}")
            time.sleep(0.02)

    return wait
