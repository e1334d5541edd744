"""The guard of connections, on real sockets: what stands still is ended, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from werkzeug.serving import make_server

from api.connections import ConnectionGuard, Span, reading_from_client
from tests.conftest import WaitUntil

RATE = 1000
SPANS = (Span(1.0, 0.0, ends_readers=False), Span(3.0, 2.0, ends_readers=True))


def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer after the body has come, after a wait, or with more than any buffer holds."""
    if environ["PATH_INFO"] == "/wait":
        time.sleep(float(environ["QUERY_STRING"]))
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [])
        return (b"x" * 65536 for _ in range(400))
    length = int(environ.get("CONTENT_LENGTH") or 0)
    with reading_from_client(environ):
        body = environ["wsgi.input"].read(length)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{len(body)} bytes".encode()]


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> ConnectionGuard:
    """Give a guard with the patience of a test."""
    monkeypatch.setattr("api.connections._SLOW_SECONDS", 0.1)
    monkeypatch.setattr("api.connections._LOOK_SECONDS", 0.1)
    return ConnectionGuard(SPANS, RATE)


@pytest.fixture
def connect(guard: ConnectionGuard) -> Iterator[Callable[..., socket.socket]]:
    """Return a function that connects to a guarded server from an address of this machine."""
    with contextlib.ExitStack() as stack:
        server = make_server("127.0.0.1", 0, guard.wrap(serve), threaded=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        guard.start()

        def begin(text: bytes, address: str = "127.0.0.1") -> socket.socket:
            connection = socket.create_connection(("127.0.0.1", server.server_port), 10, (address, 0))
            connection.sendall(text)
            return stack.enter_context(connection)

        yield begin
        guard.stop()
        server.shutdown()
        server.server_close()
        thread.join(10)


def begin_upload(length: int, sent: bytes = b"") -> bytes:
    """Give the head of an upload and what comes at once of its body."""
    return b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b" % (length, sent)


def read_all(connection: socket.socket) -> bytes:
    """Read until the end."""
    received = []
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(1 << 20):
            received.append(block)
    return b"".join(received)


def test_body_that_stops_is_ended_with_an_answer(connect: Callable[..., socket.socket]) -> None:
    """A sender that goes silent gets a problem document, and its connection ends."""
    began = time.monotonic()
    answer = read_all(connect(begin_upload(1000, b"half")))
    assert 1.0 <= time.monotonic() - began < 6
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"incomplete_upload"' in answer
    assert b"1000 bytes a second" in answer


def test_body_that_drips_is_ended(connect: Callable[..., socket.socket]) -> None:
    """A byte now and then does not hold a thread for ever."""
    connection = connect(begin_upload(100_000))
    began = time.monotonic()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() - began < 20:
            connection.sendall(b"x")
            time.sleep(0.05)
    assert time.monotonic() - began < 10


def test_slow_body_that_brings_enough_is_let_be(connect: Callable[..., socket.socket]) -> None:
    """A thin line is no attack: at twice the least rate an upload takes as long as it takes."""
    connection = connect(begin_upload(8000))
    for _ in range(40):
        connection.sendall(b"x" * 200)
        time.sleep(0.1)
    assert b"8000 bytes" in connection.recv(4096)


def test_requests_that_wait_are_let_be(connect: Callable[..., socket.socket]) -> None:
    """Beside a sender that stands still, waiting requests of the same address and of others get their answers."""
    waiting = [connect(b"GET /wait?2.0 HTTP/1.1\r\nHost: h\r\n\r\n", address) for address in ("127.0.0.1", "127.0.0.2")]
    still = connect(begin_upload(1000, b"half"))
    for connection in waiting:
        assert b"200 OK" in connection.recv(4096)
    assert b"incomplete_upload" in read_all(still)


def test_still_body_of_a_busy_address_is_ended_too(connect: Callable[..., socket.socket]) -> None:
    """An address that always has a waiting request, such as a proxy's, delays the end but does not prevent it."""
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            read_all(connect(b"GET /wait?0.5 HTTP/1.0\r\n\r\n"))

    threads = [threading.Thread(target=keep_busy) for _ in range(3)]
    still = connect(begin_upload(1000, b"half"))
    began = time.monotonic()
    for thread in threads:
        thread.start()
        time.sleep(0.17)
    still.settimeout(20)
    read_all(still)
    took = time.monotonic() - began
    stop.set()
    for thread in threads:
        thread.join(10)
    assert 1.0 < took < 15


def test_reader_that_stops_is_ended_in_time(
    connect: Callable[..., socket.socket], guard: ConnectionGuard, wait_until: WaitUntil
) -> None:
    """Who asks for much and reads nothing does not hold a thread; a pause within the time is let be."""
    patient = connect(b"GET /large HTTP/1.0\r\n\r\n", "127.0.0.3")
    time.sleep(1.5)
    assert len(read_all(patient)) > 400 * 65536
    connect(b"GET /large HTTP/1.0\r\n\r\n", "127.0.0.4")
    wait_until(lambda: guard._open, 5, "the download to begin")
    wait_until(lambda: not guard._open, 15, "the download to end")


def test_nothing_is_looked_at_while_nobody_is_slow(guard: ConnectionGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard costs nothing as long as all goes well."""
    monkeypatch.setattr("api.connections._list_connections", lambda: pytest.fail("it looked"))
    assert guard.look() == 0
