"""Redis away: refused, silent or gone in the middle. Every call says so within two seconds, and nothing hangs."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from scorequeue.embedded_redis import find_binary
from shared.connection import connect
from shared.settings import Settings
from tests.api_under_test import IRIS_ROWS, ApiUnderTest, assert_problem, read_id
from tests.conftest import WaitUntil

StartApi = Callable[..., ApiUnderTest]
#: The contract says two; the machine is shared.
MOST_SECONDS = 3.0
KEY = "a-key-of-the-settings"
STRANGE_ID = "job_01ARZ3NDEKTSV4RRFFQ69G5FAVABCDEF00"

CALLS: dict[str, dict[str, Any]] = {
    "submit rows": {"method": "POST", "path": "/v1/jobs", "json": {"model": "iris", "rows": IRIS_ROWS}},
    "submit and wait": {
        "method": "POST",
        "path": "/v1/jobs",
        "json": {"model": "iris", "rows": IRIS_ROWS},
        "headers": {"Prefer": "wait=20"},
    },
    "submit a file": {
        "method": "POST",
        "path": "/v1/jobs?model=line",
        "data": b"a,b\n1,2\n",
        "content_type": "text/csv",
    },
    "predict": {"method": "POST", "path": "/predict?model=iris", "json": {"features": IRIS_ROWS[0]}},
    "poll": {"method": "GET", "path": f"/v1/jobs/{STRANGE_ID}"},
    "long poll": {"method": "GET", "path": f"/v1/jobs/{STRANGE_ID}", "headers": {"Prefer": "wait=20"}},
    "result": {"method": "GET", "path": f"/v1/jobs/{STRANGE_ID}/result"},
    "cancel": {"method": "POST", "path": f"/v1/jobs/{STRANGE_ID}/cancel"},
    "delete": {"method": "DELETE", "path": f"/v1/jobs/{STRANGE_ID}"},
    "list": {"method": "GET", "path": "/v1/jobs"},
    "queues": {"method": "GET", "path": "/v1/queues"},
}


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Listen and accept, and never answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in held:
            connection.close()


@pytest.fixture
def outage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of a Redis that is away, in one of the ways in which it can be."""
    if request.param == "silent":
        return str(request.getfixturevalue("silent_url"))
    return "redis://127.0.0.1:1/0" if request.param == "refused" else f"unix://{tmp_path}/nothing.sock"


def open_timed(api: ApiUnderTest, call: dict[str, Any]) -> tuple[Any, float]:
    """Make a call; give the answer and the seconds it took."""
    began = time.monotonic()
    response = api.http.open(**call)
    return response, time.monotonic() - began


@pytest.mark.parametrize(
    "settings",
    [{}, {"api_keys": f"ann:{KEY}"}, {"api_keys": f"ann:{KEY}", "rate_limit": "1000/second"}],
    ids=["no key", "key of the settings", "rate limit"],
)
@pytest.mark.parametrize("outage_url", ["refused", "silent", "no socket"], indirect=True)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_says_that_the_store_is_away(
    outage_api: Callable[..., ApiUnderTest], outage_url: str, call: dict[str, Any], settings: dict[str, str]
) -> None:
    """A 503 with Retry-After comes within two seconds, and no file is left behind."""
    api = outage_api(redis_url=outage_url, **settings)

    response, seconds = open_timed(api, call)

    assert_problem(response, 503, "store_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
    assert seconds < MOST_SECONDS
    assert api.list_kept_files() == []


@pytest.mark.parametrize("outage_url", ["silent"], indirect=True)
def test_probes_and_metrics_answer_without_the_store(outage_api: StartApi, outage_url: str) -> None:
    """What tells people of an outage works in an outage."""
    api = outage_api(redis_url=outage_url)
    for path, status in (("/health", 200), ("/ready", 503), ("/metrics", 200)):
        response, seconds = open_timed(api, {"method": "GET", "path": path})
        assert (response.status_code, seconds < MOST_SECONDS) == (status, True), path


@pytest.mark.parametrize("outage_url", ["refused", "silent"], indirect=True)
def test_bad_input_is_told_in_an_outage_too(outage_api: StartApi, outage_url: str) -> None:
    """A fault of the caller is the caller's also when the store is away, if who calls can be told without it."""
    api = outage_api(redis_url=outage_url, api_keys=f"ann:{KEY}")
    assert_problem(api.post_rows([[1]]), 422, "schema_mismatch")
    assert_problem(api.post_rows(IRIS_ROWS, "nothing"), 404, "unknown_model")


@pytest.fixture
def outage_api(registered_models: Path, tmp_path: Path) -> Iterator[StartApi]:
    """Return a function that starts a front end whose Redis is the test's own affair."""
    running: list[ApiUnderTest] = []

    def start(**settings: Any) -> ApiUnderTest:
        running.append(ApiUnderTest(Settings(models=registered_models, file_store=str(tmp_path / "files"), **settings)))
        running[-1].http.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEY}"
        return running[-1]

    yield start
    for api in running:
        api.close()


