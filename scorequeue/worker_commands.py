"""The worker's own commands, started as a process: they need scikit-learn, and this side does not."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from scorequeue.errors import WrongUse


class WorkerCommandFailed(WrongUse):
    """A command of the worker failed; the message is its own last line."""


def run_command(*arguments: str) -> Any:
    """Run ``python -m worker`` with arguments and ``--json``; return what it answers. Its remarks pass through.

    Raises
    ------
    WrongUse
        The worker is not installed here.
    WorkerCommandFailed
        It failed.
    """
    done = _run([*arguments, "--json"], capture=True)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if done.returncode:
        raise WorkerCommandFailed(_read_reason(done.stderr))
    return answer


def pass_command(*arguments: str) -> int:
    """Run ``python -m worker`` with arguments, its output being this command's; return its exit code.

    Raises
    ------
    WrongUse
        The worker is not installed here.
    """
    return _run(list(arguments), capture=False).returncode


def _run(arguments: list[str], *, capture: bool) -> subprocess.CompletedProcess[str]:
    if find_spec("sklearn") is None or find_spec("worker") is None:
        raise WrongUse(f"{arguments[0]} needs scikit-learn, which only a worker has: pip install 'scorequeue[worker]'")
    command = [sys.executable, "-m", "worker", *arguments]
    return subprocess.run(command, check=False, text=True, capture_output=capture)


def _read_reason(stderr: str) -> str:
    """Return the reason in what a command wrote: its last line, without the name of the program that nobody called."""
    lines = stderr.strip().splitlines() or ["the worker's command failed without a word"]
    _, _, reason = lines[-1].rpartition("error: ") if lines[-1].startswith("python -m worker") else ("", "", lines[-1])
    return reason.removeprefix("error: ").removeprefix("argument ")
