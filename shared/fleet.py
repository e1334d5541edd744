"""The worker processes that live, by what each says of itself with its heartbeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

Says = Mapping[str, Any]


class Fleet:
    """What live worker processes have warm, and what they could not load.

    Parameters
    ----------
    says : iterable of mapping
        From `JobStore.list_workers`.
    """

    def __init__(self, says: Iterable[Says]) -> None:
        self.says = list(says)
        self.warm: Counter[str] = Counter(reference for said in self.says for reference in said.get("warm", ()))
        self._reasons: dict[str, str] = {}
        for said in self.says:
            self._reasons |= said.get("not_ready", {})

    def find_fault(self, reference: str) -> str | None:
        """Return why a version is not ready: some process could not load it, and none has it warm."""
        return None if self.warm[reference] else self._reasons.get(reference)

    def list_serving(self, name: str) -> list[Says]:
        """List the processes that serve a model and can be asked to prepare it (those of older releases cannot)."""
        return [said for said in self.says if "answers" in said and (not said.get("models") or name in said["models"])]
