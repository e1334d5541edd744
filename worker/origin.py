"""Where a registration comes from: who, on which machine, from which commit."""

from __future__ import annotations

import getpass
import socket
import subprocess
from pathlib import Path

from shared.manifest import Origin

#: A folder on a dead network drive must not hold up a registration.
_GIT_SECONDS = 5.0


def find_origin(folder: Path, *, file: str = "", mlflow_run: str = "") -> Origin:
    """Describe who registers here, and the git commit of a folder if it has one."""
    commit = _ask_git(folder, "rev-parse", "HEAD")
    changes = _ask_git(folder, "status", "--porcelain") if commit else ""
    return Origin(
        user=_find_user(),
        host=socket.gethostname(),
        file=file,
        git_commit=commit or "",
        git_changes=bool(changes),
        mlflow_run=mlflow_run,
    )


def _find_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return ""


def _ask_git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
