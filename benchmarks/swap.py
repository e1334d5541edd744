"""A model swapped under load, again and again: each result must be of the version that it names, and none lost."""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import multiprocessing
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier

from benchmarks.load import post
from benchmarks.service import run_scorequeue
from scorequeue import Client
from shared.registry import Registry
from worker.registration import register_model

MODEL = "swap"
COLUMNS = 5
#: Different rows that are submitted, in turn.
ROWS = 500
#: Relative difference up to which an answer is the same: that of the version's backend.
TOLERANCE = 1e-6
#: Seconds in which all that was submitted must have ended.
PATIENCE_SECONDS = 300.0

Rows = npt.NDArray[np.float64]


class Accepted(NamedTuple):
    """A job that had its 202: which row it was, when it was sent and answered, and the version that it named."""

    id: str
    row: int
    sent: float
    answered: float
    model: str


class Promotion(NamedTuple):
    """A swap: from when nothing but `version` was to be met by what was sent later, until the next was asked for."""

    version: int
    done: float
    until: float


@dataclass
class Swapped:
    """What was found."""

    jobs: int = 0
    seconds: float = 0.0
    promotions: list[Promotion] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    micro_batch_rows: float = 0.0
    #: Jobs without a result; results unlike the version that they name, by prediction, probability or SHA-256; jobs
    #: that met another version than the one that had been promoted before they were sent.
    lost: int = 0
    mixed: int = 0
    misdirected: int = 0

    @property
    def wrong(self) -> int:
        """All that should not be."""
        return self.lost + self.mixed + self.misdirected


def run(options: argparse.Namespace) -> int:
    """Swap at full speed and print; return how many jobs were lost, mixed or misdirected."""
    with (
        tempfile.TemporaryDirectory(prefix="sq-") as name,
        run_scorequeue(Path(name), options.workers) as (_, port),
    ):
        models = Path(name) / "data" / "models"
        register_versions(models)
        found = swap_under_load(
            port, models, seconds=20.0, processes=options.processes, connections=options.connections
        )
    shares = ", ".join(f"{count:,} by {version}" for version, count in sorted(found.versions.items()))
    print(f"A forest of 100 trees swapped {len(found.promotions)} times in {found.seconds:.0f} s under one-row jobs")
    print(f"  jobs accepted and scored {found.jobs:8,} ({found.jobs / found.seconds:,.0f}/s): {shares}")
    print(f"  rows a model call        {found.micro_batch_rows:8.1f}")
    print(f"  jobs lost: {found.lost}, mixed: {found.mixed}, misdirected: {found.misdirected}\n")
    return found.wrong


def register_versions(models: Path) -> None:
    """Register two forests that answer nearly every row differently, as ``swap:1`` and ``swap:2``."""
    rows = make_rows()
    for seed in (1, 2):
        labels = np.array(["no", "yes"])[(np.random.default_rng(seed).normal(size=len(rows)) > 0).astype(int)]
        forest = RandomForestClassifier(100, random_state=seed).fit(rows, labels)
        register_model(forest, MODEL, registry=Registry(models), sample=rows)


def make_rows() -> Rows:
    """Make the rows that are submitted."""
    return np.random.default_rng(0).normal(size=(ROWS, COLUMNS))


def swap_under_load(
    port: int, models: Path, *, seconds: float, processes: int, connections: int, rate: float = 0.0
) -> Swapped:
    """Submit one-row jobs for so long while the champion moves to and fro; then check every result.

    Parameters
    ----------
    port : int
        Of the service, on this machine.
    models : Path
        Its registry, with the versions of `register_versions`.
    seconds : float
    processes, connections : int
        Client processes, and the connections of each.
    rate : float
        Jobs a second of all together; 0: as many as are answered.
    """
    found = Swapped()
    until = time.time() + seconds
    stop = threading.Event()
    swapper = threading.Thread(target=_swap_until, args=(port, stop, found.promotions), daemon=True)
    # Spawned: a forked copy of a process with threads may hang.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        began = time.time()
        share = rate / processes
        running = pool.starmap_async(_submit_until, [(port, until, connections, share)] * processes, chunksize=1)
        swapper.start()
        accepted = list(itertools.chain.from_iterable(running.get(seconds + PATIENCE_SECONDS)))
        found.seconds = time.time() - began
        stop.set()
        swapper.join(PATIENCE_SECONDS)
        _await_end(port)
        shares = [accepted[start::processes] for start in range(processes)]
        results = list(
            itertools.chain.from_iterable(
                pool.starmap(_fetch_results, [(port, jobs, connections) for jobs in shares], chunksize=1)
            )
        )
    found.jobs = len(accepted)
    _check_results(models, {job.id: job for job in accepted}, results, found)
    return found


