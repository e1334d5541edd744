"""`scorequeue demo`: real rows through a real service, every answer checked, told in a short report."""

from __future__ import annotations

import csv
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from scorequeue.client import Client
from scorequeue.console import print_json, print_text
from scorequeue.demo_checks import (
    Answer,
    Differences,
    compare_answers,
    compare_files,
    list_answers,
    read_direct_answers,
)
from scorequeue.demo_service import DemoService, run_worker_command
from scorequeue.errors import ScorequeueError, WrongUse
from scorequeue.job import Job

CLASSIFIER, REGRESSOR = "breast-cancer", "diabetes"
#: One-row jobs that are submitted at once.
JOBS = 2000
#: Threads that submit, each on a connection of its own.
CONNECTIONS = 32
#: The data set has 569 rows; so many times over they make a file of 50,072.
FILE_REPEATS = 88
REGRESSION_ROWS = 10
OUTPUT_FOLDER = Path("demo-output")

#: Seconds that any single job of the demo may take.
_JOB_SECONDS = 120.0
#: Seconds until the counted model calls must have reached /metrics.
_METRICS_SECONDS = 5.0

Row = dict[str, str]
T = TypeVar("T")


def run_demo(data: Path | None, port: int, *, as_json: bool = False) -> int:
    """Run the demo and print its report.

    Parameters
    ----------
    data : Path or None
        The service's data folder; None takes a fresh one and removes it afterwards.
    port : int
        Of the service; 0 takes a free one.
    as_json : bool
        Print the report as JSON, when it is whole.

    Returns
    -------
    int
        0 if every check holds, else 1.

    Raises
    ------
    WrongUse
        The service is not installed here.
    """
    if find_spec("sklearn") is None or find_spec("granian") is None:
        raise WrongUse("the demo needs the whole service: pip install 'scorequeue[up]'")
    OUTPUT_FOLDER.mkdir(exist_ok=True)
    # A demo that is told to end must still stop its service.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    report = _Report(as_json=as_json)
    try:
        with _open_folder(data) as folder:
            _demonstrate(folder, port, report)
    except ScorequeueError as error:
        return report.give_up(f"{error}\nThe logs are in {OUTPUT_FOLDER / 'logs'}")
    return report.conclude()


class _Report:
    """Prints a line a step, with its time, and then what the checks found; or all of it as JSON at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._began_at = time.monotonic()
        self._steps: list[dict[str, Any]] = []
        self._checks: list[tuple[str, Differences]] = []

    def say(self, text: str = "") -> None:
        if not self._as_json:
            print_text(text)

    def step(self, title: str, work: Callable[[], T], describe: Callable[[T, float], str]) -> T:
        """Do a step, and tell of it when it is done."""
        began_at = time.monotonic()
        outcome = work()
        seconds = time.monotonic() - began_at
        first, *others = said = describe(outcome, seconds).split("\n")
        self._steps.append({"step": title, "seconds": round(seconds, 3), "says": said})
        self.say(f"  {title:<16}{seconds:6.2f} s   {first}")
        for line in others:
            self.say(" " * 29 + line)
        return outcome

    def check(self, claim: str, differences: Differences) -> None:
        self._checks.append((claim, differences))

    def give_up(self, reason: str) -> int:
        """Say why it did not come to an end; return the exit code."""
        self.say(f"\nThe demo stopped: {reason}")
        self._print_json(stopped=reason)
        return 1

    def conclude(self) -> int:
        """Print the checks; return the exit code."""
        self.say("\nChecks (equal: the same label, and every number within 1e-6 of the model's own)")
        for claim, differences in self._checks:
            self.say(f"  {'WRONG' if differences.found else 'ok':<6}{claim}")
            for line in differences.shown:
                self.say(f"          {line}")
        failed = sum(differences.found for _, differences in self._checks)
        verdict = f"{failed:,} differences" if failed else "All checks hold"
        self.say(f"\n{verdict}; {time.monotonic() - self._began_at:.1f} s in all.")
        self._print_json(stopped=None)
        return 1 if failed else 0

    def _print_json(self, *, stopped: str | None) -> None:
        if self._as_json:
            checks = [
                {"claim": claim, "ok": not differences.found, "differences": differences.shown}
                for claim, differences in self._checks
            ]
            seconds = round(time.monotonic() - self._began_at, 1)
            print_json({"steps": self._steps, "checks": checks, "seconds": seconds, "stopped": stopped})


class _Data:
    """The demo's rows, and what the models themselves say of them."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.file = OUTPUT_FOLDER / f"{CLASSIFIER}.csv"
        self.scored_file = OUTPUT_FOLDER / f"{CLASSIFIER}-scored.csv"
        repeated: list[str | Path] = ["demo-csv", CLASSIFIER, self.file, "--repeat", str(FILE_REPEATS)]
        # Most of the time of each command is the import of scikit-learn: one command a core.
        with ThreadPoolExecutor(3) as threads:
            written = threads.submit(run_worker_command, repeated)
            one, two = threads.map(lambda name: _predict_directly(name, folder, models), (CLASSIFIER, REGRESSOR))
            written.result()
        self.rows, self.answers = one
        self.regressor_rows, self.regressor_answers = two


