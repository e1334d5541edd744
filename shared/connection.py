"""Connections to Redis: with a bound on every wait, and never a silent second try."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

#: Redis answers a script in milliseconds; a second of silence means that it is gone.
TIMEOUT_SECONDS = 1.0


def connect(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, max_connections: int = 128) -> redis.Redis:
    """Return a client for `url` (``redis://``, ``rediss://`` or ``unix://``).

    It does not connect yet. A call raises `redis.RedisError` within `timeout_seconds`, and is not repeated: the
    default of redis-py ran one XADD twice when its answer was cut off, and took 3.8 s to report a refused port
    (design, decision 10). What may be repeated is repeated by those who know.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        max_connections=max_connections,
    )
