"""The address and key that `scorequeue login` keeps, for the commands that are given none."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from scorequeue.errors import WrongUse


class Login(NamedTuple):
    """Where a service is, and the key to show there."""

    url: str
    api_key: str


def find_file(environ: Mapping[str, str]) -> Path:
    """Return the file in which a login is kept (XDG base directories)."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "scorequeue" / "login.json"


def read_login(file: Path) -> Login | None:
    """Return what is kept, or None.

    Raises
    ------
    WrongUse
        The file cannot be read as a login.
    """
    try:
        kept = json.loads(file.read_text())
        return Login(str(kept["url"]), str(kept["api_key"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WrongUse(f"{file} holds no login ({error}); run: scorequeue login --forget") from error


def write_login(file: Path, login: Login) -> None:
    """Keep a login where only its owner can read it."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = file.with_suffix(".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
        json.dump(login._asdict(), target)
    beside.replace(file)
