"""A model that takes its time: seconds to load, and a little for each row."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin

from shared.registry import Registry
from worker.registration import register_model

#: Longer than the four seconds after which Celery kills a child that is not up, by default.
LOAD_SECONDS = 6.0
ROW_SECONDS = 0.02


class SlowRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts the sum of a row, slowly."""

    def fit(self, features: npt.NDArray[np.float64], _: Any = None) -> Self:
        """Learn the number of columns."""
        self.n_features_in_ = features.shape[1]
        return self

    def predict(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Take time for each row."""
        time.sleep(ROW_SECONDS * len(features))
        sums: npt.NDArray[np.float64] = np.asarray(features).sum(axis=1)
        return sums

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take time to load."""
        time.sleep(LOAD_SECONDS)
        super().__setstate__(state)


def register_slow_model(folder: Path) -> None:
    """Register ``slow:1``, which takes two columns."""
    sample = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    register_model(SlowRegressor().fit(sample), "slow", registry=Registry(folder), sample=sample, columns=["a", "b"])
