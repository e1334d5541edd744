"""Commands of dead letters: what was given up and why, putting one back, dropping it."""

from __future__ import annotations

import typer

from scorequeue import console
from scorequeue.commands.options import JobArgument, JsonOption, get_client

app = typer.Typer(help="List the jobs that were given up; put one back, or drop it.", no_args_is_help=True)


@app.command("list")
def list_dead_letters(context: typer.Context, as_json: JsonOption = False) -> None:
    """List your dead letters, newest first, with the reason."""
    found = get_client(context).dead_letters()
    if as_json:
        console.print_json(found)
        return
    columns = ["id", "model", "rows", "finished_at", "code", "detail"]
    rows = [
        [
            job.get("id"),
            job.get("model"),
            (job.get("row_counts") or {}).get("total"),
            job.get("finished_at"),
            *((job.get("error") or {}).get(name) for name in ("code", "detail")),
        ]
        for job in found
    ]
    console.print_table(columns, rows, empty="no dead letters")


@app.command("retry")
def retry_dead_letter(context: typer.Context, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Put a dead letter back, as a new job."""
    job = get_client(context).job(job_id).retry()
    if as_json:
        console.print_json(job.record)
    else:
        console.print_text(job.id)


@app.command("drop")
def drop_dead_letter(context: typer.Context, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Remove a dead letter with its rows."""
    get_client(context).job(job_id).delete()
    console.print_outcome(f"{job_id} dropped", {"id": job_id, "dropped": True}, as_json=as_json)
