"""The supervisor and the stopping of processes, with real small child processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scorequeue.processes import list_group_members, list_marked, read_start_time, stop_groups, stop_survivors
from scorequeue.stop_signals import StopSignals
from scorequeue.supervisor import (
    ProcessError,
    ProcessSpec,
    RestartPolicy,
    Supervisor,
    read_record,
    write_record,
)

SLEEP = "import time; time.sleep(60)"
#: Starts a child of its own, notes both ids, and sleeps.
FAMILY = (
    "import os, subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "open('family', 'a').write(f'{os.getpid()} {child.pid}\\n'); time.sleep(60)"
)
#: Ignores a polite request to end, and says when it does so.
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('stubborn', 'w').close(); time.sleep(60)"
)
#: Notes in `ends` when it is asked to end, and ends a little later.
NOTED = (
    "import signal, sys, time\n"
    "def end(*_):\n"
    "    open('ends', 'a').write(sys.argv[1] + ' asked\\n'); time.sleep(0.2)\n"
    "    open('ends', 'a').write(sys.argv[1] + ' ended\\n'); sys.exit()\n"
    "signal.signal(signal.SIGTERM, end); open('up-' + sys.argv[1], 'w').close(); time.sleep(60)"
)

WaitUntil = Callable[..., object]
QUICK = RestartPolicy(first_delay=0.05, longest_delay=0.2)


class Stage:
    """A supervisor in a folder of its own, with the lines it said."""

    def __init__(self, folder: Path, policy: RestartPolicy = QUICK) -> None:
        self.folder = folder
        self.record = folder / "children.json"
        self.said: list[str] = []
        self.supervisor = Supervisor(self.record, self.said.append, policy)

    def describe(self, code: str, name: str = "child", **fields: object) -> ProcessSpec:
        """Describe a Python process that runs ``code``."""
        command = (sys.executable, "-c", code, name)
        spec = ProcessSpec(name, command, self.folder / f"{name}.log", os.environ, self.folder)
        return replace(spec, **fields)  # type: ignore[arg-type]

    def get_pids(self) -> list[int]:
        """List the recorded processes."""
        return [group.pid for group in read_record(self.record)]

    def has_said(self, text: str) -> bool:
        """Check the children; tell whether a line with ``text`` was said."""
        self.supervisor.check()
        return any(text in line for line in self.said)

    def has_said_lines(self, count: int) -> bool:
        """Check the children; tell whether so many lines were said."""
        self.supervisor.check()
        return len(self.said) >= count

    def has_running(self, count: int) -> bool:
        """Check the children; tell whether so many are alive."""
        self.supervisor.check()
        return sum(map(is_alive, self.get_pids())) == count


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Give a supervisor whose children do not outlive the test."""
    stage = Stage(tmp_path)
    yield stage
    stage.supervisor.stop(is_hurried=lambda: True)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        return pid in list_group_members(os.getpgid(pid))
    except ProcessLookupError:
        return False


def test_dead_process_is_restarted_and_said(stage: Stage, wait_until: WaitUntil) -> None:
    """A killed process is started again after the delay, and one line says so."""
    stage.supervisor.start(stage.describe(SLEEP, "rows worker"))
    [first] = stage.get_pids()

    os.kill(first, signal.SIGKILL)
    wait_until(lambda: stage.has_said("died"), 10, "the death to be noticed")
    wait_until(lambda: stage.has_running(1), 10, "a new process")

    assert stage.said == ["rows worker died (signal 9); restarting in 0.05 s"]
    assert stage.get_pids() != [first]


def test_delay_doubles_up_to_the_longest(stage: Stage, wait_until: WaitUntil) -> None:
    """A process that keeps dying is started again after longer and longer delays, up to a limit."""
    stage.supervisor = Supervisor(stage.record, stage.said.append, replace(QUICK, deaths_max=9))
    stage.supervisor.start(stage.describe("raise SystemExit(3)"))

    wait_until(lambda: stage.has_said_lines(4), 20, "four deaths")

    delays = [line.rpartition("restarting in ")[2] for line in stage.said]
    assert delays == ["0.05 s", "0.1 s", "0.2 s", "0.2 s"]
    assert "exit status 3" in stage.said[0]


