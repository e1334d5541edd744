"""Keeping child processes alive: start, watch, restart with backoff, give up, stop in order.

It must not know what the children do: they come as data (`ProcessSpec`). It has no thread: its owner calls
`Supervisor.check` several times a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from scorequeue.processes import KILL_SECONDS, ProcessGroup, kill_group, read_start_time, stop_groups

#: Seconds between two looks at the children.
CHECK_SECONDS = 0.1


@dataclass(frozen=True)
class ProcessSpec:
    """A process to be run.

    Parameters
    ----------
    name : str
        What people call it, as ``rows worker``.
    command : tuple of str
        Program and arguments.
    log : Path
        File to which its output and errors are appended.
    environment : mapping
        Its whole environment.
    folder : Path
        Where it runs.
    stop_stage : int
        Those of a lower stage are stopped before those of a higher one.
    stop_seconds : float
        Seconds between SIGTERM and SIGKILL.
    niceness : int
        Added to its priority number; higher yields the processor to others.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str]
    folder: Path
    stop_stage: int = 0
    stop_seconds: float = 10.0
    niceness: int = 0


class Observer(Protocol):
    """Who knows more of a process than its exit status."""

    def note_start(self) -> None:
        """Learn that the process is about to be started, for the first time or again."""

    def explain_death(self) -> str | None:
        """Say, for people, why starting it again is of no use; None if it may help."""


@dataclass(frozen=True)
class RestartPolicy:
    """How often and how quickly a process that dies is started again; all times in seconds."""

    #: Delay before the first restart; each further one doubles it.
    first_delay: float = 0.5
    #: The longest delay.
    longest_delay: float = 10.0
    #: A process that ran for so long starts again with the first delay.
    stable_after: float = 60.0
    #: So many deaths of one process within `window` are too many.
    deaths_max: int = 5
    #: Span over which deaths are counted.
    window: float = 60.0


class ProcessError(Exception):
    """A process could not be run as it should; the message is for people.

    Parameters
    ----------
    spec : ProcessSpec
        The process.
    reason : str
        What happened to it.
    """

    def __init__(self, spec: ProcessSpec, reason: str) -> None:
        super().__init__(spec, reason)
        self.spec = spec
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.spec.name} {self.reason}\n{read_log_end(self.spec.log)}"


@dataclass
class _Child:
    spec: ProcessSpec
    process: subprocess.Popen[bytes] | None = None
    group: ProcessGroup | None = None
    born: float = 0.0
    #: When to start it again (monotonic), while it is down.
    due: float = 0.0
    delay: float = 0.0
    deaths: deque[float] = field(default_factory=deque)
    observer: Observer | None = None


