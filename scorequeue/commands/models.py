"""Commands of models: list, show, register, verify, train the demo's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from scorequeue import console, worker_commands
from scorequeue.commands.options import JsonOption, get_client

app = typer.Typer(help="Register models, and show those that the service knows.", no_args_is_help=True)

ModelsOption = Annotated[
    Path, typer.Option("--models", envvar="SCOREQUEUE_MODELS", metavar="DIR", help="Folder of the registry.")
]
DEFAULT_MODELS = Path(".scorequeue/models")


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


@app.command("register")
def register_model(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="joblib, pickle, skops, ONNX, or an MLflow folder.", show_default=False, exists=True
        ),
    ],
    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="Name of the model.")],
    sample: Annotated[
        Path, typer.Option("--sample", "-s", metavar="TRAIN.csv", help="Training rows, or a fair part; or Parquet.")
    ],
    target: Annotated[
        list[str] | None, typer.Option("--target", metavar="COLUMN", help="Of the sample, not read by the model.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME=VALUE", help="Measured on held-out data.")
    ] = None,
    max_batch_rows: Annotated[
        int | None, typer.Option("--max-batch-rows", min=1, metavar="N", help="Rows of one model call at most.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="joblib, pickle, skops or onnx.")
    ] = None,
    trust: Annotated[
        list[str] | None, typer.Option("--trust", metavar="TYPE", help="A type that a skops file may hold.")
    ] = None,
    other_scikit_learn: Annotated[
        bool, typer.Option("--other-scikit-learn", help="Keep it if another minor version of scikit-learn made it.")
    ] = False,
    sign_with: Annotated[
        Path | None, typer.Option("--sign-with", metavar="KEY.pem", help="Private key to sign the version with.")
    ] = None,
    models: ModelsOption = DEFAULT_MODELS,
    as_json: JsonOption = False,
) -> None:
    """Register a fitted model as a new version, from a file that you trust.

    It is loaded, described by the sample, and must answer the sample's rows from its file as it does itself. The first
    version of a name is its champion; later ones are when they are promoted.

    [bold]Examples[/bold]

      scorequeue models register churn.joblib --name churn --sample train.csv

      scorequeue models register model.skops -n churn -s train.parquet --metric roc_auc=0.91
    """
    options = _spell(
        {
            "--name": name,
            "--sample": sample,
            "--target": target,
            "--metric": metric,
            "--max-batch-rows": max_batch_rows,
            "--format": kind,
            "--trust": trust,
            "--sign-with": sign_with,
            "--models": models,
        }
    )
    flags = ["--other-scikit-learn"] if other_scikit_learn else []
    registered = worker_commands.run_command("register", os.fspath(file), *options, *flags)
    if as_json:
        console.print_json(registered)
        return
    console.print_text(
        f"{registered['reference']} registered: {registered['task']}, {len(registered['columns'])} columns,"
        f" {registered['format']} of {registered['size']:,} bytes, {registered['golden_rows']} golden rows checked"
    )


@app.command("verify")
def verify_models(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="name, name@alias or name:version; default: all.")
    ] = None,
    models: ModelsOption = DEFAULT_MODELS,
    as_json: JsonOption = False,
) -> None:
    """Load versions as a worker would: SHA-256, library, signature, golden sample. Exit code 1 if one is not ready."""
    arguments = ["verify", *([model] if model else []), "--models", os.fspath(models)]
    raise typer.Exit(worker_commands.pass_command(*arguments, *(["--json"] if as_json else [])))


def train_demo(models: ModelsOption = DEFAULT_MODELS) -> None:
    """Train two demo models on real data and register them: breast-cancer and diabetes."""
    raise typer.Exit(worker_commands.pass_command("train-demo", "--models", os.fspath(models)))


def _spell(options: dict[str, Any]) -> list[str]:
    """Write options as they are typed; those that were not given are left out."""
    words: list[str] = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [] if one is None else [name, os.fspath(one) if isinstance(one, Path) else str(one)]
    return words
