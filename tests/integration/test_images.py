"""The two images, really built, started as compose starts them, and asked to score."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.containers import BUILD_IMAGES, ROOT, Container, build_images, read_health_check, run_in_image
from tests.tools import require_tool

KEY = "a-key-of-this-test"
MODEL = "breast-cancer"
SERVICES = ("api", "worker", "worker-files", "flower")

WaitUntil = Callable[..., object]

pytestmark = [
    pytest.mark.skipif(not BUILD_IMAGES.exists(), reason="no ../shared/tools/build-images to build images with"),
    pytest.mark.skipif(os.geteuid() != 0, reason="building images needs root"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    """Build both images."""
    build_images("Dockerfile.api", "Dockerfile.worker")


class Service:
    """API, workers and Flower in containers, with the volumes that compose gives them.

    Parameters
    ----------
    folder : Path
        Holds the volumes and each container's /tmp.
    redis_url : str
    """

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._folder = folder
        self._models, self._files = folder / "models", folder / "files"
        for volume in (self._models, self._files):
            volume.mkdir()
            volume.chmod(0o777)
        self._redis_url = redis_url
        self.port, self.flower_port, self.metrics_port = find_free_port(), find_free_port(), find_free_port()
        self.containers: dict[str, Container] = {}

    def make_container(self, name: str, image: str, models: str = "/data/models:ro", **environment: str) -> Container:
        """Make the container of one of compose's services; ports and addresses are this test's."""
        given = {**read_compose_service(name).get("environment", {}), **environment}
        container = Container(
            image,
            self._folder / name,
            {self._models: models, self._files: "/data/files"},
            {key: text for key, text in given.items() if "$" not in text} | {"SCOREQUEUE_REDIS_URL": self._redis_url},
        )
        self.containers[name] = container
        return container

    def start(self) -> None:
        """Start what compose would."""
        host = {"GRANIAN_HOST": "127.0.0.1", "GRANIAN_PORT": str(self.port)}
        self.make_container("api", "api", **host, SCOREQUEUE_API_KEYS=f"test:{KEY}")
        self.make_container("worker", "worker", SCOREQUEUE_WORKER_METRICS_PORT=str(self.metrics_port))
        self.make_container("worker-files", "worker", SCOREQUEUE_WORKER_METRICS_PORT="0")
        self.make_container("flower", "worker", FLOWER_ADDRESS="127.0.0.1", FLOWER_PORT=str(self.flower_port))
        for name in SERVICES:
            self.containers[name].start(read_compose_service(name).get("command"))

    def is_ready(self) -> bool:
        """Tell whether the API is ready, workers serve both queues, and Flower is there; fails when one has ended."""
        for name in SERVICES:
            assert self.containers[name].is_running(), f"{name} has ended"
        try:
            ready = self.ask("/ready")
            fetch(f"http://127.0.0.1:{self.flower_port}/healthcheck")
        except (urllib.error.URLError, ConnectionError):
            return False
        return bool(ready["status"] == "ready" and ready["workers"]["rows"] and ready["workers"]["files"])

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask the API in JSON, with a body by POST."""
        return json.loads(self.fetch(path, None if body is None else json.dumps(body).encode()))

    def fetch(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        """Ask the API, with a body by POST."""
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": content_type}
        return fetch(f"http://127.0.0.1:{self.port}{path}", body, headers)


def fetch(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """Fetch a page of this machine."""
    with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}), timeout=15) as answer:
        content: bytes = answer.read()
        return content


def read_compose_service(name: str) -> dict[str, Any]:
    """Return a service of the compose file."""
    service: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][name]
    return service


