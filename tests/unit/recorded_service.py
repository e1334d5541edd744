"""A real HTTP server in a thread that plays recorded answers of the contract, for tests of the client alone."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

JOB_ID = "job_01JDEMO0000000000000000000000000000000"


@dataclass
class Answer:
    """One recorded answer."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    #: Bytes of the body after which the connection is cut.
    cut_after: int | None = None


@dataclass
class Request:
    """What a client sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def job_record(status: str = "succeeded", **fields: Any) -> dict[str, Any]:
    """Make a job's record as the contract has it."""
    counts = {"total": 1, "succeeded": 1, "failed": 0, "pending": 0}
    record = {"id": JOB_ID, "kind": "rows", "status": status, "model": "churn:1", "row_counts": counts}
    return {**record, "error": None, "created_at": "2026-01-02T03:04:05Z", **fields}


def problem(status: int, code: str, detail: str, **fields: Any) -> Answer:
    """Make a problem document, with its headers in `headers` if there are any."""
    headers = {"Content-Type": "application/problem+json", **fields.pop("headers", {})}
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code, **fields}
    return Answer(body, status, headers)


class RecordedService:
    """Plays, for each method and path, its answers in their order; the last one over and over."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._answers: dict[str, list[Answer]] = defaultdict(list)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        # Kept-alive connections end with the test, not with the client's patience.
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def play(self, method: str, path: str, *answers: Any) -> None:
        """Record what to answer; anything that is no `Answer` is a body for 200."""
        made = [answer if isinstance(answer, Answer) else Answer(answer) for answer in answers]
        self._answers[f"{method} {path}"] += made

    def sent(self, method: str, path: str) -> list[Request]:
        """List the requests of one kind that came so far."""
        return [
            request for request in self.requests if request.method == method and urlsplit(request.target).path == path
        ]

    def next_answer(self, request: Request) -> Answer:
        """Take the next answer for a request."""
        self.requests.append(request)
        answers = self._answers[f"{request.method} {urlsplit(request.target).path}"]
        if not answers:
            return problem(404, "not_found", f"nothing was recorded for {request.target}")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def _make_handler(service: RecordedService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            request = Request(self.command, self.path, dict(self.headers), self.rfile.read(length))
            self._send(service.next_answer(request))

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that http.server looks for

        def _send(self, answer: Answer) -> None:
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: answer.cut_after])
            self.close_connection = self.close_connection or answer.cut_after is not None

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    return Handler
