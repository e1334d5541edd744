"""How long jobs that were accepted wait when a part of the service is killed with -9 under them."""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from benchmarks.service import run_scorequeue
from scorequeue import Client
from scorequeue.processes import kill_group, list_group_members
from scorequeue.supervisor import read_record

ROUNDS = 5
JOBS = 200
MODEL = "breast-cancer"
ROW = [float(number) for number in range(1, 31)]
PATIENCE_SECONDS = 120.0
SETTLE_SECONDS = 6.0
#: What is killed, and which processes that is; the jobs are claimed, waiting or just written down by then.
PARTS: dict[str, Callable[[Path], None]] = {
    "nothing": lambda _: None,
    "all of a worker's children": lambda data: _kill_children(data, "rows worker"),
    "the whole rows worker": lambda data: kill_group(_find(data, "rows worker")),
    "Redis": lambda data: os.kill(_find(data, "Redis"), signal.SIGKILL),
    "the broker": lambda data: os.kill(_find(data, "broker"), signal.SIGKILL),
    "the whole API": lambda data: os.kill(_find(data, "API"), signal.SIGKILL),
}


def run(options: argparse.Namespace) -> int:
    """Measure and print; return how many jobs did not succeed."""
    waits: dict[str, list[float]] = {part: [] for part in PARTS}
    lost = 0
    with (
        tempfile.TemporaryDirectory(prefix="sq-") as name,
        run_scorequeue(Path(name), options.workers) as (host, port),
        Client(f"http://{host}:{port}") as client,
    ):
        for _ in range(ROUNDS):
            for part, kill in PARTS.items():
                wait, failed = _measure(client, Path(name) / "data", kill)
                waits[part].append(wait)
                lost += failed
    print(f"Seconds from the kill to the end of the last of {JOBS} accepted jobs, {ROUNDS} rounds (lease: 5 s)")
    for part, found in waits.items():
        print(f"  {part:26} median {statistics.median(found):6.2f}   slowest {max(found):6.2f}")
    print(f"  jobs lost: {lost}\n")
    return lost


def _measure(client: Client, data: Path, kill: Callable[[Path], None]) -> tuple[float, int]:
    """Let many jobs loose on the workers and kill; return the seconds until the last has ended, and how many failed."""
    client.pause_queue(MODEL)
    jobs = [client.submit([ROW], model=MODEL) for _ in range(JOBS)]
    client.resume_queue(MODEL)
    killed = time.time()
    kill(data)
    ended = [job.wait(timeout=PATIENCE_SECONDS) for job in jobs]
    last = max(datetime.fromisoformat(job.record["finished_at"]).timestamp() for job in ended)
    time.sleep(SETTLE_SECONDS)  # the next round begins with a whole service
    return max(0.0, last - killed), sum(job.status != "succeeded" for job in ended)


def _find(data: Path, name: str) -> int:
    return next(group.pid for group in read_record(data / "run" / "children.json") if group.name == name)


def _kill_children(data: Path, name: str) -> None:
    parent = _find(data, name)
    for pid in list_group_members(parent):
        if pid != parent:
            os.kill(pid, signal.SIGKILL)
