"""What it costs that a 202 is on disk (``always`` against ``everysec``), and the bytes of a finished job."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.service import wait_for
from scorequeue.embedded_redis import Answer, find_binary, ping
from shared.claims import RowsOutcome
from shared.connection import connect
from shared.jobs import Document, Status
from shared.store import JobStore
from shared.submissions import Submission

QUEUE = "rows:churn:1"
THREADS = 16
ROUND_SECONDS = 2.0
ROUNDS = 5
#: A row of five numbers, and a result as a classifier with two classes gives it.
PAYLOAD = b"\x01" + bytes(48)
RESULT = (
    b'{"predictions":["malignant"],"classes":["benign","malignant"],"probabilities":[[0.02,0.98]],"errors":[],'
    b'"model":"churn:1","model_sha256":"' + b"a" * 64 + b'","micro_batch_rows":512,"queue_seconds":0.0123,'
    b'"predict_seconds":0.010712}'
)


def run(options: argparse.Namespace) -> int:
    """Measure and print; nothing can be wrong here."""
    rates: dict[str, list[float]] = {"everysec": [], "always": []}
    with tempfile.TemporaryDirectory(prefix="sq-") as name, contextlib.ExitStack() as stack:
        stores = {sync: stack.enter_context(_run_server(Path(name), sync)) for sync in rates}
        for _ in range(ROUNDS):  # in turn, so that a busy moment of the machine meets both
            for sync, store in stores.items():
                rates[sync].append(_measure_submissions(store))
        job_bytes = _measure_memory(stores["always"], options.jobs)
    medians = {sync: statistics.median(found) for sync, found in rates.items()}
    print(f"Submissions/s into Redis from {THREADS} threads of one process, median of {ROUNDS} rounds in turn")
    print(f"  everysec {medians['everysec']:10,.0f}")
    print(f"  always   {medians['always']:10,.0f}   {medians['always'] / medians['everysec']:.2f} of everysec")
    print(f"A finished one-row job costs Redis {job_bytes:,.0f} bytes ({options.jobs:,} jobs)\n")
    return 0


@contextlib.contextmanager
def _run_server(folder: Path, sync: str) -> Iterator[JobStore]:
    home = folder / sync
    home.mkdir()
    options = ("--port", "0", "--unixsocket", f"{home}/r.sock", "--dir", str(home), "--save", "")
    durable = ("--appendonly", "yes", "--appendfsync", sync, "--hash-max-listpack-value", "2048")
    log = home / "log"
    with log.open("wb") as output, subprocess.Popen([find_binary(), *options, *durable], stdout=output) as server:
        try:
            wait_for(lambda: ping(home / "r.sock") is Answer.READY, "Redis", log)
            yield JobStore(connect(f"unix://{home}/r.sock", timeout_seconds=30))
        finally:
            server.kill()


def _submit(store: JobStore) -> None:
    submission = Submission(
        id=store.make_id("bench"), kind="rows", tenant="bench", queue=QUEUE, priority="normal", rows=1,
        deadline_seconds=3600, retention_seconds=3600, payload=PAYLOAD,
        document=Document(model="churn", version=1, model_sha256="a" * 64),
    )  # fmt: skip
    store.submit(submission, max_queue_rows=10**9)


def _measure_submissions(store: JobStore) -> float:
    until = time.monotonic() + ROUND_SECONDS
    counts = [0] * THREADS

    def submit(number: int) -> None:
        while time.monotonic() < until:
            _submit(store)
            counts[number] += 1

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / ROUND_SECONDS


def _measure_memory(store: JobStore, jobs: int) -> float:
    store.client.flushall()
    _submit(store)  # the queue itself, and the scripts
    _finish_all(store)
    before: int = store.client.info("memory")["used_memory"]
    for _ in range(jobs):
        _submit(store)
    _finish_all(store)
    after: int = store.client.info("memory")["used_memory"]
    return (after - before) / jobs


def _finish_all(store: JobStore) -> None:
    while units := store.claim(QUEUE, "bench", lease_seconds=60, max_rows=512, max_bytes=10**9).units:
        ends = [RowsOutcome(unit.id, unit.attempt, Status.SUCCEEDED, 1, 0, RESULT) for unit in units]
        store.commit_rows("bench", ends)
