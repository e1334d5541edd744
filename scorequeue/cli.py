"""The command line: its commands put together, and what each error becomes.

Exit codes: 0 done, 1 the job failed, 2 wrong use (also what the service refuses), 3 the service cannot be
reached.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from scorequeue import __version__, console
from scorequeue.client import DEFAULT_URL, Client
from scorequeue.commands import dead_letters, files, jobs, keys, models, queues, service, webhooks
from scorequeue.commands.backup import backup, restore
from scorequeue.commands.demo import demo
from scorequeue.commands.up import up
from scorequeue.errors import JobFailed, JobTimeout, RequestRefused, ScorequeueError, ServiceUnreachable
from scorequeue.login import find_file, read_login

EXIT_JOB_FAILED = 1
EXIT_WRONG_USE = 2
EXIT_UNREACHABLE = 3

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
for name, noun in (
    ("queues", queues), ("dead-letters", dead_letters), ("models", models), ("keys", keys), ("webhooks", webhooks),
):  # fmt: skip
    app.add_typer(noun.app, name=name)
for command in (jobs.submit, jobs.status, jobs.result, jobs.errors, jobs.cancel, files.score, files.retry):
    app.command()(command)
app.command("jobs")(jobs.list_jobs)
app.command("train-demo")(models.train_demo)
app.command()(up)
app.command()(demo)
app.command("top")(service.show_top)
app.command("doctor")(service.examine)
app.command("login")(service.log_in)
app.command("settings")(service.show_settings)
app.command()(backup)
app.command()(restore)


def _print_version(asked: bool) -> None:
    if asked:
        console.print_text(__version__)
        raise typer.Exit


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
        _fail(error, _choose_exit_code(error))
    except (ScorequeueError, OSError) as error:
        _fail(error, EXIT_WRONG_USE)


@app.callback()
def set_up(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="SCOREQUEUE_URL",
            metavar="URL",
            help=f"Address of the service; by default that of `scorequeue login`, else {DEFAULT_URL}.",
        ),
    ] = None,
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
    context.obj = lambda: _make_client(url, api_key)


def _make_client(url: str | None, api_key: str | None) -> Client:
    kept = read_login(find_file(os.environ))
    if kept is not None and (url is None or url.rstrip("/") == kept.url):  # a key is for its own service alone
        return Client(kept.url, api_key or kept.api_key)
    return Client(url or DEFAULT_URL, api_key)


def _choose_exit_code(refusal: RequestRefused) -> int:
    if refusal.code == "model_not_ready":  # the service is there, and trying again mends nothing
        return EXIT_JOB_FAILED
    return EXIT_UNREACHABLE if refusal.status >= 500 else EXIT_WRONG_USE


def _fail(error: object, code: int) -> NoReturn:
    console.print_note(f"scorequeue: {error}")
    sys.exit(code)
