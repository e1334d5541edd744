"""The clients: they submit, wait, look, cancel and delete, and write down all they are told."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections import deque
from collections.abc import Iterator

from tests.chaos.history import Answers, History, Rows, Submission, digest
from tests.chaos.http_calls import Answer, Caller, Lost, Refused

_JSON = {"Content-Type": "application/json"}
_PRIORITIES = ("high", "normal", "low")
_COLUMNS = {"iris": 4, "line": 2, "slow": 2}
#: Seconds between two acts of a client, at most.
_PAUSE_SECONDS = 0.12
#: Rows of a file, which is cut into several chunks (driver.py sets their size).
_FILE_ROWS = 300


class RowsClient:
    """Submits rows jobs, and follows each until it has ended.

    Parameters
    ----------
    port : int
    history : History
    answers : Answers
    seed : int
    stop : threading.Event
        Ends it.
    """

    def __init__(self, port: int, history: History, answers: Answers, seed: int, stop: threading.Event) -> None:
        self._caller = Caller(port)
        self._history = history
        self._answers = answers
        self._random = random.Random(seed)
        self._stop = stop
        self._pending: deque[Submission] = deque()

    def run(self) -> None:
        """Submit and look, in turns, until the event is set."""
        while not self._stop.wait(self._random.uniform(0, _PAUSE_SECONDS)):
            submission = self._submit()
            if submission.job_id and not submission.first_end:
                self._interfere(submission)
                self._pending.append(submission)
            for _ in range(min(2, len(self._pending))):
                oldest = self._pending.popleft()
                if not look(self._caller, self._history, self._answers, oldest):
                    self._pending.append(oldest)
                elif not oldest.delete and self._random.random() < 0.03:
                    delete(self._caller, self._history, oldest)
        self._caller.close()

    def _submit(self) -> Submission:
        model = self._random.choice(tuple(_COLUMNS))
        deadline = self._random.uniform(0.05, 2) if self._random.random() < 0.05 else None
        submission = self._history.open("rows", model, self._make_rows(model), deadline)
        wish: dict[str, object] = {
            "model": model,
            "rows": submission.rows,
            "priority": self._random.choice(_PRIORITIES),
            "metadata": {"serial": submission.serial},
        }
        if deadline is not None:
            wish["deadline_seconds"] = deadline
        headers = dict(_JSON)
        if self._random.random() < 0.25:
            headers["Prefer"] = f"wait={self._random.randint(1, 5)}"
        send(self._caller, self._history, self._answers, submission, "/v1/jobs", json.dumps(wish).encode(), headers)
        return submission

    def _make_rows(self, model: str) -> Rows:
        count = 1 if self._random.random() < 0.7 else self._random.randint(2, 5)
        return make_rows(self._random, model, count)

    def _interfere(self, submission: Submission) -> None:
        chance = self._random.random()
        if chance < 0.04:
            cancel(self._caller, self._history, submission)
        elif chance < 0.06:
            delete(self._caller, self._history, submission)


class FileClient:
    """Submits a file now and then; its result is looked at when the run is over.

    Parameters
    ----------
    port, history, answers, seed, stop
        As of `RowsClient`.
    """

    def __init__(self, port: int, history: History, answers: Answers, seed: int, stop: threading.Event) -> None:
        self._caller = Caller(port)
        self._history = history
        self._answers = answers
        self._random = random.Random(seed)
        self._stop = stop

    def run(self) -> None:
        """Submit, pause, submit, until the event is set."""
        while not self._stop.wait(self._random.uniform(1, 4)):
            submission = self._history.open("file", "iris", make_rows(self._random, "iris", _FILE_ROWS), None)
            path = f"/v1/jobs?model=iris&priority={self._random.choice(_PRIORITIES)}"
            headers = {"Content-Type": "text/csv"}
            send(self._caller, self._history, self._answers, submission, path, make_csv(submission.rows), headers)
        self._caller.close()


def make_rows(chance: random.Random, model: str, count: int) -> Rows:
    """Make rows that a model takes."""
    return [[round(chance.uniform(0, 7), 3) for _ in range(_COLUMNS[model])] for _ in range(count)]


def make_csv(rows: Rows) -> bytes:
    """Write rows of ``iris`` as CSV."""
    header = "sepal_length,sepal_width,petal_length,petal_width"
    return "\n".join([header, *(",".join(map(str, row)) for row in rows), ""]).encode()


def send(
    caller: Caller,
    history: History,
    answers: Answers,
    submission: Submission,
    path: str,
    body: bytes,
    headers: dict[str, str],
) -> None:
    """Send a submission and note what came of it."""
    try:
        answer = caller.ask("POST", path, body, headers)
    except Lost as error:
        submission.answer = "refused" if isinstance(error, Refused) else "lost"
        history.note(submission, "answered", answer=submission.answer, reason=str(error))
        return
    submission.answer = answer.code
    if answer.status in (200, 202):
        job = answer.read_job()
        submission.job_id = job.id
        if answer.status == 200:
            note_end(history, answers, submission, job.status, bytes(job.result))
    history.note(submission, "answered", answer=answer.code, id=submission.job_id)


def look(caller: Caller, history: History, answers: Answers, submission: Submission) -> bool:
    """Ask for a result; return whether the job has ended."""
    try:
        answer = caller.ask("GET", f"/v1/jobs/{submission.job_id}/result")
    except Lost:
        return False
    end = read_end(answer)
    if end == "":
        return False
    if not (end == "gone" and submission.may_vanish):
        note_end(history, answers, submission, end, answer.body if answer.status == 200 else None)
    return True


def read_end(answer: Answer) -> str:
    """Tell from the answer for a result how its job has ended; empty: it has not, or nobody knows."""
    if answer.status == 200:
        return "succeeded"
    ends = {"409 job_canceled": "canceled", "504 deadline_exceeded": "expired", "410 job_gone": "gone"}
    if answer.code in ends:
        return ends[answer.code]
    waits = answer.code == "409 job_not_finished" or answer.status == 503
    return "" if waits else f"unexpected: {answer.code}"


def note_end(history: History, answers: Answers, submission: Submission, end: str, result: bytes | None) -> None:
    """Write down how a job was seen to have ended, and check its result on the spot."""
    if result is not None and end == "succeeded":
        submission.first_digest = digest(result)
        if submission.kind == "rows" and (fault := answers.find_fault(submission, json.loads(result))):
            submission.faults.append(fault)
    submission.first_end = end
    history.note(submission, "ended", end=end, digest=submission.first_digest)


def cancel(caller: Caller, history: History, submission: Submission) -> None:
    """Cancel a job, and note the answer."""
    submission.cancel = "lost"
    with contextlib.suppress(Lost):
        submission.cancel = caller.ask("POST", f"/v1/jobs/{submission.job_id}/cancel").code
    history.note(submission, "cancel", answer=submission.cancel)


def delete(caller: Caller, history: History, submission: Submission) -> None:
    """Delete a job, and note the answer."""
    submission.delete = "lost"
    with contextlib.suppress(Lost):
        submission.delete = caller.ask("DELETE", f"/v1/jobs/{submission.job_id}").code
    history.note(submission, "delete", answer=submission.delete)


def iterate_results(caller: Caller, submissions: list[Submission]) -> Iterator[tuple[Submission, Answer]]:
    """Fetch the results of jobs, waiting for the service where it is away."""
    for submission in submissions:
        yield submission, caller.ask_until_answered(f"/v1/jobs/{submission.job_id}/result")
