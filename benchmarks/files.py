"""A CSV file, from the command to the file on disk, beside scripts in pandas and polars and beside plain Celery.

Each side is timed as a whole process, imports included: what somebody waits for. 20 columns of numbers and an id.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.csv
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from benchmarks.memory import read_peak, read_peaks
from benchmarks.service import run_process, run_scorequeue, wait_for
from scorequeue.embedded_redis import find_binary, write_config
from shared.registry import Registry
from worker.registration import register_model

COLUMNS = [f"f{index}" for index in range(20)]
#: Rows that are made at a time.
_BLOCK_ROWS = 250_000
_TRAINING_ROWS = 5_000
#: Seconds that either side may take.
PATIENCE = 3600.0
#: Of a file that is scored before, so that its model's speed is known as it is to a service that has run for a while.
_EARLIER_ROWS = 50_000
ROOT = Path(__file__).parents[1]


def run(options: argparse.Namespace) -> int:
    """Measure all sides and print tables; return the number of wrong answers."""
    with tempfile.TemporaryDirectory(prefix="sq-") as name:
        folder = Path(name)
        source = folder / "in.csv"
        write_rows(source, options.rows)
        write_rows(folder / "earlier.csv", _EARLIER_ROWS)
        register_models(folder)
        size = source.stat().st_size
        print(f"\nA CSV of {options.rows:,} rows, 20 columns and an id, {size / 1e6:,.0f} MB, logistic regression;")
        print(f"{options.workers} worker processes; the median of {options.repeats} runs in turn (plain Celery: one);")
        print("each a whole process; our service is up, and has scored an earlier file of the model\n")
        seconds, peaks = _measure_sides(options, folder, source)
        for side, taken in seconds.items():
            ratio = taken / seconds["scorequeue score"]
            print(f"  {side:<28}{taken:>8.2f} s{options.rows / taken:>14,.0f} rows/s{ratio:>9.2f} times", flush=True)
        wrong = _count_differences(folder / "ours.csv", folder / "pandas.csv")
        print(f"  rows that differ from the pandas script: {wrong}")
        _print_peaks(f"peak memory, {size / 1e6:,.0f} MB", peaks)
        wrong += _measure_forest(options, folder, source)
    return wrong


def run_large(options: argparse.Namespace) -> int:
    """Score a file of two gigabytes, and print the peak memory of every process; return the number of lost rows."""
    rows = options.rows * 20
    with tempfile.TemporaryDirectory(prefix="sq-") as name:
        folder = Path(name)
        source, target = folder / "in.csv", folder / "ours.csv"
        write_rows(source, rows)
        write_rows(folder / "earlier.csv", _EARLIER_ROWS)
        register_models(folder)
        with run_scorequeue(folder, options.workers, demo=False) as (_, port):
            _score(port, "logistic", folder / "earlier.csv", folder / "earlier-out.csv")
            taken, client_peak = _score(port, "logistic", source, target)
            peaks = read_peaks(folder / "data") | {"scorequeue score": client_peak}
        size = source.stat().st_size
        print(f"\nA CSV of {rows:,} rows, {size / 1e9:.1f} GB: {taken:.1f} s, {rows / taken:,.0f} rows/s")
        _print_peaks("peak memory", peaks)
        with target.open("rb") as file:
            found = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 24), b"")) - 1
    return abs(found - rows)


def write_rows(path: Path, rows: int) -> None:
    """Write a file of made-up rows, about 200 bytes each; always the same."""
    generator = np.random.default_rng(7)
    fields = [("id", pa.int64()), *((name, pa.float64()) for name in COLUMNS)]
    with pyarrow.csv.CSVWriter(path, pa.schema(fields)) as writer:
        for start in range(0, rows, _BLOCK_ROWS):
            count = min(_BLOCK_ROWS, rows - start)
            values = generator.standard_normal((count, len(COLUMNS))).round(6)
            columns = [np.arange(start, start + count), *values.T]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=pa.schema(fields)))


def register_models(folder: Path) -> None:
    """Train a logistic regression and a forest, and register them in the registry of `folder`'s service."""
    generator = np.random.default_rng(11)
    rows = generator.standard_normal((_TRAINING_ROWS, len(COLUMNS)))
    labels = np.where(rows[:, :5].sum(axis=1) + generator.standard_normal(_TRAINING_ROWS) > 0, "yes", "no")
    registry = Registry(folder / "data" / "models")
    for name, model in (
        ("logistic", LogisticRegression(max_iter=1000)),
        ("forest", RandomForestClassifier(100, random_state=0, n_jobs=os.cpu_count())),
    ):
        fitted = model.fit(rows, labels)
        joblib.dump(fitted, folder / f"{name}.joblib")
        register_model(fitted, name, registry=registry, sample=rows[:1000], columns=COLUMNS)


