"""The parent of a worker's processes: it sweeps, serves metrics and shows that it lives; it never scores."""

from __future__ import annotations

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from celery import Celery

from shared.blobs import open_blobs
from shared.connection import connect
from shared.filestore import FileStore
from shared.metrics import CONTENT_TYPE, render_metrics
from shared.settings import Settings
from shared.store import JobStore
from shared.sweep import Sweep
from shared.wakeups import WakeupPublisher
from worker.duty import Duty
from worker.watchdog import Watchdog

_TOUCH_SECONDS = 1.0
#: What a task may take beyond its limit: the killing of its process, and the start of another.
_GRACE_SECONDS = 30.0


class WorkerParent:
    """Threads of the worker's main process.

    Parameters
    ----------
    settings : Settings
    app : celery.Celery
        Knows which queues the worker consumes.
    """

    def __init__(self, settings: Settings, app: Celery) -> None:
        self._settings = settings
        self._app = app
        self._stop = threading.Event()
        self._sweep: Sweep | None = None
        self._watchdog: Watchdog | None = None

    def start(self) -> None:
        """Start them, once the worker is up."""
        self._sweep = Sweep(
            JobStore(connect(self._settings.redis_url)),
            FileStore(open_blobs(self._settings.file_store)),
            WakeupPublisher(self._settings),
            f"worker@{socket.gethostname()}:{os.getpid()}",
        )
        self._sweep.start()
        self._watchdog = Watchdog(
            JobStore(connect(self._settings.redis_url)),
            Duty.of_queues(self._app.amqp.queues.consume_from, self._settings.worker_model_names),
            self._settings.task_seconds + _GRACE_SECONDS,
        )
        self._watchdog.start()
        if path := os.environ.get("SCOREQUEUE_HEARTBEAT_FILE"):
            threading.Thread(target=self._touch, args=(Path(path),), name="heartbeat", daemon=True).start()
        if self._settings.worker_metrics_port:
            serve_metrics(self._settings.worker_metrics_port)

    def stop(self) -> None:
        """End them."""
        self._stop.set()
        if self._sweep:
            self._sweep.stop()
        if self._watchdog:
            self._watchdog.stop()

    def _touch(self, path: Path) -> None:
        """Show liveness by a file: cheap, and it does not depend on Redis (a probe by ``inspect ping`` does)."""
        path.touch()
        while not self._stop.wait(_TOUCH_SECONDS):
            path.touch()


class _MetricsHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = render_metrics()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Scrapes are not worth a line each."""


def serve_metrics(port: int) -> ThreadingHTTPServer:
    """Serve this host's metrics on `port`, in a thread of its own."""
    server = ThreadingHTTPServer(("", port), _MetricsHandler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
