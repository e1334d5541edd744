"""Clients that are slow, cut off or hostile, at the front end on its real server; others are served meanwhile."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.keys import KeyStore
from shared.store import JobStore
from tests.api_under_test import IRIS_ROWS
from tests.conftest import WaitUntil
from tests.front_end import serving

#: More than the server has threads for requests (2 x 32), or places for bodies (2 x 12).
MANY = 100
CSV = b"a,b\n" + b"1,2\n" * 500
BODY = json.dumps({"model": "iris", "rows": IRIS_ROWS}).encode()

# One server will do: it is not Redis that is tested here.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)


class Served:
    """The front end as `scorequeue up` starts it, and its callers.

    Parameters
    ----------
    port : int
    files : Path
        Its file store.
    attacker, neighbour : str
        Keys of two tenants.
    """

    def __init__(self, port: int, files: Path, attacker: str, neighbour: str) -> None:
        self.port, self.files = port, files
        self.attacker, self.neighbour = attacker, neighbour

    def connect(self, text: bytes, address: str = "127.0.0.2") -> socket.socket:
        """Connect from an address of this machine and send something."""
        connection = socket.create_connection(("127.0.0.1", self.port), 20, (address, 0))
        connection.sendall(text)
        return connection

    def begin(self, content_type: str, *headers: str, path: str = "/v1/jobs?model=line") -> bytes:
        """Give the head of the attacker's upload."""
        lines = [f"POST {path} HTTP/1.1", "Host: here", f"Authorization: Bearer {self.attacker}"]
        return "\r\n".join([*lines, f"Content-Type: {content_type}", *headers, "", ""]).encode()

    def ask(self, method: str, path: str, body: bytes | None = None, key: str = "") -> tuple[int, Any]:
        """Make the neighbour's request; give status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Authorization": f"Bearer {key or self.neighbour}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")

    def list_kept(self) -> list[str]:
        """List the attacker's jobs and all files."""
        jobs = self.ask("GET", "/v1/jobs", key=self.attacker)[1]["jobs"]
        return [job["id"] for job in jobs] + [str(path) for path in self.files.rglob("*") if path.is_file()]


@pytest.fixture
def served(redis_url: str, store: JobStore, models: Path, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Served]:
    """Start the front end as `scorequeue up` does, with the patience of a test."""
    keys = KeyStore(store.client)
    files = tmp_path / "files"
    made = [keys.create(name, ("jobs:read", "jobs:write"))[1] for name in "ab"]
    settings = {"STALL_SECONDS": "1", "MODELS": str(models), "FILE_STORE": str(files)}
    with serving(tmp_path, redis_url, settings, wait_until, {"10000": "2000"}) as port:
        yield Served(port, files, *made)


def read_all(connection: socket.socket) -> bytes:
    """Read until the end."""
    received = []
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(65536):
            received.append(block)
    return b"".join(received)


def submit_for(served: Served, seconds: float) -> list[float]:
    """Submit the neighbour's jobs one after the other; give how long each took to be taken."""
    took = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        status, answer = served.ask("POST", "/v1/jobs", BODY)
        assert status == 202, answer
        took.append(time.monotonic() - began)
    return took


