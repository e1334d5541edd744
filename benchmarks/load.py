"""Load from several client processes, each with several kept-alive connections."""

from __future__ import annotations

import http.client
import itertools
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_HEADERS = {"Content-Type": "application/json"}


def post_all(
    port: int,
    path: str,
    bodies: list[bytes],
    count: int,
    processes: int,
    connections: int,
    await_end: Callable[[], object],
) -> tuple[float, float]:
    """Make `count` POST requests as fast as they are answered, each connection one after the other.

    Parameters
    ----------
    await_end : callable
        Called after the last answer; returns when all that was submitted is finished.

    Returns
    -------
    tuple of float
        Seconds from the first request to the last answer, and to the end of `await_end`.

    Raises
    ------
    RuntimeError
        A request was not answered with 200 or 202: what was measured would mean nothing.
    """
    shares = [len(range(index, count, processes)) for index in range(processes)]
    # Spawned: a forked copy of a process with threads may hang.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(_warm_up, range(processes), chunksize=1)
        spans = pool.starmap(_post_share, [(port, path, bodies, share, connections) for share in shares], chunksize=1)
        await_end()
        ended = time.time()
    began = min(begin for begin, _ in spans)
    return max(end for _, end in spans) - began, ended - began


def post(
    connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str] | None = None
) -> bytes:
    """Make one request and return the body of its answer."""
    connection.request("POST", path, body, {**_HEADERS, **(headers or {})})
    response = connection.getresponse()
    answer = response.read()
    if response.status not in (200, 202):
        # No SystemExit: that would end a process of the pool, and the pool would wait for its answer for ever.
        raise RuntimeError(f"POST {path} was answered with {response.status}: {answer[:500]!r}")
    return answer


def _warm_up(_: int) -> None:
    time.sleep(0.2)  # so that each process of the pool gets one, and has been started


def _post_share(port: int, path: str, bodies: list[bytes], count: int, connections: int) -> tuple[float, float]:
    began = time.time()
    # next() of a count is one step under the interpreter's lock: the threads can share it.
    numbers = itertools.count()

    def post_until_done(_: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while (number := next(numbers)) < count:
            post(connection, path, bodies[number % len(bodies)])
        connection.close()

    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(post_until_done, range(connections)))
    return began, time.time()
