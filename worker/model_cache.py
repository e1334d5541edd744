"""The models of one process: loaded on demand, within a memory limit; it knows no Redis and no Celery."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

import threadpoolctl

from shared import metrics
from shared.references import BrokenManifest, UnknownModel
from shared.registry import Registry
from worker.models import LoadedModel, ModelNotReady, check_files, load_model
from worker.trust import Trust

_Key = tuple[str, int]


@dataclass
class _Entry:
    model: LoadedModel
    bytes: int
    #: By the clock, in seconds.
    used: float


class ModelCache:
    """Loads and warms each version once; what was not used for longest goes when memory is short.

    What a model takes is the growth of the process while it is loaded, or the size of its file if that is more (memory
    that was free already shows no growth). Safe to share between threads.

    Parameters
    ----------
    registry : Registry
    trust : Trust
    memory_bytes : int
        What all models together may take; 0 is no limit.
    measure : callable, optional
        Gives the bytes that the process takes.
    clock : callable
        Gives seconds.
    """

    def __init__(
        self,
        registry: Registry,
        trust: Trust,
        memory_bytes: int = 0,
        measure: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry
        self._trust = trust
        self._limit = memory_bytes
        self._measure = measure or read_resident_bytes
        self._clock = clock
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._not_ready: dict[str, str] = {}
        self._table = threading.Lock()
        self._loading = threading.Lock()
        self._loads = 0
        self._seen = threading.local()

    def get(self, name: str, version: int) -> LoadedModel:
        """Hand out a warmed model, loading it if it is not here (seconds, for a large one).

        Raises
        ------
        ModelNotReady
            It cannot be loaded; the next call tries again.
        """
        model = self.peek(name, version)
        if model is None:
            with self._loading:
                model = self.peek(name, version) or self._load(name, version)
        if getattr(self._seen, "loads", 0) != self._loads:
            # One thread for OpenMP and BLAS: N processes on N cores must not fight. After each load, because only now
            # are the model's libraries in this process; and in each thread, because OpenMP's setting is the thread's.
            threadpoolctl.threadpool_limits(1)
            self._seen.loads = self._loads
        return model

    def check_files(self, name: str, version: int) -> None:
        """See that a version, warm or not, could still be loaded by the next process: that its files are as registered.

        Raises
        ------
        ModelNotReady
            They are not.
        """
        check_files(self.registry, name, version, self._trust)

    def peek(self, name: str, version: int) -> LoadedModel | None:
        """Hand out a model if it is warm."""
        with self._table:
            entry = self._entries.get((name, version))
            if entry is None:
                return None
            self._entries.move_to_end((name, version))
            entry.used = self._clock()
            return entry.model

    def has(self, name: str, version: int) -> bool:
        """Tell whether a version is warm; that is no use of it."""
        with self._table:
            return (name, version) in self._entries

    def let_idle_go(self, kept: Container[tuple[str, int]], idle_seconds: float) -> None:
        """Let go what was not used for so long, but for what is to be kept: old versions whose jobs are done."""
        before = self._clock() - idle_seconds
        with self._table:
            idle = [key for key, entry in self._entries.items() if entry.used < before and key not in kept]
        for key in idle:
            self._drop(key)
        if idle:
            gc.collect()  # estimators may hold each other

    def fits(self, name: str, version: int) -> bool:
        """Tell whether a version can be loaded without another one going."""
        return not self._limit or self._count_bytes() + self._estimate(name, version) <= self._limit

    def list_warm(self) -> list[str]:
        """List the versions that are here, as ``name:version``."""
        with self._table:
            return [f"{name}:{version}" for name, version in self._entries]

    def list_not_ready(self) -> dict[str, str]:
        """Return why versions could not be loaded when this was last tried; not of those that were removed since."""
        with self._table:
            return {
                reference: reason
                for reference, reason in self._not_ready.items()
                if (self.registry.root / reference.replace(":", "/")).exists()
            }

    def _load(self, name: str, version: int) -> LoadedModel:
        reference = f"{name}:{version}"
        try:
            if self._limit:
                self._make_room(name, version)
            before = self._measure()
            model = load_model(self.registry, name, version, self._trust)
        except ModelNotReady as error:
            with self._table:
                self._not_ready[reference] = error.reason
            raise
        taken = max(self._measure() - before, model.manifest.size)
        with self._table:
            self._not_ready.pop(reference, None)
            self._entries[name, version] = _Entry(model, taken, self._clock())
        self._loads += 1
        metrics.LOAD_SECONDS.labels(name, version).observe(model.load_seconds)
        if self._limit:
            self._evict(self._limit, keep=(name, version))
        return model

    def _make_room(self, name: str, version: int) -> None:
        needed = self._estimate(name, version)
        if needed > self._limit:
            raise ModelNotReady(
                f"{name}:{version}",
                f"its file of {needed} bytes is larger than SCOREQUEUE_MODEL_MEMORY_BYTES ({self._limit})",
            )
        self._evict(self._limit - needed)

    def _evict(self, most: int, keep: _Key | None = None) -> None:
        """Let models go, the longest unused first, until the others take no more than `most` bytes."""
        gone = False
        while self._count_bytes() > most:
            with self._table:
                oldest = next((key for key in self._entries if key != keep), None)
            if oldest is None:
                break
            self._drop(oldest)
            gone = True
        if gone:
            gc.collect()

    def _drop(self, key: _Key) -> None:
        with self._table:
            self._entries.pop(key, None)
        metrics.EVICTIONS.labels(*key).inc()

    def _estimate(self, name: str, version: int) -> int:
        with contextlib.suppress(UnknownModel, BrokenManifest):  # loading it will say so
            return self.registry.manifest(name, version).size
        return 0

    def _count_bytes(self) -> int:
        with self._table:
            return sum(entry.bytes for entry in self._entries.values())


def read_resident_bytes() -> int:
    """Return the memory that this process takes; 0 where that cannot be told (then files' sizes count)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
