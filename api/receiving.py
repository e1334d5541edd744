"""Places for bodies that come in: a slow one holds a thread, so they get some of a process's threads and never all."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from shared.errors import ServiceError

#: A place is waited for this long: by as many as there are places, and by anybody while places are being given, since a
#: burst of fast bodies is gone before its waiting holds up anybody.
_WAIT_SECONDS = 1.0


class ReceivingPlaces:
    """The bodies that one process reads at a time.

    Parameters
    ----------
    most : int
    wait_seconds : float
        For a place.
    clock : callable
        Gives seconds.
    """

    def __init__(
        self, most: int, *, wait_seconds: float = _WAIT_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._held: Counter[str] = Counter()
        self._waiting = 0
        #: When a place was last given.
        self._given = 0.0
        self._freed = threading.Condition()

    @property
    def held(self) -> int:
        """Places that are held."""
        return self._held.total()

    @property
    def waiting(self) -> int:
        """Bodies that wait for one."""
        return self._waiting

    @contextlib.contextmanager
    def take(self, tenant: str, *, share: float) -> Iterator[None]:
        """Hold a place in this block.

        Parameters
        ----------
        tenant : str
        share : float
            Of the places, which the tenant may hold at most: the others are for others.

        Raises
        ------
        ServiceError
            ``overloaded``: none was free in time, or none has been given for a second and too many wait already.
        """
        of_tenant = max(1, round(self._most * share))

        def is_free() -> bool:
            return self._held.total() < self._most and self._held[tenant] < of_tenant

        with self._freed:
            if not is_free():
                self._wait(is_free)
            self._held[tenant] += 1
            self._given = self._clock()
        try:
            yield
        finally:
            with self._freed:
                self._held[tenant] -= 1
                if not self._held[tenant]:
                    del self._held[tenant]
                self._freed.notify_all()

    def _wait(self, is_free: Callable[[], bool]) -> None:
        if self._waiting < self._most or self._clock() < self._given + _WAIT_SECONDS:
            self._waiting += 1
            try:
                if self._freed.wait_for(is_free, self._wait_seconds):
                    return
            finally:
                self._waiting -= 1
        raise ServiceError("overloaded", "Too many bodies are coming in at once; try again.", retry_after=1)