def _demonstrate(folder: Path, port: int, report: _Report) -> None:
    report.say("scorequeue demo: real rows, through a real queue, scored by real workers\n")
    logs = OUTPUT_FOLDER / "logs"
    logs.mkdir(exist_ok=True)
    service = DemoService(folder, port, logs / "up.log")
    try:
        report.step("start", service.start, lambda _, __: _describe_service(service))
        with tempfile.TemporaryDirectory(prefix="scorequeue-") as scratch:
            data = report.step(
                "direct answers",
                lambda: _Data(Path(scratch), folder / "models"),
                lambda data, _: (
                    f"both models called directly on {len(data.rows)} and "
                    f"{len(data.regressor_rows)} real rows, to compare with"
                ),
            )
        with Client(service.url, connections=CONNECTIONS) as client:
            _score_one_row(client, data, report)
            _score_many_jobs(client, data, report)
            _score_regression(client, data, report)
            _score_file(client, data, report)
    finally:
        report.step("stop", service.stop, lambda _, __: "service stopped")
        # The data folder may be gone in a moment, and with it what explains a failure.
        for log in (folder / "logs").glob("*.log"):
            shutil.copy(log, logs)


def _score_one_row(client: Client, data: _Data, report: _Report) -> None:
    features = _pick_features(client.model_version(CLASSIFIER), data.rows[:1])

    def submit_and_poll() -> Job:
        return client.submit(features, CLASSIFIER).wait(_JOB_SECONDS)

    def describe(job: Job, _: float) -> str:
        answer = list_answers(job.result())[0]
        truth = data.rows[0]["diagnosis"]
        return f"{job.id}: {answer.prediction} ({max(answer.probabilities):.0%}); in truth {truth}"

    job = report.step("one row", submit_and_poll, describe)
    differences = Differences()
    compare_answers(list_answers(job.result()), data.answers, differences, "row")
    report.check("the one-row job's answer equals the model's", differences)


def _score_many_jobs(client: Client, data: _Data, report: _Report) -> None:
    rows = _pick_features(client.model_version(CLASSIFIER), data.rows)
    calls_before = _count_model_calls(client)
    submitted_seconds = 0.0

    def submit_and_fetch() -> tuple[list[Job], list[dict[str, Any]]]:
        nonlocal submitted_seconds
        began_at = time.monotonic()
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            jobs = list(threads.map(lambda row: client.submit([row], CLASSIFIER), islice(cycle(rows), JOBS)))
            submitted_seconds = time.monotonic() - began_at
            return jobs, list(threads.map(lambda job: job.wait(_JOB_SECONDS).result(), jobs))

    def describe(outcome: tuple[list[Job], list[dict[str, Any]]], _: float) -> str:
        jobs, results = outcome
        calls = _count_calls_of_results(results)
        seconds = _measure_scoring(jobs)
        return (
            f"accepted {JOBS / submitted_seconds:,.0f} jobs/s; all scored {seconds:.2f} s after the first came "
            f"({JOBS / seconds:,.0f} jobs/s); fetched one by one\n"
            f"{calls:,} model calls for {JOBS:,} jobs: {JOBS / calls:.1f} jobs a call"
        )

    _, results = report.step(f"{JOBS:,} jobs", submit_and_fetch, describe)
    differences = Differences()
    compare_answers((list_answers(result)[0] for result in results), data.answers, differences, "job")
    report.check(f"{differences.compared:,} one-row jobs: every answer equals the model's", differences)
    report.check(
        "the model calls that /metrics counts are those that the results name",
        _check_calls(client, calls_before, _count_calls_of_results(results)),
    )


