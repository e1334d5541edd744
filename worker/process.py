"""One worker process: its models, its lease, and what it does when it is woken."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from shared.blobs import open_blobs
from shared.connection import connect
from shared.filestore import FileStore
from shared.logs import get_logger
from shared.metrics import LOAD_SECONDS
from shared.registry import Registry
from shared.settings import Settings
from shared.store import JobStore
from shared.wakeups import WakeupPublisher
from worker.files import ChunkScorer
from worker.lease import Lease
from worker.models import LoadedModel, ModelCache, ModelNotReady
from worker.rows import RowsScorer
from worker.trust import Trust

#: A worker may wait longer for Redis than the API: nobody waits for its answer.
_REDIS_TIMEOUT_SECONDS = 5.0

logger = get_logger(__name__)


class WorkerProcess:
    """Loads and warms the models before it claims anything, then scores what it is woken for.

    Parameters
    ----------
    settings : Settings
    queues : list of str
        The Celery queues that the worker consumes.
    """

    def __init__(self, settings: Settings, queues: list[str]) -> None:
        self._queues = queues
        self._registry = Registry(settings.models)
        trust = Trust.from_settings(settings)
        self._models = ModelCache(self._registry, trust)
        self._warm: list[str] = []
        self._tasks = 0
        store = JobStore(connect(settings.redis_url, timeout_seconds=_REDIS_TIMEOUT_SECONDS))
        lease_store = JobStore(connect(settings.redis_url))
        self._lease = Lease(lease_store, settings.lease_seconds, self._describe)
        publisher = WakeupPublisher(settings)
        files = FileStore(open_blobs(settings.file_store))
        self._rows = RowsScorer(store, files, self.load_model, self._lease, publisher, settings)
        self._chunks = ChunkScorer(store, files, self._registry, self.load_model, self._lease, publisher, settings)

    def start(self) -> None:
        """Warm every version that can be warmed, then say that this process is ready."""
        began = time.monotonic()
        for name in self._registry.names():
            for version in self._registry.versions(name):
                try:
                    self.load_model(name, version)
                except ModelNotReady as error:
                    logger.error(
                        "a model is not ready; the others are served",
                        model=error.reference,
                        reason=error.reason,
                    )
        self._lease.start()
        logger.info(
            "worker process ready",
            owner=self._lease.owner, warm=self._warm, seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip

    def stop(self) -> None:
        """Give up the lease."""
        self._lease.stop()

    def score_rows(self, queue: str) -> str:
        """Score rows jobs of a queue; return a line for people."""
        self._tasks += 1
        return self._rows.run(queue)

    def score_chunks(self, queue: str) -> str:
        """Score chunks of a queue; return a line for people."""
        self._tasks += 1
        return self._chunks.run(queue)

    def load_model(self, name: str, version: int) -> LoadedModel:
        """Hand out a warmed model, loading it if this process has not yet.

        Raises
        ------
        ModelNotReady
            It cannot be loaded.
        """
        model = self._models.get(name, version)
        if model.manifest.reference not in self._warm:
            self._warm.append(model.manifest.reference)
            LOAD_SECONDS.labels(name, version).observe(model.load_seconds)
        return model

    def _describe(self) -> dict[str, Any]:
        return {
            "queues": self._queues,
            "warm": list(self._warm),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "parent": os.getppid(),
            "tasks": self._tasks,
        }
