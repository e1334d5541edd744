"""Looks at the files of versions that nobody has loaded, so that a damaged one is known before it is needed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Container

from shared.references import UnknownModel
from shared.registry import Registry
from worker.duty import Duty
from worker.model_cache import ModelCache
from worker.models import ModelNotReady

#: Share of a process's time that goes to reading files, at most.
_TIME_SHARE = 0.1
#: Versions whose files are looked at in one turn; they are read only if they have changed.
_MOST_VERSIONS = 50

_Key = tuple[str, int]


class FileWatch:
    """Compares files with what their manifests say, when they are new and whenever they change.

    Parameters
    ----------
    registry : Registry
    models : ModelCache
        What is warm in it is left out: it was compared when it was loaded.
    duty : Duty
        Only models of this worker are looked at.
    clock : callable
        Gives seconds.
    """

    def __init__(
        self, registry: Registry, models: ModelCache, duty: Duty, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._models = models
        self._duty = duty
        self._clock = clock
        self._waiting: list[_Key] = []
        self._seen: dict[_Key, object] = {}
        self._damaged: dict[str, str] = {}
        self._not_before = 0.0

    def list_damaged(self) -> dict[str, str]:
        """Return what is wrong with the files of versions, by ``name:version``."""
        return dict(self._damaged)

    def look(self, kept: Container[_Key]) -> bool:
        """Look at the next versions.

        Parameters
        ----------
        kept : container of name and version
            What is prepared for aliases, and so is compared there.

        Returns
        -------
        bool
            Whether `list_damaged` has changed.
        """
        if self._clock() < self._not_before:
            return False
        before = self._damaged
        if not self._waiting:
            self._waiting = self._list_versions()
            self._forget_removed()
        for key in self._waiting[:_MOST_VERSIONS]:
            self._waiting.remove(key)
            if key in kept or self._models.has(*key):
                self._note(key, "")
                self._seen.pop(key, None)
            elif self._check(key):
                break
        return self._damaged != before

    def _check(self, key: _Key) -> bool:
        """Read the files of a version if they have changed; tell whether that was done."""
        stamp = stamp_files(self._registry, *key)
        if self._seen.get(key) == stamp:
            return False
        began = self._clock()
        reason = ""
        try:
            self._models.check_files(*key)
        except ModelNotReady as error:
            reason = error.reason
        self._seen[key] = stamp
        self._note(key, reason)
        ended = self._clock()
        self._not_before = ended + (ended - began) * (1 / _TIME_SHARE - 1)
        return True

    def _note(self, key: _Key, reason: str) -> None:
        reference = f"{key[0]}:{key[1]}"
        # Another thread reads it: it is replaced, never changed.
        others = {name: said for name, said in self._damaged.items() if name != reference}
        self._damaged = others | ({reference: reason} if reason else {})

    def _list_versions(self) -> list[_Key]:
        names = [name for name in self._registry.names() if self._duty.takes_model(name)]
        return [(name, version) for name in names for version in self._registry.versions(name)]

    def _forget_removed(self) -> None:
        there = set(self._waiting)
        self._seen = {key: stamp for key, stamp in self._seen.items() if key in there}
        known = {f"{name}:{version}" for name, version in there}
        self._damaged = {reference: reason for reference, reason in self._damaged.items() if reference in known}


def stamp_files(registry: Registry, name: str, version: int) -> object:
    """Return what changes when the files of a version do."""
    stamps = []
    with contextlib.suppress(OSError, UnknownModel):
        for path in sorted(registry.version_folder(name, version).iterdir()):
            status = path.stat()
            stamps.append((path.name, status.st_mtime_ns, status.st_size))
    return stamps
