"""The audit trail: who was given a key, who lost it, who was refused. It never holds a key or a payload.

A refusal is logged by the process that refuses. Keys are made and revoked by a command, whose own output is lost; so
its events wait in Redis, written in the same transaction as the change, until a sweep logs them where the service logs.
"""

from __future__ import annotations

import getpass
import socket
from typing import Any

import msgspec
import redis

from shared.logs import get_logger

_WAITING = "sq:audit"
#: Events that may wait: a person makes them, so this is the record of years without a service running.
_MOST_WAITING = 10_000
_MOST_AT_ONCE = 100

logger = get_logger("audit")


def note_event(pipe: Any, event: str, **fields: Any) -> None:
    """Add an event to a transaction; it is logged when that is carried out, and only then.

    Parameters
    ----------
    pipe : redis.client.Pipeline
    event : str
    **fields
        What may be known of it.
    """
    pipe.rpush(_WAITING, msgspec.json.encode({"event": event, "by": _name_person()} | fields))
    pipe.ltrim(_WAITING, -_MOST_WAITING, -1)


def log_waiting(client: redis.Redis) -> None:
    """Log the events that wait; each is taken by one process."""
    events: list[bytes] = client.lpop(_WAITING, _MOST_AT_ONCE) or []  # type: ignore[assignment]
    for text in events:
        fields = msgspec.json.decode(text)
        logger.info(fields.pop("event"), audit=True, **fields)


def log_refusal(code: str, **fields: Any) -> None:
    """Log that a caller was refused."""
    logger.warning("request refused", audit=True, code=code, **fields)


def _name_person() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
