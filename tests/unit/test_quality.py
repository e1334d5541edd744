"""Data quality: what is counted of rows and scores, and when a distribution counts as changed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from shared.manifest import Manifest
from shared.quality import expect_shift, measure_shift
from shared.registry import Registry
from shared.rows import read_rows
from shared.values import Matrix, Values
from worker.models import load_model
from worker.quality import QualityTally
from worker.registration import register_model
from worker.scoring import Outcome, RowError, score_values


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Register a classifier of two classes, one of three, one without probabilities, and a regressor."""
    registry = Registry(Path(tmp_path_factory.mktemp("registered")))
    data, target = load_iris(return_X_y=True)
    register_model(LogisticRegression().fit(data, target == 2), "two", registry=registry, sample=data)
    register_model(LogisticRegression(max_iter=1000).fit(data, target), "three", registry=registry, sample=data)
    register_model(RidgeClassifier().fit(data, target), "labels", registry=registry, sample=data)
    register_model(LinearRegression().fit(data[:, :3], data[:, 3]), "line", registry=registry, sample=data[:, :3])
    return registry


def count(registry: Registry, name: str, rows: Matrix | Values) -> dict[str, int]:
    """Score rows and count them."""
    model = load_model(registry, name, 1)
    values = rows if isinstance(rows, Values) else Values(rows)
    tally = QualityTally(model.manifest)
    tally.count(values.matrix, score_values(model, values, 1000))
    return tally.take_counts()


def list_bins(manifest: Manifest, counts: dict[str, int]) -> list[int]:
    """List what was counted of the first score."""
    assert manifest.quality is not None
    return [counts.get(f"s:0:{place}", 0) for place in range(len(manifest.quality.scores[0].counts))]


def test_the_same_distribution_is_no_shift() -> None:
    """The index is 0 for equal shares, however many rows there are, and grows with the difference."""
    assert measure_shift([100, 200, 300], [100, 200, 300]) == 0
    assert measure_shift([1000, 2000, 3000], [100, 200, 300]) < 0.001
    little, much = measure_shift([500, 500], [450, 550]), measure_shift([500, 500], [50, 950])
    assert 0 < little < 0.1
    assert much > 0.25


def test_the_index_is_the_usual_one() -> None:
    """With many rows it is the sum of (q - p) ln(q / p)."""
    expected = (0.4 - 0.5) * math.log(0.4 / 0.5) + (0.6 - 0.5) * math.log(0.6 / 0.5)

    assert measure_shift([500_000, 500_000], [400_000, 600_000]) == pytest.approx(expected, rel=1e-4)


def test_an_empty_bin_is_not_infinite() -> None:
    """A score that never came before is a large shift, and a number."""
    assert 1 < measure_shift([100, 0], [0, 100]) < 100


def test_chance_alone_gives_few_rows_a_shift() -> None:
    """The mean index of samples of the same distribution is what is said of it."""
    generator = np.random.default_rng(0)
    expected = [1000] * 10
    samples = [np.bincount(generator.integers(0, 10, 200), minlength=10).tolist() for _ in range(300)]

    mean = float(np.mean([measure_shift(expected, sample) for sample in samples]))

    assert mean == pytest.approx(expect_shift(expected, samples[0]), rel=0.25)


@pytest.mark.parametrize("name", ["two", "three", "labels", "line"])
def test_the_training_sample_has_the_training_distribution(registry: Registry, name: str) -> None:
    """Scored again, the sample falls into the bins that registration counted, whatever kind of score there is."""
    columns = 3 if name == "line" else 4
    manifest = registry.manifest(name, 1)

    counts = count(registry, name, load_iris().data[:, :columns])

    assert manifest.quality is not None
    assert counts["rows"] == manifest.quality.rows == 150
    assert list_bins(manifest, counts) == list(manifest.quality.scores[0].counts)
    assert not any(field.startswith(("m:", "o:")) for field in counts)


def test_scores_are_named_as_in_a_scored_file(registry: Registry) -> None:
    """Of two classes it is the probability of the second, of more the label, of a regression the number."""
    names = {}
    for name in ("two", "three", "labels", "line"):
        quality = registry.manifest(name, 1).quality
        assert quality is not None
        names[name] = [(score.name, len(score.counts)) for score in quality.scores]

    assert names == {
        "two": [("probability_True", 10)],
        "three": [("prediction", 3)],
        "labels": [("prediction", 3)],
        "line": [("prediction", 10)],
    }


