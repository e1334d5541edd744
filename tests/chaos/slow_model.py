"""A model that takes its time, so that much is claimed when a process is killed."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LinearRegression

from shared.registry import Registry
from worker.registration import register_model


class SlowRegression(LinearRegression):  # type: ignore[misc]
    """A linear regression that pauses in each call."""

    pause_seconds = 0.02

    def predict(self, X: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:  # noqa: N803 - scikit-learn's name
        """Pause, then predict."""
        time.sleep(self.pause_seconds)
        answer: npt.NDArray[np.float64] = super().predict(X)
        return answer


def register_slow_model(folder: Path, pause_seconds: float = SlowRegression.pause_seconds) -> None:
    """Register ``slow:1`` (y = a - b)."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    model = SlowRegression().fit(corners, [0.0, 1.0, -1.0, 0.0])
    model.pause_seconds = pause_seconds
    register_model(model, "slow", registry=Registry(folder), sample=corners, columns=["a", "b"])