def _measure_sides(options: argparse.Namespace, folder: Path, source: Path) -> tuple[dict[str, float], dict[str, int]]:
    """Return the median seconds of each side, and the peak memory of our processes by kind."""
    model = str(folder / "logistic.joblib")
    taken: dict[str, list[float]] = {
        "scorequeue score": [],
        "pandas script": [],
        "polars script": [],
        "plain Celery": [],
    }
    peaks: dict[str, int] = {}
    for turn in range(options.repeats):
        with run_scorequeue(folder, options.workers, demo=False) as (_, port):
            if not turn:
                _score(port, "logistic", folder / "earlier.csv", folder / "earlier-out.csv")
            seconds, client_peak = _score(port, "logistic", source, folder / "ours.csv")
            peaks = read_peaks(folder / "data") | {"scorequeue score": client_peak}
            taken["scorequeue score"].append(seconds)
        for side, module in (("pandas script", "plain_pandas"), ("polars script", "plain_polars")):
            target = folder / f"{side.partition(' ')[0]}.csv"
            command = [sys.executable, "-m", f"benchmarks.{module}", model, str(source), str(target)]
            taken[side].append(_time(command)[0])
        if not turn:  # it takes minutes, and nobody doubts which is slower
            with _run_celery(options, folder, model) as environment:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.plain_celery_files",
                    str(source),
                    str(folder / "celery.csv"),
                ]
                taken["plain Celery"].append(_time(command, environment)[0])
    return {side: float(np.median(seconds)) for side, seconds in taken.items()}, peaks


def _score(port: int, model: str, source: Path, target: Path) -> tuple[float, int]:
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "scorequeue", "--url", url, "score", str(source), "-m", model, "-o", str(target)]
    return _time(command)


def _time(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, int]:
    """Run a process; return its seconds and its peak memory in bytes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    peak = 0
    with tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        while process.poll() is None:
            peak = read_peak(process.pid) or peak
            time.sleep(0.02)
        seconds = time.monotonic() - began
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read().decode(errors='replace')}")
    return seconds, peak


@contextlib.contextmanager
def _run_celery(options: argparse.Namespace, folder: Path, model: str) -> Iterator[dict[str, str]]:
    """Run plain Celery workers on a Redis like ours; yield the environment of who sends them tasks."""
    place = folder / "celery"
    place.mkdir()
    socket, config = place / "r.sock", place / "redis.conf"
    write_config(config, place, socket)
    environment = {"PLAIN_REDIS_SOCKET": str(socket), "PLAIN_MODEL": model, "PYTHONPATH": str(ROOT)}
    log = place / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.plain_celery_files", "worker"]
    with run_process([str(find_binary()), str(config)], place / "redis.log"):
        wait_for(socket.exists, "Redis", place / "redis.log")
        with run_process([*command, "-c", str(options.workers), "--loglevel", "INFO"], log, environment):
            wait_for(lambda: "ready." in log.read_text(), "the plain worker", log)
            yield environment


def _measure_forest(options: argparse.Namespace, folder: Path, source: Path) -> int:
    """Compare a file through a forest with the forest alone, on all rows in memory with every core."""
    model = joblib.load(folder / "forest.joblib")
    rows = pyarrow.csv.read_csv(source).drop_columns(["id"])
    matrix = np.column_stack([column.to_numpy() for column in rows.columns])
    alone, ours = [], []
    for _ in range(options.repeats):
        began = time.monotonic()
        probabilities = model.predict_proba(matrix)
        alone.append(time.monotonic() - began)
        with run_scorequeue(folder, options.workers, demo=False) as (_, port):
            if not ours:
                _score(port, "forest", folder / "earlier.csv", folder / "earlier-out.csv")
            ours.append(_score(port, "forest", source, folder / "forest.csv")[0])
    scored = pyarrow.csv.read_csv(folder / "forest.csv")
    found = np.column_stack([scored.column(f"probability_{label}").to_numpy() for label in model.classes_])
    wrong = int((~np.isclose(found, probabilities, rtol=1e-6, atol=1e-12)).any(axis=1).sum())
    print(
        f"\n  The same file through a forest of 100 trees; the forest alone, on a ready array, {os.cpu_count()} cores"
    )
    for side, seconds in (("scorequeue score", np.median(ours)), ("predict_proba alone", np.median(alone))):
        print(f"  {side:<28}{seconds:>8.2f} s{options.rows / seconds:>14,.0f} rows/s")
    print(f"  {'alone / ours':<28}{np.median(alone) / np.median(ours):>8.2f}; rows that differ: {wrong}", flush=True)
    return wrong


def _print_peaks(title: str, peaks: dict[str, int]) -> None:
    listed = ", ".join(
        f"{name} {peak / 1e6:,.0f} MB" for name, peak in sorted(peaks.items(), key=lambda item: -item[1])
    )
    print(f"  {title}: {listed}", flush=True)


def _count_differences(ours: Path, theirs: Path) -> int:
    """Count rows whose id, label or probabilities (within 1e-6) are not the same."""
    one, other = pyarrow.csv.read_csv(ours), pyarrow.csv.read_csv(theirs)
    if len(one) != len(other):
        return abs(len(one) - len(other))
    equal = np.ones(len(one), dtype=bool)
    for name in ("id", "prediction"):
        equal &= np.asarray(one.column(name)) == np.asarray(other.column(name))
    for name in ("probability_no", "probability_yes"):
        equal &= np.isclose(one.column(name).to_numpy(), other.column(name).to_numpy(), rtol=1e-6, atol=0)
    return int(len(equal) - equal.sum())
