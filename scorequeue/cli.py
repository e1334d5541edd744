"""The command line: what a person types, and nothing of how it is done.

Exit codes: 0 done, 1 the job failed, 2 wrong use (also what the service refuses), 3 the service cannot be
reached.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from scorequeue import __version__, console
from scorequeue.backup import backup, restore
from scorequeue.client import DEFAULT_URL, Client
from scorequeue.errors import (
    JobFailed,
    JobTimeout,
    RequestRefused,
    ScorequeueError,
    ServiceUnreachable,
    WrongUse,
    describe_fault,
)
from scorequeue.job import Job
from scorequeue.payloads import parse_rows
from scorequeue.transfer import check_paths
from scorequeue.up import up

EXIT_JOB_FAILED = 1
EXIT_WRONG_USE = 2
EXIT_UNREACHABLE = 3

#: Endings by which `submit` knows a file that is uploaded as it is, not read as JSON.
_FILE_ENDINGS = (".csv", ".tsv", ".parquet", ".ndjson", ".jsonl", ".gz", ".zst")

app = typer.Typer(
    name="scorequeue",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Score rows with scikit-learn models through a durable queue.\n\n"
        "[bold]Begin here[/bold]\n\n"
        "  scorequeue up --demo                                 start a service\n\n"
        "  scorequeue submit '\\[\\[1.5, 2]]' -m churn --wait 10    score a row\n\n"
        "  scorequeue score in.csv -m churn -o out.csv          score a file\n\n"
        "Exit codes: 0 done, 1 the job failed, 2 wrong use, 3 the service cannot be reached."
    ),
)
queues_app = typer.Typer(help="Show the queues; pause and resume one.", invoke_without_command=True)
models_app = typer.Typer(help="Show the models that the service knows.", no_args_is_help=True)
app.add_typer(queues_app, name="queues")
app.add_typer(models_app, name="models")


def _print_version(asked: bool) -> None:
    if asked:
        console.print_text(__version__)
        raise typer.Exit


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


def main() -> None:
    """Run the command line; every error is a line on standard error and an exit code."""
    try:
        app()
    except JobFailed as error:
        _fail(error, EXIT_JOB_FAILED)
    except JobTimeout as error:
        _fail(f"{error}; see: scorequeue status {error.job.id}", EXIT_JOB_FAILED)
    except ServiceUnreachable as error:
        _fail(f"{error}; is it running (scorequeue up), at this address (--url)?", EXIT_UNREACHABLE)
    except RequestRefused as error:
        _fail(error, EXIT_UNREACHABLE if error.status >= 500 else EXIT_WRONG_USE)
    except (ScorequeueError, OSError) as error:
        _fail(error, EXIT_WRONG_USE)


@app.callback()
def set_up(
    context: typer.Context,
    url: Annotated[
        str, typer.Option("--url", envvar="SCOREQUEUE_URL", metavar="URL", help="Address of the service.")
    ] = DEFAULT_URL,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="SCOREQUEUE_API_KEY",
            metavar="KEY",
            help="Key to show.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Keep what all commands share."""
    # Made by the commands that need it: `up --help` should not fail for a wrong SCOREQUEUE_URL.
    context.obj = lambda: Client(url, api_key)


@app.command()
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
    client = _client(context)
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
    _note_failed_rows(job)
    console.print_json({**job.record, "result": result} if as_json else result)


