"""Aliases, seen from outside: move one, and tell which version it means."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from scorequeue.errors import RequestRefused
from scorequeue.transport import Transport, read_json

#: Seconds that the service waits for its workers in one request, at most.
_WAIT_SECONDS = 60.0


def promote_alias(
    transport: Transport,
    name: str,
    versions: int | Mapping[int, float],
    *,
    alias: str,
    shadow: int | None,
    timeout: float,
) -> dict[str, Any]:
    """Point an alias at versions; repeat the request while workers still load them. See `Client.promote`."""
    target: dict[str, Any] = {"version": versions} if isinstance(versions, int) else {"versions": dict(versions)}
    body = json.dumps(target | ({} if shadow is None else {"shadow": shadow})).encode()
    path = f"/v1/models/{quote(name, safe='')}/aliases/{quote(alias, safe='')}"
    headers = {"Content-Type": "application/json"}
    end = time.monotonic() + timeout
    while True:
        try:
            response = transport.request("PUT", path, headers=headers, body=body, wait=_WAIT_SECONDS)
        except RequestRefused as error:
            # Still loading: the same request is taken up where it was. A refusal names its faults.
            is_loading = error.code == "model_not_ready" and not error.errors and error.retry_after is not None
            if not is_loading or time.monotonic() > end:
                raise
        else:
            answer: dict[str, Any] = read_json(response)
            return answer


def find_version(meant: Any) -> str:
    """Return the version that an alias means; of several, the one that gets most."""
    if not isinstance(meant, Mapping):
        return str(meant)
    shares = meant.get("versions") or {}
    return str(max(shares, key=lambda version: (shares[version], -int(version))))
