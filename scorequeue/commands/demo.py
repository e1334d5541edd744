"""`scorequeue demo`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorequeue.commands.options import JsonOption


def demo(
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Keep the service's data there.")] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """See it work: start a service, score real rows through it, check every answer, stop it again.

    The report says what was done, how fast, and whether all answers equal the model's own.
    """
    from scorequeue.demo import run_demo

    raise typer.Exit(run_demo(data, port, as_json=as_json))