@app.command()
def status(context: typer.Context, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Show how far a job is."""
    job = _client(context).job(job_id)
    console.print_json(job.record) if as_json else console.print_record(console.summarise_job(job.record))


@app.command()
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
    job = _client(context).job(job_id)
    if wait:
        job.wait(wait)
    if job.kind == "file":
        if output is None:
            raise WrongUse(f"the result of job {job.id} is a file: name it with -o FILE")
        with console.ProgressView() as view:
            job.download(output, on_progress=view)
        _note_failed_rows(job)
        console.print_json(job.record) if as_json else console.print_text(str(output))
        return
    text = json.dumps(job.result(), indent=2, ensure_ascii=False)
    if output is None:
        console.print_text(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")


@app.command()
def errors(context: typer.Context, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """List the rows of a job that failed: where, and why."""
    for fault in _client(context).job(job_id).errors():
        code = fault.get("code")
        text = json.dumps(fault, ensure_ascii=False) if as_json else f"{describe_fault(fault)} ({code})"
        console.print_text(text)


@app.command()
def cancel(context: typer.Context, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Cancel a job; a file job stops as soon as the chunks in work are done."""
    job = _client(context).job(job_id).cancel()
    console.print_json(job.record) if as_json else console.print_text(f"{job.id} {job.status}")


@app.command()
def score(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN.csv", help="The file to score.", show_default=False)],
    model: ModelOption,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.csv", help="Every input line, and the new columns.")
    ],
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

    OUT.csv has every input line as it came, plus prediction, probability_…, error_code and error_message.
    It is written when all is done, or not at all.

    [bold]Examples[/bold]

      scorequeue score customers.csv -m churn -o scored.csv

      scorequeue score customers.csv.gz -m churn:3 -o scored.csv --priority low
    """
    began_at = time.monotonic()
    options: dict[str, Any] = {
        "priority": priority,
        "delimiter": delimiter,
        "column_prefix": column_prefix,
        "on_row_error": on_row_error,
        "error_threshold": error_threshold,
    }
    client = _client(context)
    check_paths(source, output)
    with console.ProgressView() as view:
        job = client.submit_file(source, model, on_progress=view, **options)
        _follow(job, output, timeout, view)
    _print_scored(job, output, time.monotonic() - began_at, as_json=as_json)


@app.command()
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
        job = _client(context).job(job_id).retry(source, model=model, on_progress=view)
        if output is not None:
            _follow(job, output, timeout, view)
    if output is not None:
        _print_scored(job, output, time.monotonic() - began_at, as_json=as_json)
    else:
        console.print_json(job.record) if as_json else console.print_text(job.id)


@app.command()
def jobs(
    context: typer.Context,
    status: Annotated[str | None, typer.Option("--status", help="Only these, as failed.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only of this model.")] = None,
    kind: Annotated[Literal["rows", "file"] | None, typer.Option("--kind", help="Only of this kind.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List your jobs, the newest first."""
    found: list[Job] = []
    for job in _client(context).jobs(status=status, model=model, kind=kind, page_size=min(limit, 100)):
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


@queues_app.callback()
def queues(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show the queues: what waits, for how long, and who works on it."""
    if context.invoked_subcommand:
        return
    found = _client(context).queues()
    if as_json:
        console.print_json(found)
        return
    # What is itself a list or a mapping is for programs.
    columns = list(dict.fromkeys(n for queue in found for n, v in queue.items() if not isinstance(v, dict | list)))
    console.print_table(columns, ([queue.get(name) for name in columns] for queue in found), empty="no queues")


@queues_app.command("pause")
def pause_queue(context: typer.Context, model: Annotated[str, typer.Argument(metavar="MODEL")]) -> None:
    """Stop scoring a model's jobs; they are still taken, and wait."""
    _client(context).pause_queue(model)
    console.print_text(f"{model} paused")


@queues_app.command("resume")
def resume_queue(context: typer.Context, model: Annotated[str, typer.Argument(metavar="MODEL")]) -> None:
    """Score a paused model's jobs again."""
    _client(context).resume_queue(model)
    console.print_text(f"{model} resumed")


@models_app.command("list")
def list_models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models."""
    found = _client(context).models()
    if as_json:
        console.print_json(found)
        return
    columns = ["name", "version", "task", "columns", "aliases"]
    rows = [row for model in found for row in console.list_versions(model)]
    console.print_table(columns, rows, empty="no models")


@models_app.command("show")
def show_model(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="MODEL", help="name, name@alias or name:version.")],
    as_json: JsonOption = False,
) -> None:
    """Show a model's version: columns, metrics from training, evidence."""
    version = _client(context).model_version(name)
    console.print_json(version) if as_json else console.print_record(console.flatten_version(version))


@app.command("train-demo")
def train_demo(
    models: Annotated[
        Path,
        typer.Option("--models", envvar="SCOREQUEUE_MODELS", metavar="DIR", help="The registry."),
    ] = Path(".scorequeue/models"),
) -> None:
    """Train two demo models on real data and register them: breast-cancer and diabetes."""
    if find_spec("sklearn") is None:
        raise WrongUse("train-demo needs scikit-learn, which only a worker has: pip install 'scorequeue[worker]'")
    command = [sys.executable, "-m", "worker", "train-demo", "--models", os.fspath(models)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


app.command("up")(up)
app.command("backup")(backup)
app.command("restore")(restore)


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Keep the service's data there.")] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 0,
) -> None:
    """See it work: start a service, score real rows through it, check every answer, stop it again.

    The report says what was done, how fast, and whether all answers equal the model's own.
    """
    from scorequeue.demo import run_demo

    raise typer.Exit(run_demo(data, port))


def _client(context: typer.Context) -> Client:
    client: Client = context.find_root().obj()
    return client


def _read_rows(argument: str) -> Any:
    if argument == "-":
        return parse_rows(sys.stdin.read(), "standard input")
    if argument.lstrip().startswith(("[", "{")):
        return parse_rows(argument, "ROWS")
    return parse_rows(Path(argument).read_text(encoding="utf-8"), argument)


def _follow(job: Job, output: Path, timeout: float, view: console.ProgressView) -> None:
    """Wait for a file job and fetch its result; say how to go on if the way there is cut off."""
    try:
        job.wait(timeout, on_progress=view)
        job.download(output, on_progress=view)
    except (KeyboardInterrupt, JobTimeout, ServiceUnreachable):
        console.print_note(f"the job is not lost; to go on: scorequeue result {job.id} --wait 3600 -o {output}")
        raise


def _print_scored(job: Job, output: Path, seconds: float, *, as_json: bool) -> None:
    _note_failed_rows(job)
    rows = job.row_counts.get("total", 0)
    if as_json:
        console.print_json({**job.record, "output": str(output), "seconds": round(seconds, 3)})
    else:
        rate = console.format_rate(rows / seconds, "rows")
        console.print_text(f"{rows:,} rows scored by {job.model} in {seconds:.1f} s ({rate}): {output}")


def _note_failed_rows(job: Job) -> None:
    failed = job.row_counts.get("failed", 0)
    if failed:
        total = job.row_counts.get("total", 0)
        console.print_note(f"{failed:,} of {total:,} rows failed; see: scorequeue errors {job.id}")


def _fail(error: object, code: int) -> NoReturn:
    console.print_note(f"scorequeue: {error}")
    sys.exit(code)
