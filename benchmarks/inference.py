"""Models alone: rows a second from encoded rows to checked answers, beside `predict_proba` on ready rows.

Ours is what a worker does with a claim, without Redis: decode the payload, run the backend in calls of at most
`CALL_ROWS`, choose labels, check every answer. Theirs is the estimator, called once on an array or a frame that is
there. Both have one thread, as workers have: N processes on N processors.
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
from palmerpenguins import load_penguins
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from shared.codec import decode_values, encode_values
from shared.registry import Registry
from worker.frames import read_frame
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
    "mixed-type pipeline": lambda: make_mixed(LogisticRegression(max_iter=10_000)),
    "mixed-type pipeline of a forest": lambda: make_mixed(RandomForestClassifier(100, random_state=0)),
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
    tables = {False: _load_numbers(), True: _load_mixed()}
    print(f"\nModels alone, one thread; rows/s in calls of so many rows, decoding included{'':>8}ours/theirs")
    wrong, missed = 0, []
    with tempfile.TemporaryDirectory(prefix="sq-") as folder, threadpoolctl.threadpool_limits(1):
        registry = Registry(Path(folder))
        for number, (name, make) in enumerate(MODELS.items()):
            rows, target, many = tables[name.startswith("mixed")]
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


def _load_numbers() -> tuple[Any, Any, Any]:
    """Return 30 columns of numbers, their answers, and many rows that are like them.

    In any order and never the same row twice: the processor would learn their ways by heart.
    """
    data = load_breast_cancer()
    generator = np.random.default_rng(0)
    chosen = generator.integers(len(data.data), size=max(CALLS))
    spread = generator.normal(scale=0.05, size=(max(CALLS), data.data.shape[1]))
    many = np.ascontiguousarray(data.data[chosen] * (1 + spread))
    return data.data, data.target_names.astype(str)[data.target], many


def _load_mixed() -> tuple[Any, Any, Any]:
    """Return a frame of two columns of texts and five of numbers, values missing in six, and the same."""
    penguins = load_penguins()
    features = penguins.drop(columns="species")
    many = features.sample(max(CALLS), replace=True, random_state=0, ignore_index=True)
    generator = np.random.default_rng(0)
    for name in many.select_dtypes("float64"):
        many[name] *= 1 + generator.normal(scale=0.05, size=len(many))
    return features, penguins["species"], many


def make_mixed(estimator: Any) -> Any:
    """Put imputers, a scaler and an encoder before an estimator."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")), (texts, make_column_selector(dtype_exclude="number"))
    )
    return make_pipeline(columns, estimator)


def _measure(model: LoadedModel, estimator: Any, rows: Any) -> tuple[float, float, float]:
    """Return rows a second of ours and of theirs, and the ratio: medians over turns, each turn both after another."""
    payload = _encode(model, rows)
    turns = []
    for _ in range(_TURNS):
        ours = _time_fastest(lambda: _score(model, payload))
        theirs = _time_fastest(lambda: estimator.predict_proba(rows))
        turns.append((len(rows) / ours, len(rows) / theirs, theirs / ours))
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


def _encode(model: LoadedModel, rows: Any) -> bytes:
    return encode_values(read_frame(rows, model.manifest.signature.columns))


def _count_wrong(model: LoadedModel, estimator: Any, many: Any) -> int:
    """Count rows whose label or probabilities are not the estimator's, in one call and alone."""
    expected, labels = estimator.predict_proba(many), estimator.predict(many)
    whole = _score(model, _encode(model, many))
    assert whole.probabilities is not None
    equal = np.isclose(whole.probabilities, expected, rtol=model.manifest.backend.tolerance or 1e-6, atol=0).all(axis=1)
    equal &= whole.predictions == labels
    for row in range(0, len(many), 100):
        alone = _score(model, _encode(model, many[row : row + 1]))
        assert alone.probabilities is not None
        equal[row] &= bool(np.allclose(alone.probabilities[0], expected[row], rtol=1e-6, atol=0))
    return int(len(equal) - equal.sum())
