"""A service of the demo's own: started as a user would, and always stopped again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scorequeue.errors import ScorequeueError

#: Seconds until the service must be ready; a slow machine trains the models and loads them in half a minute.
_READY_SECONDS = 180.0
#: Seconds that an orderly stop may take.
_STOP_SECONDS = 60.0
_CHECK_SECONDS = 0.1
#: Seconds that one command of a worker may take.
_COMMAND_SECONDS = 300.0
_FLOWER_PORT = 5555
_LOG_LINES = 15


class DemoError(ScorequeueError):
    """A part of the demo could not be run; the message has the end of its output."""


class DemoService:
    """`scorequeue up --demo` as a process.

    Parameters
    ----------
    data : Path
        The data folder.
    port : int
        Of the API; 0 takes a free one.
    log : Path
        Gets what the process prints.
    """

    def __init__(self, data: Path, port: int, log: Path) -> None:
        self.data = data
        self.port = port or _find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.flower_url = f"http://127.0.0.1:{_FLOWER_PORT}" if _is_free(_FLOWER_PORT) else None
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises
        ------
        DemoError
            It ended, or was not ready in time.
        """
        command = [sys.executable, "-m", "scorequeue", "up", "--demo"]
        command += ["--port", str(self.port), "--data", str(self.data)]
        command += [] if self.flower_url else ["--no-flower"]
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_plain_environment(),
            )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """Stop it in order, or by force if it takes too long; nothing happens if it does not run."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _READY_SECONDS
        while not any(line.startswith("ready") for line in _read_lines(self.log)):
            code = process.poll()
            if code is not None:
                raise DemoError(f"the service ended with exit code {code}:\n{_read_end(self.log)}")
            if time.monotonic() > end:
                raise DemoError(f"not ready after {_READY_SECONDS:g} s:\n{_read_end(self.log)}")
            time.sleep(_CHECK_SECONDS)


def run_worker_command(arguments: Sequence[str | Path]) -> None:
    """Run ``python -m worker …``, which has scikit-learn, where the command line has not.

    Raises
    ------
    DemoError
        It failed.
    """
    command = [sys.executable, "-m", "worker", *map(str, arguments)]
    try:
        done = subprocess.run(
            command,
            env=_plain_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"worker {arguments[0]} was not done after {_COMMAND_SECONDS:g} s") from error
    if done.returncode:
        raise DemoError(f"worker {arguments[0]} failed:\n{done.stdout.strip()}")


def _plain_environment() -> dict[str, str]:
    # What is set for a service of the caller's is not for this one: its Redis, its keys, its models.
    return {name: value for name, value in os.environ.items() if not name.startswith("SCOREQUEUE_")}


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _read_lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


def _read_end(log: Path) -> str:
    return "\n".join(_read_lines(log)[-_LOG_LINES:])
