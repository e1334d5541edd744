"""A receiver of webhooks: a small real server that answers as a test wants."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Told(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Listens on loopback, in a thread of its own.

    Parameters
    ----------
    *answers : int
        Status of each answer in turn; the last one for all others.
    headers : mapping of str to str
        Of each answer.
    """

    def __init__(self, *answers: int, headers: dict[str, str] | None = None) -> None:
        self.told: list[Told] = []
        self.answers = list(answers) or [200]
        self.headers = headers or {}
        self.held = threading.Event()
        self.held.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=t0ken"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.held.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(10)


def _make_handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.told.append(Told(self.path, headers, body))
            receiver.held.wait(60)
            status = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            receiver.told.append(Told(self.path, {}, b"GET"))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nobody reads it."""

    return Handler
