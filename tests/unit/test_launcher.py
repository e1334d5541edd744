"""What `scorequeue up` checks and decides before it starts anything."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scorequeue.data_folder import DataFolder, DataFolderError
from scorequeue.embedded_redis import SOCKET_PATH_MAX_BYTES, EmbeddedRedisError, choose_socket, remove_socket
from scorequeue.launch_options import LaunchError, LaunchOptions, check_exposure, check_ports, resolve_host
from scorequeue.launcher import describe_ready, read_lease_seconds, stop_leftovers, write_ready_json
from scorequeue.processes import ProcessGroup, read_start_time
from scorequeue.service_processes import MARKER, list_service_processes, make_environment
from scorequeue.supervisor import write_record
from tests.tools import pick_free_port

KEYED = {"SCOREQUEUE_API_KEYS": "me:secret"}


def make_options(
    port: int = 8000, flower_port: int | None = 5555, host: str = "127.0.0.1", workers: int = 2
) -> LaunchOptions:
    """Make options as the command line would."""
    return LaunchOptions(host, port, Path(".scorequeue"), workers, demo=False, flower_port=flower_port)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Give a port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """Give a data folder that was just made."""
    folder = DataFolder(tmp_path / "data")
    folder.make()
    return folder


def test_taken_port_names_the_option_that_changes_it(taken_port: int) -> None:
    """A port that is in use is refused with the port's number and the option for another."""
    with pytest.raises(LaunchError, match=f"port {taken_port} is taken; choose another with --port") as caught:
        check_ports(make_options(port=taken_port))

    assert caught.value.exit_code == 2


def test_taken_flower_port_names_its_own_options(taken_port: int) -> None:
    """Flower's port is changed by another option, and Flower can be left out."""
    options = make_options(port=pick_free_port(), flower_port=taken_port)

    with pytest.raises(LaunchError, match=rf"port {taken_port} is taken; .*--flower-port.*--no-flower"):
        check_ports(options)


def test_one_port_cannot_serve_two() -> None:
    """The API and Flower on one port are refused before either starts."""
    with pytest.raises(LaunchError, match="cannot share port 8000"):
        check_ports(make_options(port=8000, flower_port=8000))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])
def test_other_machines_are_not_served_without_a_key(host: str) -> None:
    """An address that others can reach is refused when no API key is configured."""
    with pytest.raises(LaunchError, match="SCOREQUEUE_API_KEYS") as caught:
        check_exposure(host, {"SCOREQUEUE_API_KEYS": " "}, lambda: False, print)

    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("host", "environ"), [("0.0.0.0", KEYED), ("127.0.0.1", {}), ("::1", {})])
def test_loopback_or_a_key_is_enough(host: str, environ: dict[str, str]) -> None:
    """Loopback needs no key; with a key every address is allowed."""
    check_exposure(host, environ, lambda: False, print)


def test_key_in_the_store_is_enough() -> None:
    """A key that was made by command counts like one of the settings."""
    check_exposure("0.0.0.0", {}, lambda: True, print)


def test_host_that_does_not_exist_is_refused() -> None:
    """A host name without an address is refused by its name."""
    with pytest.raises(LaunchError, match=r"--host no-such-host\.invalid"):
        resolve_host("no-such-host.invalid")


def test_localhost_is_the_ipv4_loopback() -> None:
    """The name localhost means the address that people type."""
    assert resolve_host("localhost") == "127.0.0.1"


def test_ready_line_names_all_addresses() -> None:
    """The ready line says where API and Flower are, how many workers run, and where the data is."""
    line = "ready: API http://127.0.0.1:8000  Flower http://127.0.0.1:5555  workers 2+2  data .scorequeue"

    assert describe_ready(make_options()) == line
    assert describe_ready(make_options(host="::1", flower_port=None)).startswith("ready: API http://[::1]:8000  work")
    said = json.loads(write_ready_json(make_options(flower_port=None)))
    assert said["ready"] is True
    assert said["api"] == "http://127.0.0.1:8000"
    assert said["flower"] is None


def test_leftovers_are_stopped_before_a_start(folder: DataFolder) -> None:
    """A process that the last `up` recorded and did not stop is gone before anything is started."""
    said: list[str] = []
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as child:
        group = ProcessGroup("API", child.pid, read_start_time(child.pid) or "", 0, 5.0)
        write_record(folder.run / "children.json", [group])

        assert stop_leftovers(folder, said.append)

        assert child.wait(10) == -signal.SIGTERM
    assert "was not stopped in order" in said[0]


def test_damaged_record_does_not_prevent_a_start(folder: DataFolder) -> None:
    """A record that cannot be read is said, and the start goes on."""
    said: list[str] = []
    (folder.run / "children.json").write_text("{")

    assert not stop_leftovers(folder, said.append)

    assert "processes of an earlier start may still run" in said[0]


@pytest.mark.parametrize(("text", "seconds"), [("2.5", 2.5), ("soon", 5.0)])
def test_lease_is_read_as_the_workers_read_it(text: str, seconds: float) -> None:
    """The lease is the user's, or the default if the workers will refuse what the user wrote."""
    assert read_lease_seconds({"SCOREQUEUE_LEASE_SECONDS": text}) == seconds


