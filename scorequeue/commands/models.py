"""Commands of models: list, show, train the demo's."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from scorequeue import console
from scorequeue.commands.options import JsonOption, get_client
from scorequeue.errors import WrongUse

app = typer.Typer(help="Show the models that the service knows.", no_args_is_help=True)


@app.command("list")
def list_models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models."""
    found = get_client(context).models()
    if as_json:
        console.print_json(found)
        return
    columns = ["name", "version", "task", "columns", "aliases"]
    rows = [row for model in found for row in console.list_versions(model)]
    console.print_table(columns, rows, empty="no models")


@app.command("show")
def show_model(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="MODEL", help="name, name@alias or name:version.")],
    as_json: JsonOption = False,
) -> None:
    """Show a model's version: columns, metrics from training, evidence, how fast it is run."""
    version = get_client(context).model_version(name)
    if as_json:
        console.print_json(version)
        return
    console.print_record(console.flatten_version(version))
    speeds = console.list_speeds(version)
    if speeds:
        console.print_text("")
        console.print_table(["rows_a_call", "scikit-learn_rows/s", "converted_rows/s", "times"], speeds, empty="")


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
