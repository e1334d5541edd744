"""One-row jobs: accepted and finished a second, jobs a model call, and what an idle service adds to a call."""

from __future__ import annotations

import argparse
import contextlib
import csv
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import redis

from benchmarks.load import post, post_all
from benchmarks.service import answers, pick_free_port, run_process, run_scorequeue, wait_for
from scorequeue.client import Client
from scorequeue.embedded_redis import find_binary, write_config
from shared.registry import Registry
from worker.demo_models import write_demo_csv
from worker.models import LoadedModel, load_model

MODEL = "breast-cancer"
#: Requests that are not measured, before those that are.
WARM_UP = 200
#: Seconds in which all that was submitted must be finished.
PATIENCE = 1800.0

Rows = list[list[float]]


@dataclass
class Measured:
    """What one side did."""

    jobs: int
    accepted_seconds: float
    finished_seconds: float
    #: Jobs a model call; None where that is always one.
    jobs_a_call: float | None
    #: Seconds of single requests that wait for their result, sorted.
    latencies: list[float]
    wrong: int

    def percentile(self, share: float) -> float:
        """Return a latency in milliseconds."""
        return 1000 * self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def run(options: argparse.Namespace) -> int:
    """Measure both sides and print a table; return the number of wrong answers."""
    with tempfile.TemporaryDirectory(prefix="sq-") as name:
        folder = Path(name)
        ours, bare = _measure_service(options, folder)
        plain = _measure_plain(options, folder)
    _print_table(ours, plain, bare)
    return ours.wrong + plain.wrong


def _measure_service(options: argparse.Namespace, folder: Path) -> tuple[Measured, float]:
    data = _read_rows(folder)
    bodies = [json.dumps({"model": MODEL, "rows": [row]}).encode() for row in data]
    with run_scorequeue(folder, options.workers) as (host, port), Client(f"http://{host}:{port}") as client:
        model = load_model(Registry(folder / "data" / "models"), MODEL, 1)
        post_all(port, "/v1/jobs", bodies, WARM_UP, 1, 4, lambda: _await_drained(client))
        latencies, wrong = _measure_latency(
            port, "/v1/jobs", bodies, options.rounds, {"Prefer": "wait=10"}, _read_ours, model, data
        )
        calls_before, finished_before = _count_calls(client), _count_finished(client)

        accepted, finished = post_all(
            port, "/v1/jobs", bodies, options.jobs, options.processes, options.connections,
            lambda: _await_drained(client),
        )  # fmt: skip
        print(f"scorequeue: {options.jobs:,} jobs, {finished:.1f} s", flush=True)

        done = _count_finished(client) - finished_before
        if done != options.jobs:
            raise SystemExit(f"{options.jobs} jobs were accepted and {done} succeeded")
        jobs_a_call = options.jobs / max(1, _count_calls(client) - calls_before)
    bare = _measure_bare_call(model, data)
    return Measured(options.jobs, accepted, finished, jobs_a_call, latencies, wrong), bare


def _measure_plain(options: argparse.Namespace, folder: Path) -> Measured:
    data = _read_rows(folder)
    bodies = [json.dumps({"features": row}).encode() for row in data]
    model_file = folder / "data" / "models" / MODEL / "1" / "model.joblib"
    model = load_model(Registry(folder / "data" / "models"), MODEL, 1)
    with _run_plain(folder, model_file, options.workers) as (port, results):
        warm = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for body in bodies[:20]:
            post(warm, "/jobs/wait", body)
        latencies, wrong = _measure_latency(port, "/jobs/wait", bodies, options.rounds, {}, _read_plain, model, data)
        before = results()

        accepted, finished = post_all(
            port, "/jobs", bodies, options.plain_jobs, options.processes, options.connections,
            lambda: _await(lambda: results() - before >= options.plain_jobs, "plain Celery to finish"),
        )  # fmt: skip
        print(f"plain Flask and Celery: {options.plain_jobs:,} jobs, {finished:.1f} s\n", flush=True)
    return Measured(options.plain_jobs, accepted, finished, None, latencies, wrong)


