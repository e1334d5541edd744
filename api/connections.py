"""Connections that stand still: found in the kernel's own figures, and ended.

The server (Granian) reads a body and writes an answer for as long as its client likes, and the thread of the request
waits with it; nothing in Python can end such a wait, or tell which connection a request came by. But the kernel counts
the bytes of each connection. So a thread looks, while any request waits for its client, at the connections of this
process: one that brought nearly nothing and was sent nothing for some seconds is shut down, if no request from its
address could be waiting for anything else. The read then ends like that of any upload that was cut off.

Only Linux has these figures; elsewhere slow clients hold the threads that `api.receiving` leaves to them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from api.problems import describe_problem
from shared import metrics
from shared.logs import get_logger

#: Where a request finds itself in its environment.
_HERE = "scorequeue.open_request"
_LOOK_SECONDS = 1.0
#: A request that waits for its client for longer is worth a look at the connections.
_SLOW_SECONDS = 2.0
#: A connection without a request is closed by the server before that (``--http1-header-read-timeout``).
_IDLE_SECONDS = 30.0
#: In ``struct tcp_info`` (linux/tcp.h): unacknowledged segments, bytes acknowledged and received, bytes not yet sent.
_UNACKED, _BYTES, _NOT_SENT = struct.Struct("24xI"), struct.Struct("120xQQ"), struct.Struct("144xI")
_INFO_BYTES = 148

logger = get_logger(__name__)


class OpenRequest:
    """A request that is being served."""

    __slots__ = ("address", "began", "path", "plain", "reading", "waits_since")

    def __init__(self, environ: dict[str, Any]) -> None:
        self.address: str = environ.get("REMOTE_ADDR") or ""
        self.path: str = environ.get("PATH_INFO") or ""
        self.plain: bool = environ.get("wsgi.url_scheme") == "http"
        self.began = time.monotonic()
        #: Since when it waits for its client; 0 while the client waits for us.
        self.waits_since = 0.0
        self.reading = False


class Span(msgspec.Struct, frozen=True):
    """What is too slow: how long it is looked at, and which other requests of the address make it doubtful."""

    seconds: float
    #: A request of this age that does not wait for its client may be the one that the connection carries.
    doubtful_age: float
    #: Whether those are ended too that do not read their answer.
    ends_readers: bool


class _Sample(msgspec.Struct, frozen=True):
    at: float
    received: int
    acknowledged: int


def make_spans(stall_seconds: float, longest_wait: float) -> tuple[Span, Span]:
    """Return what is too slow.

    Parameters
    ----------
    stall_seconds : float
        A body that brings less than it must in this time is ended, if its address has no other request.
    longest_wait : float
        Seconds that a request may wait for anything but its client. A connection that was sent nothing for longer, and
        more, is not waiting, whatever else its address does.
    """
    surely = longest_wait + _IDLE_SECONDS
    return (
        Span(stall_seconds, 0.0, ends_readers=False),
        Span(surely + max(stall_seconds, _IDLE_SECONDS), surely, ends_readers=True),
    )


class ConnectionGuard:
    """Ends connections that stand still.

    Parameters
    ----------
    spans : tuple of Span
        From `make_spans`.
    bytes_per_second : int
        What a body must bring.
    """

    def __init__(self, spans: tuple[Span, ...], bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._spans = spans
        self._open: dict[int, OpenRequest] = {}
        self._samples: dict[tuple[int, float], _Sample] = {}
        self._stop = threading.Event()

    def start(self) -> None:
        """Look once a second in a thread, until `stop` or the end of the process."""
        if sys.platform == "linux":
            threading.Thread(target=self._run, name="connections", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def wrap(self, application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return a WSGI application that tells this guard of its requests."""

        def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            opened = environ[_HERE] = OpenRequest(environ)
            self._open[id(opened)] = opened
            try:
                blocks = application(environ, start_response)
            except BaseException:
                del self._open[id(opened)]
                raise
            if isinstance(blocks, list):  # nothing of it is still to be made: the server sends it without this thread
                del self._open[id(opened)]
                return blocks
            return _Answer(blocks, opened, self._open)

        return serve

    def look(self) -> int:
        """Look at the connections once; return how many were ended."""
        now = time.monotonic()
        requests = list(self._open.values())
        if not any(_is_slow(opened, now) for opened in requests):
            self._samples.clear()
            return 0
        ended = 0
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(connection) for connection in _list_connections()]
            for span in self._spans:
                still = [one for one in connections if self._stood_still(one, span, now)]
                for address in {connection.address for connection in still}:
                    ours = [opened for opened in requests if opened.address == address]
                    if _is_certain(ours, span, now):
                        those = [connection for connection in still if connection.address == address]
                        self._end(those, ours)
                        ended += len(those)
        return ended

    def _stood_still(self, connection: _Connection, span: Span, now: float) -> bool:
        key = (connection.inode, span.seconds)
        before = self._samples.get(key)
        if before is None:
            self._samples[key] = _Sample(now, connection.received, connection.acknowledged)
            return False
        if now - before.at < span.seconds:
            return False
        self._samples[key] = _Sample(now, connection.received, connection.acknowledged)
        came = connection.received - before.received
        return (
            came < self._bytes_per_second * (now - before.at)
            and connection.acknowledged == before.acknowledged
            and (span.ends_readers or not connection.pending)
        )

    def _end(self, connections: list[_Connection], requests: list[OpenRequest]) -> None:
        readers = [opened for opened in requests if opened.waits_since and opened.reading]
        for connection in connections:
            if readers and all(opened.plain for opened in readers) and not connection.pending:
                connection.answer(_make_answer(readers[0].path, self._spans[0].seconds, self._bytes_per_second))
            connection.shut_down()
            metrics.REJECTED.labels("incomplete_upload").inc()
        logger.warning(
            "ended connections that stood still", address=connections[0].address, connections=len(connections)
        )

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # without this thread slow clients would hold theirs for ever
                logger.exception("could not look at the connections; it is tried again in a second")


