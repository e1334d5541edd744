"""A large file while a process is killed every ten seconds, beside an undisturbed run: byte for byte the same."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.files import PATIENCE, register_models, write_rows
from benchmarks.service import run_scorequeue
from scorequeue.client import Client

ROWS_A_KILL_RUN = 5_000_000
SECONDS_BETWEEN = 10.0
#: Less than half a second of work, so that the plan does not depend on how fast the machine is at the time.
CHUNK_ROWS = 10_000
WORKERS = ("worker child", "whole worker")
EVERY_KIND = ("Redis", "whole API", "worker child", "API child", "whole worker")
#: The word of a command line by which a process of `scorequeue up` is known; one with a parent among them is a child.
_MARKS = {b"files": "worker", b"granian": "API"}


def run(options: argparse.Namespace) -> int:
    """Score the file undisturbed, with workers killed and with everything killed; return 1 if the results differ."""
    with tempfile.TemporaryDirectory(prefix="sq-") as name:
        folder = Path(name)
        source, target = folder / "in.csv", folder / "out.csv"
        write_rows(source, ROWS_A_KILL_RUN)
        register_models(folder)
        settings = {"SCOREQUEUE_CHUNK_ROWS": str(CHUNK_ROWS)}
        with run_scorequeue(folder, options.workers, demo=False, settings=settings) as (host, port):
            client = Client(f"http://{host}:{port}")
            print(f"\n{ROWS_A_KILL_RUN:,} rows in chunks of {CHUNK_ROWS:,}, a forest, {options.workers} workers")
            undisturbed = _score(client, source, target, [])
            same = True
            for kinds in (WORKERS, EVERY_KIND):
                with _killing(folder / "data", kinds) as killed:
                    same &= _score(client, source, target, killed) == undisturbed
                same &= bool(killed)
    print("  byte-identical" if same else "  THE RESULTS DIFFER, or nothing was killed", flush=True)
    return int(not same)


def _score(client: Client, source: Path, target: Path, killed: list[str]) -> str:
    """Score the file, print how long it took and what was killed meanwhile, and return the digest of the result."""
    began = time.monotonic()
    job = client.score_file(source, target, "forest", timeout=PATIENCE)
    seconds = time.monotonic() - began
    if job.row_counts != {"total": ROWS_A_KILL_RUN, "succeeded": ROWS_A_KILL_RUN, "failed": 0, "pending": 0}:
        raise SystemExit(f"rows were lost: {job.row_counts}")
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    kinds = ", ".join(f"{killed.count(kind)} {kind}" for kind in dict.fromkeys(killed)) or "nothing"
    print(f"  {seconds:>6.1f} s   sha256 {digest[:16]}   killed: {kinds}", flush=True)
    return digest


@contextlib.contextmanager
def _killing(data: Path, kinds: Sequence[str]) -> Iterator[list[str]]:
    """Kill -9 a process of each kind in turn, one every ten seconds; yield what was killed."""
    stop, killed, chance = threading.Event(), [], random.Random(5)

    def kill() -> None:
        for kind in itertools.cycle(kinds):
            if stop.wait(SECONDS_BETWEEN):
                return
            victims = [pid for pid, found in _find_processes(data).items() if found == kind]
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


def _find_processes(data: Path) -> dict[int, str]:
    """Return the kind of each process that serves the data, by its id."""
    names: dict[int, str] = {}
    parents: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            serves = str(data).encode() in (process / "environ").read_bytes() + b" ".join(words)
            name = next((name for mark, name in _MARKS.items() if mark in words), None)
            if words[-2:-1] == [str(data / "run" / "redis.conf").encode()]:
                name = "Redis"
            if serves and name:
                names[int(process.name)] = name
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return {
        pid: name if name == "Redis" else f"{name} child" if parents[pid] in names else f"whole {name}"
        for pid, name in names.items()
    }