def test_a_bin_holds_about_a_tenth_of_the_sample(registry: Registry) -> None:
    """So that each says the same about a shift."""
    quality = registry.manifest("line", 1).quality

    assert quality is not None
    assert sum(quality.scores[0].counts) == 150
    assert all(10 <= rows <= 20 for rows in quality.scores[0].counts)


def test_missing_and_unusual_values_are_counted_by_column(tmp_path: Path) -> None:
    """A missing value, and one below or above what training had, each in its own column."""
    from sklearn.impute import SimpleImputer

    sample = np.array([[0.0, 0.0], [1.0, 5.0], [np.nan, 2.0], [4.0, 1.0]])
    model = make_pipeline(SimpleImputer(), LinearRegression()).fit(sample, [1.0, 2.0, 3.0, 4.0])
    registry = Registry(tmp_path)
    register_model(model, "gaps", registry=registry, sample=sample)
    rows = np.array([[np.nan, 1.0], [np.nan, 5.1], [4.5, 2.0], [0.0, 0.0], [-0.1, 9.0]])

    counts = count(registry, "gaps", rows)

    assert registry.manifest("gaps", 1).quality.missing == (1, 0)  # type: ignore[union-attr]
    assert {field: number for field, number in counts.items() if field[0] in "mo"} == {"m:0": 2, "o:0": 2, "o:1": 2}


def test_categories_that_training_did_not_have_are_counted(tmp_path: Path) -> None:
    """An unseen text passes to an encoder that ignores it, and is counted; so is a missing one."""
    frame = pd.DataFrame({"city": ["Rome", "Oslo", None, "Rome"], "size": [1.0, 2.0, 3.0, 4.0]})
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough")
    registry = Registry(tmp_path)
    register_model(
        make_pipeline(encode, LinearRegression()).fit(frame, [1, 2, 3, 4]), "town", registry=registry, sample=frame
    )
    rows = [{"city": city, "size": size} for city, size in (("Rome", 9.0), ("Lima", 2.0), (None, 2.0), ("Bern", 3.0))]
    signature = registry.manifest("town", 1).signature

    counts = count(registry, "town", read_rows(json.dumps(rows).encode(), signature, max_rows=9))

    assert list(signature.column_names) == ["city", "size"]
    assert {field: number for field, number in counts.items() if field[0] in "mo"} == {"m:0": 1, "o:0": 2, "o:1": 1}


def test_rows_that_failed_have_values_and_no_score(registry: Registry) -> None:
    """What the model could not answer is left out of the distribution alone."""
    manifest = registry.manifest("two", 1)
    tally = QualityTally(manifest)
    probabilities = np.array([[0.1, 0.9], [np.nan, np.nan], [0.9, 0.1]])
    failed = {1: RowError("model_error", "it raised")}

    tally.count(np.zeros((3, 4)), Outcome(np.array([True, False, False]), probabilities, failed))

    counts = tally.take_counts()
    assert counts["rows"] == 3
    assert sum(list_bins(manifest, counts)) == 2
    assert counts["o:0"] == 3


def test_what_was_taken_is_not_counted_again(registry: Registry) -> None:
    """Counts are handed on once."""
    tally = QualityTally(registry.manifest("two", 1))
    tally.count(np.full((2, 4), 100.0), Outcome(np.array([True, True]), np.array([[0.1, 0.9]] * 2)))

    first, second = tally.take_counts(), tally.take_counts()

    assert first["rows"] == first["o:3"] == 2
    assert not second


def test_scores_that_are_all_the_same_have_one_bin(tmp_path: Path) -> None:
    """There is nothing to divide, and no shift to be seen."""
    sample = np.array([[0.0], [1.0], [2.0]])
    registry = Registry(tmp_path)
    register_model(LinearRegression().fit(sample, [1.0, 1.0, 1.0]), "flat", registry=registry, sample=sample)

    quality = registry.manifest("flat", 1).quality

    assert quality is not None
    assert quality.scores[0].counts == (3,)
    assert measure_shift([3], [100]) == 0
