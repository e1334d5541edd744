"""Whether the parts of a running service are ready, asked over HTTP as an outsider would.

It must not know who started them. It asks directly: a proxy named in the environment is never used.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

#: Seconds a part may take for its answer.
ANSWER_SECONDS = 2.0
#: Bytes of an answer that are read.
ANSWER_MAX_BYTES = 65_536


@dataclass(frozen=True)
class Lack:
    """Something that is not ready.

    Parameters
    ----------
    log : str
        Name of the log in which the cause may stand.
    reason : str
        What is the matter, for people.
    """

    log: str
    reason: str


def fetch(host: str, port: int, path: str) -> tuple[int, bytes] | None:
    """Get a page: its status and its beginning, or None if there was no answer."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(ANSWER_MAX_BYTES)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def find_api_lack(host: str, port: int, workers: int) -> Lack | None:
    """Say what is not ready behind the API; None when all is.

    Parameters
    ----------
    host, port
        Where the API listens; one that listens on all addresses is asked on loopback.
    workers : int
        Warmed worker processes that each queue must have.
    """
    answer = fetch({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, "/ready")
    if answer is None:
        return Lack("api.log", f"the API does not answer on port {port}")
    status, body = answer
    if status != 200:
        return Lack("api.log", f"the API's /ready answers {status}: {body[:500].decode(errors='replace')}")
    counts = _read_worker_counts(body)
    for queue in ("rows", "files"):
        if counts.get(queue, 0) < workers:
            reason = f"{counts.get(queue, 0)} of {workers} processes of the {queue} worker are ready"
            return Lack(f"{queue}.log", reason)
    return None


def find_flower_lack(port: int) -> Lack | None:
    """Say whether Flower is not ready yet; None when it is."""
    answer = fetch("127.0.0.1", port, "/healthcheck")
    if answer and answer[0] == 200:
        return None
    return Lack("flower.log", f"Flower does not answer on port {port}")


def _read_worker_counts(body: bytes) -> dict[str, Any]:
    try:
        counts = json.loads(body)["workers"]
    except (ValueError, KeyError, TypeError):
        return {}
    return counts if isinstance(counts, dict) else {}
