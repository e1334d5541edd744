"""Claims: work that a worker took, and what it gives back for it."""

from __future__ import annotations

import msgspec

from shared.jobs import Status


class LedgerEntry(msgspec.Struct, frozen=True):
    """A finished chunk: where its part is and how long it is, in bytes."""

    part: str
    bytes: int
    succeeded: int
    failed: int
    errors_part: str


class Claim(msgspec.Struct, frozen=True):
    """A unit taken from a queue: a rows job, or one chunk of a file job."""

    id: str
    chunk: int | None
    attempt: int
    strikes: int
    created: int
    rows: int
    payload: bytes
    #: Where it waited: a priority, or ``trial``.
    stream: str


class Claimed(msgspec.Struct, frozen=True):
    """What one claim returned."""

    now: int
    more_waits: bool
    #: As in `Submitted`.
    wakeup: int
    units: list[Claim]


class RowsOutcome(msgspec.Struct, frozen=True):
    """The end of a rows job, as its worker found it."""

    id: str
    attempt: int
    status: Status
    succeeded: int
    failed: int
    result: bytes = b""
    problem: bytes = b""
