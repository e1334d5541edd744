"""Demo models: two real data sets that scikit-learn ships, a model of each, and their rows as CSV."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score, roc_auc_score
from sklearn.model_selection import train_test_split

from shared.manifest import Manifest
from shared.registry import Registry
from worker.registration import ensure_champion, register_model

#: Fixes the split and the models, so that every machine makes the same ones.
SEED = 7

HELD_OUT_SHARE = 0.25


@dataclass(frozen=True)
class DataSet:
    """Rows with their true answers."""

    #: What scikit-learn calls it.
    source: str
    column_names: list[str]
    #: Shape (n_rows, n_columns).
    features: npt.NDArray[np.float64]
    target_name: str
    #: Shape (n_rows,).
    target: npt.NDArray[Any]


@dataclass(frozen=True)
class DemoModel:
    """How to make one demo model."""

    load_data: Callable[[], DataSet]
    make_estimator: Callable[[], Any]
    measure: Callable[[Any, npt.NDArray[np.float64], npt.NDArray[Any]], dict[str, float]]


@dataclass(frozen=True)
class TrainedDemo:
    """A demo model in the registry, and whether this call put it there."""

    manifest: Manifest
    created: bool
    seconds: float

    def describe(self) -> str:
        """Say in one line what was done and how good the model is."""
        metrics = ", ".join(f"{name} {value:.3f}" for name, value in self.manifest.metrics.items())
        done = f"trained in {self.seconds:.1f} s" if self.created else "is there already"
        return f"{self.manifest.reference} {done}; on held-out rows: {metrics}"


def _load_breast_cancer() -> DataSet:
    data = load_breast_cancer()
    labels = data.target_names.astype(str)[data.target]
    return DataSet("load_breast_cancer", [str(n) for n in data.feature_names], data.data, "diagnosis", labels)


def _load_diabetes() -> DataSet:
    # Unscaled: years, kg/m2 and mmHg say something to a reader.
    data = load_diabetes(scaled=False)
    return DataSet("load_diabetes", [str(n) for n in data.feature_names], data.data, "progression", data.target)


def _measure_classifier(
    estimator: Any, features: npt.NDArray[np.float64], target: npt.NDArray[Any]
) -> dict[str, float]:
    positive = estimator.classes_[1]
    return {
        "accuracy": float(accuracy_score(target, estimator.predict(features))),
        "roc_auc": float(roc_auc_score(target == positive, estimator.predict_proba(features)[:, 1])),
    }


def _measure_regressor(estimator: Any, features: npt.NDArray[np.float64], target: npt.NDArray[Any]) -> dict[str, float]:
    answers = estimator.predict(features)
    return {
        "r2": float(r2_score(target, answers)),
        "mae": float(mean_absolute_error(target, answers)),
    }


DEMO_MODELS: dict[str, DemoModel] = {
    "breast-cancer": DemoModel(
        _load_breast_cancer,
        lambda: RandomForestClassifier(n_estimators=100, random_state=SEED),
        _measure_classifier,
    ),
    # Boosted small trees answer one row in 0.1 ms; a forest of this quality takes 7 ms.
    "diabetes": DemoModel(
        _load_diabetes,
        lambda: GradientBoostingRegressor(
            n_estimators=150, learning_rate=0.05, max_depth=2, subsample=0.7, random_state=SEED
        ),
        _measure_regressor,
    ),
}


def train_demo_models(registry: Registry) -> Iterator[TrainedDemo]:
    """Register version 1 of each demo model, unless it is there already.

    Yields
    ------
    TrainedDemo
        As soon as each is done.
    """
    for name in DEMO_MODELS:
        began = time.perf_counter()
        created = 1 not in registry.versions(name)
        if created:
            _train_demo_model(registry, name)
        # Also for a version that is there: an earlier run may have been stopped between the two steps.
        ensure_champion(registry, name)
        yield TrainedDemo(registry.manifest(name, 1), created, time.perf_counter() - began)


def write_demo_csv(path: Path, name: str, repeat: int = 1) -> int:
    """Write a demo model's data as CSV: a column ``id``, the features, and the true answer last.

    Parameters
    ----------
    path : Path
    name : str
        A key of `DEMO_MODELS`.
    repeat : int
        How many times all rows are written; `id` counts on, from 1.

    Returns
    -------
    int
        Rows written.
    """
    data = DEMO_MODELS[name].load_data()
    # repr gives the shortest text that reads back as the same number: what is scored is what was trained on.
    records = [
        ",".join([*map(repr, row), str(truth)])
        for row, truth in zip(data.features.tolist(), data.target.tolist(), strict=True)
    ]
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(["id", *data.column_names, data.target_name])
        for turn in range(repeat):
            first = turn * len(records) + 1
            file.writelines(f"{number},{record}\n" for number, record in enumerate(records, first))
    return repeat * len(records)


def _train_demo_model(registry: Registry, name: str) -> None:
    demo = DEMO_MODELS[name]
    data = demo.load_data()
    # Arrays, not frames: an estimator fitted on names warns at every array, and a frame costs 50 µs a call.
    train, held_out, train_target, held_out_target = train_test_split(
        data.features,
        data.target,
        test_size=HELD_OUT_SHARE,
        random_state=SEED,
        stratify=data.target if data.target.dtype.kind == "U" else None,
    )
    estimator = demo.make_estimator().fit(train, train_target)
    register_model(
        estimator,
        name,
        registry=registry,
        sample=train,
        columns=data.column_names,
        metrics=demo.measure(estimator, held_out, held_out_target),
        training={
            "data": f"sklearn.datasets.{data.source}",
            "estimator": type(estimator).__name__,
            "rows": len(train),
            "held_out_rows": len(held_out),
            "random_state": SEED,
        },
        version=1,
    )
