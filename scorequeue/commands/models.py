"""Commands of models: list, show, register, promote, verify, remove, train the demo's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from scorequeue import console, worker_commands
from scorequeue.client import Client
from scorequeue.commands.options import JsonOption, get_client
from scorequeue.errors import OutcomeUnknown, RequestRefused, ServiceUnreachable, WrongUse

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
    columns = ["name", "version", "task", "columns", "aliases", "state"]
    rows = [row for model in found for row in console.list_versions(model)]
    console.print_table(columns, rows, empty="no models")


@app.command("show")
def show_model(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="MODEL", help="name, name@alias or name:version.")],
    as_json: JsonOption = False,
) -> None:
    """Show a model's version: what it reads and answers, metrics from training, evidence, how fast it is run."""
    version = get_client(context).model_version(name)
    if as_json:
        console.print_json(version)
        return
    console.print_record(console.flatten_version(version))
    for columns, rows in (console.tabulate_columns(version), console.tabulate_speeds(version)):
        if rows:
            console.print_text("")
            console.print_table(columns, rows, empty="")


@app.command("quality")
def show_quality(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")], as_json: JsonOption = False
) -> None:
    """Show what a model's rows were like: missing, unseen, out of range; and how its scores have shifted.

    A PSI above 0.25 is a large shift, if it is well above what chance alone gives so few rows.
    """
    quality = get_client(context).model_quality(name)
    if as_json:
        console.print_json(quality)
        return
    columns, scores = console.list_shifts(quality)
    console.print_table(columns, scores, empty="no scores are counted")
    columns, values = console.list_unusual(quality)
    if values:
        console.print_text("")
        console.print_table(columns, values, empty="")


@app.command("register")
def register_model(
    context: typer.Context,
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
    output: Annotated[
        list[str] | None, typer.Option("--output", metavar="NAME", help="Of each value, if it answers several.")
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
    alias: Annotated[
        str | None, typer.Option("--alias", metavar="ALIAS", help="Promote it to this alias at once.")
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
            "--output": output,
            "--max-batch-rows": max_batch_rows,
            "--format": kind,
            "--trust": trust,
            "--sign-with": sign_with,
            "--models": models,
        }
    )
    flags = ["--other-scikit-learn"] if other_scikit_learn else []
    registered = worker_commands.run_command("register", os.fspath(file), *options, *flags)
    if not as_json:
        _print_registered(registered)
    if alias is not None and not (alias == "champion" and registered["champion"]):
        promoted = _promote_registered(get_client(context), registered, alias, models)
        registered["alias"] = alias
        if not as_json:
            _print_promoted(promoted, name, alias, as_json=False)
    if as_json:
        console.print_json(registered)


def _print_registered(registered: dict[str, Any]) -> None:
    console.print_text(
        f"{registered['reference']} registered: {registered['task']}, {len(registered['columns'])} columns,"
        f" {registered['format']} of {registered['size']:,} bytes, {registered['golden_rows']} golden rows checked"
    )


@app.command("promote")
def promote_version(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="name:version; or a name, with --share.")],
    alias: Annotated[str, typer.Option("--alias", metavar="ALIAS")] = "champion",
    share: Annotated[
        list[str] | None, typer.Option("--share", metavar="N=SHARE", help="Several versions: 3=0.9 and 4=0.1.")
    ] = None,
    shadow: Annotated[
        int | None, typer.Option("--shadow", metavar="N", help="A version that scores unseen beside them.")
    ] = None,
    models: ModelsOption = DEFAULT_MODELS,
    as_json: JsonOption = False,
) -> None:
    """Let an alias mean a version, once every worker has it warm and checked; jobs of the old one are finished by it.

    Where no service answers, or no worker runs, the version is checked here instead, in the registry of --models.

    [bold]Examples[/bold]

      scorequeue models promote churn:4

      scorequeue models promote churn --share 3=0.9 --share 4=0.1 --shadow 5
    """
    name, versions = _read_versions(model, share or [])
    try:
        answer = get_client(context).promote(name, versions, alias=alias, shadow=shadow)
    except (ServiceUnreachable, RequestRefused) as error:
        if not _has_no_checker(error):
            raise
        console.print_note(f"scorequeue: {error}; checking it here, in {models}")
        answer = _promote_here(name, versions, alias, shadow, models)
    _print_promoted(answer, name, alias, as_json=as_json)


