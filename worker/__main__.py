"""``python -m worker``: what needs scikit-learn and no queue; the command line starts it as a process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from shared.errors import ServiceError
from shared.manifest import Manifest
from shared.registry import Registry
from worker.console import print_json, print_line
from worker.demo_models import DEMO_MODELS, train_demo_models, write_demo_csv
from worker.models import load_model
from worker.registry_commands import add_commands, summarise

if TYPE_CHECKING:
    import pandas as pd


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0 done, 1 it failed (one line on standard error says why); wrong use exits with 2.
    """
    options = _build_parser().parse_args(arguments)
    try:
        options.run(options)
    except ServiceError as error:
        sys.stderr.write(f"error: {error.detail}\n")
        return 1
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def train_demo(options: argparse.Namespace) -> None:
    """Register the demo models and print a line, or a JSON list, about them."""
    done = []
    for trained in train_demo_models(Registry(options.models)):
        done.append(summarise(trained.manifest) | {"created": trained.created, "seconds": trained.seconds})
        if not options.json:
            print_line(trained.describe())
    if options.json:
        print_json(done)


def write_csv(options: argparse.Namespace) -> None:
    """Write a demo model's data set as CSV."""
    rows = write_demo_csv(options.output, options.name, options.repeat)
    print_line(f"{rows} rows written to {options.output}")


def predict_csv(options: argparse.Namespace) -> None:
    """Score a CSV by calling the estimator itself, without queue, chunks or micro-batches.

    This is the yardstick for the service's answers, so it takes nothing from `worker.scoring`.
    """
    registry = Registry(options.models)
    manifest = registry.resolve(options.model)
    model = load_model(registry, manifest.name, manifest.version)
    frame = _read_csv(options.input, manifest)
    rows = frame if hasattr(model.estimator, "feature_names_in_") else frame.to_numpy()
    classes = manifest.signature.classes
    gives_probabilities = classes is not None and hasattr(model.estimator, "predict_proba")
    answer = {
        "model": manifest.reference,
        "predictions": model.estimator.predict(rows).tolist(),
        "probabilities": model.estimator.predict_proba(rows).tolist() if gives_probabilities else None,
        "classes": classes,
    }
    options.output.write_bytes(msgspec.json.encode(answer))
    print_line(f"{len(rows)} rows scored by {manifest.reference} into {options.output}")


def _read_csv(path: Path, manifest: Manifest) -> pd.DataFrame:
    import pandas as pd  # takes a second or two, and only this command needs it

    names = list(manifest.signature.column_names)
    # pandas 3 reads numbers exactly; older ones were off by a bit in the last place, which a tree's
    # threshold can notice.
    return pd.read_csv(path, usecols=names, dtype=np.float64)[names]


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Models, without the queue.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("train-demo", help="register the demo models")
    command.add_argument("--models", type=Path, required=True, metavar="DIR", help="folder of the registry")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=train_demo)

    command = commands.add_parser("demo-csv", help="write a demo model's data set as CSV")
    command.add_argument("name", choices=sorted(DEMO_MODELS))
    command.add_argument("output", type=Path, metavar="OUT.csv")
    command.add_argument("--repeat", type=int, default=1, metavar="N", help="write all rows N times")
    command.set_defaults(run=write_csv)

    command = commands.add_parser("predict", help="score a CSV by calling the model directly")
    command.add_argument("--models", type=Path, required=True, metavar="DIR", help="folder of the registry")
    command.add_argument("model", metavar="MODEL", help="name, name@alias or name:version")
    command.add_argument("input", type=Path, metavar="IN.csv")
    command.add_argument("output", type=Path, metavar="OUT.json")
    command.set_defaults(run=predict_csv)
    add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
