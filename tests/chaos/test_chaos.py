"""A short run of the chaos driver; `make chaos SECONDS=900` runs it for as long as asked."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.chaos.driver import run_chaos

_SECONDS = 40.0


@pytest.mark.timeout(300)
def test_nothing_is_lost_doubled_or_stuck_while_parts_die(tmp_path: Path) -> None:
    """Whatever is killed, stopped or doubled, each accepted job ends once, with the answer of the model."""
    seed = int(os.environ.get("CHAOS_SEED", secrets.randbelow(10**6)))

    report = run_chaos(tmp_path, _SECONDS, seed)

    print(report)  # noqa: T201 - pytest shows it with a failure: the seed, the faults and what went wrong
    assert report.violations == []
    # The run is worth something: work was done, and parts did die.
    assert report.statuses["succeeded"] > 50
    for fault in ("kill a worker's child", "kill Redis", "stop a worker's child past its lease"):
        assert report.faults[fault], fault