def _swap_until(port: int, stop: threading.Event, promotions: list[Promotion]) -> None:
    with Client(f"http://127.0.0.1:{port}") as client:
        for version in itertools.cycle((2, 1)):
            client.promote(MODEL, version)
            done = time.time()
            is_over = stop.wait(0.5)
            promotions.append(Promotion(version, done, time.time()))
            if is_over:
                return


def _submit_until(port: int, until: float, connections: int, rate: float) -> list[Accepted]:
    rows = make_rows()
    bodies = [json.dumps({"model": MODEL, "rows": [row]}).encode() for row in rows.tolist()]
    numbers = itertools.count()
    began = time.time()

    def submit(_: int) -> list[Accepted]:
        accepted = []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.time() < until:
            number = next(numbers)
            if rate:
                time.sleep(max(0.0, began + number / rate - time.time()))
            sent = time.time()
            job = json.loads(post(connection, "/v1/jobs", bodies[number % ROWS]))
            accepted.append(Accepted(job["id"], number % ROWS, sent, time.time(), job["model"]))
        connection.close()
        return accepted

    with ThreadPoolExecutor(connections) as threads:
        return list(itertools.chain.from_iterable(threads.map(submit, range(connections))))


def _await_end(port: int) -> None:
    """Wait until nothing of the model waits or is scored."""
    with Client(f"http://127.0.0.1:{port}") as client:
        end = time.monotonic() + PATIENCE_SECONDS
        while any(queue["outstanding_rows"] for queue in client.queues() if queue["model"].startswith(f"{MODEL}:")):
            if time.monotonic() > end:
                return  # what is missing is found by its id
            time.sleep(0.1)


def _fetch_results(port: int, jobs: list[Accepted], connections: int) -> list[tuple[str, dict[str, Any]]]:
    """Fetch the results of jobs; an empty one where there is none."""

    def fetch(share: list[Accepted]) -> list[tuple[str, dict[str, Any]]]:
        results = []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for job in share:
            connection.request("GET", f"/v1/jobs/{job.id}/result")
            response = connection.getresponse()
            body = response.read()
            results.append((job.id, json.loads(body) if response.status == 200 else {}))
        connection.close()
        return results

    with ThreadPoolExecutor(connections) as threads:
        shares = [jobs[start::connections] for start in range(connections)]
        return list(itertools.chain.from_iterable(threads.map(fetch, shares)))


def _check_results(
    models: Path, accepted: dict[str, Accepted], results: list[tuple[str, dict[str, Any]]], found: Swapped
) -> None:
    """Compare every result with what the estimator of the version that it names answers, called directly."""
    registry, rows = Registry(models), make_rows()
    expected: dict[str, tuple[list[str], npt.NDArray[np.float64], str]] = {}
    for version in registry.versions(MODEL):
        manifest = registry.manifest(MODEL, version)
        estimator = joblib.load(registry.version_folder(MODEL, version) / manifest.file)
        expected[manifest.reference] = (
            estimator.predict(rows).tolist(),
            estimator.predict_proba(rows),
            manifest.sha256,
        )
    batches = []
    for job_id, result in results:
        job = accepted[job_id]
        if not result:
            found.lost += 1
            continue
        found.versions[result["model"]] += 1
        batches.append(result["micro_batch_rows"])
        labels, probabilities, sha256 = expected[job.model]
        found.mixed += not (
            result["model"] == job.model
            and result["model_sha256"] == sha256
            and result["predictions"] == [labels[job.row]]
            and np.allclose(result["probabilities"], probabilities[[job.row]], rtol=TOLERANCE, atol=0)
        )
    found.micro_batch_rows = sum(batches) / max(1, len(batches))
    for promotion in found.promotions:
        between = [job for job in accepted.values() if promotion.done < job.sent and job.answered < promotion.until]
        found.misdirected += sum(job.model != f"{MODEL}:{promotion.version}" for job in between)
