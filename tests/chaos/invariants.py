"""The books: what must be true when the dust has settled. Each function returns sentences, one a violation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.clients import iterate_results, make_csv, note_end, read_end
from tests.chaos.history import Answers, History, Submission, digest
from tests.chaos.http_calls import Caller

TERMINAL = ("succeeded", "partially_succeeded", "failed", "canceled", "expired")
_ADDED_COLUMNS = "prediction,probability_setosa,probability_versicolor,probability_virginica"


@dataclass
class Ledger:
    """All jobs that the service lists, by id, and which of them a submission made."""

    jobs: dict[str, dict[str, Any]]
    by_serial: dict[int, list[str]] = field(default_factory=dict)

    @property
    def statuses(self) -> Counter[str]:
        """Jobs by status."""
        return Counter(job["status"] for job in self.jobs.values())


def read_ledger(caller: Caller) -> Ledger:
    """List all jobs."""
    ledger = Ledger({})
    path = "/v1/jobs?limit=200"
    while path:
        page = caller.ask_until_answered(path).parse()
        ledger.jobs |= {job["id"]: job for job in page["jobs"]}
        path = f"/v1/jobs?limit=200&after={page['next']}" if page["next"] else ""
    for job_id, job in ledger.jobs.items():
        serial = (job["metadata"] or {}).get("serial")
        if serial is not None:
            ledger.by_serial.setdefault(serial, []).append(job_id)
    return ledger


def adopt_unanswered(history: History, ledger: Ledger) -> int:
    """Give submissions whose answer was lost the jobs that they made after all; return how many there are."""
    adopted = 0
    for submission in history.submissions:
        found = ledger.by_serial.get(submission.serial, [])
        if submission.job_id is None and found:
            submission.job_id = found[0]
            adopted += 1
    return adopted


def check_jobs(history: History, ledger: Ledger) -> list[str]:
    """Every accepted job is there once and has ended, in a way that its client's acts allow, and for good."""
    faults = []
    for submission in history.submissions:
        made = ledger.by_serial.get(submission.serial, [])
        if len(made) > 1:
            faults.append(f"submission {submission.serial} made {len(made)} jobs: {made}")
        faults += [f"{submission.job_id}: {fault}" for fault in submission.faults]
        if submission.job_id is None:
            continue
        job = ledger.jobs.get(submission.job_id)
        if job is None:
            if not submission.may_vanish:
                faults.append(f"{submission.job_id}: accepted ({submission.answer}) and lost")
        else:
            faults += [f"{submission.job_id}: {fault}" for fault in _find_job_faults(submission, job)]
    return faults


def _find_job_faults(submission: Submission, job: dict[str, Any]) -> list[str]:
    status = job["status"]
    faults = []
    if status not in TERMINAL:
        faults.append(f"still {status}, {job['attempts']} attempts")
    elif status not in _list_possible_ends(submission):
        faults.append(f"{status} (error {job['error']}), expected {' or '.join(_list_possible_ends(submission))}")
    if submission.first_end not in ("", status):
        faults.append(f"was {submission.first_end} and then {status}")
    if submission.delete == "204":
        faults.append("deleted (204) and still listed")
    if status == "succeeded" and sum(job["row_counts"].values()) != 2 * len(submission.rows):
        faults.append(f"row counts {job['row_counts']} do not add up to {len(submission.rows)}")
    return faults


def _list_possible_ends(submission: Submission) -> list[str]:
    if submission.cancel == "200":
        return ["canceled"]
    ends = ["succeeded"]
    if submission.cancel not in ("", "409 job_terminal"):
        ends.append("canceled")
    if submission.deadline is not None:
        ends.append("expired")
    return ends


def check_results(caller: Caller, history: History, answers: Answers, ledger: Ledger) -> list[str]:
    """Every result equals the model called directly, and is the same bytes as when it was seen first."""
    faults = []
    kept = [submission for submission in history.submissions if submission.job_id in ledger.jobs]
    for submission, answer in iterate_results(caller, kept):
        end, first = read_end(answer), submission.first_digest
        status = ledger.jobs[submission.job_id or ""]["status"]
        if end != status:
            faults.append(f"{submission.job_id}: listed as {status}, and its result says {end or answer.code}")
        elif end == "succeeded" and submission.kind == "file":
            if fault := _find_file_fault(submission, answers, answer.body):
                faults.append(f"{submission.job_id}: {fault}")
        elif end == "succeeded" and not first:
            before = len(submission.faults)
            note_end(history, answers, submission, end, answer.body)
            faults += [f"{submission.job_id}: {fault}" for fault in submission.faults[before:]]
        if first and digest(answer.body) != first:
            faults.append(f"{submission.job_id}: its result has changed")
    return faults


def _find_file_fault(submission: Submission, answers: Answers, body: bytes) -> str | None:
    given = make_csv(submission.rows).decode().splitlines()
    lines = body.decode().splitlines()
    if lines[0] != f"{given[0]},{_ADDED_COLUMNS},error_code,error_message":
        return f"header {lines[0]!r}"
    if len(lines) != len(given):
        return f"{len(lines) - 1} records instead of {len(given) - 1}"
    result: dict[str, Any] = {"predictions": [], "probabilities": [], "errors": []}
    for line, record in zip(lines[1:], given[1:], strict=True):
        if not line.startswith(f"{record},"):
            return f"record {record!r} became {line!r}"
        label, *probabilities, code, _ = line.removeprefix(f"{record},").split(",")
        result["predictions"].append(label)
        result["probabilities"].append([float(text) for text in probabilities])
        result["errors"] += [code] if code else []
    return answers.find_fault(submission, result)


def check_counts(caller: Caller, history: History, ledger: Ledger) -> list[str]:
    """Nothing is outstanding, nothing was given up, and what was counted in equals what was counted out."""
    queues = caller.ask_until_answered("/v1/queues").parse()["queues"]
    faults = [f"work is left: {queue}" for queue in queues if queue["depth"] or queue["outstanding_rows"]]
    dead = caller.ask_until_answered("/v1/dead-letters").parse()["dead_letters"]
    faults += [f"{job['id']}: a dead letter without poison: {job['error']}" for job in dead]
    submitted, finished = _read_counters(caller)
    if submitted != sum(finished.values()):
        faults.append(f"{submitted} jobs counted in, {sum(finished.values())} counted out: {dict(finished)}")
    gone = sum(1 for one in history.submissions if one.job_id and one.job_id not in ledger.jobs)
    if submitted != len(ledger.jobs) + gone:
        faults.append(f"{submitted} jobs counted in, {len(ledger.jobs)} listed, {gone} deleted")
    faults += [
        f"{finished[status]} jobs counted as {status}, and {count} are listed"
        for status, count in ledger.statuses.items()
        if finished[status] < count
    ]
    return faults


def _read_counters(caller: Caller) -> tuple[int, Counter[str]]:
    submitted = 0
    finished: Counter[str] = Counter()
    text = caller.ask_until_answered("/metrics").body.decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "scorequeue_jobs_submitted_total":
                submitted += int(sample.value)
            elif sample.name == "scorequeue_jobs_finished_total":
                finished[sample.labels["status"]] += int(sample.value)
    return submitted, finished
