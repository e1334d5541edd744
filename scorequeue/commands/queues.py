"""Commands of queues: show, pause, resume."""

from __future__ import annotations

from typing import Annotated

import typer

from scorequeue import console
from scorequeue.commands.options import JsonOption, get_client

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL")]

app = typer.Typer(help="Show the queues; pause and resume one.", invoke_without_command=True)


@app.callback()
def queues(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show the queues: what waits, for how long, and who works on it."""
    if context.invoked_subcommand:
        return
    found = get_client(context).queues()
    if as_json:
        console.print_json(found)
        return
    # What is itself a list or a mapping is for programs.
    columns = list(dict.fromkeys(n for queue in found for n, v in queue.items() if not isinstance(v, dict | list)))
    console.print_table(columns, ([queue.get(name) for name in columns] for queue in found), empty="no queues")


@app.command("pause")
def pause_queue(context: typer.Context, model: ModelArgument, as_json: JsonOption = False) -> None:
    """Stop scoring a model's jobs; they are still taken, and wait."""
    get_client(context).pause_queue(model)
    console.print_outcome(f"{model} paused", {"model": model, "paused": True}, as_json=as_json)


@app.command("resume")
def resume_queue(context: typer.Context, model: ModelArgument, as_json: JsonOption = False) -> None:
    """Score a paused model's jobs again."""
    get_client(context).resume_queue(model)
    console.print_outcome(f"{model} resumed", {"model": model, "paused": False}, as_json=as_json)
