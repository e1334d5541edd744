"""Scoring rows that may kill: in a process of their own, halved until only the guilty rows are left.

A chunk that ended its worker is not scored in a worker again. ``python -m worker.isolation`` loads the model, and forks
a child for each range of rows; what a range does ends that child alone, and costs a fork instead of a lost worker.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import NamedTuple

import msgspec

from shared.logs import get_logger
from shared.registry import Registry
from shared.values import Values
from worker.models import LoadedModel, load_model
from worker.scoring import Outcome, Piece, RowError, join_pieces, score_values
from worker.trust import Trust

#: Deaths after which the ranges that are still suspect are given up: some thirty guilty rows of a chunk of 50,000.
MAX_DEATHS = 500
#: Rows of one model call in a chunk: memory stays bounded, and the call's own cost no longer counts.
CALL_ROWS = 8192
#: A range may take so many times what its rows took elsewhere, and a second, before it counts as hanging.
_SLOWER = 20
_FIRST_SHARE = 8
#: Rows by which the model's speed is learned.
_PROBE_ROWS = 32
_BLOCK_BYTES = 1 << 20

logger = get_logger(__name__)


class _Request(NamedTuple):
    values: Values
    #: After which it is killed.
    seconds: float


class IsolationFailed(OSError):
    """The process that was to isolate did not start in time, or ended by itself: nobody's rows are to blame."""


def score_isolated(
    registry: Registry,
    name: str,
    version: int,
    values: Values,
    *,
    trust: Trust,
    budget_seconds: float,
    max_deaths: int = MAX_DEATHS,
) -> Outcome:
    """Score rows of which some may kill, hang or exhaust the process that scores them.

    Parameters
    ----------
    registry : Registry
    name, version
        Of the model.
    values : Values
        With the codes of the model's signature.
    trust : Trust
        As of the worker.
    budget_seconds : float
        Time for all of it; then what is still suspect fails.
    max_deaths : int
        Likewise.

    Returns
    -------
    Outcome
        A row that ended its process, or hung, has the error ``worker_lost``.

    Raises
    ------
    IsolationFailed
        There was no process to score in.
    """
    search = _Search(values, time.monotonic() + budget_seconds)
    with _start_process(registry.root, name, version, trust) as connection:
        _receive(connection, budget_seconds)  # it is ready
        search.learn_speed(connection)
        while search.suspects and search.deaths < max_deaths and search.remaining_seconds > 0:
            search.try_range(connection)
    return search.finish()


