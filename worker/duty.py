"""What a worker is there for: rows or files, and all models or some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from shared.jobs import parse_queue
from shared.wakeups import ANY_MODEL


class Duty(NamedTuple):
    """The kinds and models that a worker takes.

    Parameters
    ----------
    kinds : tuple of str
        ``rows``, ``files``.
    models : tuple of str
        Names; none means all.
    """

    kinds: tuple[str, ...]
    models: tuple[str, ...] = ()

    @classmethod
    def of_queues(cls, celery_queues: Iterable[str], models: Iterable[str] = ()) -> Duty:
        """Read it from the Celery queues that a worker consumes (``rows``, or ``rows.churn`` of a dedicated one)."""
        return cls(tuple(dict.fromkeys(name.partition(".")[0] for name in celery_queues)), tuple(models))

    def takes_model(self, name: str) -> bool:
        """Tell whether it serves a model."""
        return not self.models or name in self.models

    def takes_queue(self, queue: str) -> bool:
        """Tell whether it takes what waits in a queue, ``rows:churn:3``."""
        kind, name, _ = parse_queue(queue)
        return kind in self.kinds and self.takes_model(name)

    def list_served(self) -> list[str]:
        """List what it serves as the wake-ups know it: ``rows:churn``, or ``rows:*``."""
        return [f"{kind}:{name}" for kind in self.kinds for name in self.models or (ANY_MODEL,)]
