"""What several commands share: options, and the client that they call."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from scorequeue import console
from scorequeue.client import Client
from scorequeue.job import Job

ModelOption = Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="name, name@alias or name:version.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, job_….", show_default=False)]
PriorityOption = Annotated[
    Literal["high", "normal", "low"] | None,
    typer.Option("--priority", help="Order in which jobs are taken."),
]
DeadlineOption = Annotated[
    int | None,
    typer.Option("--deadline", metavar="SECONDS", min=1, help="Give up if it still waits then."),
]
RetentionOption = Annotated[
    int | None,
    typer.Option("--retention", metavar="SECONDS", min=1, help="Keep the finished job so long."),
]


def get_client(context: typer.Context) -> Client:
    """Make the client that the options before the command's name describe."""
    client: Client = context.find_root().obj()
    return client


def note_failed_rows(job: Job) -> None:
    """Say on standard error how many rows of a job failed, if any."""
    failed = job.row_counts.get("failed", 0)
    if failed:
        total = job.row_counts.get("total", 0)
        console.print_note(f"{failed:,} of {total:,} rows failed; see: scorequeue errors {job.id}")
