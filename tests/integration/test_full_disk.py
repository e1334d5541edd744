"""A disk that fills: nothing new is taken while Redis can still write what is queued; on a small disk of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scorequeue.embedded_redis import find_binary
from shared.connection import connect
from shared.settings import Settings
from tests.api_under_test import IRIS_ROWS, ApiUnderTest, assert_problem, read_id
from tests.conftest import WaitUntil
from tests.small_models import register_small_models
from tests.tools import leave_out

DISK_BYTES = 64 * 1024**2
KEPT_FREE_BYTES = 16 * 1024**2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk in memory."""
    if os.geteuid() != 0:
        leave_out("only root can mount a disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def api(disk: Path, tmp_path: Path, wait_until: WaitUntil) -> Iterator[ApiUnderTest]:
    """Start Redis, with every write synced, and the front end, with their data on that disk."""
    url = f"unix://{disk}/r.sock"
    options = ("--port", "0", "--unixsocket", f"{disk}/r.sock", "--dir", str(disk), "--save", "")
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with subprocess.Popen([find_binary(), *options, *durable], stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: (disk / "r.sock").exists() and connect(url).ping(), 20, "the server to answer")
            register_small_models(tmp_path / "models")
            settings = Settings(
                redis_url=url,
                models=tmp_path / "models",
                file_store=str(disk / "files"),
                redis_folder=disk,
                min_free_bytes=KEPT_FREE_BYTES,
            )
            running = ApiUnderTest(settings)
            yield running
            running.close()
            assert server.poll() is None, "Redis died"
        finally:
            server.kill()


def test_service_closes_before_the_disk_is_full_and_opens_again(disk: Path, api: ApiUnderTest) -> None:
    """On a disk that is nearly full rows are a 503 and files a 507; what waits is scored; with room it goes on."""
    waiting = api.submit_rows()
    (disk / "filler").write_bytes(b"x" * (DISK_BYTES - KEPT_FREE_BYTES))
    api.service.admission.look_again()

    assert_problem(api.post_rows(IRIS_ROWS), 503, "overloaded")
    assert_problem(api.post_file(b"a,b\n1,2\n", "line"), 507, "storage_full")
    api.score()
    assert api.get_job(waiting)["status"] == "succeeded"

    (disk / "filler").unlink()
    api.service.admission.look_again()
    assert api.post_rows(IRIS_ROWS).status_code == 202


def test_part_that_does_not_fit_ends_its_job_clearly(
    disk: Path, api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk whose result finds no room fails the job and leaves nothing half-written; a retry goes on from there."""
    data = b"a,b\n" + b"1,2\n" * 200_000
    job_id = api.submit_file(data, "line")
    free = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(b"x" * (free - 256 * 1024))
    monkeypatch.setattr("worker.files.FULL_ATTEMPTS", 1)

    api.score()

    job = api.get_job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "storage_full")
    assert list((disk / "files" / "jobs" / job_id).rglob(".*")) == []
    (disk / "filler").unlink()
    api.service.admission.look_again()
    retried = read_id(api.http.post(f"/v1/jobs/{job_id}/retry"))
    api.score()
    assert api.get_job(retried)["status"] == "succeeded"


def test_upload_that_fills_the_disk_leaves_nothing(disk: Path, api: ApiUnderTest) -> None:
    """A file that does not fit is a 507, the room it took is free again, and other jobs go on."""
    too_much = b"a,b\n" + b"1,2\n" * (DISK_BYTES // 4)

    assert_problem(api.post_file(too_much, "line"), 507, "storage_full")

    assert api.list_kept_files() == []
    assert api.post_rows(IRIS_ROWS).status_code == 202
