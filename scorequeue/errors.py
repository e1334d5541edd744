"""What can go wrong between a caller and the service, each with its evidence in attributes.

::

    ScorequeueError
    ├── WrongUse              the request was never sent: an argument is wrong
    ├── ServiceUnreachable    no answer
    │   └── OutcomeUnknown    no answer, and the service may have acted all the same
    ├── RequestRefused        the service answered with a problem document
    ├── JobFailed             the job ended without a result
    └── JobTimeout            the caller's patience ended; the job goes on

It must not know how a request is made, nor how an error is printed on a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorequeue.job import Job

#: Faults that a message shows; `RequestRefused.errors` holds all that the service sent.
SHOWN_FAULTS = 5


class ScorequeueError(Exception):
    """Anything that this client raises on purpose."""


class WrongUse(ScorequeueError, ValueError):
    """An argument cannot be sent as it is; nothing was sent."""


class ServiceUnreachable(ScorequeueError):
    """The service gave no usable answer.

    Parameters
    ----------
    url : str
        The address that was asked.
    reason : str
        Why there was no answer.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"no answer from {self.url}: {self.reason}"


class OutcomeUnknown(ServiceUnreachable):
    """The connection broke after the request was sent: the service may have accepted it.

    A submission is therefore not repeated by itself. Look for the job with `Client.jobs`, or submit again
    with the same ``idempotency_key``.
    """

    def __str__(self) -> str:
        return f"{super().__str__()}; the request had been sent, so it may have been accepted"


class RequestRefused(ScorequeueError):
    """The service answered with an error: a problem document (RFC 9457), taken apart.

    Parameters
    ----------
    status : int
        The HTTP status.
    code : str
        The service's name for the error, as ``schema_mismatch``; ``http_<status>`` if the answer had none.
    title, detail : str
        What kind of error it is; what was wrong, where, and what was expected.
    errors : sequence of mapping
        The single faults: ``pointer``, ``detail``, ``column``, ``code``.
    retry_after : float or None
        Seconds after which trying again makes sense.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str = "",
        detail: str = "",
        errors: Sequence[Mapping[str, Any]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, code, title, detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = list(errors)
        self.retry_after = retry_after

    @classmethod
    def from_problem(cls, status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> RequestRefused:
        """Build from a problem document, or from whatever part of one there is."""
        return cls(
            status,
            str(problem.get("code") or f"http_{status}"),
            str(problem.get("title") or ""),
            str(problem.get("detail") or ""),
            [fault for fault in problem.get("errors") or () if isinstance(fault, Mapping)],
            retry_after,
        )

    def __str__(self) -> str:
        return describe_problem(self.code, self.detail or self.title, self.errors)


class JobFailed(ScorequeueError):
    """The job ended as ``failed``, ``canceled`` or ``expired``: it has no result.

    Parameters
    ----------
    job : Job
        The job, with its last record.
    problem : mapping
        The problem document that says why.
    """

    def __init__(self, job: Job, problem: Mapping[str, Any]) -> None:
        super().__init__(job.id, dict(problem))
        self.job = job
        self.problem = dict(problem)

    def __str__(self) -> str:
        code = str(self.problem.get("code") or self.job.status)
        detail = str(self.problem.get("detail") or self.problem.get("title") or "the service gave no reason")
        return f"job {self.job.id} {self.job.status}: " + describe_problem(
            code, detail, self.problem.get("errors") or ()
        )


class JobTimeout(ScorequeueError, TimeoutError):
    """The job was not done in the time that the caller gave; it is not canceled by that.

    Parameters
    ----------
    job : Job
        The job, with its last record.
    timeout : float
        Seconds that were waited.
    """

    def __init__(self, job: Job, timeout: float) -> None:
        super().__init__(job.id, timeout)
        self.job = job
        self.timeout = timeout

    def __str__(self) -> str:
        return f"job {self.job.id} is still {self.job.status} after {self.timeout:g} s; it goes on by itself"


def describe_problem(code: str, detail: str, errors: Sequence[Mapping[str, Any]]) -> str:
    """Put a problem into words: its code, its detail, and the first faults with row and column."""
    lines = [f"{code}: {detail}" if detail else code]
    # One of the whole request that says nothing more than the problem does is there for its code.
    telling = [fault for fault in errors[:SHOWN_FAULTS] if (fault.get("pointer"), fault.get("detail")) != ("#", detail)]
    lines += [f"  {describe_fault(fault)}" for fault in telling]
    if len(errors) > SHOWN_FAULTS:
        lines.append(f"  … and {len(errors) - SHOWN_FAULTS} more")
    return "\n".join(lines)


def describe_fault(fault: Mapping[str, Any]) -> str:
    """Say where a fault is and what was expected there, as ``row 3, column radius: …``."""
    row = fault.get("row")
    column = fault.get("column")
    pointer = str(fault.get("pointer") or "")
    # A pointer reads /rows/<row>/<column>: the row stands in it when the fault does not name it.
    steps = pointer.lstrip("#").strip("/").split("/")
    if row is None and steps[0] == "rows" and len(steps) > 1:
        row = steps[1]
    places = [f"row {row}"] if row is not None else []
    if fault.get("line") is not None:
        places.append(f"line {fault['line']}")
    if column is not None:
        places.append(f"column {column}")
    where = ", ".join(places) or pointer
    what = str(fault.get("detail") or fault.get("code") or "no detail given")
    # Some details say the place themselves.
    return what if not where or what.startswith(("row ", "line ")) else f"{where}: {what}"
