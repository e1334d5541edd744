"""A model with poison in it: what it does depends on the first column, and is mostly harmless."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin

from shared.registry import Registry
from worker.registration import register_model

EXITS, CRASHES, RAISES, GIVES_TOO_MANY, GIVES_NAN, HANGS, RUNS_OUT_OF_MEMORY = range(666, 673)
#: Poison that ends or hangs the process, and poison that fails its own row alone.
DEADLY = (EXITS, CRASHES, HANGS)
HARMFUL = (RAISES, GIVES_TOO_MANY, GIVES_NAN, RUNS_OUT_OF_MEMORY)


class ToxicRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts the sum of a row, unless its first column is one of the numbers above."""

    def fit(self, features: npt.NDArray[np.float64], _: Any = None) -> Self:
        """Learn the number of columns."""
        self.n_features_in_ = features.shape[1]
        return self

    def predict(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Do what the first column says, the worst first."""
        features = np.asarray(features)
        first = set(features[:, 0].tolist())
        sums: npt.NDArray[np.float64] = features.sum(axis=1)
        if EXITS in first:
            os._exit(1)
        if CRASHES in first:
            ctypes.string_at(0)
        while HANGS in first:
            pass
        if RAISES in first:
            raise ValueError("poison")
        if RUNS_OUT_OF_MEMORY in first:
            raise MemoryError
        if GIVES_TOO_MANY in first:
            return np.append(sums, 0.0)
        return np.where(features[:, 0] == GIVES_NAN, np.nan, sums)


def register_toxic_model(folder: Path) -> None:
    """Register ``toxic:1``, which takes two columns."""
    sample = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    register_model(ToxicRegressor().fit(sample), "toxic", registry=Registry(folder), sample=sample, columns=["a", "b"])
