"""Shadows: what counts as a different answer, and how little of the time they may take."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from prometheus_client import REGISTRY
from sklearn.linear_model import LinearRegression

from shared.aliases import Target
from shared.registry import Registry
from shared.values import Values
from worker.models import LoadedModel, load_model
from worker.registration import register_model
from worker.scoring import Outcome, RowError, score_values
from worker.shadow import Scored, ShadowScorer, compare

ROWS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_labels_agree_or_they_do_not() -> None:
    """The difference is that of the probabilities, the mean over the rows of the largest."""
    theirs = Outcome(np.array(["no", "yes", "no"]), np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]))
    own = Outcome(np.array(["no", "yes", "yes"]), np.array([[0.8, 0.2], [0.2, 0.8], [0.4, 0.6]]))

    agree, difference = compare(theirs, own)

    assert agree.tolist() == [True, True, False]
    assert difference == pytest.approx(0.1)
    assert compare(theirs, own, comparable=False)[1] is None


def test_numbers_agree_within_a_hundredth() -> None:
    """Two regressors never give the same bits; a relative difference of one per cent is none."""
    agree, difference = compare(Outcome(np.array([100.0, 100.0, 0.0])), Outcome(np.array([100.5, 102.0, 0.0])))

    assert agree.tolist() == [True, False, True]
    assert difference == pytest.approx((0.5 / 100.5 + 2 / 102) / 3)


def test_rows_that_failed_in_either_are_not_compared() -> None:
    """A failure is no disagreement."""
    broken = {1: RowError("model_error", "it raised")}
    agree, _ = compare(Outcome(np.array([1.0, 2.0, 3.0]), errors=broken), Outcome(np.array([1.0, 9.0, 3.0])))
    nothing, difference = compare(Outcome(np.array([1.0]), errors={0: broken[1]}), Outcome(np.array([1.0])))

    assert agree.tolist() == [True, True]
    assert len(nothing) == 0
    assert difference is None


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Register ``pay:1`` (y = a), ``pay:2`` (y = a + 2b), its shadow."""
    registry = Registry(tmp_path_factory.mktemp("registered"))
    for target in (ROWS[:, 0], ROWS @ [1.0, 2.0]):
        register_model(LinearRegression().fit(ROWS, target), "pay", registry=registry, sample=ROWS)
    registry.set_alias("pay", "champion", Target({1: 1.0}, shadow=2))
    return registry.root


@pytest.fixture
def registry(registered: Path, tmp_path: Path) -> Registry:
    """Give a registry of its own."""
    return Registry(Path(shutil.copytree(registered, tmp_path / "models")))


def read_counts() -> dict[str, float]:
    """Give the rows that the shadow of ``pay:1`` met, by outcome."""
    labels = {"model": "pay", "version": "1", "shadow": "2"}
    return {
        outcome: REGISTRY.get_sample_value("scorequeue_shadow_rows_total", labels | {"outcome": outcome}) or 0.0
        for outcome in ("agreed", "disagreed", "failed", "skipped")
    }


def subtract(before: dict[str, float]) -> dict[str, float]:
    """Give what was counted since, without the zeros."""
    return {name: value - before[name] for name, value in read_counts().items() if value != before[name]}


class Clock:
    """A clock that a test moves; each look takes some time of it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.step = 0.0

    def __call__(self) -> float:
        """Give the time."""
        self.now += self.step
        return self.now


def make_batch(registry: Registry, rows: npt.NDArray[np.float64] = ROWS) -> Scored:
    """Score rows with ``pay:1``, as a worker does."""
    values = Values(rows)
    return Scored(values, score_values(load_model(registry, "pay", 1), values, 512))


def test_a_shadow_counts_how_many_of_the_same_rows_it_answers_otherwise(registry: Registry) -> None:
    """The two versions differ where the second column is not zero."""
    models = {2: load_model(registry, "pay", 2)}
    shadows = ShadowScorer(registry, lambda name, version: models.get(version), Clock())
    before = read_counts()

    shadow = shadows.find_shadow("pay", 1)
    assert shadow == 2
    shadows.score("pay", 1, shadow, [make_batch(registry)], is_idle=True)

    assert subtract(before) == {"agreed": 2, "disagreed": 2}


def test_a_shadow_takes_a_tenth_of_the_time_at_most(registry: Registry) -> None:
    """After a call of a second there is none for nine; what comes meanwhile is counted as skipped."""
    clock = Clock()
    model = load_model(registry, "pay", 2)
    shadows = ShadowScorer(registry, lambda *_: model, clock)
    batch, before = make_batch(registry), read_counts()
    clock.step = 1.0
    shadows.score("pay", 1, 2, [batch], is_idle=True)
    clock.step = 0.0
    began = clock.now

    for second in range(12):
        clock.now = began + second
        shadows.score("pay", 1, 2, [batch], is_idle=True)

    met = subtract(before)
    assert met["skipped"] == 9 * 4
    assert met["agreed"] + met["disagreed"] == 4 * 4


@pytest.mark.parametrize(("is_warm", "is_idle"), [(False, True), (True, False)], ids=["cold", "busy"])
def test_a_shadow_that_is_cold_or_a_process_that_is_busy_skips(
    registry: Registry, is_warm: bool, is_idle: bool
) -> None:
    """A shadow is never loaded while jobs may come, and never scores while others wait."""
    model: LoadedModel | None = load_model(registry, "pay", 2) if is_warm else None
    before = read_counts()

    ShadowScorer(registry, lambda *_: model, Clock()).score("pay", 1, 2, [make_batch(registry)], is_idle=is_idle)

    assert subtract(before) == {"skipped": 4}


def test_aliases_that_cannot_be_read_have_no_shadow(registry: Registry) -> None:
    """A broken file of aliases stops no scoring."""
    (registry.root / "pay" / "aliases.json").write_text("{")

    assert ShadowScorer(registry, lambda *_: None).find_shadow("pay", 1) is None


def test_a_version_whose_manifest_was_damaged_since_has_its_rows_skipped(registry: Registry) -> None:
    """Its jobs were committed; there is nothing to compare the shadow's columns with."""
    model, batch, before = load_model(registry, "pay", 2), make_batch(registry), read_counts()
    (registry.version_folder("pay", 1) / "manifest.json").write_text("{")

    ShadowScorer(registry, lambda *_: model, Clock()).score("pay", 1, 2, [batch], is_idle=True)

    assert subtract(before) == {"skipped": 4}
