"""What an alias means: one version, or several by weight, and perhaps one that scores unseen beside them."""

from __future__ import annotations

import math
from typing import Any

import msgspec

#: By how much the sum of the weights may miss 1: 0.1 + 0.2 + 0.7 does.
_ROUNDING = 1e-6


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """Versions by weight.

    Parameters
    ----------
    versions : dict of int to float
        Share of the submissions that each version gets; they add up to 1.
    shadow : int or None
        A version that scores the same rows after each micro-batch; nobody sees its answers, only how many differ.

    Raises
    ------
    ValueError
        There is no version, a share is not between 0 and 1, they do not add up, or the shadow is one of them.
    """

    versions: dict[int, float]
    shadow: int | None = None

    def __post_init__(self) -> None:
        if not self.versions:
            raise ValueError("expected at least one version")
        for version, weight in self.versions.items():
            if not (math.isfinite(weight) and 0 < weight <= 1):
                raise ValueError(f"the weight of version {version} is {weight}: expected more than 0 and at most 1")
        total = sum(self.versions.values())
        if abs(total - 1) > _ROUNDING:
            raise ValueError(f"the weights add up to {total:g}: expected 1")
        if self.shadow in self.versions:
            raise ValueError(f"version {self.shadow} cannot be the shadow of itself")

    @property
    def heaviest(self) -> int:
        """The version that gets most, the lower one if two get the same."""
        return min(self.versions, key=lambda version: (-self.versions[version], version))

    @property
    def all_versions(self) -> list[int]:
        """The versions by their number, the shadow among them."""
        return sorted({*self.versions, *(() if self.shadow is None else (self.shadow,))})

    def choose(self, point: float) -> int:
        """Return the version whose share a point from 0 to 1 falls into."""
        passed = 0.0
        for version in sorted(self.versions):
            passed += self.versions[version]
            if point < passed:
                return version
        return max(self.versions)

    def describe(self) -> Any:
        """Return it as people and programs see it: a plain number where it is nothing more."""
        if len(self.versions) == 1 and self.shadow is None:
            return self.heaviest
        return msgspec.to_builtins(self, str_keys=True)


def point_at(version: int) -> Target:
    """Make the target of an alias that means one version."""
    return Target({version: 1.0})