@contextlib.contextmanager
def _run_plain(folder: Path, model_file: Path, workers: int) -> Iterator[tuple[int, Callable[[], int]]]:
    """Run the reference; yield its port, and a function that counts the results in its backend."""
    place = folder / "plain"
    place.mkdir()
    unix_socket, port = place / "redis.sock", pick_free_port()
    write_config(place / "redis.conf", place, unix_socket)
    root = str(Path(__file__).parents[1])
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {
        "PLAIN_REDIS_SOCKET": str(unix_socket), "PLAIN_MODEL": str(model_file), "PYTHONPATH": root, **single,
    }  # fmt: skip
    celery = [sys.executable, "-m", "celery", "-A", "benchmarks.plain_celery", "worker", "-c", str(workers)]
    granian = [sys.executable, "-m", "granian", "--interface", "wsgi", "--port", str(port), "--workers", "2"]
    granian += ["--blocking-threads", "32", "--no-ws", "benchmarks.plain_celery:flask_app"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(run_process([str(find_binary()), str(place / "redis.conf")], place / "redis.log"))
        wait_for(unix_socket.exists, "Redis", place / "redis.log")
        stack.enter_context(run_process([*celery, "--loglevel", "WARNING"], place / "celery.log", environment))
        stack.enter_context(run_process(granian, place / "api.log", environment))
        wait_for(lambda: answers(port, "/health"), "the plain API", place / "api.log")
        client = redis.Redis(unix_socket_path=str(unix_socket), db=1)
        yield port, lambda: int(client.dbsize())


def _measure_latency(
    port: int,
    path: str,
    bodies: list[bytes],
    rounds: int,
    headers: dict[str, str],
    read: Callable[[bytes], list[float]],
    model: LoadedModel,
    data: Rows,
) -> tuple[list[float], int]:
    """Ask one by one, wait for each result, and compare it with the model called directly."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    latencies, given = [], []
    for number in range(rounds):
        began = time.perf_counter()
        answer = post(connection, path, bodies[number % len(bodies)], headers)
        latencies.append(time.perf_counter() - began)
        given.append(read(answer))
    expected = model.predict(np.array([data[number % len(data)] for number in range(rounds)])).probabilities
    assert expected is not None
    equal = np.isclose(np.array(given), expected, rtol=1e-6, atol=0).all(axis=1)
    return sorted(latencies), int(rounds - equal.sum())


def _measure_bare_call(model: LoadedModel, data: Rows) -> float:
    """Return the median seconds of a model call for one row."""
    matrices = [np.array([row]) for row in data[:200]]
    seconds = []
    for matrix in matrices:
        began = time.perf_counter()
        model.predict(matrix)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _read_ours(answer: bytes) -> list[float]:
    probabilities: list[float] = json.loads(answer)["result"]["probabilities"][0]
    return probabilities


def _read_plain(answer: bytes) -> list[float]:
    probabilities: list[float] = json.loads(answer)["probabilities"]
    return probabilities


def _read_rows(folder: Path) -> Rows:
    path = folder / "rows.csv"
    write_demo_csv(path, MODEL)
    with path.open(newline="", encoding="utf-8") as file:
        return [[float(cell) for cell in record[1:-1]] for record in list(csv.reader(file))[1:]]


def _await_drained(client: Client) -> None:
    _await(lambda: all(not queue["outstanding_rows"] for queue in client.queues()), "the queue to be empty")


def _await(is_done: Callable[[], bool], description: str) -> None:
    end = time.monotonic() + PATIENCE
    while not is_done():
        if time.monotonic() > end:
            raise SystemExit(f"waited {PATIENCE:g} s in vain for {description}")
        time.sleep(0.02)


def _count_calls(client: Client) -> float:
    return _sum_series(client, "scorequeue_micro_batches_total", "")


def _count_finished(client: Client) -> float:
    return _sum_series(client, "scorequeue_jobs_finished_total", 'status="succeeded"')


def _sum_series(client: Client, name: str, label: str) -> float:
    lines = client.fetch_metrics().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{") and label in line)


def _print_table(ours: Measured, plain: Measured, bare: float) -> None:
    bare *= 1000
    figures: list[tuple[str, float, float, bool]] = [
        ("accepted, jobs/s", ours.jobs / ours.accepted_seconds, plain.jobs / plain.accepted_seconds, True),
        ("finished, jobs/s", ours.jobs / ours.finished_seconds, plain.jobs / plain.finished_seconds, True),
        ("jobs a model call", ours.jobs_a_call or 1.0, plain.jobs_a_call or 1.0, True),
        ("idle, p50, ms", ours.percentile(0.5), plain.percentile(0.5), False),
        ("idle, p99, ms", ours.percentile(0.99), plain.percentile(0.99), False),
        ("idle p50 above the bare call, ms", ours.percentile(0.5) - bare, plain.percentile(0.5) - bare, False),
        ("idle p99 above the bare call, ms", ours.percentile(0.99) - bare, plain.percentile(0.99) - bare, False),
    ]
    print(
        f"One-row jobs of {MODEL} (a forest of 100 trees, 30 columns); a bare model call: {bare:.2f} ms at the median"
    )
    print(f"  {'':<34}{'scorequeue':>12}{'plain Celery':>14}{'times better':>14}")
    for title, one, other, more_is_better in figures:
        ratio = one / other if more_is_better else other / one
        print(f"  {title:<34}{one:>12,.1f}{other:>14,.1f}{ratio:>14,.1f}")
    print(f"  {'wrong answers':<34}{ours.wrong:>12}{plain.wrong:>14}\n", flush=True)
