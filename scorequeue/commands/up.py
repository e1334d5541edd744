"""`scorequeue up`: the options of the command and its exit codes; the rest is in `scorequeue.launcher`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer


def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API.")] = 8000,
    data: Annotated[Path, typer.Option(help="Folder for all data; created if absent.")] = Path(".scorequeue"),
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes for row jobs, and as many for files.", show_default="one a processor"),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Register the demo models first.")] = False,
    flower: Annotated[bool, typer.Option(help="Start Flower, which shows the workers and tasks.")] = True,
    host: Annotated[str, typer.Option(help="Address of the API; not loopback: needs an API key.")] = "127.0.0.1",
    flower_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Flower, on loopback.")] = 5555,
    as_json: Annotated[bool, typer.Option("--json", help="Say in JSON, on one line, that all is ready.")] = False,
) -> None:
    """Run the whole service here: Redis (unless SCOREQUEUE_REDIS_URL names one), API, workers and Flower.

    What dies is restarted. Ctrl-C finishes running work and stops everything; a second one stops at once.
    """
    if os.name != "posix":
        typer.echo("`scorequeue up` runs on Linux and macOS; elsewhere use docker compose", err=True)
        raise typer.Exit(2)
    # Here and not above: the client's commands start without it, and on systems without it.
    from scorequeue.launch_options import LaunchError, LaunchOptions
    from scorequeue.launcher import Terminal, describe_ready, run_service, write_ready_json

    options = LaunchOptions(
        host=host,
        port=port,
        data=data,
        workers=workers or os.cpu_count() or 1,
        demo=demo,
        flower_port=flower_port if flower else None,
    )
    write_ready = write_ready_json if as_json else describe_ready
    try:
        run_service(options, os.environ, Terminal(_say, lambda ready: typer.echo(write_ready(ready))))
    except LaunchError as error:
        typer.echo(f"scorequeue up: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def _say(line: str) -> None:
    # The terminal may be gone (that is what SIGHUP tells): no reason to leave processes behind.
    with contextlib.suppress(OSError):
        typer.echo(line, err=True)
