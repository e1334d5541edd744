"""The reference for files: a script as one writes it. ``python -m benchmarks.plain_pandas MODEL IN.csv OUT.csv``."""

from __future__ import annotations

import sys

import joblib
import pandas as pd


def main(model_file: str, source: str, target: str) -> None:
    """Score a file whose first column is an id and whose others are the model's."""
    model = joblib.load(model_file)
    frame = pd.read_csv(source)
    probabilities = model.predict_proba(frame.iloc[:, 1:].to_numpy())
    frame["prediction"] = model.classes_.take(probabilities.argmax(axis=1))
    for index, label in enumerate(model.classes_):
        frame[f"probability_{label}"] = probabilities[:, index]
    frame.to_csv(target, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
