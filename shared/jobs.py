"""The job: what is submitted, polled and, once finished, kept for a while."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

import msgspec

from shared.plans import Format
from shared.signature import Output


class Status(StrEnum):
    """The states of a job; the last five are terminal and never change."""

    #: It waits for a worker.
    QUEUED = "queued"
    #: A worker holds it, or some of its chunks.
    RUNNING = "running"
    #: Every row was scored.
    SUCCEEDED = "succeeded"
    #: Some rows were scored, others carry an error.
    PARTIALLY_SUCCEEDED = "partially_succeeded"
    #: No row was scored.
    FAILED = "failed"
    #: A caller took it back.
    CANCELED = "canceled"
    #: It still waited at its deadline.
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Whether it can no longer change."""
        return self not in (Status.QUEUED, Status.RUNNING)


PRIORITIES = ("high", "normal", "low")
#: The streams of a queue: the priorities, and the one from which jobs are claimed alone.
STREAMS = (*PRIORITIES, "trial")


def queue_name(kind: str, model: str, version: int) -> str:
    """Name the queue of a model version: ``rows:churn:3`` or ``files:churn:3``."""
    return f"{kind}:{model}:{version}"


def parse_queue(queue: str) -> tuple[str, str, int]:
    """Return the kind, model and version of a queue's name."""
    kind, model, version = queue.split(":")
    return kind, model, int(version)


#: What a webhook may be told: the ends that a job can have.
Event = Literal["job.succeeded", "job.partially_succeeded", "job.failed", "job.canceled", "job.expired"]
EVENTS: tuple[Event, ...] = get_args(Event)


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the end of a job is told, and of which ends."""

    url: str
    events: Annotated[tuple[Event, ...], msgspec.Meta(min_length=1)] = EVENTS

    def encode(self) -> str:
        """Write it as the scripts read it; an address holds no spaces (`shared.webhooks.check_address`)."""
        return " ".join((self.url, *self.events))


class Document(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The part of a job that never changes, written at submission."""

    model: str
    version: int
    model_sha256: str
    metadata: dict[str, Any] | None = None
    retry_of: str | None = None
    #: Of a file job: what the scoring of its chunks needs to know.
    format: Format = "csv"
    delimiter: str = ","
    column_prefix: str = ""
    filename: str = ""
    #: Of its model: they decide which columns are added.
    outputs: tuple[Output, ...] = (Output(),)
    #: Rows that may fail; with the next one the job fails, and nothing more of it is scored. None: all may.
    max_failed_rows: int | None = None
    webhook: Webhook | None = None
    #: Of the request that made it, by which the logs of API and workers name it.
    request_id: str = ""
    #: Of the request, or of its caller: by it the traces of others find what became of it (W3C Trace Context).
    traceparent: str = ""
    #: Of a retry: chunks of which some rows are taken over from the job before.
    merged_chunks: tuple[int, ...] = ()


class Job(msgspec.Struct, kw_only=True):
    """A job's record as read from Redis.

    Times are Unix milliseconds of Redis's clock.
    """

    id: str
    kind: str
    status: Status
    tenant: str
    priority: str
    document: Document
    rows: int
    succeeded: int
    failed: int
    created: int
    started: int | None
    finished: int | None
    retention: int
    attempts: int
    problem: dict[str, Any] | None
    #: Its place among what was offered, while it waits.
    sequence: int | None
    stream: str | None
    queue: str

    @property
    def gone_at(self) -> int | None:
        """When the record is removed; None while it is not terminal."""
        return None if self.finished is None else self.finished + self.retention

    def describe(self, now: int, position: int | None) -> dict[str, Any]:
        """Describe the job as the contract shows it.

        Parameters
        ----------
        now : int
            Unix milliseconds, for speed and remaining time.
        position : int or None
            How many jobs will be claimed up to and with this one, while it waits.
        """
        done = self.succeeded + self.failed
        pending = self.rows - done
        elapsed = ((self.finished or now) - self.started) / 1000 if self.started else 0.0
        speed = done / elapsed if done and elapsed > 0 else None
        base = f"/v1/jobs/{self.id}"
        return {
            "id": self.id,
            "kind": self.kind,
            "status": self.status,
            "model": f"{self.document.model}:{self.document.version}",
            "model_sha256": self.document.model_sha256,
            "priority": self.priority,
            "row_counts": {
                "total": self.rows,
                "succeeded": self.succeeded,
                "failed": self.failed,
                "pending": pending,
            },
            "progress": self._progress(done),
            "rows_per_second": None if speed is None else round(speed, 1),
            "eta_seconds": None if speed is None or self.status.is_terminal else round(pending / speed, 1),
            "queue_position": position,
            "created_at": format_time(self.created),
            "started_at": format_time(self.started),
            "finished_at": format_time(self.finished),
            "gone_at": format_time(self.gone_at),
            "attempts": self.attempts,
            "retry_of": self.document.retry_of,
            "request_id": self.document.request_id or None,
            "traceparent": self.document.traceparent or None,
            "error": self.problem,
            "metadata": self.document.metadata,
            "links": {
                "self": base,
                "result": f"{base}/result",
                "errors": f"{base}/errors",
                "cancel": f"{base}/cancel",
            },
        }

    def _progress(self, done: int) -> float:
        if self.rows:
            return round(done / self.rows, 4)
        return 1.0 if self.status.is_terminal else 0.0


def format_time(milliseconds: int | None) -> str | None:
    """Format Unix milliseconds as RFC 3339 in UTC."""
    if milliseconds is None:
        return None
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_format_second(seconds)}.{rest:03}Z"


@functools.lru_cache(4096)
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
