"""Small models for tests, trained on data that scikit-learn ships."""

from __future__ import annotations

from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

from shared.registry import Registry
from worker.registration import register_model

IRIS_COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def register_small_models(folder: Path) -> Registry:
    """Register ``iris:1`` (three classes) and ``line:1`` (y = 2a + 3b + 1)."""
    import pandas as pd

    registry = Registry(folder)
    iris = load_iris()
    frame = pd.DataFrame(iris.data, columns=IRIS_COLUMNS)
    names = iris.target_names[iris.target]
    register_model(
        LogisticRegression(max_iter=1000).fit(frame.to_numpy(), names), "iris", registry=registry, sample=frame
    )
    line = pd.DataFrame([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], columns=["a", "b"])
    register_model(
        LinearRegression().fit(line.to_numpy(), [1.0, 3.0, 4.0, 6.0]), "line", registry=registry, sample=line
    )
    return registry
