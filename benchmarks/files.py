"""A CSV file: from the first byte sent to the last byte back, beside a pandas script of the same model."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.service import run_scorequeue
from scorequeue.client import Client
from worker.demo_models import write_demo_csv

MODEL = "breast-cancer"
#: Rows of the data set, which is repeated.
DATA_SET_ROWS = 569
#: Seconds that either side may take.
PATIENCE = 1800.0


def run(options: argparse.Namespace) -> int:
    """Measure both sides and print a table; return the number of wrong answers."""
    with tempfile.TemporaryDirectory(prefix="sq-") as name:
        folder = Path(name)
        source, ours, theirs = folder / "in.csv", folder / "service.csv", folder / "script.csv"
        rows = write_demo_csv(source, MODEL, math.ceil(options.rows / DATA_SET_ROWS))
        service_seconds = _score_by_service(options, folder, source, ours)
        script_seconds = _score_by_script(folder, source, theirs)
        wrong = _count_differences(ours, theirs)
        size = source.stat().st_size
    print(f"\nA CSV of {rows:,} rows, 30 columns of {MODEL}, {size / 1e6:,.0f} MB; {options.workers} worker processes")
    print(f"  {'':<34}{'scorequeue':>12}{'pandas':>14}{'times better':>14}")
    print(
        f"  {'seconds':<34}{service_seconds:>12,.2f}{script_seconds:>14,.2f}{script_seconds / service_seconds:>14,.1f}"
    )
    print(f"  {'rows/s':<34}{rows / service_seconds:>12,.0f}{rows / script_seconds:>14,.0f}")
    print(f"  {'rows that differ':<34}{wrong:>12}", flush=True)
    return wrong


def _score_by_service(options: argparse.Namespace, folder: Path, source: Path, target: Path) -> float:
    with run_scorequeue(folder, options.workers) as (host, port), Client(f"http://{host}:{port}") as client:
        small = folder / "small.csv"
        write_demo_csv(small, MODEL)
        client.score_file(small, folder / "small-out.csv", MODEL, timeout=PATIENCE)  # not measured
        began = time.monotonic()
        client.score_file(source, target, MODEL, timeout=PATIENCE)
        seconds = time.monotonic() - began
    print(f"scorequeue: {seconds:.1f} s", flush=True)
    return seconds


def _score_by_script(folder: Path, source: Path, target: Path) -> float:
    model_file = folder / "data" / "models" / MODEL / "1" / "model.joblib"
    command = [sys.executable, "-m", "benchmarks.plain_pandas", str(model_file), str(source), str(target)]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    seconds = float(done.stdout)
    print(f"pandas script: {seconds:.1f} s", flush=True)
    return seconds


def _count_differences(ours: Path, theirs: Path) -> int:
    """Count rows whose id, label or probabilities (within 1e-6) are not the same."""
    one, other = pd.read_csv(ours), pd.read_csv(theirs)
    if len(one) != len(other):
        return abs(len(one) - len(other))
    names = [name for name in other.columns if name.startswith("probability_")]
    equal = np.isclose(one[names].to_numpy(), other[names].to_numpy(), rtol=1e-6, atol=0).all(axis=1)
    for name in ("id", "prediction"):
        equal &= (one[name] == other[name]).to_numpy()
    return int(len(equal) - equal.sum())
