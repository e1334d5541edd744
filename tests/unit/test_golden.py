"""The golden sample: which rows it has, and which answers count as the same."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from shared.manifest import GoldenSample
from worker.golden import GOLDEN_ROWS, WrongAnswer, compare_answers, take_golden_sample
from worker.scoring import Outcome

FEATURES = np.linspace(-1, 1, 400).reshape(100, 4) ** 3
TARGET = FEATURES[:, 0] > FEATURES[:, 1].mean()


def test_it_holds_rows_from_all_over_the_sample_with_the_estimators_own_answers() -> None:
    """Rows of a frame are written as a caller would write them, and survive JSON bit for bit."""
    frame = pd.DataFrame(FEATURES, columns=list("abcd"))
    estimator = LogisticRegression().fit(frame, TARGET)

    golden = take_golden_sample(estimator, frame)

    assert len(golden.rows) == GOLDEN_ROWS
    assert golden.rows[0] == tuple(FEATURES[0])
    assert golden.rows[-1] == tuple(FEATURES[-1])
    read = msgspec.json.decode(msgspec.json.encode(golden), type=GoldenSample)
    assert read == golden
    again = pd.DataFrame(read.rows, columns=list("abcd"))
    assert list(golden.predictions) == estimator.predict(again).tolist()
    assert np.array_equal(np.array(golden.probabilities), estimator.predict_proba(again))


def test_a_row_with_a_missing_value_is_among_them_and_infinite_ones_are_not() -> None:
    """Missing values are None; what JSON cannot carry is left out."""
    sample = FEATURES.copy()
    sample[37, 2] = np.nan
    sample[0, 0] = np.inf
    estimator = make_pipeline(SimpleImputer(), LinearRegression()).fit(FEATURES, FEATURES[:, 0])

    golden = take_golden_sample(estimator, sample)

    assert sum(None in row for row in golden.rows) == 1
    assert not any(np.inf in row for row in golden.rows)
    assert golden.probabilities is None


def test_a_wide_model_has_fewer_rows() -> None:
    """The manifest of a model with thousands of columns stays readable."""
    sample = np.ones((50, 6000))
    estimator = LinearRegression().fit(sample, np.arange(50.0))

    assert len(take_golden_sample(estimator, sample).rows) == 3


def make_golden(predictions: list[Any], probabilities: Any = None) -> GoldenSample:
    """Make a golden sample of rows that do not matter."""
    return GoldenSample(
        rows=tuple((0.0,) for _ in predictions),
        predictions=tuple(predictions),
        probabilities=None if probabilities is None else tuple(map(tuple, probabilities)),
    )


def test_answers_within_the_tolerance_are_the_same() -> None:
    """Another processor's last bits do not make a version unusable; a millionth does."""
    golden = make_golden([1000.0, 1.0])

    compare_answers(golden, Outcome(np.array([1000.0 + 5e-4, 1.0])), 1e-6)
    with pytest.raises(WrongAnswer, match=r"prediction for row 1 .* is 1\.00001; 1\.0 was registered \(1 of 2"):
        compare_answers(golden, Outcome(np.array([1000.0, 1.00001])), 1e-6)


def test_a_label_may_differ_only_at_a_tie() -> None:
    """Where the two likeliest classes are as likely as each other either is right; elsewhere a label is a label."""
    probabilities = np.array([[0.5, 0.5], [0.1, 0.9]])
    golden = make_golden(["no", "yes"], probabilities)

    compare_answers(golden, Outcome(np.array(["yes", "yes"]), probabilities), 1e-6)
    with pytest.raises(WrongAnswer, match="prediction for row 1 of the golden sample is 'no'; 'yes' was registered"):
        compare_answers(golden, Outcome(np.array(["no", "no"]), probabilities), 1e-6)


def test_missing_probabilities_are_a_difference() -> None:
    """A model that gives labels alone is not the one that gave probabilities."""
    with pytest.raises(WrongAnswer, match="no probabilities any more"):
        compare_answers(make_golden(["no"], [[0.6, 0.4]]), Outcome(np.array(["no"])), 1e-6)