class Supervisor:
    """The children of one launcher.

    Parameters
    ----------
    record : Path
        File that always says which children there are, so that a later start can stop the survivors of a
        launcher that was killed.
    say : callable
        Takes one line for people.
    policy : RestartPolicy
        When to restart and when to give up.
    """

    def __init__(self, record: Path, say: Callable[[str], None], policy: RestartPolicy | None = None) -> None:
        self._record = record
        self._say = say
        self._policy = policy or RestartPolicy()
        self._children: list[_Child] = []
        self._errand: _Child | None = None

    def start(self, spec: ProcessSpec, observer: Observer | None = None) -> None:
        """Start a process and keep it alive from now on, unless ``observer`` knows that this is of no use.

        Raises
        ------
        ProcessError
            The program cannot be executed.
        """
        child = _Child(spec, observer=observer)
        self._children.append(child)
        self._spawn(child)

    def run(self, spec: ProcessSpec, timeout: float, is_stopped: Callable[[], bool]) -> None:
        """Run a process to its end, while the others are watched.

        Blocks for at most ``timeout`` seconds, or until ``is_stopped`` says so; then it is gone.

        Raises
        ------
        ProcessError
            It failed, did not end in time, or another process died too often.
        """
        self._errand = child = _Child(spec)
        self._spawn(child)
        assert child.process is not None  # set by _spawn
        deadline = time.monotonic() + timeout
        try:
            while child.process.poll() is None and not is_stopped():
                if time.monotonic() > deadline:
                    raise ProcessError(spec, f"did not end within {timeout:g} s")
                self.check()
                time.sleep(CHECK_SECONDS)
        finally:
            kill_group(child.process.pid)
            status = child.process.wait(KILL_SECONDS)
            self._errand = None
            self._write_record()
        if status and not is_stopped():
            raise ProcessError(spec, f"failed ({describe_death(status)})")

    def check(self) -> None:
        """Notice deaths, and start again what is due; does not block.

        Raises
        ------
        ProcessError
            A process died too often, cannot be started again, or its observer advises against it.
        """
        for child in self._children:
            if child.process is not None and (status := child.process.poll()) is not None:
                self._bury(child, status)
            elif child.process is None and time.monotonic() >= child.due:
                self._spawn(child)

    def stop(self, is_hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop all children in the order of their stages; none is alive afterwards.

        Blocks for at most the ``stop_seconds`` of each stage and a few seconds more; hardly at all once
        ``is_hurried`` says true.
        """
        stop_groups([child.group for child in self._children if child.group], is_hurried)
        for child in self._children:
            if child.process is not None:
                # A process that survives SIGKILL is stuck in the kernel: not ours to wait for.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(KILL_SECONDS)
        self._children.clear()
        self._write_record()

    def _spawn(self, child: _Child) -> None:
        spec = child.spec
        if child.observer:
            child.observer.note_start()
        try:
            with spec.log.open("ab") as log:
                process = subprocess.Popen(
                    spec.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=spec.folder,
                    env=dict(spec.environment),
                    # Ctrl-C on the terminal must reach the launcher alone, which stops the others in order.
                    start_new_session=True,
                )
        except OSError as error:
            raise ProcessError(spec, f"cannot be started: {error}") from error
        # A child that has died at once still has its start time: nobody has reaped it yet.
        started = read_start_time(process.pid) or ""
        if spec.niceness:
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, process.pid, spec.niceness)
        child.process = process
        child.group = ProcessGroup(spec.name, process.pid, started, spec.stop_stage, spec.stop_seconds)
        child.born = time.monotonic()
        self._write_record()

    def _bury(self, child: _Child, status: int) -> None:
        assert child.process is not None  # only the living die
        # The leader's own children would go on without it, and beside those of the next one.
        kill_group(child.process.pid)
        now = time.monotonic()
        child.process = child.group = None
        if child.observer and (reason := child.observer.explain_death()):
            raise ProcessError(child.spec, reason)
        child.deaths.append(now)
        while now - child.deaths[0] > self._policy.window:
            child.deaths.popleft()
        if (count := len(child.deaths)) >= self._policy.deaths_max:
            often = f"{count} times within {self._policy.window:g} s"
            raise ProcessError(child.spec, f"died ({describe_death(status)}), {often}; giving up")
        stable = now - child.born >= self._policy.stable_after
        child.delay = (
            self._policy.first_delay if stable or not child.delay else min(2 * child.delay, self._policy.longest_delay)
        )
        child.due = now + child.delay
        self._say(f"{child.spec.name} died ({describe_death(status)}); restarting in {child.delay:g} s")

    def _write_record(self) -> None:
        children = [*self._children, self._errand] if self._errand else self._children
        try:
            write_record(self._record, [child.group for child in children if child.group])
        except OSError as error:
            # On a full disk the service goes on; only a later start would not know of these processes.
            self._say(f"cannot write {self._record}: {error}")


def write_record(path: Path, groups: list[ProcessGroup]) -> None:
    """Write which process groups there are; a reader sees the old record or the new one, never a part."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps([asdict(group) for group in groups], indent=1))
    draft.replace(path)


def read_record(path: Path) -> list[ProcessGroup]:
    """Read what `write_record` wrote; nothing if there is no file.

    Raises
    ------
    ValueError
        The file is not a record.
    """
    try:
        return [ProcessGroup(**fields) for fields in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except TypeError as error:
        raise ValueError(f"{path} is not a record of processes: {error}") from error


def describe_death(status: int) -> str:
    """Put an exit status as `subprocess` gives it into words: ``signal 9``, ``exit status 1``."""
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def read_log_end(log: Path, lines: int = 15) -> str:
    """Quote the last lines of a log, under a line that names the file."""
    if not log.exists():
        return f"({log} was not written)"
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
        last = file.read().decode(errors="replace").splitlines()[-lines:]
    return "\n".join([f"last lines of {log}:", *(f"  {line}" for line in last)])
