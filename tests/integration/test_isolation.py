"""Rows that kill, hang or raise, scored in a process of their own: only they fail."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from shared.registry import Registry
from shared.values import Values
from tests import toxic_model
from worker.isolation import IsolationFailed, score_isolated
from worker.registration import register_model
from worker.trust import Trust


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Give a registry with the toxic model."""
    folder = tmp_path_factory.mktemp("toxic")
    toxic_model.register_toxic_model(folder)
    return Registry(folder)


class SlowRegressor(toxic_model.ToxicRegressor):
    """Takes five milliseconds a row, and does no harm."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Pause, then give the sums."""
        time.sleep(0.005 * len(features))
        return np.asarray(features).sum(axis=1)


def make_rows(count: int, poisons: dict[int, int]) -> np.ndarray:
    """Give harmless rows, with poison at some places."""
    rows = np.column_stack([np.arange(count) % 500, np.full(count, 0.5)]).astype(float)
    for place, poison in poisons.items():
        rows[place, 0] = poison
    return rows


def test_only_the_guilty_rows_fail(registry: Registry) -> None:
    """Three rows among 20,000 end their process in three ways; all others have the model's own answer."""
    deadly = {7: toxic_model.EXITS, 8: toxic_model.CRASHES, 19_999: toxic_model.EXITS}
    rows = make_rows(20_000, deadly | {12_345: toxic_model.RAISES})

    outcome = score_isolated(registry, "toxic", 1, Values(rows), trust=Trust(), budget_seconds=60)

    assert {row: error.code for row, error in outcome.errors.items()} == {
        **dict.fromkeys(deadly, "worker_lost"),
        12_345: "model_error",
    }
    assert outcome.errors[7].detail == "scoring this row alone ended its process"
    innocent = np.setdiff1d(np.arange(len(rows)), list(outcome.errors))
    assert np.array_equal(outcome.predictions[innocent], rows[innocent].sum(axis=1))


def test_row_that_hangs_is_told_from_its_neighbours(registry: Registry) -> None:
    """A hanging range is killed and halved like one that crashes."""
    rows = make_rows(64, {20: toxic_model.HANGS})

    outcome = score_isolated(registry, "toxic", 1, Values(rows), trust=Trust(), budget_seconds=40)

    assert {row: error.code for row, error in outcome.errors.items()} == {20: "worker_lost"}
    assert "took longer than" in outcome.errors[20].detail


def test_search_for_the_guilty_has_an_end(registry: Registry) -> None:
    """If every row kills, the search stops after so many deaths, and what is left fails together."""
    rows = make_rows(5_000, dict.fromkeys(range(5_000), toxic_model.EXITS))

    outcome = score_isolated(registry, "toxic", 1, Values(rows), trust=Trust(), budget_seconds=60, max_deaths=40)

    assert {error.code for error in outcome.errors.values()} == {"worker_lost"}
    assert len(outcome.errors) == 5_000
    assert outcome.bisections == 40


def test_nothing_to_score_needs_no_answer(registry: Registry) -> None:
    """No row, no error."""
    assert len(score_isolated(registry, "toxic", 1, Values(np.zeros((0, 2))), trust=Trust(), budget_seconds=60)) == 0


def test_model_that_cannot_be_isolated_blames_no_row(tmp_path: Path) -> None:
    """Without a process to score in, the chunk is handed back; its rows have not failed."""
    with pytest.raises(IsolationFailed):
        score_isolated(Registry(tmp_path), "none", 1, Values(np.zeros((3, 2))), trust=Trust(), budget_seconds=60)


def test_model_that_is_only_slow_loses_no_row(tmp_path: Path) -> None:
    """A range that takes most of the time there is, at the speed of the first rows, is no hanging one."""
    corners = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    register_model(
        SlowRegressor().fit(corners), "snail", registry=Registry(tmp_path), sample=corners, columns=["a", "b"]
    )
    rows = make_rows(1_000, {})

    outcome = score_isolated(Registry(tmp_path), "snail", 1, Values(rows), trust=Trust(), budget_seconds=24)

    assert outcome.errors == {}
    assert outcome.bisections == 0
    assert np.array_equal(outcome.predictions, rows.sum(axis=1))
