"""A large file with a worker killed every ten seconds, beside an undisturbed run of the same plan: byte for byte."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.files import PATIENCE, register_models, write_rows
from benchmarks.service import run_scorequeue
from scorequeue.client import Client

ROWS_A_KILL_RUN = 5_000_000
SECONDS_BETWEEN = 10.0
#: Less than half a second of work, so that the plan does not depend on how fast the machine is at the time.
CHUNK_ROWS = 10_000


def run(options: argparse.Namespace) -> int:
    """Score the file twice and compare; return 1 if the results differ."""
    with tempfile.TemporaryDirectory(prefix="sq-") as name:
        folder = Path(name)
        source = folder / "in.csv"
        write_rows(source, ROWS_A_KILL_RUN)
        register_models(folder)
        settings = {"SCOREQUEUE_CHUNK_ROWS": str(CHUNK_ROWS)}
        with run_scorequeue(folder, options.workers, demo=False, settings=settings) as (host, port):
            client = Client(f"http://{host}:{port}")
            quiet, quiet_seconds = _score(client, source, folder / "quiet.csv")
            with _killing(folder / "data") as killed:
                disturbed, disturbed_seconds = _score(client, source, folder / "killed.csv")
    print(f"\nA CSV of {ROWS_A_KILL_RUN:,} rows in chunks of {CHUNK_ROWS:,}, a forest, {options.workers} workers")
    print(f"  undisturbed                {quiet_seconds:>8.1f} s   sha256 {quiet[:16]}")
    kinds = ", ".join(f"{killed.count(kind)} {kind}" for kind in sorted(set(killed)))
    print(f"  a kill every {SECONDS_BETWEEN:.0f} s ({kinds}) {disturbed_seconds:>8.1f} s   sha256 {disturbed[:16]}")
    if not killed:
        print("  NOTHING WAS KILLED: the file was scored too soon", flush=True)
        return 1
    print("  byte-identical" if quiet == disturbed else "  THE RESULTS DIFFER", flush=True)
    return int(quiet != disturbed)


def _score(client: Client, source: Path, target: Path) -> tuple[str, float]:
    began = time.monotonic()
    job = client.score_file(source, target, "forest", timeout=PATIENCE)
    seconds = time.monotonic() - began
    if job.row_counts != {"total": ROWS_A_KILL_RUN, "succeeded": ROWS_A_KILL_RUN, "failed": 0, "pending": 0}:
        raise SystemExit(f"rows were lost: {job.row_counts}")
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), seconds


@contextlib.contextmanager
def _killing(data: Path) -> Iterator[list[str]]:
    """Kill -9 a process of the workers for files every ten seconds; yield what was killed."""
    stop, killed, chance = threading.Event(), [], random.Random(5)

    def kill() -> None:
        while not stop.wait(SECONDS_BETWEEN):
            parents, children = _find_workers(data)
            kind, victims = chance.choice([("worker child", children), ("whole worker", parents)])
            if victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(victims), signal.SIGKILL)
                    killed.append(kind)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def _find_workers(data: Path) -> tuple[list[int], list[int]]:
    """Return the processes of the workers for files: parents, and children."""
    found: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if str(data).encode() in (process / "environ").read_bytes() and b"files" in words:
                found[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    children = [pid for pid, parent in found.items() if parent in found]
    return [pid for pid in found if pid not in children], children
