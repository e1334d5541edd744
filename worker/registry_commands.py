"""``python -m worker``: the commands that work on a registry and load models: register, verify, promote, remove."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

import msgspec

from shared.aliases import Target, point_at
from shared.manifest import Format, Manifest
from shared.registry import CHAMPION, Registry
from shared.settings import Settings
from worker.console import print_json, print_line
from worker.models import ModelNotReady, load_model
from worker.registration import register_file
from worker.samples import read_sample
from worker.trust import Trust


def add_commands(commands: Any) -> None:
    """Add them to the parser's commands."""
    command = commands.add_parser("register", help="add a model file to the registry as a new version")
    command.add_argument("file", type=Path, metavar="FILE", help="joblib, pickle, skops, ONNX, or an MLflow folder")
    command.add_argument("--name", required=True)
    command.add_argument("--sample", type=Path, required=True, help="CSV or Parquet: training rows, or a fair part")
    command.add_argument("--target", action="append", default=[], metavar="COLUMN", help="not read by the model")
    command.add_argument("--format", choices=get_args(Format), help="if the file's ending does not say it")
    command.add_argument("--trust", action="append", default=[], metavar="TYPE", help="a type that a skops file holds")
    command.add_argument("--metric", action="append", default=[], type=_parse_metric, metavar="NAME=VALUE")
    command.add_argument("--output", action="append", default=[], metavar="NAME", help="of several values a row")
    command.add_argument("--max-batch-rows", type=int, metavar="N", help="rows of one model call at most")
    command.add_argument("--other-scikit-learn", action="store_true", help="keep it if another version made it")
    command.add_argument("--sign-with", type=Path, metavar="KEY.pem", help="private key to sign the version with")
    _add_registry(command)
    command.set_defaults(run=register)

    command = commands.add_parser("verify", help="load versions as a worker would, and check their answers")
    command.add_argument("model", nargs="?", metavar="MODEL", help="name, name@alias or name:version; default: all")
    _add_registry(command)
    command.set_defaults(run=verify)

    command = commands.add_parser("promote", help="check versions here, and point an alias at them")
    command.add_argument("name")
    command.add_argument("--alias", default=CHAMPION)
    command.add_argument(
        "--version", action="append", required=True, type=_parse_share, metavar="N[=SHARE]", help="may be repeated"
    )
    command.add_argument("--shadow", type=int, metavar="N", help="a version that scores unseen beside them")
    _add_registry(command)
    command.set_defaults(run=promote)

    command = commands.add_parser("remove", help="remove a version for ever")
    command.add_argument("model", metavar="MODEL", help="name:version")
    _add_registry(command)
    command.set_defaults(run=remove)


def promote(options: argparse.Namespace) -> None:
    """Check versions in this process and point an alias at them.

    Raises
    ------
    ServiceError
        One is not ready; the alias is as it was.
    """
    registry, trust = Registry(options.models), Trust.from_settings(Settings.from_env())
    weights = dict(options.version)
    target = point_at(next(iter(weights))) if len(weights) == 1 else Target(weights)
    target = msgspec.structs.replace(target, shadow=options.shadow)
    registry.check_target(options.name, options.alias, target)
    for version in target.all_versions:
        load_model(registry, options.name, version, trust)
    registry.set_alias(options.name, options.alias, target)
    if options.json:
        print_json({"name": options.name, "alias": options.alias, "target": target.describe()})
    else:
        print_line(f"{options.name}@{options.alias} is {target.describe()}, checked in this process")


def remove(options: argparse.Namespace) -> None:
    """Remove a version; its number is not given again."""
    registry = Registry(options.models)
    manifest_name, _, version = options.model.partition(":")
    if not version.isdecimal():
        raise ValueError(f"{options.model!r} is not a version: expected name:version, as churn:3")
    registry.remove_version(manifest_name, int(version))
    if options.json:
        print_json({"removed": options.model})
    else:
        print_line(f"{options.model} removed")