def test_half_sent_headers_end_and_others_are_served(served: Served) -> None:
    """Slowloris: of a hundred connections that send their headers little by little, none lasts; jobs are taken."""
    heads = [b"", b"POST /v1/jobs HTTP/1.1\r\nHost: h\r\nX-A: "]
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(served.connect(heads[number % 2])) for number in range(MANY)]
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.2):
                for connection in slow[1::2]:
                    with contextlib.suppress(OSError):
                        connection.sendall(b"a")

        thread = threading.Thread(target=drip)
        thread.start()
        took = submit_for(served, 3)
        ended = [read_all(connection) for connection in slow]
        stop.set()
        thread.join(10)
    assert max(took) < 2
    assert set(ended) <= {b""} | {answer for answer in ended if answer.startswith(b"HTTP/1.1 4")}


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "drips"])
def test_half_sent_bodies_end_and_others_are_served(served: Served, drips: bool) -> None:
    """Of a hundred bodies that one tenant sends too slowly or not at all, none lasts; another's jobs are taken."""
    with contextlib.ExitStack() as stack:
        head = served.begin("application/json", "Content-Length: 5000", path="/v1/jobs")
        slow = [stack.enter_context(served.connect(head + b"{")) for _ in range(MANY)]
        stop = threading.Event()

        def drip() -> None:
            while drips and not stop.wait(0.2):
                for connection in slow:
                    with contextlib.suppress(OSError):
                        connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        took = submit_for(served, 5)
        answers = [read_all(connection) for connection in slow]
        stop.set()
        thread.join(10)
    assert max(took) < 4
    # Ended as too slow, or turned away because too many came in at once.
    said = [answer.partition(b'"code":"')[2].partition(b'"')[0] for answer in answers]
    assert set(said) <= {b"incomplete_upload", b"overloaded", b""}
    assert b"incomplete_upload" in said
    assert served.list_kept() == []


GZIPPED = gzip.compress(CSV)
FORM = (
    b"--line\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nline\r\n"
    b"--line\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in.csv\"\r\n\r\n" + CSV + b"\r\n--line--\r\n"
)  # fmt: skip
#: Content type, header fields, and what comes of the body.
CUTS: dict[str, tuple[str, tuple[str, ...], bytes]] = {
    "plain": ("text/csv", (f"Content-Length: {len(CSV)}",), CSV[:-4]),
    "plain at a record's end": ("text/csv", (f"Content-Length: {len(CSV)}",), CSV[:1004]),
    "nothing of it": ("text/csv", (f"Content-Length: {len(CSV)}",), b""),
    "json": ("application/json", (f"Content-Length: {len(BODY)}",), BODY[:-1]),
    "chunked in a chunk": (
        "text/csv", ("Transfer-Encoding: chunked", "Content-Encoding: gzip"), b"ff\r\n" + GZIPPED[:9],
    ),
    "chunked between chunks": (
        "text/csv", ("Transfer-Encoding: chunked", "Content-Encoding: gzip"), b"10\r\n" + GZIPPED[:16] + b"\r\n",
    ),
    "chunked with all of gzip but its mark": (
        "text/csv",
        ("Transfer-Encoding: chunked", "Content-Encoding: gzip"),
        b"%x\r\n%b\r\n" % (len(GZIPPED) - 8, GZIPPED[:-8]),
    ),
    "chunked json": ("application/json", ("Transfer-Encoding: chunked",), b"%x\r\n%b" % (len(BODY), BODY[:-1])),
    "gzip": ("text/csv", (f"Content-Length: {len(GZIPPED)}", "Content-Encoding: gzip"), GZIPPED[:-1]),
    "form": ("multipart/form-data; boundary=line", (f"Content-Length: {len(FORM)}",), FORM[:-20]),
    "form without its last bytes": ("multipart/form-data; boundary=line", (f"Content-Length: {len(FORM)}",), FORM[:-4]),
    "chunked form": (
        "multipart/form-data; boundary=line",
        ("Transfer-Encoding: chunked",),
        b"%x\r\n%b" % (len(FORM), FORM[:-30]),
    ),
}  # fmt: skip


