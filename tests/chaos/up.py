"""`scorequeue up` without giving up: killed on purpose, its processes die oftener than any fault would make them.

``python -m tests.chaos.up PORT DATA WORKERS``. All else is what a user starts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from scorequeue.launch_options import LaunchOptions
from scorequeue.launcher import Terminal, describe_ready, run_service
from scorequeue.supervisor import RestartPolicy

_POLICY = RestartPolicy(first_delay=0.2, longest_delay=0.5, deaths_max=1_000_000)


def main() -> None:
    """Run the service until SIGTERM."""
    port, data, workers = sys.argv[1:]
    options = LaunchOptions(
        host="127.0.0.1", port=int(port), data=Path(data), workers=int(workers), demo=False, flower_port=None
    )
    terminal = Terminal(lambda line: _write(sys.stderr.fileno(), line), lambda ready: _write(1, describe_ready(ready)))
    run_service(options, os.environ, terminal, _POLICY)


def _write(descriptor: int, line: str) -> None:
    os.write(descriptor, f"{line}\n".encode())


if __name__ == "__main__":
    main()