def _score_regression(client: Client, data: _Data, report: _Report) -> None:
    rows = data.regressor_rows[:REGRESSION_ROWS]
    features = _pick_features(client.model_version(REGRESSOR), rows)
    result = report.step(
        "regression",
        lambda: client.submit(features, REGRESSOR).wait(_JOB_SECONDS).result(),
        lambda _, __: f"{len(rows)} rows of {REGRESSOR} in one job",
    )
    differences = Differences()
    compare_answers(list_answers(result), data.regressor_answers, differences, "row")
    report.check(f"{differences.compared} rows of the regressor: every answer equals the model's", differences)


def _score_file(client: Client, data: _Data, report: _Report) -> None:
    def describe(job: Job, seconds: float) -> str:
        rows = job.row_counts["total"]
        return f"{rows:,} rows, {rows / seconds:,.0f} rows/s with upload and download: {data.scored_file}"

    report.step(
        "a CSV file",
        lambda: client.score_file(data.file, data.scored_file, CLASSIFIER, timeout=_JOB_SECONDS),
        describe,
    )
    differences = Differences()
    compare_files(data.file, data.scored_file, data.answers * FILE_REPEATS, differences)
    report.check(
        f"{differences.compared:,} rows of the file: every answer equals the model's, "
        "every input line is in the output byte for byte",
        differences,
    )


def _predict_directly(name: str, folder: Path, models: Path) -> tuple[list[Row], list[Answer]]:
    source, answers = folder / f"{name}.csv", folder / f"{name}.json"
    run_worker_command(["demo-csv", name, source])
    run_worker_command(["predict", "--models", models, name, source, answers])
    with open(source, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)), read_direct_answers(answers)


def _pick_features(model: Mapping[str, Any], rows: list[Row]) -> list[list[float]]:
    names = [column["name"] for column in model["signature"]["columns"]]
    return [[float(row[name]) for name in names] for row in rows]


def _measure_scoring(jobs: list[Job]) -> float:
    """Return the seconds from the first submission to the last result, by the service's clock."""
    created = min(datetime.fromisoformat(job.record["created_at"]) for job in jobs)
    finished = max(datetime.fromisoformat(job.record["finished_at"]) for job in jobs)
    return max((finished - created).total_seconds(), 0.001)


def _count_calls_of_results(results: list[dict[str, Any]]) -> int:
    # A call that scored n one-row jobs is named by n results: each counts for an n-th of it.
    calls: float = sum(1 / result["micro_batch_rows"] for result in results)
    return round(calls)


def _count_model_calls(client: Client) -> int:
    """Read how many micro-batches of the classifier were scored, over all processes and reasons."""
    lines = client.fetch_metrics().splitlines()
    counters = [line for line in lines if line.startswith("scorequeue_micro_batches_total{")]
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in counters if f'model="{CLASSIFIER}"' in line))


def _check_calls(client: Client, before: int, expected: int) -> Differences:
    differences = Differences()
    end = time.monotonic() + _METRICS_SECONDS
    # A worker counts a call just after its answers are there.
    while (counted := _count_model_calls(client) - before) != expected:
        if time.monotonic() > end:
            differences.note(f"/metrics counts {counted:,}, the results name {expected:,}")
            break
        time.sleep(0.1)
    return differences


def _describe_service(service: DemoService) -> str:
    flower = f"; Flower at {service.flower_url}" if service.flower_url else " (no Flower: its port is taken)"
    return f"API at {service.url}{flower}"


@contextmanager
def _open_folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        yield data
        return
    folder = Path(tempfile.mkdtemp(prefix="scorequeue-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exit_on_signal(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