class Server:
    """A Valkey of the test's own that writes every job to disk before it answers."""

    def __init__(self, folder: str, wait_until: WaitUntil) -> None:
        self.url = f"unix://{folder}/r.sock"
        self._folder = folder
        self._wait_until = wait_until
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        place = ("--port", "0", "--unixsocket", f"{self._folder}/r.sock", "--dir", self._folder)
        durability = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
        self.process = subprocess.Popen([find_binary(), *place, *durability], stdout=subprocess.DEVNULL)
        self._wait_until(self._answers, 20, "the server to answer")

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(10)

    def _answers(self) -> bool:
        with connect(self.url) as connection:
            try:
                return bool(connection.ping())
            except redis.RedisError:
                return False


@pytest.fixture
def server(wait_until: WaitUntil) -> Iterator[Server]:
    """Start a server that the test may kill, freeze and start again."""
    with tempfile.TemporaryDirectory(prefix="sq-") as folder:
        running = Server(folder, wait_until)
        yield running
        running.kill()


def assert_away(api: ApiUnderTest, job_id: str) -> None:
    """Check that submissions and polls are refused in time."""
    for call in (CALLS["submit rows"], CALLS["submit a file"], {"method": "GET", "path": f"/v1/jobs/{job_id}"}):
        response, seconds = open_timed(api, call)
        assert_problem(response, 503, "store_unavailable")
        assert seconds < MOST_SECONDS


def test_redis_that_stops_and_returns_costs_no_promised_job(outage_api: StartApi, server: Server) -> None:
    """While it is away submissions and polls are refused; when it is back, every job with a 202 is there."""
    api = outage_api(redis_url=server.url)
    api.listen()
    job_id = api.submit_rows()
    server.kill()

    assert_away(api, job_id)

    server.start()
    assert api.get_job(job_id)["status"] == "queued"
    api.score()
    assert api.get_job(job_id)["status"] == "succeeded"
    with api.scoring():
        assert api.post_rows(IRIS_ROWS, headers={"Prefer": "wait=30"}).status_code == 200


def test_redis_that_freezes_is_away_until_it_thaws(outage_api: StartApi, server: Server) -> None:
    """A server that holds its connections and says nothing is told like one that is gone, and then serves again."""
    api = outage_api(redis_url=server.url)
    job_id = api.submit_rows()
    server.process.send_signal(signal.SIGSTOP)

    assert_away(api, job_id)

    server.process.send_signal(signal.SIGCONT)
    assert api.get_job(job_id)["status"] == "queued"
    api.score()
    statuses = {job["status"] for job in api.http.get("/v1/jobs").get_json()["jobs"]}
    assert statuses == {"succeeded"}, "what came in late, after its 503, is a whole job like any other"


def test_outage_while_waiting_takes_no_promise_back(
    outage_api: StartApi, server: Server, wait_until: WaitUntil
) -> None:
    """A submission that waits for its result is a 202 when Redis goes away: the job is written down."""
    api = outage_api(redis_url=server.url)
    answers: list[Any] = []

    def submit() -> None:
        client = api.app.test_client()
        body = {"model": "iris", "rows": IRIS_ROWS}
        answers.append(client.post("/v1/jobs", json=body, headers={"Prefer": "wait=50"}))

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    wait_until(lambda: api.service.waiters._events, 10, "the submission to wait")
    server.kill()
    thread.join(15)

    job_id = read_id(answers[0])
    server.start()
    assert api.get_job(job_id)["status"] == "queued"
