"""The driver: starts a service, lets clients and the nemesis loose on it, and checks the books when the dust settles.

The method is that of Jepsen and of docket's chaos driver: a history written by the clients, a seeded nemesis, and
invariants checked at the end.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from tests.chaos.clients import FileClient, RowsClient, make_csv, make_rows, send
from tests.chaos.history import Answers, History
from tests.chaos.http_calls import Caller, Lost
from tests.chaos.invariants import (
    Ledger,
    adopt_unanswered,
    check_counts,
    check_jobs,
    check_results,
    read_ledger,
)
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report, measure_wait
from tests.chaos.slow_model import register_slow_model
from tests.leaks import find_leaks
from tests.live_service import LiveService
from tests.small_models import register_small_models

CLIENTS = 8
WORKERS = 2
LEASE_SECONDS = 5.0
#: Seconds after the last fault in which every accepted job must have ended.
SETTLE_SECONDS = 120.0
_SETTINGS = {
    # Several chunks a file; and a hanging pool is found out within a minute.
    "SCOREQUEUE_CHUNK_ROWS": "50",
    "SCOREQUEUE_TASK_SECONDS": "30",
    "SCOREQUEUE_LEASE_SECONDS": str(LEASE_SECONDS),
}


def run_chaos(folder: Path, seconds: float, seed: int) -> Report:
    """Run the whole of it.

    Parameters
    ----------
    folder : Path
        Empty; keeps data, logs and history.
    seconds : float
        How long there are faults.
    seed : int
        Of clients and nemesis; what the operating system does in between is not seeded.

    Returns
    -------
    Report
        Without violations if all is well.
    """
    report = Report(seed, seconds)
    register_slow_model(folder / "models")
    answers = Answers(register_small_models(folder / "models"))
    service = LiveService(folder, _SETTINGS)
    service.start([sys.executable, "-m", "tests.chaos.up", str(service.port), str(service.data), str(WORKERS)])
    history = History(folder / "history.ndjson")
    try:
        _make_trouble(service, history, answers, report)
        _check_books(service, history, answers, report)
    finally:
        history.close()
        left = service.stop()
    report.violations += [f"process {pid} was left running" for pid in left]
    return report


def _make_trouble(service: LiveService, history: History, answers: Answers, report: Report) -> None:
    stop = threading.Event()
    nemesis = Nemesis(service, history, report.seed, stop, LEASE_SECONDS)
    actors: list[Callable[[], None]] = [nemesis.run, FileClient(service.port, history, answers, report.seed, stop).run]
    actors += [RowsClient(service.port, history, answers, report.seed * 1000 + n, stop).run for n in range(CLIENTS)]
    with ThreadPoolExecutor(len(actors)) as pool:
        running = [pool.submit(act) for act in actors]
        try:
            # None ends before it is told to, unless something is wrong with the driver itself.
            wait(running, timeout=report.seconds, return_when=FIRST_COMPLETED)
        finally:
            stop.set()
    for actor in running:
        actor.result()
    report.faults = nemesis.counts
    report.answers = history.codes


def _check_books(service: LiveService, history: History, answers: Answers, report: Report) -> None:
    caller = Caller(service.port)
    began = time.monotonic()
    try:
        _close_queues(caller, history, answers, report.seed)
        _settle(caller)
        report.settle_seconds = time.monotonic() - began
        ledger = read_ledger(caller)
        report.adopted = adopt_unanswered(history, ledger)
        report.violations += check_jobs(history, ledger)
        report.violations += check_results(caller, history, answers, ledger)
        report.violations += check_counts(caller, history, ledger)
    except Lost as error:
        report.violations.append(f"the service did not come back ({error}); it said: {service.err.read_text()[-2000:]}")
        return
    finally:
        caller.close()
    with service.connect() as client:
        report.violations += [f"leak: {leak}" for leak in find_leaks(client)]
    report.violations += [
        f"{count} times {answer}" for answer, count in history.codes.items() if "500 " in answer or "without" in answer
    ]
    _sum_up(ledger, history, report)


def _close_queues(caller: Caller, history: History, answers: Answers, seed: int) -> None:
    """Submit a last job of each sort: the service still works, and what was doubled in a stream is swept out."""
    chance = random.Random(seed)
    deadline = time.monotonic() + SETTLE_SECONDS
    for kind, model in (("rows", "iris"), ("rows", "line"), ("rows", "slow"), ("file", "iris")):
        submission = None
        while submission is None or submission.job_id is None:
            if time.monotonic() > deadline:
                raise Lost(f"no {kind} job was accepted for {SETTLE_SECONDS:g} s")
            time.sleep(0.1)
            submission = history.open(kind, model, make_rows(chance, model, 1), None)
            if kind == "file":
                path, body, headers = f"/v1/jobs?model={model}", make_csv(submission.rows), {"Content-Type": "text/csv"}
            else:
                wish = {"model": model, "rows": submission.rows, "metadata": {"serial": submission.serial}}
                path, body, headers = "/v1/jobs", json.dumps(wish).encode(), {"Content-Type": "application/json"}
            send(caller, history, answers, submission, path, body, headers)


def _settle(caller: Caller) -> None:
    """Wait until nothing is outstanding, within the bound."""
    began = time.monotonic()
    while time.monotonic() - began < SETTLE_SECONDS:
        queues = caller.ask_until_answered("/v1/queues").parse()["queues"]
        if not any(queue["depth"] or queue["outstanding_rows"] for queue in queues):
            return
        time.sleep(0.1)


def _sum_up(ledger: Ledger, history: History, report: Report) -> None:
    report.statuses = ledger.statuses
    report.deleted = sum(1 for one in history.submissions if one.job_id and one.job_id not in ledger.jobs)
    hurried = {one.job_id for one in history.submissions if one.deadline is not None}
    waits: dict[str, list[float]] = {"rows": [], "file": []}
    for job_id, job in ledger.jobs.items():
        if job["status"] == "succeeded" and job_id not in hurried:
            waits[job["kind"]].append(measure_wait(job))
        report.redelivered += max(0, job["attempts"] - 1)
    report.waits = waits
