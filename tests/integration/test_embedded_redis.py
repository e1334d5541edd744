"""The embedded Redis: the real server with the configuration that `scorequeue up` writes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from scorequeue.data_folder import DataFolder
from scorequeue.embedded_redis import Answer, choose_socket, find_binary, ping, remove_socket, write_config

WaitUntil = Callable[..., object]


@contextlib.contextmanager
def run_server(folder: DataFolder, wait_until: WaitUntil) -> Iterator[Path]:
    """Run the server on a data folder; give its socket; kill it afterwards."""
    unix_socket = choose_socket(folder.root)
    write_config(folder.run / "redis.conf", folder.redis, unix_socket)
    command = [str(find_binary()), str(folder.run / "redis.conf")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder.run) as server:
        try:
            wait_until(lambda: ping(unix_socket) is Answer.READY, 20, "the server to answer")
            yield unix_socket
        finally:
            server.kill()
            server.wait(10)
            remove_socket(unix_socket, folder.root)


def ask(unix_socket: Path, command: str) -> str:
    """Send one command and return the raw answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(unix_socket))
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(4096).decode()


def test_data_survives_a_kill(tmp_path: Path, wait_until: WaitUntil) -> None:
    """What was answered is there again after kill -9, also in a folder whose name needs quoting."""
    folder = DataFolder(tmp_path / 'a "quoted" folder')
    folder.make()

    with run_server(folder, wait_until) as unix_socket:
        assert ask(unix_socket, "SET job kept") == "+OK\r\n"
    with run_server(folder, wait_until) as unix_socket:
        assert "kept" in ask(unix_socket, "GET job")


def test_settings_are_those_written(tmp_path: Path, wait_until: WaitUntil) -> None:
    """The server syncs each write, never evicts, and listens on its private socket only."""
    folder = DataFolder(tmp_path / "data")
    folder.make()
    expected = {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "port": "0",
        "save": "",
        "hash-max-listpack-value": "2048",
        "hash-max-listpack-entries": "128",
    }

    with run_server(folder, wait_until) as unix_socket:
        found = {name: ask(unix_socket, f"CONFIG GET {name}").split("\r\n")[-2] for name in expected}
        mode = os.stat(unix_socket).st_mode & 0o777

    assert found == expected
    assert mode == 0o700


def test_nobody_listening_is_no_answer(tmp_path: Path) -> None:
    """A socket that does not exist answers nothing, and that is no error."""
    assert ping(tmp_path / "none.sock") is Answer.NOTHING