def test_folder_is_locked_by_one(folder: DataFolder) -> None:
    """A second lock on the folder is refused, and says which process holds the first."""
    second = pytest.raises(DataFolderError, match=rf"in use by another .*pid {os.getpid()}.*--data")

    with folder.lock(), second, folder.lock():
        pass


def test_lock_ends_with_its_process(folder: DataFolder) -> None:
    """The lock of a process that was killed stands in nobody's way, though a child of it lives on."""
    code = (
        "import subprocess, sys; from pathlib import Path; from scorequeue.data_folder import DataFolder\n"
        "with DataFolder(Path(sys.argv[1])).lock():\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    print(child.pid, flush=True); child.wait()"
    )
    command = [sys.executable, "-c", code, str(folder.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        orphan = int(holder.stdout.readline())

        holder.kill()
        holder.wait(10)

        with folder.lock():
            os.kill(orphan, signal.SIGKILL)


def test_folder_is_private(folder: DataFolder) -> None:
    """Nobody else can look into the data folder."""
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.run.stat().st_mode) == 0o700


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A data folder that is a file is refused by its name."""
    path = tmp_path / "data"
    path.touch()

    with pytest.raises(DataFolderError, match=f"cannot use {path}"):
        DataFolder(path).make()


def test_counters_start_anew(folder: DataFolder) -> None:
    """The counters of earlier processes are gone after a start."""
    folder.clear_metrics()
    (folder.metrics / "counter_1.db").touch()

    folder.clear_metrics()

    assert list(folder.metrics.glob("*.db")) == []


def test_socket_is_in_the_data_folder_if_it_fits() -> None:
    """A short path is used as it is."""
    with tempfile.TemporaryDirectory(prefix="sq") as short:
        root = Path(short).resolve()

        assert choose_socket(root) == root / "run" / "redis.sock"


@pytest.mark.parametrize("name", ["a" * 120, "with space", "100%"])
def test_unfit_socket_path_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A path that is too long or needs quoting is replaced by one in a private folder, always the same."""
    with tempfile.TemporaryDirectory(prefix="sq") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)

        path = choose_socket(tmp_path / name)

        assert path == choose_socket(tmp_path / name)
        assert path != choose_socket(tmp_path / (name + "b"))
        assert len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

        remove_socket(path, tmp_path / name)
        assert not path.parent.exists()


def test_socket_folder_of_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that others may enter is not used for the socket."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    choose_socket(tmp_path / "with space").parent.chmod(0o755)

    with pytest.raises(EmbeddedRedisError, match="only you can enter"):
        choose_socket(tmp_path / "with space")


def test_processes_keep_everything_in_the_data_folder(folder: DataFolder) -> None:
    """Without settings of the user, files and models are in the data folder."""
    environment = make_environment(folder, {}, "unix:///private/redis.sock")

    assert environment["SCOREQUEUE_REDIS_URL"] == "unix:///private/redis.sock"
    assert environment["SCOREQUEUE_FILE_STORE"] == str(folder.files)
    assert environment["SCOREQUEUE_MODELS"] == str(folder.models)
    assert environment[MARKER] == str(folder.root)


def test_settings_of_the_user_win(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that the user named are used, relative ones as seen from where the command was typed."""
    monkeypatch.chdir(folder.root)
    given = {"SCOREQUEUE_MODELS": "my/models", "SCOREQUEUE_FILE_STORE": "/srv/files"}

    environment = make_environment(folder, given, "redis://127.0.0.1")

    assert environment["SCOREQUEUE_MODELS"] == str(folder.root / "my" / "models")
    assert environment["SCOREQUEUE_FILE_STORE"] == "/srv/files"


def test_each_queue_has_its_own_worker(folder: DataFolder) -> None:
    """Rows and files have a worker each; that of the files yields the processor; Flower counts apart."""
    environment = make_environment(folder, {"PROMETHEUS_MULTIPROC_DIR": "/elsewhere"}, "redis://127.0.0.1")

    api, rows, files, flower = list_service_processes(make_options(workers=3), folder, environment)

    assert [spec.name for spec in (api, rows, files, flower)] == [
        "API",
        "rows worker",
        "files worker",
        "Flower",
    ]
    assert " ".join(rows.command).endswith("worker -Q rows -c 3 -n rows@%h --loglevel INFO")
    assert (rows.niceness, files.niceness) == (0, 5)
    assert api.stop_stage < rows.stop_stage == files.stop_stage < flower.stop_stage
    assert rows.environment["PROMETHEUS_MULTIPROC_DIR"] == str(folder.metrics)
    assert flower.environment["PROMETHEUS_MULTIPROC_DIR"] == str(folder.other_metrics)


def test_flower_can_be_left_out(folder: DataFolder) -> None:
    """With --no-flower there is no Flower."""
    specs = list_service_processes(make_options(flower_port=None), folder, {})

    assert "Flower" not in [spec.name for spec in specs]
