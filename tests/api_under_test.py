"""The real front end with worker processes inside the test: an app, its client, and workers called by hand."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from werkzeug.test import TestResponse

from api import create_app
from shared.settings import Settings
from tests.described import DescribedClient
from worker.process import WorkerProcess

#: One row of each class of ``iris``, far from the borders between them.
IRIS_ROWS = [[5.1, 3.5, 1.4, 0.2], [5.7, 2.8, 4.1, 1.3], [6.3, 3.3, 6.0, 2.5]]
IRIS_CLASSES = ["setosa", "versicolor", "virginica"]
LINE_ROWS = [[0.0, 0.0], [1.0, 2.0], [-3.0, 0.5]]
LINE_ANSWERS = [1.0, 9.0, -3.5]


class ApiUnderTest:
    """An app on a real Redis; nothing is scored before a test says so.

    Parameters
    ----------
    settings : Settings
    models : sequence of str
        Versions that are scored.
    """

    def __init__(self, settings: Settings, models: Sequence[str] = ("iris:1", "line:1")) -> None:
        self.settings = settings
        self._models = models
        self.app = create_app(settings)
        self.service = self.app.extensions["scorequeue"]
        self.app.test_client_class = DescribedClient
        self.http = self.app.test_client()
        self._workers: list[WorkerProcess] = []

    @property
    def workers(self) -> list[WorkerProcess]:
        """The worker processes that were made."""
        return self._workers

    def close(self) -> None:
        """Stop its threads, and close its connections."""
        self.service.waiters.stop()
        for worker in self._workers:
            worker.stop()
        self.service.store.client.close()

    def listen(self) -> None:
        """Start the thread that tells waiting requests of finished jobs."""
        self.service.waiters.start()

    def make_worker(self) -> WorkerProcess:
        """Give a warmed worker process."""
        worker = WorkerProcess(self.settings, queues=["rows", "files"])
        worker.start()
        self._workers.append(worker)
        return worker

    def score(self) -> None:
        """Score all that waits now."""
        worker = self._workers[0] if self._workers else self.make_worker()
        _score_all(worker, self._models)

    @contextlib.contextmanager
    def scoring(self) -> Iterator[None]:
        """Score in a thread whatever comes, while requests wait."""
        worker = self.make_worker()
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(0.01):
                _score_all(worker, self._models)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)

    def post_rows(self, rows: Any, model: str = "iris", headers: dict[str, str] | None = None, **members: Any) -> Any:
        """Submit a rows job; give the answer, whatever it is."""
        return self.http.post("/v1/jobs", json={"model": model, "rows": rows} | members, headers=headers)

    def submit_rows(self, rows: Any = None, model: str = "iris", **members: Any) -> str:
        """Submit a rows job that must be taken; give its id."""
        return read_id(self.post_rows(IRIS_ROWS if rows is None else rows, model, **members))

    def post_file(self, data: bytes, model: str = "iris", headers: dict[str, str] | None = None, **options: Any) -> Any:
        """Submit a CSV file; give the answer, whatever it is."""
        query = {"model": model} | options
        return self.http.post("/v1/jobs", query_string=query, data=data, content_type="text/csv", headers=headers)

    def submit_file(self, data: bytes, model: str = "iris", **options: Any) -> str:
        """Submit a CSV file that must be taken; give its job's id."""
        return read_id(self.post_file(data, model, **options))

    def get_job(self, job_id: str) -> dict[str, Any]:
        """Give a job's record."""
        response = self.http.get(f"/v1/jobs/{job_id}")
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.get_json()
        return document

    def list_kept_files(self) -> list[str]:
        """List every file and folder in the file store but its two empty rooms."""
        root = Path(self.settings.file_store)
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.parent != root)


def read_id(response: TestResponse) -> str:
    """Give the id of a job that must have been taken."""
    assert response.status_code == 202, response.text
    job_id = response.get_json()["id"]
    assert response.headers["Location"] == f"/v1/jobs/{job_id}"
    return str(job_id)


def assert_problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a whole problem document that tells nothing of the inside; give it."""
    assert response.status_code == status, response.text
    assert response.mimetype == "application/problem+json"
    problem: dict[str, Any] = json.loads(response.get_data())
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(problem)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"urn:scorequeue:problem:{code.replace('_', '-')}"
    assert response.request.path == problem["instance"]
    assert problem["title"]
    assert problem["detail"]
    assert response.headers["X-Request-Id"]
    for secret in ("Traceback", 'File "', ".py", "/tmp", "/home", "/usr", "site-packages", "unix://", "redis://"):
        assert secret not in response.text
    return problem


def _score_all(worker: WorkerProcess, models: Sequence[str]) -> None:
    for kind, score in (("rows", worker.score_rows), ("files", worker.score_chunks)):
        for model in models:
            while not score(f"{kind}:{model}").split(" ", 1)[1].startswith(("jobs=0", "chunks=0")):
                pass
