"""What the counting of data quality costs, as a share of the time that a worker spends on the same rows.

A worker process inside of this one scores what waits on a real Redis, from the claim to the commit; what it spends in
counting is timed within that. The model is the fastest of all, so that the share is the highest; a row in a hundred has
a value that training did not know, so that no call is spared the second look.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import redis
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from api import create_app
from scorequeue.embedded_redis import find_binary
from shared.connection import connect
from shared.registry import Registry
from shared.settings import Settings
from worker.process import WorkerProcess
from worker.quality import QualityCounter
from worker.registration import register_model

#: The aim: no larger share of the scoring time.
MOST_SHARE = 0.02
_JOBS = 5_000
_SINGLE_JOBS = 500
_FILE_ROWS = 200_000


class _Stopwatch:
    """Adds up the processor's time in some methods."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.thread_time() - began

        return timed


def run(options: argparse.Namespace) -> int:
    """Measure three loads and print the shares; return how many missed the aim."""
    rows = load_breast_cancer().data
    many = np.tile(rows, (-(-_FILE_ROWS // len(rows)), 1))[:_FILE_ROWS]
    many[::100, 3] = 1e6
    print(f"\nData quality: share of a worker's time, 30 columns, logistic regression; aim: below {MOST_SHARE:.0%}")
    missed = 0
    with tempfile.TemporaryDirectory(prefix="sq-") as folder, _run_redis(folder) as url:
        app, worker, watch = _start(folder, url, rows)
        http = app.test_client()

        def submit(index: int) -> None:
            answer = http.post("/v1/jobs", json={"model": "fast", "rows": [many[index].tolist()]})
            assert answer.status_code == 202, answer.text

        def load_many() -> float:
            for index in range(_JOBS):
                submit(index)
            return _time_scoring(lambda: worker.score_rows("rows:fast:1"))

        def load_singly() -> float:
            seconds = 0.0
            for index in range(_SINGLE_JOBS):
                submit(index)
                seconds += _time_scoring(lambda: worker.score_rows("rows:fast:1"))
            return seconds

        def load_file() -> float:
            header = ",".join(f"x{index}" for index in range(30))
            body = "\n".join([header, *(",".join(map(repr, row)) for row in many.tolist())])
            answer = http.post("/v1/jobs?model=fast", data=body, content_type="text/csv")
            assert answer.status_code == 202, answer.text
            return _time_scoring(lambda: worker.score_chunks("files:fast:1"))

        loads = ((f"{_JOBS:,} one-row jobs that wait", load_many), ("one-row jobs, one at a time", load_singly))
        for name, load in (*loads, (f"a CSV of {_FILE_ROWS:,} rows", load_file)):
            load()  # once for the caches
            watch.seconds = 0.0
            seconds = load()
            worker.quality.flush()
            share = watch.seconds / seconds
            missed += share > MOST_SHARE
            print(
                f"  {name:<32}{seconds:>8.2f} s, {watch.seconds * 1000:>7.2f} ms of it counting{share:>9.2%}",
                flush=True,
            )
        worker.stop()
    return missed


def _start(folder: str, url: str, sample: Any) -> tuple[Any, WorkerProcess, _Stopwatch]:
    registry = Registry(Path(folder, "models"))
    target = load_breast_cancer().target
    register_model(LogisticRegression(max_iter=10_000).fit(sample, target), "fast", registry=registry, sample=sample)
    settings = Settings(redis_url=url, models=Path(folder, "models"), file_store=str(Path(folder, "files")))
    watch = _Stopwatch()
    worker = WorkerProcess(settings, queues=["rows", "files"])
    counter: QualityCounter = worker.quality
    for name in ("count", "count_refused", "flush"):
        setattr(counter, name, watch.watch(getattr(counter, name)))
    worker.start()
    return create_app(settings), worker, watch


def _time_scoring(score: Callable[[], str]) -> float:
    began = time.perf_counter()
    while not score().split(" ", 1)[1].startswith(("jobs=0", "chunks=0")):
        pass
    return time.perf_counter() - began


def _await_redis(url: str) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            connect(url).ping()
        except redis.RedisError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def _run_redis(folder: str) -> Iterator[str]:
    url = f"unix://{folder}/r.sock"
    command = [str(find_binary()), "--port", "0", "--unixsocket", f"{folder}/r.sock", "--save", "", "--dir", folder]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _await_redis(url)
            yield url
        finally:
            server.kill()
