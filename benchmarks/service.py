"""Processes to be measured: started in a folder of their own, ready inside the ``with``, gone after it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

READY_SECONDS = 180.0
STOP_SECONDS = 60.0


def pick_free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def run_process(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Run a process as long as the ``with`` lasts; SIGTERM ends it, and SIGKILL what is left of its group."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={**_plain_environment(), **(environment or {})},
        )  # fmt: skip
    try:
        yield
        if process.poll() is not None:
            raise SystemExit(f"{' '.join(command)} ended before its time:\n{read_end(log)}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def run_scorequeue(
    folder: Path, workers: int, *, demo: bool = True, settings: dict[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """Run the whole service, with the demo models or those that are in `folder`; yield host and port."""
    port = pick_free_port()
    command = [sys.executable, "-m", "scorequeue", "up", "--no-flower", "--workers", str(workers)]
    command += ["--demo"] if demo else []
    log = folder / "up.log"
    with run_process([*command, "--port", str(port), "--data", str(folder / "data")], log, settings):
        wait_for(lambda: "ready: " in log.read_text(), "the service to be ready", log)
        yield "127.0.0.1", port


def wait_for(is_there: Callable[[], bool], description: str, log: Path) -> None:
    """Wait until something holds, within a bound."""
    end = time.monotonic() + READY_SECONDS
    while not is_there():
        if time.monotonic() > end:
            raise SystemExit(f"waited {READY_SECONDS:g} s in vain for {description}:\n{read_end(log)}")
        time.sleep(0.05)


def answers(port: int, path: str) -> bool:
    """Tell whether a GET is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def read_end(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _plain_environment() -> dict[str, str]:
    # The settings of whoever measures must not change what is measured.
    names = ("SCOREQUEUE_", "CELERY_", "GRANIAN_", "PROMETHEUS_")
    return {name: text for name, text in os.environ.items() if not name.startswith(names)}
