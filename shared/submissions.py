"""Submissions: a job that is to be written down, what became of it, and why it may be refused."""

from __future__ import annotations

import msgspec

from shared.claims import LedgerEntry
from shared.errors import ServiceError
from shared.jobs import Document


class QueueFull(ServiceError):
    """Too many rows wait for the model (backpressure)."""

    def __init__(self, waiting_rows: int, limit: int, rows_per_second: float) -> None:
        seconds = waiting_rows / rows_per_second if rows_per_second > 0 else 5.0
        super().__init__(
            "queue_full",
            f"{waiting_rows} rows wait for this model; the limit is {limit}. "
            "Try again later, or send fewer rows at a time.",
            retry_after=max(1, min(60, round(seconds))),
        )


class QuotaExceeded(ServiceError):
    """The tenant has too much in flight already."""

    def __init__(self, what: str, held: int, limit: int) -> None:
        super().__init__(
            "queue_full",
            f"{held} {what} of this tenant are in flight; its limit is {limit}. Try again when some have ended.",
            retry_after=5,
        )


class Quotas(msgspec.Struct, frozen=True):
    """What a tenant may have in flight; 0: any number."""

    jobs: int = 0
    rows: int = 0
    bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.jobs or self.rows or self.bytes)


class Submission(msgspec.Struct, kw_only=True, frozen=True):
    """A job to be written down."""

    id: str
    kind: str
    tenant: str
    queue: str
    priority: str
    rows: int
    deadline_seconds: float
    retention_seconds: float
    document: Document
    payload: bytes = b""
    #: Of the input, for the tenant's quota.
    bytes: int = 0
    chunk_rows: tuple[int, ...] = ()
    #: Of a retry: the chunks in which no row had failed, by their number.
    done_chunks: dict[int, LedgerEntry] = {}
    #: What the caller named its request, and a digest of what it sent; empty if it named none.
    idempotency_key: str = ""
    fingerprint: str = ""


class Submitted(msgspec.Struct, frozen=True):
    """What became of a submission."""

    #: Of the job: another's than the submission's if the caller repeats itself.
    id: str
    #: Unix milliseconds of Redis's clock; None for a repetition.
    created: int | None
    #: Where to publish a wake-up, as `shared.wakeups` has it; 0: nowhere.
    wakeup: int
