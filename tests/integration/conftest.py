"""Real servers: the Valkey that is embedded, and Debian's redis-server; every test runs on both."""

from __future__ import annotations

import io
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog

from scorequeue.embedded_redis import find_binary
from shared.connection import connect
from shared.logs import configure_logging
from shared.settings import Settings
from shared.store import JobStore
from tests.api_under_test import ApiUnderTest
from tests.conftest import WaitUntil
from tests.leaks import find_leaks
from tests.tools import require_tool


@pytest.fixture(scope="session", params=["valkey", "redis-server"])
def redis_url(request: pytest.FixtureRequest, wait_until: WaitUntil) -> Iterator[str]:
    """Start a real server on a private socket; give its address."""
    binary = str(find_binary()) if request.param == "valkey" else require_tool("redis-server")
    with tempfile.TemporaryDirectory(prefix="sq-") as folder:  # pytest's own is too long for a socket's name
        url = f"unix://{folder}/r.sock"
        options = ("--port", "0", "--unixsocket", f"{folder}/r.sock", "--save", "", "--dir", folder)
        with subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(lambda: _answers(url), 20, "the server to answer")
                yield url
            finally:
                server.kill()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """Give a connection to an empty server."""
    connection = connect(redis_url, timeout_seconds=10)
    connection.flushall()
    yield connection
    connection.close()


@pytest.fixture
def store(client: redis.Redis) -> Iterator[JobStore]:
    """Give an empty job store; after the test, no key may be left that nobody would ever remove."""
    yield JobStore(client)
    assert find_leaks(client) == []


@pytest.fixture(scope="session")
def registered_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Register the small models once; read only."""
    from tests.small_models import register_small_models

    folder = tmp_path_factory.mktemp("registered")
    register_small_models(folder)
    return folder


@pytest.fixture
def models(registered_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a registry of its own with a small classifier, ``iris:1``, and a regressor, ``line:1``."""
    return Path(shutil.copytree(registered_models, tmp_path_factory.mktemp("models"), dirs_exist_ok=True))


@pytest.fixture
def start_api(redis_url: str, store: JobStore, models: Path, tmp_path: Path) -> Iterator[Callable[..., ApiUnderTest]]:
    """Return a function that starts the front end on an empty server, with the settings that a test wants.

    `versions` are those that are scored; by default those of the small models.
    """
    running: list[ApiUnderTest] = []

    def start(versions: Sequence[str] = ("iris:1", "line:1"), **settings: Any) -> ApiUnderTest:
        chosen = {"redis_url": redis_url, "models": models, "file_store": str(tmp_path / "files")} | settings
        running.append(ApiUnderTest(Settings(**chosen), versions))
        return running[-1]

    yield start
    for api in running:
        api.close()


@pytest.fixture
def api(start_api: Callable[..., ApiUnderTest]) -> ApiUnderTest:
    """Give the front end with the default settings."""
    return start_api()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Log as the service does; return a function that gives all so far."""
    root, written = logging.getLogger(), io.StringIO()
    before = root.handlers, root.level
    monkeypatch.setattr("sys.stderr", written)
    configure_logging()
    structlog.configure(cache_logger_on_first_use=False)  # a kept logger would write for all later tests
    yield written.getvalue
    structlog.reset_defaults()
    root.handlers, root.level = before[0], before[1]


def _answers(url: str) -> bool:
    connection = connect(url)
    try:
        return bool(connection.ping())
    except redis.RedisError:
        return False
    finally:
        connection.close()
