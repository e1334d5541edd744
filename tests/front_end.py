"""The front end on its real server, as `scorequeue up` starts it."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from scorequeue.data_folder import DataFolder
from scorequeue.launch_options import LaunchOptions
from scorequeue.service_processes import list_service_processes, make_environment
from tests.conftest import WaitUntil
from tests.tools import pick_free_port


@contextlib.contextmanager
def serving(
    folder: Path,
    redis_url: str,
    settings: Mapping[str, str],
    wait_until: WaitUntil,
    replaced: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Start it, give its port, and stop it; no traceback may be in its log.

    Parameters
    ----------
    folder : Path
        For its data; must exist.
    settings : mapping of str to str
        ``SCOREQUEUE_*``, without that.
    replaced : mapping of str to str
        Words of its command, for others.
    """
    data = DataFolder(folder)
    data.make()
    data.clear_metrics()
    port = pick_free_port()
    given = {"BROKER_URL": redis_url} | dict(settings)
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("SCOREQUEUE_")}
    environ = inherited | {f"SCOREQUEUE_{name}": text for name, text in given.items()}
    options = LaunchOptions("127.0.0.1", port, folder, 1, demo=False, flower_port=None)
    spec = list_service_processes(options, data, make_environment(data, environ, redis_url))[0]
    command = [(replaced or {}).get(word, word) for word in spec.command]
    assert replaced is None or command != list(spec.command)
    log = folder / "api.log"
    with log.open("wb") as output, subprocess.Popen(command, env=spec.environment, stdout=output, stderr=output) as api:
        try:
            wait_until(lambda: _is_up(port), 30, "the front end to answer")
            yield port
        finally:
            api.terminate()
            api.wait(20)
    assert "Traceback" not in log.read_text()


def _is_up(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False