def test_delay_starts_anew_after_a_stable_time(stage: Stage, wait_until: WaitUntil) -> None:
    """A process that ran long enough is forgiven its earlier deaths."""
    policy = replace(QUICK, stable_after=0.0, window=0.0)
    stage.supervisor = Supervisor(stage.record, stage.said.append, policy)
    stage.supervisor.start(stage.describe("raise SystemExit(3)"))

    wait_until(lambda: stage.has_said_lines(6), 20, "six deaths")

    assert set(stage.said) == {"child died (exit status 3); restarting in 0.05 s"}


def test_five_deaths_in_a_minute_are_too_many(stage: Stage, wait_until: WaitUntil) -> None:
    """The fifth death within a minute ends it, with the last lines of the process's log."""
    stage.supervisor.start(stage.describe("raise SystemExit('no such model')"))

    with pytest.raises(ProcessError) as caught:
        wait_until(lambda: stage.has_said("never said"), 20, "the fifth death")

    assert "died (exit status 1), 5 times within 60 s; giving up" in str(caught.value)
    assert "no such model" in str(caught.value)
    assert len(stage.said) == 4


def test_deaths_of_different_processes_are_counted_apart(stage: Stage, wait_until: WaitUntil) -> None:
    """Two processes that died four times each have not died too often."""
    code = (
        # The count is kept in a file, since each start is a new process.
        "import os, sys, time; path = sys.argv[1] + '.count'; open(path, 'a').write('.'); "
        "sys.exit(1) if os.path.getsize(path) < 5 else time.sleep(60)"
    )
    for name in ("one", "two"):
        stage.supervisor.start(stage.describe(code, name))

    wait_until(lambda: stage.has_said_lines(8), 20, "eight deaths")

    wait_until(lambda: stage.has_running(2), 10, "both to run again")


def test_orphans_of_a_dead_leader_are_killed(stage: Stage, wait_until: WaitUntil) -> None:
    """When a process dies, the children it leaves behind are killed before it is started again."""
    stage.supervisor.start(stage.describe(FAMILY))
    family = stage.folder / "family"
    wait_until(lambda: family.exists() and family.read_text().endswith("\n"), 10, "the family")
    leader, orphan = map(int, family.read_text().split())

    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: stage.has_said("restarting"), 10, "the death to be noticed")

    wait_until(lambda: not is_alive(orphan), 10, "the orphan's end")


def test_processes_are_stopped_in_order(stage: Stage, wait_until: WaitUntil) -> None:
    """Each stage is asked to end only when the one before it has ended."""
    for name, number in (("redis", 3), ("api", 0), ("worker", 1)):
        stage.supervisor.start(stage.describe(NOTED, name, stop_stage=number))
        wait_until((stage.folder / f"up-{name}").exists, 10, f"{name} to be up")

    stage.supervisor.stop()

    asked = (stage.folder / "ends").read_text().splitlines()
    assert asked == [f"{name} {act}" for name in ("api", "worker", "redis") for act in ("asked", "ended")]
    assert stage.get_pids() == []


def test_stubborn_process_is_killed(stage: Stage, wait_until: WaitUntil) -> None:
    """A process that ignores SIGTERM is killed when its time is over."""
    stage.supervisor.start(stage.describe(STUBBORN, stop_seconds=0.2))
    wait_until((stage.folder / "stubborn").exists, 10, "the process to be up")
    [pid] = stage.get_pids()

    stage.supervisor.stop()

    assert read_start_time(pid) is None


def test_hurried_stop_kills_at_once(stage: Stage, wait_until: WaitUntil) -> None:
    """A second wish to stop ends a process that would have had a minute."""
    stage.supervisor.start(stage.describe(STUBBORN, stop_seconds=60))
    wait_until((stage.folder / "stubborn").exists, 10, "the process to be up")
    [pid] = stage.get_pids()

    stage.supervisor.stop(is_hurried=lambda: True)

    assert read_start_time(pid) is None


def test_missing_program_is_an_error_with_its_name(stage: Stage) -> None:
    """A program that does not exist is reported with what was to be started."""
    spec = replace(stage.describe(SLEEP, "Redis"), command=("/nonexistent/server",))

    with pytest.raises(ProcessError, match=r"Redis cannot be started: .*/nonexistent/server"):
        stage.supervisor.start(spec)


def test_files_worker_yields_the_processor(stage: Stage) -> None:
    """A process with a niceness runs at a lower priority than its launcher."""
    stage.supervisor.start(stage.describe(SLEEP, niceness=5))

    [pid] = stage.get_pids()
    assert os.getpriority(os.PRIO_PROCESS, pid) == 5


