"""Commands of jobs: submit, look, fetch, cancel, list."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from scorequeue import console
from scorequeue.commands.options import (
    DeadlineOption,
    JobArgument,
    JsonOption,
    ModelOption,
    PriorityOption,
    RetentionOption,
    get_client,
    note_failed_rows,
)
from scorequeue.errors import JobTimeout, WrongUse, describe_fault
from scorequeue.job import Job
from scorequeue.payloads import parse_rows

#: Endings by which `submit` knows a file that is uploaded as it is, not read as JSON.
_FILE_ENDINGS = (".csv", ".tsv", ".parquet", ".ndjson", ".jsonl", ".gz", ".zst")


def submit(
    context: typer.Context,
    rows: Annotated[
        str, typer.Argument(metavar="ROWS", help="JSON, a file, or - for standard input.", show_default=False)
    ],
    model: ModelOption,
    wait: Annotated[
        float,
        typer.Option("--wait", "-w", metavar="SECONDS", min=0, help="Wait for the result; print it."),
    ] = 0,
    priority: PriorityOption = None,
    deadline: DeadlineOption = None,
    retention: RetentionOption = None,
    as_json: JsonOption = False,
) -> None:
    r"""Submit rows and print the job's id.

    ROWS is a list of rows, each a list in the model's order or an object by column name. A file that ends in
    .csv (also .csv.gz, .csv.zst) is uploaded as a file job.

    [bold]Examples[/bold]

      scorequeue submit '\[\[5.1, 3.5], \[4.9, 3.0]]' -m iris

      scorequeue submit '{"age": 41, "plan": 2}' -m churn@champion --wait 10

      cat rows.json | scorequeue submit - -m churn --priority high
    """
    client = get_client(context)
    options: dict[str, Any] = {
        "priority": priority,
        "deadline_seconds": deadline,
        "retention_seconds": retention,
    }
    if rows.lower().endswith(_FILE_ENDINGS):
        job = client.submit_file(rows, model, **options)
    else:
        job = client.submit(_read_rows(rows), model, **options)
    if not wait:
        console.print_json(job.record) if as_json else console.print_text(job.id)
        return
    try:
        job.wait(wait)
    except JobTimeout:
        # The id must not be lost: it is all that the caller has of a job that goes on.
        console.print_json(job.record) if as_json else console.print_text(job.id)
        raise
    if job.kind == "file":
        console.print_json(job.record) if as_json else console.print_record(console.summarise_job(job.record))
        return
    result = job.result()
    note_failed_rows(job)
    console.print_json({**job.record, "result": result} if as_json else result)


def status(context: typer.Context, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Show how far a job is."""
    job = get_client(context).job(job_id)
    console.print_json(job.record) if as_json else console.print_record(console.summarise_job(job.record))


def result(
    context: typer.Context,
    job_id: JobArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it there."),
    ] = None,
    wait: Annotated[float, typer.Option("--wait", "-w", metavar="SECONDS", min=0, help="Wait for the job first.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Fetch the result of a job: predictions as JSON, or the scored file.

    A download that broke goes on where it stopped when the same command is given again.

    [bold]Examples[/bold]

      scorequeue result job_01… | jq .predictions

      scorequeue result job_01… -o scored.csv
    """
    job = get_client(context).job(job_id)
    if wait:
        job.wait(wait)
    if job.kind == "file":
        if output is None:
            raise WrongUse(f"the result of job {job.id} is a file: name it with -o FILE")
        with console.ProgressView() as view:
            job.download(output, on_progress=view)
        note_failed_rows(job)
        console.print_json(job.record) if as_json else console.print_text(str(output))
        return
    text = json.dumps(job.result(), indent=2, ensure_ascii=False)
    if output is None:
        console.print_text(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")


def errors(context: typer.Context, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """List the rows of a job that failed: where, and why."""
    for fault in get_client(context).job(job_id).errors():
        code = fault.get("code")
        text = json.dumps(fault, ensure_ascii=False) if as_json else f"{describe_fault(fault)} ({code})"
        console.print_text(text)


def cancel(context: typer.Context, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Cancel a job; a file job stops as soon as the chunks in work are done."""
    job = get_client(context).job(job_id).cancel()
    console.print_json(job.record) if as_json else console.print_text(f"{job.id} {job.status}")


def list_jobs(
    context: typer.Context,
    status: Annotated[str | None, typer.Option("--status", help="Only these, as failed.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only of this model.")] = None,
    kind: Annotated[Literal["rows", "file"] | None, typer.Option("--kind", help="Only of this kind.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List your jobs, the newest first."""
    found: list[Job] = []
    for job in get_client(context).jobs(status=status, model=model, kind=kind, page_size=min(limit, 100)):
        found.append(job)
        if len(found) == limit:
            break
    if as_json:
        console.print_json([job.record for job in found])
        return
    columns = ["id", "kind", "status", "model", "rows", "failed", "created_at"]
    rows = (
        [
            job.id,
            job.kind,
            job.status,
            job.model,
            job.row_counts.get("total"),
            job.row_counts.get("failed"),
            job.record.get("created_at"),
        ]
        for job in found
    )
    console.print_table(columns, rows, empty="no jobs")


def _read_rows(argument: str) -> Any:
    if argument == "-":
        return parse_rows(sys.stdin.read(), "standard input")
    if argument.lstrip().startswith(("[", "{")):
        return parse_rows(argument, "ROWS")
    return parse_rows(Path(argument).read_text(encoding="utf-8"), argument)
