"""Commands on a service's store (keys, webhook secrets): where the store is, and the process that reaches it.

The client imports nothing of the service; so the service's own command, ``python -m api``, is started.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from scorequeue.data_folder import DataFolder, DataFolderError
from scorequeue.embedded_redis import Answer, EmbeddedRedisError, choose_socket, ping
from scorequeue.errors import WrongUse

DEFAULT_DATA = Path(".scorequeue")
#: Seconds for a command: it starts an interpreter and asks Redis a few times.
_COMMAND_SECONDS = 60.0


def find_store(data: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Make the environment in which ``python -m api`` finds the store.

    Parameters
    ----------
    data : Path or None
        The data folder of a running `scorequeue up`; None: the Redis of SCOREQUEUE_REDIS_URL, else the default folder.
    environ : mapping

    Raises
    ------
    WrongUse
        No service runs on that folder.
    """
    environment = dict(environ)
    if data is None and environ.get("SCOREQUEUE_REDIS_URL", "").strip():
        return environment
    folder = DataFolder((data or DEFAULT_DATA).resolve())
    try:
        stores = folder.read_stores()
        if stores and stores.has_own_redis:
            raise WrongUse(f"the service on {folder.root} has a Redis of its own: set SCOREQUEUE_REDIS_URL to it")
        unix_socket = choose_socket(folder.root) if stores else None
    except (DataFolderError, EmbeddedRedisError) as error:
        raise WrongUse(str(error)) from error
    if unix_socket is None or ping(unix_socket) is not Answer.READY:
        raise WrongUse(
            f"no service runs on {folder.root}: start it (scorequeue up --data DIR), name its folder (--data), "
            "or set SCOREQUEUE_REDIS_URL"
        )
    environment["SCOREQUEUE_REDIS_URL"] = f"unix://{unix_socket}"
    return environment


def run_api_command(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command of ``python -m api`` with this terminal; return its exit code.

    Raises
    ------
    WrongUse
        The service is not installed here.
    """
    return subprocess.run(_make_command(arguments), env=dict(environment), check=False).returncode


def read_api_command(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of ``python -m api`` and return what it wrote.

    Raises
    ------
    WrongUse
        The service is not installed here.
    subprocess.TimeoutExpired
    """
    return subprocess.run(
        _make_command(arguments),
        env=dict(environment),
        check=False,
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
    )


def _make_command(arguments: Sequence[str]) -> list[str]:
    if find_spec("api") is None or find_spec("redis") is None:
        raise WrongUse("this command runs where the service is installed: pip install 'scorequeue[api]'")
    return [sys.executable, "-m", "api", *arguments]
