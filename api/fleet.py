"""What the API knows of the workers at a submission, without asking Redis each time."""

from __future__ import annotations

import threading
import time

from shared.errors import ServiceError
from shared.fleet import Fleet
from shared.store import JobStore

_FRESH_SECONDS = 1.0


class FleetView:
    """Looks at the heartbeats of the workers once a second, when somebody submits.

    Parameters
    ----------
    store : JobStore
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._fleet = Fleet([])
        self._due = 0.0
        self._lock = threading.Lock()

    def check_ready(self, reference: str) -> None:
        """Refuse work for a version that no worker can load.

        Raises
        ------
        ServiceError
            ``model_not_ready``, with the reason.
        """
        fault = self._look().find_fault(reference)
        if fault is not None:
            raise ServiceError("model_not_ready", f"{reference} is not ready: {fault}.", retry_after=60)

    def _look(self) -> Fleet:
        if time.monotonic() >= self._due and self._lock.acquire(blocking=False):
            try:
                self._due = time.monotonic() + _FRESH_SECONDS
                self._fleet = Fleet(self._store.list_workers().values())
            finally:
                self._lock.release()
        return self._fleet
