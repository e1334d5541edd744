"""The fastest script: polars, which uses every core. ``python -m benchmarks.plain_polars MODEL IN.csv OUT.csv``."""

from __future__ import annotations

import sys

import joblib
import polars as pl


def main(model_file: str, source: str, target: str) -> None:
    """Score a file whose first column is an id and whose others are the model's."""
    model = joblib.load(model_file)
    frame = pl.read_csv(source)
    probabilities = model.predict_proba(frame[:, 1:].to_numpy())
    added = {f"probability_{label}": probabilities[:, index] for index, label in enumerate(model.classes_)}
    labels = model.classes_.take(probabilities.argmax(axis=1))
    frame.with_columns(prediction=labels, **added).write_csv(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