def test_errand_runs_to_its_end(stage: Stage) -> None:
    """A process that is run once has done its work when the call returns."""
    stage.supervisor.run(stage.describe("open('done', 'w').close()"), timeout=20, is_stopped=lambda: False)

    assert (stage.folder / "done").exists()


def test_failed_errand_shows_its_log(stage: Stage) -> None:
    """A process that is run once and fails is reported with the last lines of its log."""
    with pytest.raises(ProcessError, match=r"(?s)train failed \(exit status 1\).*disk is full"):
        stage.supervisor.run(stage.describe("raise SystemExit('disk is full')", "train"), 20, lambda: False)


def test_endless_errand_is_ended(stage: Stage) -> None:
    """A process that is run once and hangs is killed after its time."""
    with pytest.raises(ProcessError, match=r"did not end within 0\.2 s"):
        stage.supervisor.run(stage.describe(FAMILY), timeout=0.2, is_stopped=lambda: False)


def test_survivors_of_a_killed_launcher_are_stopped(stage: Stage, wait_until: WaitUntil) -> None:
    """The record tells a later start which processes to stop, with all that they started."""
    stage.supervisor.start(stage.describe(FAMILY))
    family = stage.folder / "family"
    wait_until(lambda: family.exists() and family.read_text().endswith("\n"), 10, "the family")
    leader, child = map(int, family.read_text().split())

    stop_survivors(read_record(stage.record), "NO_SUCH_MARKER=1")

    assert not is_alive(leader)
    assert not is_alive(child)


def test_process_with_a_recycled_id_is_left_alone(stage: Stage) -> None:
    """A process that has the recorded id but another start time belongs to somebody else."""
    stage.supervisor.start(stage.describe(SLEEP))
    [group] = read_record(stage.record)

    stop_groups([replace(group, started="long ago")])

    assert is_alive(group.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the environment of a process")
def test_orphan_without_a_record_is_found_by_its_marker(tmp_path: Path) -> None:
    """A process that carries the marker is killed even if no record names it."""
    marker = f"_TEST_MARKER={tmp_path}"
    environment = {**os.environ, "_TEST_MARKER": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", SLEEP], env=environment) as orphan:
        assert list_marked(marker) == [orphan.pid]

        stop_survivors([], marker)

        assert orphan.wait(10) == -signal.SIGKILL


def test_record_is_read_as_it_was_written(stage: Stage) -> None:
    """Writing the record and reading it gives the same groups."""
    stage.supervisor.start(stage.describe(SLEEP))
    groups = read_record(stage.record)

    write_record(stage.record, groups)

    assert read_record(stage.record) == groups
    assert groups[0].started == read_start_time(groups[0].pid)


@pytest.mark.parametrize("text", ["", "{", '[{"pid": 1}]', "[1]"])
def test_damaged_record_is_a_value_error(tmp_path: Path, text: str) -> None:
    """A record that is damaged or foreign is refused, whatever is wrong with it."""
    path = tmp_path / "children.json"
    path.write_text(text)

    with pytest.raises(ValueError, match=r"."):
        read_record(path)


def test_missing_record_names_no_process(tmp_path: Path) -> None:
    """Before the first start there is no record, and nothing to stop."""
    assert read_record(tmp_path / "children.json") == []


def test_full_disk_does_not_end_the_service(stage: Stage) -> None:
    """A record that cannot be written is said, and the process runs all the same."""
    stage.record.mkdir()

    stage.supervisor.start(stage.describe(SLEEP))

    assert "cannot write" in stage.said[0]
    stage.record.rmdir()


def test_record_names_every_child(stage: Stage) -> None:
    """The record is plain JSON with a name and an id for each process."""
    for name in ("one", "two"):
        stage.supervisor.start(stage.describe(SLEEP, name))

    assert [entry["name"] for entry in json.loads(stage.record.read_text())] == ["one", "two"]


def test_signal_is_noted_and_its_echo_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """One signal asks for a stop; only another one a moment later asks for haste."""
    with StopSignals() as signals:
        assert not signals.is_stopped()

        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert signals.is_stopped()
        assert not signals.is_hurried()

        monkeypatch.setattr(StopSignals, "ECHO_SECONDS", 0.0)
        signal.raise_signal(signal.SIGINT)
        assert signals.is_hurried()


def test_handlers_are_put_back() -> None:
    """After the service has ended, Ctrl-C does what it did before."""
    before = signal.getsignal(signal.SIGINT)

    with StopSignals():
        assert signal.getsignal(signal.SIGINT) != before

    assert signal.getsignal(signal.SIGINT) == before