@app.command("remove")
def remove_version(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="name:version.")],
    force: Annotated[bool, typer.Option("--force", help="Also if jobs wait for it; they will fail.")] = False,
    models: ModelsOption = DEFAULT_MODELS,
    as_json: JsonOption = False,
) -> None:
    """Remove a version from the registry for ever; its number is not given again.

    One that an alias points to is refused, unless it is the last; and one for which jobs wait.
    """
    if not force:
        _refuse_if_needed(get_client(context), model)
    removed = worker_commands.run_command("remove", model, "--models", os.fspath(models))
    console.print_json(removed) if as_json else console.print_text(f"{model} removed")


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


def train_demo(models: ModelsOption = DEFAULT_MODELS, as_json: JsonOption = False) -> None:
    """Train two demo models on real data and register them: breast-cancer and diabetes."""
    arguments = ["train-demo", "--models", os.fspath(models), *(["--json"] if as_json else [])]
    raise typer.Exit(worker_commands.pass_command(*arguments))


def _read_versions(model: str, shares: list[str]) -> tuple[str, int | dict[int, float]]:
    name, _, version = model.partition(":")
    if version.isdecimal() and not shares:
        return name, int(version)
    if version or not shares:
        raise WrongUse("expected a version, as churn:4, or a name with --share 3=0.9 --share 4=0.1")
    weights: dict[int, float] = {}
    for share in shares:
        number, _, weight = share.partition("=")
        try:
            weights[int(number)] = float(weight)
        except ValueError:
            raise WrongUse(f"--share {share}: expected a version and its share, as 3=0.9") from None
    return name, weights


def _promote_registered(client: Client, registered: dict[str, Any], alias: str, models: Path) -> dict[str, Any]:
    """Promote a new version by the service that knows it; by a check in this registry if none does."""
    name, version = registered["model"], registered["version"]
    try:
        known = client.model_version(registered["reference"])
    except (ServiceUnreachable, RequestRefused):
        known = {}
    if known.get("sha256") == registered["sha256"]:
        try:
            return client.promote(name, version, alias=alias)
        except (ServiceUnreachable, RequestRefused) as error:
            if not _has_no_checker(error):
                raise
    return _promote_here(name, version, alias, None, models)


def _has_no_checker(error: ServiceUnreachable | RequestRefused) -> bool:
    """Tell whether nobody is there to check a version: no service, or no worker."""
    if isinstance(error, RequestRefused):
        return any(fault.get("code") == "no_worker" for fault in error.errors)
    return not isinstance(error, OutcomeUnknown)


def _promote_here(
    name: str, versions: int | dict[int, float], alias: str, shadow: int | None, models: Path
) -> dict[str, Any]:
    shares = [str(versions)] if isinstance(versions, int) else [f"{n}={share}" for n, share in versions.items()]
    options = _spell({"--version": shares, "--alias": alias, "--shadow": shadow, "--models": models})
    done = worker_commands.run_command("promote", name, *options)
    return {"name": name, "aliases": {alias: done["target"]}, "checked_by": 1}


def _print_promoted(answer: dict[str, Any], name: str, alias: str, *, as_json: bool) -> None:
    if as_json:
        console.print_json(answer)
        return
    meant = json.dumps(answer["aliases"][alias])
    console.print_text(f"{name}@{alias} is {meant}, checked by {answer['checked_by']} process(es)")


def _refuse_if_needed(client: Client, model: str) -> None:
    """Refuse a version for which jobs wait, as far as a service can be asked."""
    try:
        queues = client.queues()
    except ServiceUnreachable:
        return
    rows = sum(queue.get("outstanding_rows", 0) for queue in queues if queue.get("model") == model)
    if rows:
        raise WrongUse(f"{rows} rows wait for {model} or are being scored; they would fail (--force removes it)")


def _spell(options: dict[str, Any]) -> list[str]:
    """Write options as they are typed; those that were not given are left out."""
    words: list[str] = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [] if one is None else [name, os.fspath(one) if isinstance(one, Path) else str(one)]
    return words
