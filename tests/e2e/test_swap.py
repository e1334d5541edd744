"""Models in a running service: registered and promoted by command, swapped under load, with workers of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from benchmarks.swap import register_versions, swap_under_load
from scorequeue import Client
from tests.live_service import ROOT, UP, LiveService
from tests.small_models import register_small_models

pytestmark = pytest.mark.timeout(400)

FRAME = pd.DataFrame({"a": [0.0, 1.0, 0.0, 1.0], "b": [0.0, 0.0, 1.0, 1.0]})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """Start a service whose workers are there for ``swap``, ``pay`` and ``odd`` alone; ``line`` is registered too."""
    folder = tmp_path_factory.mktemp("swap")
    register_versions(folder / "models")
    register_small_models(folder / "models")
    live = LiveService(folder, {"SCOREQUEUE_WORKER_MODELS": "swap,pay,odd"})
    live.start([*UP, "--port", str(live.port), "--data", str(live.data), "--workers", "2"])
    yield live
    assert live.stop() == []


@pytest.fixture
def client(service: LiveService) -> Iterator[Client]:
    """Give a client of the service."""
    with Client(f"http://127.0.0.1:{service.port}") as client:
        yield client


def run(service: LiveService, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line beside the service."""
    names = {"SCOREQUEUE_URL": f"http://127.0.0.1:{service.port}", "SCOREQUEUE_MODELS": str(service.models)}
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("SCOREQUEUE_")}
    return subprocess.run(
        [sys.executable, "-m", "scorequeue", *arguments],
        cwd=ROOT, env=inherited | names, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def run_json(service: LiveService, *arguments: str) -> Any:
    """Run a command that must succeed; give what it prints as JSON."""
    done = run(service, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def write_model(folder: Path, factor: float) -> tuple[str, str]:
    """Write a fitted model, y = factor times a, and its sample; give both paths."""
    joblib.dump(LinearRegression().fit(FRAME, FRAME["a"] * factor), folder / "pay.joblib")
    FRAME.assign(truth=FRAME["a"] * factor).to_csv(folder / "train.csv", index=False)
    return str(folder / "pay.joblib"), str(folder / "train.csv")


def score(client: Client, model: str = "pay") -> tuple[str, float]:
    """Score a row; give the version that answered, and what."""
    job = client.submit([[1.0, 0.0]], model=model).wait(timeout=60)
    return job.model, round(job.result()["predictions"][0], 6)


def test_a_model_is_registered_promoted_and_removed_by_command(
    service: LiveService, client: Client, tmp_path: Path
) -> None:
    """The way of a model through a service that runs: each step is seen by its workers, without a restart."""
    file, sample = write_model(tmp_path, 10)
    first = run_json(service, "models", "register", file, "--name", "pay", "--sample", sample, "--metric", "r2=1")
    assert (first["reference"], first["champion"], first["metrics"]) == ("pay:1", True, {"r2": 1.0})
    assert score(client) == ("pay:1", 10)

    file, sample = write_model(tmp_path, 20)
    second = run_json(service, "models", "register", file, "-n", "pay", "-s", sample)
    assert (second["reference"], second["champion"]) == ("pay:2", False)
    assert score(client) == ("pay:1", 10)
    promoted = run_json(service, "models", "promote", "pay:2")
    assert (promoted["aliases"], promoted["checked_by"]) == ({"champion": 2}, 4)
    assert score(client) == ("pay:2", 20)

    file, sample = write_model(tmp_path, 30)
    third = run_json(service, "models", "register", file, "-n", "pay", "-s", sample, "--alias", "next")
    assert third["alias"] == "next"
    assert score(client, "pay@next") == ("pay:3", 30)
    shared = run_json(service, "models", "promote", "pay", "--share", "2=0.5", "--share", "3=0.5", "--shadow", "1")
    assert shared["aliases"]["champion"] == {"versions": {"2": 0.5, "3": 0.5}, "shadow": 1}
    assert "\tchampion (50%), next\twarm in " in run(service, "models", "list").stdout

    refused = run(service, "models", "remove", "pay:1")
    assert refused.returncode == 2
    assert "pay@champion points to pay:1: promote another version first" in refused.stderr
    run_json(service, "models", "promote", "pay:3")
    assert run_json(service, "models", "remove", "pay:1") == {"removed": "pay:1"}
    listed = [version["version"] for version in client.model("pay")["versions"]]
    assert listed == [2, 3]


def test_a_damaged_version_is_refused_by_command_and_the_old_one_serves(
    service: LiveService, client: Client, tmp_path: Path
) -> None:
    """`promote` says which version, where and why, and exits with an error; `verify` finds it too."""
    file, sample = write_model(tmp_path, 40)
    run_json(service, "models", "register", file, "-n", "odd", "-s", sample)
    registered = run_json(service, "models", "register", file, "-n", "odd", "-s", sample)
    before = score(client, "odd")
    path = service.models / "odd" / str(registered["version"]) / "model.joblib"
    path.write_bytes(path.read_bytes()[:-1])

    done = run(service, "models", "promote", registered["reference"])

    assert done.returncode != 0
    found = re.findall(rf"{registered['reference']} is not ready in \d of 4 worker processes", done.stderr)
    assert len(found) == 1
    assert "its manifest says" in done.stderr
    assert score(client, "odd") == before == ("odd:1", 40)
    verified = run(service, "models", "verify", "odd")
    assert verified.returncode == 1
    assert f"{registered['reference']}\tnot ready" in verified.stdout
    assert f"{before[0]}\tready" in verified.stdout


def test_jobs_of_a_model_that_no_worker_is_there_for_wait(service: LiveService, client: Client) -> None:
    """They are taken, as always; workers of other models leave them alone."""
    waiting = client.submit([[1.0, 2.0]], model="line")

    assert client.submit([[0.0] * 5], model="swap").wait(timeout=60).status == "succeeded"

    assert client.job(waiting.id).status == "queued"
    assert [version["warm_processes"] for version in client.model("line")["versions"]] == [0]
    assert [version["warm_processes"] for version in client.model("swap")["versions"]] == [4, 0]


def test_without_a_service_a_version_is_checked_by_the_command_itself(service: LiveService, tmp_path: Path) -> None:
    """Where nobody answers, `promote` loads the version in a process of its own and says so."""
    file, sample = write_model(tmp_path, 50)
    folder = str(tmp_path / "models")
    alone = ("--url", "http://127.0.0.1:1")
    for _ in range(2):
        done = run(service, *alone, "models", "register", file, "-n", "pay", "-s", sample, "--models", folder)
        assert done.returncode == 0, done.stderr

    done = run(service, *alone, "models", "promote", "pay:2", "--models", folder)

    assert done.returncode == 0, done.stderr
    assert "checking it here" in done.stderr
    assert "pay@champion is 2, checked by 1 process(es)" in done.stdout
    (tmp_path / "models" / "pay" / "1" / "model.joblib").write_bytes(b"")
    failed = run(service, *alone, "models", "promote", "pay:1", "--models", folder)
    assert failed.returncode == 2
    assert "model pay:1 is not ready" in failed.stderr
    assert json.loads((tmp_path / "models" / "pay" / "aliases.json").read_text()) == {"champion": 2}


def test_a_swap_under_load_loses_and_mixes_nothing(service: LiveService) -> None:
    """Each result is that of the version which the job named at its submission, recomputed; none is missing."""
    found = swap_under_load(service.port, service.models, seconds=10.0, processes=1, connections=8, rate=150.0)

    assert (found.lost, found.mixed, found.misdirected) == (0, 0, 0)
    assert found.jobs > 500
    assert len(found.promotions) >= 4
    assert set(found.versions) == {"swap:1", "swap:2"}
    assert min(found.versions.values()) > 50
