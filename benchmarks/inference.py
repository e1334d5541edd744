"""Models alone: rows a second from encoded rows to checked answers, beside `predict_proba` on a ready array.

Ours is what a worker does with a claim, without Redis: decode the payload, run the backend in calls of at most
`CALL_ROWS`, choose labels, check every answer. Theirs is the estimator, called once on an array that is there. Both
have one thread, as workers have: N processes on N processors.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared.codec import decode_values, encode_values
from shared.registry import Registry
from shared.values import Values
from worker.isolation import CALL_ROWS
from worker.models import LoadedModel, load_model
from worker.registration import register_model
from worker.scoring import Outcome, score_values

CALLS = (1, 16, 256, 4096, 100_000)
#: Seconds for a pair of figures, and in how many turns: a machine is not equally fast all the time, but for both sides.
_SECONDS = 2.0
_TURNS = 9
#: What the aim is: never slower than this, and one row of the forest so many times as fast.
NEVER_BELOW = 0.9
FOREST_TIMES = 50

MODELS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(100, random_state=0),
    "gradient boosting": lambda: GradientBoostingClassifier(random_state=0),
    "hist gradient boosting": lambda: HistGradientBoostingClassifier(random_state=0),
    "logistic regression": lambda: LogisticRegression(max_iter=10_000),
    "numeric pipeline": lambda: make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), list(range(20))), remainder="passthrough"
        ),
        StandardScaler(),
        LogisticRegression(max_iter=10_000),
    ),
}


def run(options: argparse.Namespace) -> int:
    """Measure every model and print a table; return the number of wrong answers."""
    data = load_breast_cancer()
    rows, target = data.data, data.target_names.astype(str)[data.target]
    # Like the data, but in any order and never the same row twice: the processor would learn their ways by heart.
    generator = np.random.default_rng(0)
    chosen = generator.integers(len(rows), size=max(CALLS))
    spread = generator.normal(scale=0.05, size=(max(CALLS), rows.shape[1]))
    many = np.ascontiguousarray(rows[chosen] * (1 + spread))
    print(
        f"\nModels alone, one thread, 30 columns; rows/s in calls of so many rows, decoding included{'':>8}ours/theirs"
    )
    wrong, missed = 0, []
    with tempfile.TemporaryDirectory(prefix="sq-") as folder, threadpoolctl.threadpool_limits(1):
        registry = Registry(Path(folder))
        for number, (name, make) in enumerate(MODELS.items()):
            estimator = make().fit(rows, target)
            manifest = register_model(estimator, f"m{number}", registry=registry, sample=rows)
            model = load_model(registry, f"m{number}", 1)
            wrong += _count_wrong(model, estimator, many[:5000])
            print(f"  {name} ({manifest.backend.name}{', bit for bit' if manifest.backend.exact else ''})")
            for count in CALLS:
                ours, theirs, times = _measure(model, estimator, many[:count])
                print(f"  {count:>12,}{ours:>16,.0f}{theirs:>16,.0f}{times:>12,.2f}", flush=True)
                if times < NEVER_BELOW or (name == "forest" and count == 1 and times < FOREST_TIMES):
                    missed.append(f"{name} at {count:,}: {times:.2f}")
    print(f"  {'aims missed':<24}{'; '.join(missed) or 'none'}")
    print(f"  {'rows that differ':<24}{wrong}", flush=True)
    return wrong


def _measure(model: LoadedModel, estimator: Any, matrix: Any) -> tuple[float, float, float]:
    """Return rows a second of ours and of theirs, and the ratio: medians over turns, each turn both after another."""
    payload = encode_values(Values(matrix))
    turns = []
    for _ in range(_TURNS):
        ours = _time_fastest(lambda: _score(model, payload))
        theirs = _time_fastest(lambda: estimator.predict_proba(matrix))
        turns.append((len(matrix) / ours, len(matrix) / theirs, theirs / ours))
    ours, theirs, times = (statistics.median(column) for column in zip(*turns, strict=True))
    return ours, theirs, times


def _time_fastest(call: Callable[[], object]) -> float:
    call()  # the other side has filled the caches
    best = np.inf
    until = time.perf_counter() + _SECONDS / _TURNS / 2
    while (began := time.perf_counter()) < until or best == np.inf:
        call()
        best = min(best, time.perf_counter() - began)
    return best


def _score(model: LoadedModel, payload: bytes) -> Outcome:
    return score_values(model, decode_values(payload), CALL_ROWS)


def _count_wrong(model: LoadedModel, estimator: Any, matrix: Any) -> int:
    """Count rows whose label or probabilities are not the estimator's, in one call and alone."""
    expected, labels = estimator.predict_proba(matrix), estimator.predict(matrix)
    whole = _score(model, encode_values(Values(matrix)))
    assert whole.probabilities is not None
    equal = np.isclose(whole.probabilities, expected, rtol=model.manifest.backend.tolerance or 1e-6, atol=0).all(axis=1)
    equal &= whole.predictions == labels
    for row in range(0, len(matrix), 100):
        alone = _score(model, encode_values(Values(matrix[row : row + 1])))
        assert alone.probabilities is not None
        equal[row] &= bool(np.allclose(alone.probabilities[0], expected[row], rtol=1e-6, atol=0))
    return int(len(equal) - equal.sum())
