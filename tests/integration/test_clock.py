"""A worker whose clock is wrong: leases, waiting times and deadlines are Redis's, so nothing comes of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import redis

from shared.store import JobStore
from tests.api_under_test import LINE_ANSWERS, LINE_ROWS, ApiUnderTest
from tests.conftest import WaitUntil
from tests.tools import require_tool

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 2.0
#: Scores when it is told to by a line, and says what its clock shows.
_WORKER = """
import sys, time
from shared.settings import Settings
from worker.process import WorkerProcess

settings = Settings.from_env()
worker = WorkerProcess(settings, queues=["rows"])
worker.start()
print("ready", flush=True)
for _ in sys.stdin:
    worker.score_rows("rows:line:1")
    print(time.time(), flush=True)
worker.stop()
"""


class SkewedWorker:
    """A worker process on a clock that can be set.

    Parameters
    ----------
    api : ApiUnderTest
        Whose Redis and models it uses.
    folder : Path
        For the file that sets the clock.
    """

    def __init__(self, api: ApiUnderTest, folder: Path) -> None:
        self._clock = folder / "clock"
        self.set_clock("+0")
        faketime = require_tool("faketime")
        preload = subprocess.run([faketime, "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, check=True)
        environment = {
            "LD_PRELOAD": preload.stdout.decode().strip(),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # a clock that is set leaves the monotonic one alone
            "SCOREQUEUE_REDIS_URL": api.settings.redis_url,
            "SCOREQUEUE_MODELS": str(api.settings.models),
            "SCOREQUEUE_FILE_STORE": str(Path(api.settings.file_store)),
            "SCOREQUEUE_LEASE_SECONDS": str(LEASE_SECONDS),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            cwd=ROOT, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._read_until(lambda line: line == "ready")

    def set_clock(self, offset: str) -> None:
        """Set its clock, ``+1h`` for an hour ahead."""
        self._clock.write_text(offset)

    def score(self) -> float:
        """Let it score what waits; return the time that it believes it is."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._read_until(lambda line: line.replace(".", "").isdigit()))

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)

    def _read_until(self, is_wanted: Callable[[str], bool]) -> str:
        assert self._process.stdout
        for line in self._process.stdout:  # its log comes this way too
            if is_wanted(line.strip()):
                return line.strip()
        raise AssertionError("the worker has ended")


@pytest.fixture
def worker(api: ApiUnderTest, tmp_path: Path) -> Iterator[SkewedWorker]:
    """Start a worker whose clock is right, for now."""
    skewed = SkewedWorker(api, tmp_path)
    yield skewed
    skewed.stop()


@pytest.mark.parametrize(("offset", "seconds"), [("+1h", 3600), ("-1h", -3600)])
def test_a_worker_whose_clock_jumps_works_on(
    api: ApiUnderTest, store: JobStore, worker: SkewedWorker, wait_until: WaitUntil, offset: str, seconds: int
) -> None:
    """Its clock jumps an hour between two jobs: both are scored at their true times, and its lease stays."""
    first = api.submit_rows(LINE_ROWS, "line")
    assert worker.score() == pytest.approx(time.time(), abs=30)
    worker.set_clock(offset)

    second = api.submit_rows(LINE_ROWS, "line", deadline_seconds=60)

    assert worker.score() == pytest.approx(time.time() + seconds, abs=30)
    for job_id in (first, second):
        result = api.http.get(f"/v1/jobs/{job_id}/result").get_json()
        assert result["predictions"] == pytest.approx(LINE_ANSWERS)
        assert 0 <= result["queue_seconds"] < 30
        ended = datetime.fromisoformat(api.get_job(job_id)["finished_at"]).timestamp()
        assert ended == pytest.approx(time.time(), abs=30)
    # It goes on renewing its lease, for as long as it should last and no longer.
    (owner,) = store.list_workers()
    lease = f"sq:alive:{owner}"
    before = read_expiry(store.client, lease)
    wait_until(lambda: read_expiry(store.client, lease) > before, 10, "another heartbeat")
    assert read_expiry(store.client, lease) <= store.read_clock_ms() + LEASE_SECONDS * 1000


def read_expiry(client: redis.Redis, key: str) -> int:
    """Return when a key expires, in Unix milliseconds of Redis's clock."""
    return int(client.pexpiretime(key))