@contextlib.contextmanager
def reading_from_client(environ: dict[str, Any]) -> Iterator[Callable[[], None]]:
    """Tell the guard that a request waits for its client in this block.

    Yields
    ------
    callable
        To be called whenever something has come.
    """
    opened: OpenRequest | None = environ.get(_HERE)
    if opened is None:
        yield lambda: None
        return

    def note_progress() -> None:
        opened.waits_since = time.monotonic()

    opened.reading = True
    note_progress()
    try:
        yield note_progress
    finally:
        opened.reading, opened.waits_since = False, 0.0


class _Answer:
    """The body of an answer: between two blocks of it the request waits for its client."""

    def __init__(self, blocks: Iterable[bytes], opened: OpenRequest, all_open: dict[int, OpenRequest]) -> None:
        self._blocks, self._next = blocks, iter(blocks).__next__
        self._opened, self._all_open = opened, all_open

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._opened.waits_since = 0.0
        block = self._next()
        self._opened.waits_since = time.monotonic()
        return block

    def close(self) -> None:
        self._all_open.pop(id(self._opened), None)
        if close := getattr(self._blocks, "close", None):
            close()


class _Connection:
    """A connection of this process to one of its clients, held by a descriptor of our own."""

    def __init__(self, held: socket.socket, inode: int, info: bytes) -> None:
        self._held = held
        self.inode = inode
        self.address = str(held.getpeername()[0])
        self.acknowledged, self.received = _BYTES.unpack_from(info)
        (unacknowledged,), (not_sent,) = _UNACKED.unpack_from(info), _NOT_SENT.unpack_from(info)
        self.pending = bool(unacknowledged or not_sent)

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def answer(self, text: bytes) -> None:
        """Send what the application cannot say any more, as far as it fits."""
        with contextlib.suppress(OSError):
            self._held.send(text, socket.MSG_DONTWAIT)

    def shut_down(self) -> None:
        """End it in both directions: the server takes it for a client that went away."""
        with contextlib.suppress(OSError):
            self._held.shutdown(socket.SHUT_RDWR)


def _is_slow(opened: OpenRequest, now: float) -> bool:
    since = opened.waits_since
    return bool(since) and now - since > _SLOW_SECONDS


def _is_certain(requests: list[OpenRequest], span: Span, now: float) -> bool:
    """Tell whether no connection of an address can be one whose request does not wait for its client."""
    waiting = [opened for opened in requests if _is_slow(opened, now)]
    others = [opened for opened in requests if not opened.waits_since and now - opened.began >= span.doubtful_age]
    return bool(waiting) and not others


def _list_connections() -> Iterator[_Connection]:
    """Yield the connections that came in by a listening socket of this process; to be closed by the caller."""
    found: dict[int, tuple[socket.socket, bytes]] = {}
    ports = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            held = _hold_socket(int(name))
            if held is None:
                continue
            inode = os.fstat(held.fileno()).st_ino
            if inode in found:
                held.close()
            elif held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                ports.add(held.getsockname()[1])
                held.close()
            else:
                found[inode] = held, held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:  # closed between two of these calls
            continue
    for inode, (held, info) in found.items():
        try:
            if held.getsockname()[1] in ports and len(info) >= _INFO_BYTES:
                yield _Connection(held, inode, info)
                continue
        except OSError:  # no longer connected
            pass
        held.close()


def _hold_socket(descriptor: int) -> socket.socket | None:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return None
    held = socket.socket(fileno=os.dup(descriptor))
    if held.family in (socket.AF_INET, socket.AF_INET6) and held.type == socket.SOCK_STREAM:
        return held
    held.close()
    return None


def _make_answer(path: str, seconds: float, bytes_per_second: int) -> bytes:
    problem = describe_problem(
        "incomplete_upload",
        f"Less than {bytes_per_second} bytes a second came for {seconds:g} s; nothing was kept.",
        path,
    )
    body = msgspec.json.encode(problem)
    head = (
        f"HTTP/1.1 {problem['status']} Bad Request\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