def register(options: argparse.Namespace) -> None:
    """Register a file and print what it became."""
    manifest = register_file(
        options.file,
        options.name,
        registry=Registry(options.models),
        sample=read_sample(options.sample),
        target=options.target,
        kind=options.format,
        trusted_types=options.trust,
        metrics=dict(options.metric),
        outputs=options.output,
        max_batch_rows=options.max_batch_rows,
        other_scikit_learn=options.other_scikit_learn,
        sign_with=options.sign_with,
    )
    if options.json:
        champion = Registry(options.models).aliases(manifest.name).get(CHAMPION)
        print_json(summarise(manifest) | {"champion": champion == point_at(manifest.version)})
    else:
        print_line(f"{manifest.reference} registered: {describe(manifest)}")


def verify(options: argparse.Namespace) -> None:
    """Load versions and print a line about each.

    Raises
    ------
    ValueError
        Not all of them are ready.
    """
    registry, trust = Registry(options.models), Trust.from_settings(Settings.from_env())
    results = [_verify(registry, name, version, trust) for name, version in _list_versions(registry, options.model)]
    if options.json:
        print_json(results)
    else:
        for result in results:
            print_line(f"{result['model']}\t{'ready' if result['ready'] else 'not ready: ' + result['reason']}")
    bad = sum(not result["ready"] for result in results)
    if bad:
        raise ValueError(f"{bad} of {len(results)} version(s) cannot be served")


def summarise(manifest: Manifest) -> dict[str, Any]:
    """Return what programs need to know of a new version."""
    return {
        "model": manifest.name,
        "version": manifest.version,
        "reference": manifest.reference,
        "format": manifest.format,
        "task": manifest.signature.task,
        "columns": manifest.signature.column_names,
        "classes": manifest.signature.classes,
        "outputs": [output.name for output in manifest.signature.answers],
        "metrics": manifest.metrics,
        "sha256": manifest.sha256,
        "size": manifest.size,
        "golden_rows": 0 if manifest.golden_sample is None else len(manifest.golden_sample.rows),
    }


def describe(manifest: Manifest) -> str:
    """Say in a line what a version is."""
    signature = manifest.signature
    classes = "" if signature.classes is None else f", {len(signature.classes)} classes"
    classes += f", {len(signature.answers)} outputs" if len(signature.answers) > 1 else ""
    golden = 0 if manifest.golden_sample is None else len(manifest.golden_sample.rows)
    return (
        f"{signature.task}, {len(signature.columns)} columns{classes}, {manifest.format} of {manifest.size:,} bytes,"
        f" {golden} golden rows checked"
    )


def _verify(registry: Registry, name: str, version: int, trust: Trust) -> dict[str, Any]:
    reference = f"{name}:{version}"
    try:
        model = load_model(registry, name, version, trust)
    except ModelNotReady as error:
        return {"model": reference, "ready": False, "reason": error.reason}
    return {"model": reference, "ready": True, "reason": "", "load_seconds": round(model.load_seconds, 3)}


def _list_versions(registry: Registry, reference: str | None) -> list[tuple[str, int]]:
    if reference and ("@" in reference or ":" in reference):
        manifest = registry.resolve(reference)
        return [(manifest.name, manifest.version)]
    if reference and not registry.versions(reference):
        registry.resolve(reference)  # raises, with the names that there are
    names = [reference] if reference else registry.names()
    return [(name, version) for name in names for version in registry.versions(name)]


def _parse_metric(text: str) -> tuple[str, float]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE, for example roc_auc=0.91")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {value!r} is not a number") from None


def _parse_share(text: str) -> tuple[int, float]:
    version, separator, share = text.partition("=")
    try:
        return int(version), float(share) if separator else 1.0
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a version, or one with its share: 3=0.9") from None


def _add_registry(command: argparse.ArgumentParser) -> None:
    command.add_argument("--models", type=Path, required=True, metavar="DIR", help="folder of the registry")
    command.add_argument("--json", action="store_true", help="print JSON")
