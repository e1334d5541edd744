"""Commands of API keys: make, list, revoke; for whoever may reach the service's store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from scorequeue.commands.options import JsonOption

app = typer.Typer(help="Make, list and revoke API keys, where the service runs.", no_args_is_help=True)

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="The data folder of a running `scorequeue up`; by default SCOREQUEUE_REDIS_URL, else .scorequeue.",
    ),
]


@app.command("create")
def create_key(
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose jobs the key is for.")],
    scopes: Annotated[
        str | None,
        typer.Option(
            "--scopes",
            metavar="LIST",
            help="all, or of jobs:read, jobs:write, models:read, models:write, metrics:read; by default the jobs' two "
            "and models:read.",
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="WHEN", help="12h, 90d, a date, or never (the default).")
    ] = None,
    rate_limit: Annotated[
        str | None, typer.Option("--rate-limit", metavar="N/TIME", help="Requests of this key, as 100/second.")
    ] = None,
    row_limit: Annotated[
        str | None, typer.Option("--row-limit", metavar="N/TIME", help="Rows of this key, as 100000/minute.")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown this once; only a digest is kept.

    A tenant may have several keys at once: to change one, make the next, bring it to where it is used, revoke the old.

    [bold]Examples[/bold]

      scorequeue keys create --tenant shop --expires 90d

      scorequeue keys create --tenant prometheus --scopes metrics:read
    """
    options = {"--scopes": scopes, "--expires": expires, "--rate-limit": rate_limit, "--row-limit": row_limit}
    words = [word for name, text in options.items() if text is not None for word in (name, text)]
    _run("create", ["--tenant", tenant, *words], data, as_json=as_json)


@app.command("list")
def list_keys(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List all keys: tenant, state, scopes, last use. The keys themselves are not kept."""
    _run("list", [], data, as_json=as_json)


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.", show_default=False)],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let nobody in by a key any more; every process of the service knows within a second."""
    _run("revoke", [key_id], data, as_json=as_json)


def _run(command: str, words: list[str], data: Path | None, *, as_json: bool) -> None:
    # Here and not above: it knows data folders, which are of Linux and macOS.
    from scorequeue.store_commands import find_store, run_api_command

    environment = find_store(data, os.environ)
    words = [*words, "--json"] if as_json else words
    raise typer.Exit(run_api_command(["keys", command, *words], environment))
