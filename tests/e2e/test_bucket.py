"""A whole service with its files in a bucket, whose workers are killed: the result is that of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scorequeue import Client
from tests.bucket_server import NAME, connect_bucket, serve_bucket
from tests.chaos.slow_model import register_slow_model
from tests.conftest import WaitUntil
from tests.live_service import UP, LiveService

pytestmark = pytest.mark.timeout(400)

ROWS = 100_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, wait_until: WaitUntil) -> Iterator[LiveService]:
    """Start a service with a model that takes its time, and a bucket."""
    folder = tmp_path_factory.mktemp("bucket")
    register_slow_model(folder / "models", pause_seconds=0.1)
    with serve_bucket(folder, wait_until) as (_, environment):
        settings = {"SCOREQUEUE_CHUNK_ROWS": "1000", "SCOREQUEUE_FILE_STORE": f"s3://{NAME}/files"}
        settings["SCOREQUEUE_INPUT_PREFIXES"] = f"s3://{NAME}/incoming/"
        live = LiveService(folder, settings | environment)
        live.start([*UP, "--port", str(live.port), "--data", str(live.data), "--workers", "2"])
        connect_bucket(environment).put_object(Bucket=NAME, Key="incoming/in.csv", Body=make_rows())
        yield live
        assert live.stop() == []


def make_rows() -> bytes:
    """Make a file."""
    return b"a,b\n" + b"".join(b"%d,%d.25\n" % (row, row % 7) for row in range(ROWS))


def test_killed_workers_leave_no_trace_in_the_result(
    service: LiveService, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Children and a whole worker are killed while a file in a bucket is scored; not a byte differs, no row is lost."""
    quiet, killed = tmp_path / "quiet.csv", tmp_path / "killed.csv"
    with Client(f"http://127.0.0.1:{service.port}") as client:
        address = f"s3://{NAME}/incoming/in.csv"
        client.score_file(address, quiet, model="slow", timeout=300)

        job = client.submit_file(address, "slow")
        for done, whole in ((0.1, False), (0.3, True), (0.5, False)):
            wait_until(lambda done=done: job.refresh().record["progress"] >= done, 120, f"progress {done}")
            children = wait_until(lambda: service.list_children("files worker"), 60, "workers to kill")
            group = service.find_group("files worker")
            assert group is not None
            for victim in [group.pid, *children] if whole else children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
        job.wait(300)
        job.download(killed)

    assert job.row_counts == {"total": ROWS, "succeeded": ROWS, "failed": 0, "pending": 0}
    assert job.record["attempts"] > 1
    assert killed.read_bytes() == quiet.read_bytes()
    assert list((service.data / "files").rglob("*")) == []
