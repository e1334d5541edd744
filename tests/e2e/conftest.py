"""The whole service as real processes, started as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import WaitUntil
from tests.tools import pick_free_port

ROOT = Path(__file__).resolve().parents[2]
#: Seconds in which a service is ready, or stopped, on a busy machine.
PATIENCE = 150


@dataclass
class RunningService:
    """A `scorequeue up` with the demo models."""

    url: str
    data: Path
    models: Path
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, wait_until: WaitUntil) -> Iterator[RunningService]:
    """Start the service with two rows and two file workers, once for all tests that do it no harm."""
    folder = tmp_path_factory.mktemp("service")
    port = pick_free_port()
    environment = {name: text for name, text in os.environ.items() if not name.startswith("SCOREQUEUE_")}
    command = [sys.executable, "-m", "scorequeue", "up", "--demo", "--no-flower", "--workers", "2"]
    out, err = folder / "up.out", folder / "up.err"
    with out.open("wb") as out_file, err.open("wb") as err_file:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--data", str(folder / "data")],
            cwd=ROOT, env=environment, stdout=out_file, stderr=err_file,
        )  # fmt: skip
    try:
        wait_until(
            lambda: process.poll() is not None or "ready:" in out.read_text(), PATIENCE, "the service to be ready"
        )
        assert process.poll() is None, err.read_text()
        yield RunningService(f"http://127.0.0.1:{port}", folder / "data", folder / "data" / "models", process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
