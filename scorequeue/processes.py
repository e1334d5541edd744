"""Processes as the operating system shows them: whose they are, whether they live, how they are stopped.

It must not know what the processes are for. Everything is looked up by process id *and* start time, since the
system gives an id again to somebody else.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Seconds until killed processes must have disappeared; only a process stuck in the kernel takes longer.
KILL_SECONDS = 5.0
#: Seconds between two looks at processes that are being stopped.
LOOK_SECONDS = 0.05

PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessGroup:
    """A process that leads a session of its own, and all that it started.

    Parameters
    ----------
    name : str
        What people call it.
    pid : int
        The leader's process id, which is also the number of the group.
    started : str
        When the leader started, in the system's own words: only to be compared.
    stop_stage : int
        Groups of a lower stage are stopped before those of a higher one.
    stop_seconds : float
        Seconds the leader gets between SIGTERM and SIGKILL.
    """

    name: str
    pid: int
    started: str
    stop_stage: int
    stop_seconds: float


def read_start_time(pid: int) -> str | None:
    """Tell when a process started, or None if there is no such process.

    Returns
    -------
    str or None
        On Linux the boot's id and clock ticks since that boot; elsewhere what ``ps`` prints, to the second.
    """
    if not PROC.joinpath("self", "stat").exists():
        return _ask_ps("-o", "lstart=", "-p", str(pid)).strip() or None
    fields = _read_stat(pid)
    return f"{_read_boot_id()}:{fields[19]}" if fields else None


def list_group_members(group: int) -> list[int]:
    """List the live processes of a process group; one that only waits to be reaped is not alive."""
    if PROC.joinpath("self", "stat").exists():
        stats = ((pid, _read_stat(pid)) for pid in _list_pids())
        rows = [(pid, int(fields[2]), fields[0]) for pid, fields in stats if fields]
    else:
        lines = [line.split() for line in _ask_ps("-A", "-o", "pid=,pgid=,stat=").splitlines()]
        rows = [(int(pid), int(pgid), state) for pid, pgid, state, *_ in lines]
    return [pid for pid, pgid, state in rows if pgid == group and state[0] not in "ZX"]


def list_marked(marker: str) -> list[int]:
    """List the live processes that were started with ``marker`` (``NAME=value``) in their environment.

    Only Linux shows environments; elsewhere the list is empty.
    """
    found = []
    for pid in _list_pids():
        # Processes end while one looks, and other users' environments are none of ours.
        with contextlib.suppress(OSError):
            variables = PROC.joinpath(str(pid), "environ").read_bytes().split(b"\0")
            if pid != os.getpid() and os.fsencode(marker) in variables:
                found.append(pid)
    return found


def stop_groups(groups: Sequence[ProcessGroup], is_hurried: Callable[[], bool] = lambda: False) -> None:
    """Stop process groups stage by stage: SIGTERM to each leader, a bounded wait, SIGKILL to what is left.

    Blocks for at most the longest ``stop_seconds`` of each stage and `KILL_SECONDS`. Afterwards no process of
    these groups is alive. A group whose leader is not the recorded one any more is left alone.

    Parameters
    ----------
    groups : sequence of ProcessGroup
        In any order.
    is_hurried : callable
        Asked again and again; once true, everything is killed at once.
    """
    ours = [group for group in groups if read_start_time(group.pid) == group.started]
    for _, stage in itertools.groupby(sorted(ours, key=_get_stage), key=_get_stage):
        _stop_together(list(stage), is_hurried)


def stop_survivors(groups: Sequence[ProcessGroup], marker: str) -> None:
    """Stop what an earlier start left behind: the recorded groups in order, then whatever carries ``marker``.

    The marker finds what the record cannot: orphans whose leader is gone.
    """
    stop_groups(groups)
    deadline = time.monotonic() + KILL_SECONDS
    while (left := list_marked(marker)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_SECONDS)


def kill_group(group: int) -> None:
    """Send SIGKILL to every process of a group; one that is gone already is no error."""
    # macOS answers EPERM for a group of processes that only wait to be reaped.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _stop_together(groups: list[ProcessGroup], is_hurried: Callable[[], bool]) -> None:
    begun = time.monotonic()
    for group in groups:
        # To the leader alone: Celery's and Granian's own children take a SIGTERM as the end, without a drain.
        with contextlib.suppress(ProcessLookupError):
            os.kill(group.pid, signal.SIGTERM)
    while not is_hurried() and any(
        time.monotonic() - begun < group.stop_seconds and group.pid in list_group_members(group.pid) for group in groups
    ):
        time.sleep(LOOK_SECONDS)
    deadline = time.monotonic() + KILL_SECONDS
    for group in groups:
        while list_group_members(group.pid) and time.monotonic() < deadline:
            kill_group(group.pid)
            time.sleep(LOOK_SECONDS)


def _get_stage(group: ProcessGroup) -> int:
    return group.stop_stage


def _list_pids() -> list[int]:
    return [int(entry.name) for entry in PROC.glob("[0-9]*")]


def _read_stat(pid: int) -> list[str]:
    """Return the fields after the command's name (which may hold anything): state, parent, group, …."""
    try:
        return PROC.joinpath(str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


@functools.cache
def _read_boot_id() -> str:
    return PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()


def _ask_ps(*arguments: str) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        ["ps", *arguments], env=environment, capture_output=True, text=True, check=False, timeout=10
    ).stdout