def test_cut_off_uploads_leave_nothing(served: Served, wait_until: WaitUntil) -> None:
    """However an upload is sent and wherever it is cut, by a close or a reset: no job is made and no file is kept."""
    for name, (content_type, headers, sent) in CUTS.items():
        path = "/v1/jobs" if "json" in name else "/v1/jobs?model=line"
        for how in ("close", "half-close", "reset"):
            connection = served.connect(served.begin(content_type, *headers, path=path) + sent)
            time.sleep(0.05)  # so that it is being read
            with connection:
                if how == "half-close":
                    connection.shutdown(socket.SHUT_WR)
                    answer = read_all(connection)
                    assert b" 202 " not in answer.partition(b"\r\n")[0], name
                elif how == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: not served.list_kept(), 10, "what was half sent to be gone")
    # And whole ones are taken.
    for content_type, headers, whole in (
        ("text/csv", (f"Content-Length: {len(CSV)}",), CSV),
        ("text/csv", (f"Content-Length: {len(GZIPPED)}", "Content-Encoding: gzip"), GZIPPED),
        ("text/csv", ("Transfer-Encoding: chunked", "Content-Encoding: gzip"), b"%x\r\n%b\r\n0\r\n\r\n"
         % (len(GZIPPED), GZIPPED)),
        ("multipart/form-data; boundary=line", (f"Content-Length: {len(FORM)}",), FORM),
    ):  # fmt: skip
        with served.connect(served.begin(content_type, "Connection: close", *headers) + whole) as connection:
            assert read_all(connection).startswith(b"HTTP/1.1 202 "), headers


def test_headers_that_are_too_large_are_refused(served: Served) -> None:
    """Header fields take a bounded room: many or long ones are refused before the application sees them."""
    for more in (b"X-A: " + b"a" * 300_000, b"\r\n".join(b"X-%d: a" % number for number in range(300))):
        with served.connect(b"GET /health HTTP/1.1\r\nHost: h\r\n" + more + b"\r\n\r\n") as connection:
            assert read_all(connection).startswith(b"HTTP/1.1 431 ")


HOSTILE: dict[str, Callable[[Served], bytes]] = {
    "request id": lambda served: served.begin("text/csv", "X-Request-Id: a\tb", "Content-Length: 0"),
    "idempotency key": lambda served: served.begin("text/csv", "Idempotency-Key: a\tInjected: 1", "Content-Length: 0"),
    "path": lambda served: b"GET /v1/jobs/%0d%0aInjected:%201 HTTP/1.1\r\nHost: h\r\n\r\n",
    "cursor": lambda served: (
        b"GET /v1/jobs?limit=1&status=queued&after=%0d%0aInjected:%201 HTTP/1.1\r\nHost: h\r\n"
        b"Authorization: Bearer " + served.attacker.encode() + b"\r\n\r\n"
    ),
    "prefer": lambda served: (
        b"GET /v1/jobs HTTP/1.1\r\nHost: h\r\nPrefer: wait=1%0d%0aInjected: 1\r\n"
        b"Authorization: Bearer " + served.attacker.encode() + b"\r\n\r\n"
    ),
    "folded field": lambda served: b"GET /health HTTP/1.1\r\nHost: h\r\nX-Request-Id: a\r\n Injected: 1\r\n\r\n",
    "bare line feed": lambda served: b"GET /health HTTP/1.1\r\nHost: h\r\nX-Request-Id: a\nInjected: 1\r\n\r\n",
    "two lengths": lambda served: served.begin("text/csv", "Content-Length: 4", "Content-Length: 5") + b"a,b\n1",
    "length and chunks": lambda served: (
        served.begin("text/csv", "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n"
    ),
    "strange chunk size": lambda served: (
        served.begin("text/csv", "Transfer-Encoding: chunked") + b"-1\r\na\r\n0\r\n\r\n"
    ),
    "another version": lambda served: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


def test_hostile_heads_change_no_answer(served: Served) -> None:
    """What a caller puts into fields, paths and lengths never becomes a field of an answer, nor a second answer."""
    for name, make in HOSTILE.items():
        with served.connect(make(served)) as connection:
            connection.settimeout(6)
            answer = read_all(connection)  # the server ends a connection that says nothing more
        head = answer.partition(b"\r\n\r\n")[0].lower()
        assert b"\ninjected" not in head, name
        assert answer.count(b"HTTP/1.1 ") <= 1, name
        assert b"granian" not in head, name
    assert served.list_kept() == []
