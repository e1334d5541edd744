"""Limits in time: how many requests and rows a tenant, or one key, may send; counted in Redis, for all processes.

Each is a bucket that leaks: what is sent fills it, and it empties evenly over its time. So there is no border between
two windows at which twice as much would pass. Several buckets are taken from at once, or from none of them
(``limits.lua``), in the one round trip that a submission can spare.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import redis

from shared.errors import ServiceError
from shared.line import Line
from shared.scripts import Scripts

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 24 * 3600}
_LIMIT = re.compile(r"\s*([1-9]\d{0,14})\s*(?:/|per)\s*([1-9]\d{0,5})?\s*(second|minute|hour|day)s?\s*")


class Limit(msgspec.Struct, frozen=True):
    """What somebody may send in a time."""

    #: As callers see it: ``requests``, ``rows``, ``key-requests`` or ``key-rows``.
    name: str
    #: The tenant or key whose it is.
    owner: str
    amount: int
    seconds: int

    @property
    def bucket(self) -> tuple[str, int, int]:
        """Key in Redis, amount and milliseconds, as the scripts take them."""
        return f"sq:limit:{self.name}:{self.owner}", self.amount, self.seconds * 1000


class LimitState(msgspec.Struct, frozen=True):
    """What is left of a limit."""

    limit: Limit
    remaining: int
    #: Seconds until all of it is there again.
    reset_seconds: int


class LimitExceeded(ServiceError):
    """More was sent than a limit allows; nothing of it was taken."""

    def __init__(self, limit: Limit, cost: int, wait_ms: float, states: list[LimitState]) -> None:
        unit = "rows" if "rows" in limit.name else "requests"
        whose = "this key" if limit.name.startswith("key-") else "this tenant"
        asked = f"; {cost} more are too many now" if unit == "rows" and cost else ""
        super().__init__(
            "rate_limited",
            f"{limit.amount} {unit} in {limit.seconds} s are allowed to {whose}{asked}. Try again later.",
            retry_after=max(1, math.ceil(wait_ms / 1000)),
        )
        self.limit = limit
        self.states = states


class Limiter:
    """Takes from limits.

    Parameters
    ----------
    client : redis.Redis
    line : Line, optional
        See `shared.scripts.Scripts`.
    """

    def __init__(self, client: redis.Redis, line: Line | None = None) -> None:
        self._scripts = Scripts(client, line)

    def take(self, wanted: Sequence[tuple[Limit, int]]) -> list[LimitState]:
        """Take an amount from each of some limits, or nothing from any.

        Parameters
        ----------
        wanted : sequence of (Limit, int)
            An amount of 0 asks whether anything may be taken at all.

        Raises
        ------
        LimitExceeded
            One of them has not enough left.
        redis.RedisError
            Redis does not answer; nobody is let through uncounted.
        """
        return read_reply(wanted, self._scripts.run("take", encode_wanted(wanted)))


def parse_limit(text: str) -> tuple[int, int]:
    """Read a limit, as ``100/second`` or ``5000/10 minutes``.

    Returns
    -------
    tuple of int
        Amount, and seconds.

    Raises
    ------
    ServiceError
        ``invalid_parameter``: it is not of that form.
    """
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise ServiceError("invalid_parameter", f"{text!r}: expected a limit as 100/second or 5000/10 minutes.")
    return int(found[1]), int(found[2] or 1) * _SECONDS[found[3]]


def encode_wanted(wanted: Sequence[tuple[Limit, int]]) -> bytes:
    """Write down what is to be taken as ``limits.lua`` reads it: JSON, or nothing at all."""
    return msgspec.json.encode([(*limit.bucket, cost) for limit, cost in wanted]) if wanted else b""


def read_reply(wanted: Sequence[tuple[Limit, int]], reply: Sequence[Any]) -> list[LimitState]:
    """Read what ``limits.lua`` returned: which limit refuses (0: none) and its wait, then what is left of each."""
    refusing, wait, *rest = reply
    states = [
        LimitState(limit, left, reset) for (limit, _), left, reset in zip(wanted, rest[::2], rest[1::2], strict=True)
    ]
    if refusing:
        limit, cost = wanted[refusing - 1]
        raise LimitExceeded(limit, cost, wait, states)
    return states
