"""Small models for tests, trained on data that scikit-learn ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

from shared.registry import Registry
from worker.registration import register_model

IRIS_COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def register_small_models(folder: Path) -> Registry:
    """Register ``iris:1`` (three classes) and ``line:1`` (y = 2a + 3b + 1)."""
    registry = Registry(folder)
    iris = load_iris()
    classifier = LogisticRegression(max_iter=1000).fit(iris.data, iris.target_names[iris.target])
    register_model(classifier, "iris", registry=registry, sample=iris.data, columns=IRIS_COLUMNS)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    regressor = LinearRegression().fit(corners, [1.0, 3.0, 4.0, 6.0])
    register_model(regressor, "line", registry=registry, sample=corners, columns=["a", "b"])
    return registry
