"""What tests need of the machine: programs that pip cannot bring (see install_tools.sh), and free ports."""

from __future__ import annotations

import os
import shutil
import socket
from typing import NoReturn

import pytest


def require_tool(name: str) -> str:
    """Find a program; where it is missing skip the test, or fail it in CI, where nothing may be skipped."""
    path = shutil.which(name)
    if path is not None:
        return path
    return leave_out(f"{name} is not installed; `make test` as root on Debian installs it")


def leave_out(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI, where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    # Only where nobody promised the tool: `make test` cannot install it without root, and says what was left out.
    pytest.skip(reason)


def pick_free_port() -> int:
    """Give a port on which nobody listened a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
