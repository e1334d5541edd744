"""What the worker's own commands print."""

from __future__ import annotations

import sys
from typing import Any

import msgspec


def print_line(line: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """Write a value as JSON, in one line."""
    print_line(msgspec.json.encode(value).decode())