def find_free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Tell whether a local port takes connections."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def run_redis(folder: Path, wait_until: WaitUntil) -> Iterator[str]:
    """Run redis-server with the configuration that compose gives it; yields its address."""
    server = require_tool("redis-server")
    port = find_free_port()
    folder.mkdir()
    command = [
        server,
        str(ROOT / "deploy/redis.conf"),
        "--dir",
        str(folder),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: is_listening(port), 20, "redis-server to listen")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, wait_until: WaitUntil) -> Iterator[Service]:
    """Train the demo models in a volume, then run the whole service from the images; the last test stops it."""
    folder = tmp_path_factory.mktemp("service")
    with run_redis(folder / "redis", wait_until) as redis_url:
        service = Service(folder, redis_url)
        try:
            trainer = service.make_container("train-demo", "worker", models="/data/models")
            trainer.run(*read_compose_service("train-demo")["command"])
            service.start()
            wait_until(service.is_ready, 90, "API, workers and Flower to be ready")
            yield service
        finally:
            for name, container in service.containers.items():
                container.remove()
                if name in SERVICES:
                    print(f"--- {name}\n{container.read_log()}")  # noqa: T201 # shown by pytest if the test fails


def score_directly(container: Container) -> tuple[list[str], dict[str, Any]]:
    """Write the demo model's data as CSV and score it without the service; returns its lines and the answer."""
    container.run("python", "-m", "worker", "demo-csv", MODEL, "/tmp/in.csv")
    container.run(
        "python", "-m", "worker", "predict", "--models", "/data/models", MODEL, "/tmp/in.csv", "/tmp/out.json"
    )
    lines = (container.folder / "in.csv").read_text().splitlines()
    return lines, json.loads((container.folder / "out.json").read_text())


def wait_for_job(service: Service, job: dict[str, Any], wait_until: WaitUntil) -> None:
    """Poll a job until it has succeeded."""
    wait_until(lambda: service.ask(f"/v1/jobs/{job['id']}")["status"] == "succeeded", 60, "the job to succeed")


def test_images_run_without_root() -> None:
    """Both images run as an ordinary user."""
    for image in ("api", "worker"):
        assert run_in_image(image, "id", "-u") == "10001"


def test_api_image_has_no_scikit_learn() -> None:
    """The API's image holds `api` and `shared` alone; it reads Parquet, and cannot import scikit-learn."""
    names = ("api", "shared", "worker", "scorequeue", "sklearn", "joblib", "pandas", "pyarrow")
    program = f"import importlib.util as u; print(*[n for n in {names!r} if u.find_spec(n)])"

    assert run_in_image("api", "python", "-c", program) == "api shared pyarrow"


def test_images_score_jobs(service: Service, wait_until: WaitUntil) -> None:
    """A rows job and a file, scored through the images, get the answers that the model gives when called directly."""
    lines, expected = score_directly(service.containers["train-demo"])
    columns = [column["name"] for column in service.ask(f"/v1/models/{MODEL}/versions/1")["signature"]["columns"]]
    rows = [[float(record[name]) for name in columns] for record in csv.DictReader(lines[:101])]

    job = service.ask("/v1/jobs", {"model": MODEL, "rows": rows})
    file_job = json.loads(service.fetch(f"/v1/jobs?model={MODEL}", "\n".join(lines).encode(), "text/csv"))
    wait_for_job(service, job, wait_until)
    wait_for_job(service, file_job, wait_until)

    result = service.ask(f"/v1/jobs/{job['id']}/result")
    assert result["predictions"] == expected["predictions"][:100]
    np.testing.assert_allclose(result["probabilities"], expected["probabilities"][:100], rtol=1e-6)
    scored = service.fetch(f"/v1/jobs/{file_job['id']}/result").decode().splitlines()
    assert [line.startswith(original) for line, original in zip(scored, lines, strict=True)] == [True] * len(lines)


def test_images_are_healthy(service: Service) -> None:
    """The health checks of the images pass, and API and workers serve their metrics."""
    for name, image in (("api", "api"), ("worker", "worker"), ("worker-files", "worker")):
        service.containers[name].run(*read_health_check(image))
    assert b"scorequeue_redis_up 1.0" in service.fetch("/metrics")
    assert b"scorequeue_model_load_seconds_count" in fetch(f"http://127.0.0.1:{service.metrics_port}")


def test_images_end_when_told(service: Service) -> None:
    """SIGTERM ends each container, without an error and within compose's grace period."""
    for name in reversed(SERVICES):
        assert service.containers[name].stop(timeout=30) == 0, name
