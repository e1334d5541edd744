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
from shared.quality_counts import QualityCounts
from shared.registry import Registry
from shared.settings import Settings
from shared.store import JobStore
from shared.wakeups import WakeupPublisher
from worker.duty import Duty
from worker.files import ChunkScorer
from worker.lease import Lease
from worker.model_cache import ModelCache
from worker.models import LoadedModel
from worker.preparer import Preparer
from worker.quality import QualityCounter
from worker.rows import RowsScorer
from worker.shadow import ShadowScorer
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
        self._duty = Duty.of_queues(queues, settings.worker_model_names)
        self._registry = Registry(settings.models)
        self._models = ModelCache(self._registry, Trust.from_settings(settings), settings.model_memory_bytes)
        self._tasks = 0
        store = JobStore(connect(settings.redis_url, timeout_seconds=_REDIS_TIMEOUT_SECONDS))
        lease_store = JobStore(connect(settings.redis_url))
        quality = QualityCounts(connect(settings.redis_url))
        self._clients = (store.client, lease_store.client, quality.client)
        self._preparer = Preparer(self._registry, self._models, self._duty, self._tell)
        self._lease = Lease(
            lease_store, settings.lease_seconds, self._describe, self._duty.list_served(), self._preparer.ask
        )
        self._is_started = False
        publisher = WakeupPublisher(settings)
        files = FileStore(open_blobs(settings.file_store))
        self.quality = QualityCounter(quality)
        shadows = ShadowScorer(self._registry, self._models.peek)
        self._rows = RowsScorer(store, files, self.load_model, shadows, self.quality, self._lease, publisher, settings)
        self._chunks = ChunkScorer(
            store, files, self._registry, self.load_model, self.quality, self._lease, publisher, settings
        )

    def start(self) -> None:
        """Warm the versions that aliases point to, then say that this process is ready; others load on demand."""
        began = time.monotonic()
        self._preparer.prepare_aliased()
        self._lease.start()
        self._is_started = True
        self._preparer.start()
        self.quality.start()
        logger.info(
            "worker process ready",
            owner=self._lease.owner, warm=self._models.list_warm(), seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip

    def stop(self) -> None:
        """Hand on what was counted, give up the lease, and close the connections."""
        self._preparer.stop()
        self._chunks.stop()
        self.quality.stop()
        self._lease.stop()
        for client in self._clients:
            client.close()

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
        return self._models.get(name, version)

    def _tell(self) -> None:
        if self._is_started:
            self._lease.beat()

    def _describe(self) -> dict[str, Any]:
        return {
            "queues": self._duty.kinds,
            "models": self._duty.models,
            "warm": self._models.list_warm(),
            "not_ready": self._preparer.list_not_ready(),
            "answers": self._preparer.list_answers(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "parent": os.getppid(),
            "tasks": self._tasks,
        }
