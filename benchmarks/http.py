"""What a request costs beside an empty Flask view on the same server: submissions, and reads of a job and its result.

Keys, validation, limits and metrics are on, and a submission is on disk as `appendfsync` says before its 202. Nothing
is scored meanwhile (the queue is paused): it is the front end and its Redis that are measured. All take turns in one
run, under the same load from `wrk`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.service import answers, pick_free_port, run_process, run_scorequeue, wait_for
from scorequeue import Client
from scorequeue.embedded_redis import choose_socket
from scorequeue.service_processes import list_api_options
from shared.connection import connect

CONNECTIONS = 64
SECONDS = 5
ROUNDS = 3
ROW = [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]
KEY = "a-key-of-the-benchmark"
SETTINGS = {
    "SCOREQUEUE_API_KEYS": f"shop:{KEY}",
    "SCOREQUEUE_RATE_LIMIT": "10000000/second",
    "SCOREQUEUE_ROW_LIMIT": "100000000/second",
    "SCOREQUEUE_MAX_QUEUE_ROWS": "1000000000",
}
#: What is measured, and how many times an empty view it may cost.
AIMS = {"submission, everysec": 5.0, "submission, always": 7.0, "read of a job": 2.0, "read of a result": 2.0}


def run(_: argparse.Namespace) -> int:
    """Measure and print; return 1 if `wrk` is missing or a request was not answered as it should be."""
    if shutil.which("wrk") is None:
        print("http: wrk is not installed (on Debian: apt-get install wrk)\n")
        return 1
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="sq-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        empty = stack.enter_context(_run_empty_view(folder))
        host, port = stack.enter_context(run_scorequeue(folder, 1, settings=SETTINGS))
        redis = connect(f"unix://{choose_socket(folder / 'data')}")
        with Client(f"http://{host}:{port}", KEY) as client:
            done = client.submit([ROW], model="diabetes", wait=30).id
            client.pause_queue("diabetes")
        submit = _write_script(folder)
        for _round in range(ROUNDS):
            for what in ("an empty view", *AIMS):
                redis.config_set("appendfsync", "everysec" if "everysec" in what else "always")
                address = f"http://{host}:{port}/v1/jobs"
                address = f"http://{host}:{empty}/" if what == "an empty view" else address
                address += f"/{done}" if "read" in what else ""
                address += "/result" if what == "read of a result" else ""
                rates.setdefault(what, []).append(_measure(address, submit if "submission" in what else None))
    _print(rates)
    return 0


def _print(rates: dict[str, list[float]]) -> None:
    print(f"Requests/s of {CONNECTIONS} connections, medians of {ROUNDS} turns of {SECONDS} s; the queue is paused")
    base = statistics.median(rates["an empty view"])
    for what, found in rates.items():
        costs = "" if what == "an empty view" else f"{base / statistics.median(found):8.2f} times an empty view"
        aim = f" (aim: at most {AIMS[what]:g})" if what in AIMS else ""
        print(f"  {what:<22}{statistics.median(found):10,.0f}{costs}{aim}", flush=True)
    print()


@contextlib.contextmanager
def _run_empty_view(folder: Path) -> Iterator[int]:
    port = pick_free_port()
    command = [sys.executable, "-m", "granian", *list_api_options("127.0.0.1", port), "benchmarks.empty_view:app"]
    log = folder / "empty.log"
    with run_process(command, log):
        wait_for(lambda: answers(port, "/"), "the empty view", log)
        yield port


def _write_script(folder: Path) -> Path:
    path = folder / "submit.lua"
    body = json.dumps({"model": "diabetes", "rows": [ROW]})
    path.write_text(f"wrk.method = 'POST'\nwrk.body = '{body}'\nwrk.headers['Content-Type'] = 'application/json'\n")
    return path


def _measure(address: str, script: Path | None) -> float:
    """Return the requests a second.

    Raises
    ------
    SystemExit
        Some were not answered with 2xx: what was measured would mean nothing.
    """
    command = ["wrk", "-t", "2", "-c", str(CONNECTIONS), "-d", f"{SECONDS}s", "-H", f"Authorization: Bearer {KEY}"]
    command += ["-s", str(script)] if script else []
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=SECONDS + 60, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"not every request of {address} was answered:\n{done.stdout}")
    return float(done.stdout.split("Requests/sec:")[1].split()[0])
