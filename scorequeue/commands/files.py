"""Commands of files: score one whole, and score again what failed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from scorequeue import console
from scorequeue.commands.options import (
    JobArgument,
    JsonOption,
    ModelOption,
    PriorityOption,
    get_client,
    note_failed_rows,
)
from scorequeue.errors import JobTimeout, ServiceUnreachable, WrongUse
from scorequeue.job import Job
from scorequeue.transfer import check_paths


def score(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A file, or s3://bucket/name of one.", show_default=False)
    ],
    model: ModelOption,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Every record, and the new columns: .csv .parquet .ndjson"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first rows scored, and what does not fit; make no job.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="Wait no longer than this.")
    ] = 24 * 3600,
    priority: PriorityOption = None,
    delimiter: Annotated[str | None, typer.Option("--delimiter", help="Between fields.")] = None,
    column_prefix: Annotated[
        str | None,
        typer.Option("--column-prefix", metavar="TEXT", help="Begin the new names with it."),
    ] = None,
    on_row_error: Annotated[
        str | None, typer.Option("--on-row-error", metavar="continue|fail", help="fail: stop at the first bad row.")
    ] = None,
    error_threshold: Annotated[
        float | None,
        typer.Option("--error-threshold", metavar="RATIO", min=0, max=1, help="Stop when more of the rows fail."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a file: upload, follow, download.

    OUT has every record of IN, in its order, plus prediction, probability_…, error_code and error_message. It is
    written when all is done, or not at all. Formats are told from the names: CSV, Parquet (.parquet), JSON lines
    (.ndjson, .jsonl); IN may be compressed (.gz, .zst).

    [bold]Examples[/bold]

      scorequeue score customers.csv -m churn -o scored.csv

      scorequeue score customers.csv.gz -m churn:3 -o scored.parquet --priority low

      scorequeue score customers.csv -m churn --dry-run
    """
    began_at = time.monotonic()
    options: dict[str, Any] = {
        "priority": priority,
        "delimiter": delimiter,
        "column_prefix": column_prefix,
        "on_row_error": on_row_error,
        "error_threshold": error_threshold,
    }
    client = get_client(context)
    if dry_run:
        _print_preview(client.preview_file(source, model, **options), as_json=as_json)
        return
    if output is None:
        raise WrongUse("name the file to write with -o OUT, or look at the first rows with --dry-run")
    check_paths(source, output)
    with console.ProgressView() as view:
        job = client.submit_file(source, model, on_progress=view, **options)
        _follow(job, output, timeout, view)
    _print_scored(job, output, time.monotonic() - began_at, as_json=as_json)


def retry(
    context: typer.Context,
    job_id: JobArgument,
    source: Annotated[
        Path | None, typer.Option("--input", "-i", metavar="FIXED.csv", help="A corrected file with as many rows.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="Another version; by default the job's own.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT.csv", help="Wait, and write the whole result there.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="With -o: wait no longer than this.")
    ] = 24 * 3600,
    as_json: JsonOption = False,
) -> None:
    """Score the failed rows of a file again, or put a dead letter back.

    The result is the whole file: the rows that had succeeded as they were, the others scored anew.

    [bold]Examples[/bold]

      scorequeue retry job_01… --input fixed.csv -o scored.csv

      scorequeue retry job_01… -m churn:4
    """
    began_at = time.monotonic()
    if output is not None:
        check_paths(source or os.devnull, output)
    with console.ProgressView() as view:
        job = get_client(context).job(job_id).retry(source, model=model, on_progress=view)
        if output is not None:
            _follow(job, output, timeout, view)
    if output is not None:
        _print_scored(job, output, time.monotonic() - began_at, as_json=as_json)
    else:
        console.print_json(job.record) if as_json else console.print_text(job.id)


def _follow(job: Job, output: Path, timeout: float, view: console.ProgressView) -> None:
    """Wait for a file job and fetch its result; say how to go on if the way there is cut off."""
    try:
        job.wait(timeout, on_progress=view)
        job.download(output, on_progress=view)
    except (KeyboardInterrupt, JobTimeout, ServiceUnreachable):
        console.print_note(f"the job is not lost; to go on: scorequeue result {job.id} --wait 3600 -o {output}")
        raise


def _print_scored(job: Job, output: Path, seconds: float, *, as_json: bool) -> None:
    note_failed_rows(job)
    rows = job.row_counts.get("total", 0)
    if as_json:
        console.print_json({**job.record, "output": str(output), "seconds": round(seconds, 3)})
    else:
        rate = console.format_rate(rows / seconds, "rows")
        console.print_text(f"{rows:,} rows scored by {job.model} in {seconds:.1f} s ({rate}): {output}")


def _print_preview(preview: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.print_json(preview)
        return
    for fault in preview["differences"]:
        console.print_note(f"{fault['column']}: {fault['detail']} ({fault['code']})")
    rows = preview["preview"]
    if rows is None:
        raise WrongUse(f"the file does not fit {preview['model']}: nothing was scored")
    console.print_table(list(rows[0]) if rows else [], [list(row.values()) for row in rows], empty="no rows")
