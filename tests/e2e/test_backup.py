"""`scorequeue backup` and `restore` as a user types them, with real services; and `up` on files that were cut off."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import scorequeue
from scorequeue.append_only import find_last_file
from scorequeue.data_folder import DataFolder
from tests.conftest import WaitUntil
from tests.e2e.test_up import PATIENCE, ROOT, Service, run_service, run_up

pytestmark = pytest.mark.timeout(600)

ROW = [round(0.05 - 0.01 * column, 2) for column in range(10)]
TERMINAL = {"succeeded", "partially_succeeded", "failed", "canceled", "expired"}


class Submitter:
    """Submits rows jobs one after another in a thread; `ids` are those that were answered with 202."""

    def __init__(self, service: Service) -> None:
        self._client = connect(service)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.ids: list[str] = []

    def __enter__(self) -> Submitter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stopped.wait(0.002):
            row = [len(self.ids) / 1000, *ROW[1:]]
            self.ids.append(self._client.submit([row], "diabetes").id)


def connect(service: Service) -> scorequeue.Client:
    """Give a client of a service."""
    return scorequeue.Client(f"http://127.0.0.1:{service.port}")


def run_cli(*arguments: str) -> str:
    """Run a command that must succeed; return the one line that it prints."""
    command = [sys.executable, "-m", "scorequeue", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    return done.stdout


def fetch_status(service: Service, job_id: str) -> str:
    """Return a job's status."""
    status, body = service.fetch(f"/v1/jobs/{job_id}")
    assert status == 200, body
    return str(json.loads(body)["status"])


def fetch_result(service: Service, job_id: str) -> bytes:
    """Return the bytes of a result that must be there."""
    status, body = service.fetch(f"/v1/jobs/{job_id}/result")
    assert status == 200, body
    return body


