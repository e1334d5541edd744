"""Schemathesis over the whole OpenAPI document, at the front end on its real server with a worker behind it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.keys import KeyStore
from shared.settings import Settings
from shared.store import JobStore
from tests.api_under_test import ApiUnderTest
from tests.conftest import WaitUntil
from tests.front_end import serving

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tests" / "schemathesis" / "schemathesis.toml"
SCOPES = ("jobs:read", "jobs:write", "models:read", "models:write", "metrics:read")
#: With these it takes half a minute. More of either finds more: SEED, EXAMPLES = "7", "100".
SEED, EXAMPLES = "1", "6"
TIMEOUT = 150


# One server will do: it is not Redis that is tested here.
@pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)
@pytest.mark.timeout(TIMEOUT + 60)
def test_nothing_departs_from_the_document(
    redis_url: str, store: JobStore, models: Path, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Every operation, valid and invalid, alone and by links from one to the next, answers as the document says."""
    key = KeyStore(store.client).create("tester", SCOPES)[1]
    settings = Settings(redis_url=redis_url, models=models, file_store=str(tmp_path / "files"))
    given = {
        "MODELS": str(models), "FILE_STORE": settings.file_store, "DEFAULT_MODEL": "iris", "MAX_WAIT_SECONDS": "1",
    }  # fmt: skip
    scorer = ApiUnderTest(settings)
    with serving(tmp_path, redis_url, given, wait_until) as port, scorer.scoring():
        command = [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG),
            "run", f"http://127.0.0.1:{port}/openapi.json", "--header", f"Authorization: Bearer {key}",
            "--seed", SEED, "--max-examples", EXAMPLES, "--generation-database", "none", "--no-color",
        ]  # fmt: skip
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=TIMEOUT)
    scorer.close()

    assert done.returncode == 0, done.stdout + done.stderr
    selected, known = re.findall(r"Operations: +(\d+) selected / (\d+) total", done.stdout)[0]
    assert selected == known
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in done.stdout
    covered = re.findall(r"API Links: +(\d+) covered", done.stdout)
    assert int(covered[0]) > 5, done.stdout
