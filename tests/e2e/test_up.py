"""`scorequeue up`, as a user types it: real Redis, API, workers and Flower, killed and stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scorequeue.processes import ProcessGroup, list_group_members, list_marked
from scorequeue.supervisor import read_record
from tests.tools import pick_free_port

WaitUntil = Callable[..., object]
ROOT = Path(__file__).resolve().parents[2]
#: Seconds in which a service is ready, or stopped, on a busy machine.
PATIENCE = 150

pytestmark = pytest.mark.timeout(600)


class Service:
    """One `scorequeue up` on a data folder, with what it printed."""

    def __init__(self, data: Path, *options: str, port: int, flower_port: int) -> None:
        self.data = data
        self.port = port
        self.flower_port = flower_port
        environment = {name: text for name, text in os.environ.items() if not name.startswith("SCOREQUEUE_")}
        ports = ("--port", str(port), "--flower-port", str(flower_port))
        self.out = data.parent / f"{data.name}.out"
        self.err = data.parent / f"{data.name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scorequeue", "up", "--data", str(data), "--workers", "1", *ports, *options],
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=err,
            )

    def is_ready(self) -> bool:
        """Tell whether the ready line was printed; fail if there will be none."""
        assert self.process.poll() is None, self.err.read_text()
        return "ready:" in self.out.read_text()

    def list_groups(self) -> dict[str, ProcessGroup]:
        """Return its recorded processes by name."""
        return {group.name: group for group in read_record(self.data.resolve() / "run" / "children.json")}

    def list_processes(self) -> set[int]:
        """Return all its live processes but itself."""
        groups = [list_group_members(group.pid) for group in self.list_groups().values()]
        return {pid for members in groups for pid in members} | set(
            list_marked(f"_SCOREQUEUE_UP={self.data.resolve()}")
        )

    def fetch(self, path: str) -> tuple[int, bytes]:
        """Get a page of the API; status 0 if there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def submit_rows(self, model: str, rows: list[list[float]]) -> str:
        """Submit a rows job that must be taken; give its id."""
        return self._submit("/v1/jobs", json.dumps({"model": model, "rows": rows}), "application/json")

    def submit_file(self, model: str, csv: str) -> str:
        """Submit a file that must be taken; give its job's id."""
        return self._submit(f"/v1/jobs?model={model}", csv, "text/csv")

    def _submit(self, path: str, body: str, media_type: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Content-Type": media_type})
            response = connection.getresponse()
            text = response.read()
        assert response.status == 202, text
        return str(json.loads(text)["id"])

    def read_status(self, job_id: str) -> str:
        """Return a job's status; empty if there is no answer."""
        status, body = self.fetch(f"/v1/jobs/{job_id}")
        return str(json.loads(body)["status"]) if status == 200 else ""

    def count_ready(self, queue: str) -> int:
        """Return how many warmed processes the API sees on a queue."""
        status, body = self.fetch("/ready")
        return int(json.loads(body)["workers"].get(queue, 0)) if status == 200 else 0

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def run_service(data: Path, wait_until: WaitUntil, *options: str) -> Iterator[Service]:
    """Run a service until it is ready, and stop it at the end if the test has not."""
    service = Service(data, *options, port=pick_free_port(), flower_port=pick_free_port())
    try:
        wait_until(service.is_ready, PATIENCE, "the ready line")
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()


def run_up(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run an `up` that is expected to refuse."""
    command = [sys.executable, "-m", "scorequeue", "up", "--data", str(data), "--no-flower", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_service_guards_its_folder_and_ports_and_stops(tmp_path: Path, wait_until: WaitUntil) -> None:
    """One line says that all is ready; a second `up` on folder or port is refused; SIGTERM ends it all."""
    data = tmp_path / "data"
    with run_service(data, wait_until) as service:
        assert service.out.read_text() == (
            f"ready: API http://127.0.0.1:{service.port}  Flower http://127.0.0.1:{service.flower_port}  "
            f"workers 1+1  data {data}\n"
        )
        assert service.count_ready("rows") == service.count_ready("files") == 1
        assert set(service.list_groups()) == {
            "Redis", "broker", "API", "rows worker", "files worker", "Flower",
        }  # fmt: skip
        # Two Redis, Flower, the API with two processes, and two workers with one each.
        assert len(service.list_processes()) >= 10

        twice = run_up(data, "--port", str(pick_free_port()))
        assert (twice.returncode, twice.stdout) == (2, "")
        assert f"in use by another `scorequeue up` (pid {service.process.pid})" in twice.stderr

        taken = run_up(tmp_path / "other", "--port", str(service.port))
        assert (taken.returncode, taken.stdout) == (2, "")
        assert f"port {service.port} is taken; choose another with --port" in taken.stderr

        groups = service.list_groups().values()
        assert service.stop(signal.SIGTERM) == 0
        assert not any(list_group_members(group.pid) for group in groups)
        assert service.list_processes() == set()
        assert service.fetch("/health")[0] == 0


def test_what_is_killed_comes_back_without_doubles(tmp_path: Path, wait_until: WaitUntil) -> None:
    """A killed worker is started again, which is said; after kill -9 of `up` the next one starts clean."""
    data = tmp_path / "data"
    with run_service(data, wait_until) as first:
        worker = first.list_groups()["rows worker"]
        os.kill(worker.pid, signal.SIGKILL)
        said = "rows worker died (signal 9); restarting in 0.5 s"
        wait_until(lambda: said in first.err.read_text(), 10, "the line about the death")
        wait_until(lambda: first.list_groups()["rows worker"] != worker, 10, "another process")
        wait_until(lambda: first.count_ready("rows") == 1, PATIENCE, "the new worker to be ready")

        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        left = first.list_processes()
        assert len(left) >= 8

        with run_service(data, wait_until) as second:
            assert "stopping what it left behind" in second.err.read_text()
            assert second.list_processes().isdisjoint(left)
            assert second.count_ready("rows") == second.count_ready("files") == 1
            assert first.fetch("/health")[0] == 0
            assert second.stop(signal.SIGINT) == 0
            assert second.list_processes() == set()


def test_every_accepted_job_survives_the_death_of_everything(tmp_path: Path, wait_until: WaitUntil) -> None:
    """After kill -9 of all processes at once a second `up` answers for every job that got a 202."""
    data, columns = tmp_path / "data", 10
    csv = "age,sex,bmi,bp,s1,s2,s3,s4,s5,s6\n" + "59,2,32.1,101,157,93.2,38,4,4.8598,87\n" * 500
    with run_service(data, wait_until, "--demo", "--no-flower") as first:
        rows_jobs = [first.submit_rows("diabetes", [[float(number)] * columns]) for number in range(20)]
        file_job = first.submit_file("diabetes", csv)
        ended = rows_jobs[0]
        wait_until(lambda: first.read_status(ended) == "succeeded", 30, "one job to end")
        result = first.fetch(f"/v1/jobs/{ended}/result")
        late = [first.submit_rows("diabetes", [[float(number)] * columns]) for number in range(20)]
        for pid in {first.process.pid, *first.list_processes()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        first.process.wait(PATIENCE)

        with run_service(data, wait_until, "--demo", "--no-flower") as second:
            for job_id in (*rows_jobs, *late, file_job):
                wait_until(lambda job_id=job_id: second.read_status(job_id) == "succeeded", 60, f"{job_id} to end")
            assert second.fetch(f"/v1/jobs/{ended}/result") == result
            assert second.fetch(f"/v1/jobs/{file_job}/result")[1].count(b"\n") == 501