def write_csv(service: Service, path: Path, rows: int) -> Path:
    """Write a file for ``diabetes``."""
    names = connect(service).model_version("diabetes")["signature"]["columns"]
    lines = [",".join(column["name"] for column in names)]
    lines += [",".join(str(value) for value in [row / 1000, *ROW[1:]]) for row in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_service_is_saved_while_it_runs_and_restored(tmp_path: Path, wait_until: WaitUntil) -> None:
    """What was accepted before a backup is there after the restore: results byte for byte, and the rest is scored."""
    archive = tmp_path / "backup.tar.gz"
    with run_service(tmp_path / "data", wait_until, "--demo", "--no-flower") as service, Submitter(service) as stream:
        client = connect(service)
        small = client.submit_file(write_csv(service, tmp_path / "small.csv", 100), "diabetes")
        wait_until(lambda: fetch_status(service, small.id) in TERMINAL, PATIENCE, "the end of the small file")
        client.pause_queue("breast-cancer")
        columns = len(client.model_version("breast-cancer")["signature"]["columns"])
        waiting = [client.submit([[1.0] * columns], "breast-cancer").id for _ in range(20)]
        wait_until(lambda: len(stream.ids) > 100, PATIENCE, "a hundred jobs")
        ended = [job_id for job_id in stream.ids[:100] if fetch_status(service, job_id) in TERMINAL]
        results = {job_id: fetch_result(service, job_id) for job_id in (small.id, *ended)}
        large = client.submit_file(write_csv(service, tmp_path / "large.csv", 200_000), "diabetes")
        accepted = [*waiting, *stream.ids, large.id]

        saved = run_cli("backup", "--data", str(service.data), str(archive))

        assert re.fullmatch(rf"saved [\d,]+ files, [\d,]+ bytes: {re.escape(str(archive))}\n", saved)
        wait_until(lambda: fetch_status(service, large.id) in TERMINAL, PATIENCE, "the end of the large file")
        results[large.id] = fetch_result(service, large.id)
        # The stream was not held up, nor anything of Redis changed.
        went_on = len(stream.ids)
        wait_until(lambda: len(stream.ids) > went_on, 30, "one more job")

    assert run_cli("restore", "--data", str(tmp_path / "new"), str(archive)).startswith("restored ")
    with run_service(tmp_path / "new", wait_until, "--no-flower") as restored:
        assert {job_id: fetch_result(restored, job_id) for job_id in ended} == {id_: results[id_] for id_ in ended}
        assert fetch_result(restored, small.id) == results[small.id]
        assert {fetch_status(restored, job_id) for job_id in waiting} == {"queued"}
        connect(restored).resume_queue("breast-cancer")
        for job_id in accepted:
            wait_until(lambda: fetch_status(restored, job_id) == "succeeded", PATIENCE, f"the end of {job_id}")  # noqa: B023
        assert fetch_result(restored, large.id) == results[large.id]


def test_cut_off_log_is_repaired_and_the_loss_stated(tmp_path: Path, wait_until: WaitUntil) -> None:
    """After a kill and a cut `up` starts and says what was dropped: nothing of a job, or which submission it was."""
    folder = DataFolder(tmp_path / "data")
    with run_service(folder.root, wait_until, "--demo", "--no-flower") as first:
        kept = [connect(first).submit([ROW], "diabetes").id for _ in range(20)]
        for job_id in kept:
            wait_until(lambda: fetch_status(first, job_id) in TERMINAL, PATIENCE, f"the end of {job_id}")  # noqa: B023
        results = {job_id: fetch_result(first, job_id) for job_id in kept}
        kill_hard(first, wait_until)

    last = find_last_file(folder.redis)
    assert last
    os.truncate(last, last.stat().st_size - 10)
    with run_service(folder.root, wait_until, "--no-flower") as second:
        # The last commands were heartbeats and sweeps: all jobs had ended.
        assert find_repair(second).endswith(
            "No submission was in them; a job that was answered with 202 is not affected"
        )
        assert {job_id: fetch_result(second, job_id) for job_id in kept} == results
        lost = connect(second).submit([ROW], "diabetes").id
        kill_hard(second, wait_until)

    os.truncate(last, last.read_bytes().index(lost.encode()) + 100)  # well within its submission
    with run_service(folder.root, wait_until, "--no-flower") as third:
        # This one had its 202: no crash cuts so, and the line says that it is lost then.
        assert f"The submission of {lost} was in them." in find_repair(third)
        assert "If the file was cut off in another way, it is lost" in find_repair(third)
        assert third.fetch(f"/v1/jobs/{lost}")[0] == 410
        assert {job_id: fetch_result(third, job_id) for job_id in kept} == results


def kill_hard(service: Service, wait_until: WaitUntil) -> None:
    """Kill `up` and Redis with signal 9; the next start stops what is left."""
    group = service.list_groups()["Redis"]
    service.stop(signal.SIGKILL)
    os.kill(group.pid, signal.SIGKILL)
    wait_until(lambda: "Redis" not in list_living(service), 10, "the end of Redis")


def list_living(service: Service) -> list[str]:
    """Name the processes of a service that are alive."""
    living = service.list_processes()
    return [name for name, group in service.list_groups().items() if group.pid in living]


def find_repair(service: Service) -> str:
    """Return the line about a repair; there must be one."""
    found = [line for line in service.err.read_text().splitlines() if "was repaired" in line]
    assert len(found) == 1
    return found[0]


def test_damaged_log_ends_the_start_at_once(tmp_path: Path, wait_until: WaitUntil) -> None:
    """A file that is damaged in the middle is named with what to do, exit code 1, and Redis is not tried again."""
    folder = DataFolder(tmp_path / "data")
    with run_service(folder.root, wait_until, "--no-flower"):
        pass
    last = find_last_file(folder.redis)
    assert last
    with last.open("r+b") as file:
        file.write(b"XXXX")

    done = run_up(folder.root)

    assert (done.returncode, done.stdout) == (1, "")
    assert f"Redis cannot read its data back: {last} is missing or damaged. Restore a backup" in done.stderr
    assert "restarting" not in done.stderr
