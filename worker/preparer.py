"""Models made ready before anybody needs them: what aliases point to, and what a promotion asks for.

A thread of its own in each worker process, so that a version loads while another one scores.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable

from shared.logs import get_logger
from shared.references import BrokenManifest
from shared.registry import Registry
from worker.duty import Duty
from worker.file_watch import FileWatch, stamp_files
from worker.model_cache import ModelCache
from worker.models import ModelNotReady

_LOOK_SECONDS = 1.0
#: A version that could not be loaded is tried again when its files have changed, or after this time.
_RETRY_SECONDS = 60.0
#: A version to which no alias points goes when it was not used for so long.
_IDLE_SECONDS = 600.0

logger = get_logger(__name__)


class Preparer:
    """Loads, warms and checks versions, and answers promotions.

    Parameters
    ----------
    registry : Registry
    models : ModelCache
    duty : Duty
        Only models of this worker are prepared.
    tell : callable
        Called when there is something new to say.
    """

    def __init__(self, registry: Registry, models: ModelCache, duty: Duty, tell: Callable[[], None]) -> None:
        self._registry = registry
        self._models = models
        self._duty = duty
        self._tell = tell
        self._asked: frozenset[str] = frozenset()
        self._answers: dict[str, str] = {}
        self._failed: dict[tuple[str, int], tuple[object, float]] = {}
        self._aliased: set[tuple[str, int]] = set()
        self._watch = FileWatch(registry, models, duty)
        self._wake = threading.Event()
        self._stopped = False

    def start(self) -> None:
        """Prepare in a thread, until `stop`."""
        threading.Thread(target=self._run, name="preparer", daemon=True).start()

    def stop(self) -> None:
        """End the thread after the load that is under way."""
        self._stopped = True
        self._wake.set()

    def ask(self, asked: Iterable[str]) -> None:
        """Hear which preparations are asked for now: ``name:version nonce``."""
        asked = frozenset(asked)
        if asked != self._asked:
            self._asked = asked
            self._wake.set()

    def list_answers(self) -> dict[str, str]:
        """Return what became of each preparation that is asked for: nothing, or why it failed."""
        return dict(self._answers)

    def list_not_ready(self) -> dict[str, str]:
        """Return why versions cannot be loaded, as far as that is known."""
        return self._watch.list_damaged() | self._models.list_not_ready()

    def prepare_aliased(self) -> None:
        """Load the versions that aliases point to, as far as they fit beside each other; let idle others go.

        Those that could not be loaded for a job are tried again too, since nobody else would.
        """
        aliased: set[tuple[str, int]] = set()
        failed = {_parse_reference(reference) for reference in self._models.list_not_ready()}
        for name in self._registry.names():
            if not self._duty.takes_model(name):
                continue
            versions: set[int] = set()
            with contextlib.suppress(BrokenManifest):  # of the aliases: the API says so to whoever uses them
                versions = self._registry.aliased_versions(name)
            aliased |= {(name, version) for version in versions}
            versions |= {version for other, version in failed if other == name}
            for version in sorted(versions, reverse=True):
                if self._is_due(name, version):
                    self._prepare(name, version)
                    self._tell()
        self._aliased = aliased
        self._models.let_idle_go(aliased, _IDLE_SECONDS)

    def answer_asked(self) -> None:
        """Load what promotions ask for, whatever else has to go for it."""
        asked = self._asked
        self._answers = {member: answer for member, answer in self._answers.items() if member in asked}
        for member in sorted(asked - set(self._answers)):
            name, version = _parse_asked(member)
            if self._duty.takes_model(name):
                self._answers = self._answers | {member: self._answer(name, version)}
                self._tell()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(_LOOK_SECONDS)
            self._wake.clear()
            try:
                self.answer_asked()
                self.prepare_aliased()
                if self._watch.look(self._aliased):
                    self._tell()
            except Exception:  # without this thread no promotion would ever be answered
                logger.exception("models could not be prepared; it is tried again")

    def _is_due(self, name: str, version: int) -> bool:
        if self._models.has(name, version) or not self._models.fits(name, version):
            return False
        failed = self._failed.get((name, version))
        return failed is None or failed[0] != stamp_files(self._registry, name, version) or time.monotonic() > failed[1]

    def _answer(self, name: str, version: int) -> str:
        try:
            if self._models.has(name, version):  # it serves here; the next process must be able to load it too
                self._models.check_files(name, version)
        except ModelNotReady as error:
            return error.reason
        return self._prepare(name, version)

    def _prepare(self, name: str, version: int) -> str:
        """Load a version; return why it is not ready, or nothing."""
        stamp = stamp_files(self._registry, name, version)
        try:
            self._models.get(name, version)
        except ModelNotReady as error:
            if self._failed.get((name, version), (None, 0.0))[0] != stamp:  # once, not once a minute
                logger.error("a model is not ready; the others are served", model=error.reference, reason=error.reason)
            self._failed[name, version] = (stamp, time.monotonic() + _RETRY_SECONDS)
            return error.reason
        self._failed.pop((name, version), None)
        return ""


def _parse_asked(member: str) -> tuple[str, int]:
    return _parse_reference(member.partition(" ")[0])


def _parse_reference(reference: str) -> tuple[str, int]:
    name, _, version = reference.partition(":")
    return name, int(version)
