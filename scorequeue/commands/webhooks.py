"""Commands of webhooks: what was delivered, delivering it again, and the secret by which receivers know it."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from scorequeue import console
from scorequeue.commands.keys import DataOption
from scorequeue.commands.options import JsonOption, get_client

app = typer.Typer(help="List and replay webhook deliveries; show the secret that signs them.", no_args_is_help=True)


@app.command("list")
def list_deliveries(
    context: typer.Context,
    status: Annotated[
        Literal["pending", "delivered", "failed"] | None, typer.Option("--status", help="Only these.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List your deliveries, newest first."""
    found = get_client(context).webhook_deliveries(status=status, most=limit)
    if as_json:
        console.print_json(found)
        return
    columns = ["id", "event", "job_id", "status", "attempts", "next_attempt_at", "url"]
    console.print_table(columns, ([delivery.get(name) for name in columns] for delivery in found), "no deliveries")


@app.command("replay")
def replay_delivery(
    context: typer.Context,
    delivery_id: Annotated[str, typer.Argument(metavar="ID", help="whd_…", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Deliver again, whether or not it was delivered before."""
    get_client(context).replay_webhook(delivery_id)
    said = f"{delivery_id} is delivered again"
    console.print_outcome(said, {"id": delivery_id, "replayed": True}, as_json=as_json)


@app.command("secret")
def show_secret(
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose webhooks.")] = "default",
    rotate: Annotated[bool, typer.Option("--rotate", help="Make it anew; the old one signs too, for a day.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a tenant's webhooks are signed with, where the service runs.

    Receivers check the signature with it, as Standard Webhooks says.
    """
    # Here and not above: it knows data folders, which are of Linux and macOS.
    from scorequeue.store_commands import find_store, run_api_command

    environment = find_store(data, os.environ)
    words = [*(["--rotate"] if rotate else []), *(["--json"] if as_json else [])]
    raise typer.Exit(run_api_command(["webhooks", "secret", "--tenant", tenant, *words], environment))