class _Search:
    """The ranges that are still to be tried, and what was found of the others."""

    def __init__(self, values: Values, end: float) -> None:
        self._values = values
        self._end = end
        self._first_seconds = (end - time.monotonic()) / _FIRST_SHARE
        self._seconds_a_row = math.nan
        self._pieces: list[Piece] = []
        self._errors: dict[int, RowError] = {}
        self._calls = 0
        self.suspects = [(0, len(values))] if len(values) else []
        self.deaths = 0

    @property
    def remaining_seconds(self) -> float:
        return self._end - time.monotonic()

    def learn_speed(self, connection: Connection) -> None:
        """Time a few rows, so that a model that is only slow is not taken for one that hangs; no answer is used."""
        last = max(0, len(self._values) - _PROBE_ROWS)
        for start in (0, last, last // 2) if len(self._values) else ():
            rows = self._values[start : start + _PROBE_ROWS]
            began = time.monotonic()
            connection.send(_Request(rows, self._first_seconds / 2))
            if isinstance(_receive(connection, 2 * self._first_seconds), Outcome):
                self._seconds_a_row = (time.monotonic() - began) / len(rows)
                return

    def try_range(self, connection: Connection) -> None:
        """Score one range; halve it if that ended its process."""
        start, stop = self.suspects.pop()
        seconds = min(self._limit_seconds(stop - start), self.remaining_seconds)
        connection.send(_Request(self._values[start:stop], seconds))
        answer = _receive(connection, seconds + self._first_seconds)
        if isinstance(answer, Outcome):
            self._pieces.append(Piece(start, stop, answer))
            self._errors |= {start + row: error for row, error in answer.errors.items()}
            self._calls += answer.calls
            return
        self.deaths += 1
        if stop - start == 1:
            self._errors[start] = RowError("worker_lost", f"scoring this row alone {answer}")
        else:
            middle = (start + stop) // 2
            self.suspects += [(middle, stop), (start, middle)]

    def finish(self) -> Outcome:
        """Put together what was found; the ranges that are left fail."""
        for start, stop in self.suspects:
            logger.warning("rows that may kill are given up: no time was left to tell which", rows=stop - start)
            error = RowError("worker_lost", "scoring this row or one of its neighbours ended or hung its worker")
            self._errors |= dict.fromkeys(range(start, stop), error)
        whole = join_pieces(self._pieces, len(self._values))
        return Outcome(whole.predictions, whole.probabilities, self._errors, self._calls, self.deaths)

    def _limit_seconds(self, rows: int) -> float:
        if math.isnan(self._seconds_a_row):
            return self._first_seconds
        return 1.0 + _SLOWER * rows * self._seconds_a_row


@contextlib.contextmanager
def _start_process(models: Path, name: str, version: int, trust: Trust) -> Iterator[Connection]:
    ours, theirs = Pipe()
    allowed = msgspec.json.encode(trust).decode()
    command = [sys.executable, "-m", __name__, str(theirs.fileno()), str(models), name, str(version), allowed]
    # With one thread, so that forking it is safe: a thread pool does not come along.
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=os.environ | alone)
    theirs.close()
    try:
        with ours:
            yield ours
    finally:
        process.kill()
        process.wait()


def _receive(connection: Connection, seconds: float) -> Outcome | str | None:
    """Return what comes within so many seconds: an outcome, or how the process of a range ended."""
    try:
        if connection.poll(max(0.0, seconds)):
            answer: Outcome | str | None = connection.recv()
            return answer
    except (EOFError, ConnectionError) as error:
        raise IsolationFailed("the isolating process ended by itself") from error
    raise IsolationFailed("the isolating process does not answer")


def main() -> None:
    """Answer requests until the worker closes the connection."""
    descriptor, models, name, version, allowed = sys.argv[1:]
    with Connection(int(descriptor)) as connection, contextlib.suppress(EOFError, ConnectionError):
        model = load_model(Registry(Path(models)), name, int(version), msgspec.json.decode(allowed, type=Trust))
        connection.send(None)
        while True:
            connection.send(_score_in_child(model, connection.recv()))


def _score_in_child(model: LoadedModel, request: _Request) -> Outcome | str:
    """Score in a forked child; return its answer, or how it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _score_and_exit(model, request, writer)
    os.close(writer)
    with open(reader, "rb", buffering=0) as pipe:
        answer = _read_until(pipe.fileno(), time.monotonic() + request.seconds)
    if answer is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if answer is None:
        return f"took longer than {request.seconds:.1f} s"
    if status != 0 or not answer:
        return "ended its process"
    outcome: Outcome = pickle.loads(answer)
    return outcome


def _score_and_exit(model: LoadedModel, request: _Request, writer: int) -> None:
    try:
        # Of all processes here this one is to go first when memory runs out.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        outcome = score_values(model, request.values, CALL_ROWS, patience_seconds=request.seconds / 2)
        with open(writer, "wb") as pipe:
            pickle.dump(outcome, pipe)
        os._exit(0)
    finally:
        os._exit(1)


def _read_until(descriptor: int, end: float) -> bytes | None:
    """Read to the end of a pipe; None if that does not come in time."""
    answer = bytearray()
    while select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
        block = os.read(descriptor, _BLOCK_BYTES)
        if not block:
            return bytes(answer)
        answer += block
    return None


if __name__ == "__main__":
    main()
