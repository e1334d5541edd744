"""The whole service as real processes: started like a user starts it, looked into, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import redis

from scorequeue.embedded_redis import choose_socket, get_broker_socket
from scorequeue.processes import ProcessGroup, list_group_members, list_marked
from scorequeue.service_processes import MARKER
from scorequeue.supervisor import read_record
from shared.connection import connect
from tests.tools import pick_free_port

ROOT = Path(__file__).resolve().parents[1]
#: Seconds in which a service is ready, or stopped, on a busy machine.
PATIENCE = 150.0
UP = (sys.executable, "-m", "scorequeue", "up", "--no-flower")


class LiveService:
    """A service in a folder of its own: data, output and models.

    Parameters
    ----------
    folder : Path
        Must exist; ``models`` in it is its registry.
    settings : mapping of str to str
        More of its environment.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.port = pick_free_port()
        self.data = (folder / "data").resolve()
        self.models = folder / "models"
        self.out, self.err = folder / "up.out", folder / "up.err"
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("SCOREQUEUE_")}
        self._environment = inherited | {"SCOREQUEUE_MODELS": str(self.models)} | dict(settings)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str]) -> None:
        """Start it with a command and wait until it is ready.

        Raises
        ------
        RuntimeError
            It ended, or is not ready in time.
        """
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=out, stderr=err)
        deadline = time.monotonic() + PATIENCE
        while "ready:" not in self.out.read_text():
            if not self.is_running() or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the service did not start:\n{self.err.read_text()}")
            time.sleep(0.05)

    def is_running(self) -> bool:
        """Tell whether its launcher lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> list[int]:
        """Stop it in order; return the processes that are left although none should be."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        left = list_marked(f"{MARKER}={self.data}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left

    def connect(self) -> redis.Redis:
        """Connect to its Redis."""
        return connect(self.redis_url, timeout_seconds=10.0)

    @property
    def redis_url(self) -> str:
        """Where its Redis listens."""
        return f"unix://{choose_socket(self.data)}"

    @property
    def broker_url(self) -> str:
        """Where the Redis of its wake-ups listens."""
        return f"unix://{get_broker_socket(choose_socket(self.data))}"

    def find_group(self, name: str) -> ProcessGroup | None:
        """Return a process by name (``API``, ``Redis``, ``broker``, ``rows worker``); None while it is down."""
        groups = read_record(self.data / "run" / "children.json")
        return next((group for group in groups if group.name == name), None)

    def list_children(self, name: str) -> list[int]:
        """Return the processes that one of its processes keeps itself: Celery's pool, Granian's workers."""
        group = self.find_group(name)
        if group is None:
            return []
        members = list_group_members(group.pid)
        return [pid for pid in members if _read_parent(pid) == group.pid and not _is_tracker(pid)]


def _read_parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_tracker(pid: int) -> bool:
    """Tell whether it is multiprocessing's helper, which does no work of ours."""
    try:
        return b"_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
