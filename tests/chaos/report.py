"""The report of a run: short, for people, with all that was found wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

_MOST_SHOWN = 40


@dataclass
class Report:
    """What a run did and found."""

    seed: int
    seconds: float
    faults: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    #: Jobs of submissions whose answer was lost, and jobs that were deleted.
    adopted: int = 0
    deleted: int = 0
    #: Claims taken back, by the queues' counters.
    redelivered: int = 0
    #: Seconds from acceptance to end, of jobs without a deadline.
    waits: Mapping[str, list[float]] = field(default_factory=dict)
    settle_seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"chaos: seed {self.seed}, {self.seconds:.0f} s of faults, settled after {self.settle_seconds:.1f} s more",
            f"faults: {sum(self.faults.values())}",
            *(f"  {count:6} {name}" for name, count in self.faults.items()),
            "answers:",
            *(f"  {count:6} {name}" for name, count in sorted(self.answers.items())),
            f"jobs: {sum(self.statuses.values())} listed, {sum(self.statuses.values()) / self.seconds:.1f} a second",
            *(f"  {count:6} {name}" for name, count in sorted(self.statuses.items())),
            f"  {self.adopted:6} of them of submissions whose answer was lost; {self.deleted} more were deleted",
            f"  {self.redelivered:6} claims taken back from lost processes",
            *(self._describe_waits(kind, waits) for kind, waits in self.waits.items() if waits),
            f"violations: {len(self.violations)}",
            *(f"  {violation}" for violation in self.violations[:_MOST_SHOWN]),
        ]
        return "\n".join(lines)

    def _describe_waits(self, kind: str, waits: list[float]) -> str:
        ranked = sorted(waits)
        median, late = ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.99)]
        return f"{kind} jobs, acceptance to end: median {median:.3f} s, p99 {late:.1f} s, slowest {ranked[-1]:.1f} s"


def measure_wait(job: Mapping[str, Any]) -> float:
    """Return the seconds from a job's acceptance to its end."""
    created, finished = (datetime.fromisoformat(job[name]) for name in ("created_at", "finished_at"))
    return (finished - created).total_seconds()
