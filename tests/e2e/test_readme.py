"""The README's commands, run as they stand against a real service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.conftest import ROOT, RunningService
from tests.tools import require_tool

#: The address in the README, which is that of `scorequeue up` without options.
SHOWN_ADDRESS = "127.0.0.1:8000"
#: Seconds for all commands of the README together.
TIMEOUT = 180
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


class Step(NamedTuple):
    """A block that is typed, and the block after it that shows lines of what it prints."""

    command: str
    shown: list[str]


def read_steps(text: str) -> list[Step]:
    """Return the bash and Python blocks of the section *Use it*, with what is shown under each."""
    section = text.split("\n## Use it\n")[1].split("\n## ")[0]
    steps: list[Step] = []
    for language, block in _FENCE.findall(section):
        if language == "bash":
            steps.append(Step(block, []))
        elif language == "python":
            steps.append(Step(f"python - <<'END_OF_PYTHON'\n{block}END_OF_PYTHON\n", []))
        else:
            steps[-1].shown.extend(line.strip() for line in block.splitlines())
    return steps


def make_script(steps: list[Step], address: str) -> str:
    """Join the steps to one script, as in one terminal; a line with a number comes before what each prints."""
    parts = ["set -eu\n"]
    for number, step in enumerate(steps):
        parts.append(f"printf '\\036{number}\\n'\n{step.command.replace(SHOWN_ADDRESS, address)}")
    return "".join(parts)


def match_line(shown: str) -> re.Pattern[str]:
    """Turn a line of the README into a pattern: ``…`` stands for anything within the line."""
    return re.compile(".*".join(map(re.escape, shown.split("…"))))


@pytest.mark.timeout(TIMEOUT + 160)
def test_the_commands_of_the_readme_do_what_it_says(service: RunningService, tmp_path: Path) -> None:
    """Every command after the `up` step, typed as it stands, exits 0 and prints the lines that are shown under it."""
    require_tool("curl")
    bash = require_tool("bash")
    steps = read_steps((ROOT / "README.md").read_text())
    address = service.url.removeprefix("http://")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SCOREQUEUE_URL": service.url,
    }

    done = subprocess.run(
        [bash, "-c", make_script(steps, address)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    printed = done.stdout.split("\036")[1:]
    assert len(printed) == len(steps) > 8
    for step, output in zip(steps, printed, strict=True):
        for line in step.shown:
            assert match_line(line).search(output), f"{line!r} was not printed by:\n{step.command}\nbut:\n{output}"


def test_every_block_of_the_readme_shows_what_it_prints() -> None:
    """Every block of the section shows lines that it prints, so that a silent failure is noticed."""
    steps = read_steps((ROOT / "README.md").read_text())

    assert all(step.shown for step in steps)
