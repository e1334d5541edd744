"""Scoring: only the guilty rows fail, however the model fails."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shared.signature import Output
from shared.values import Matrix, Values
from worker.scoring import Outcome, RowError, score_values


class Doubler:
    """A regressor that doubles its first column, and misbehaves as it is told.

    Parameters
    ----------
    misbehave : callable
        Gets the rows of the call; may raise, or return another outcome, or None.
    """

    outputs = (Output(),)

    def __init__(self, misbehave: Callable[[Matrix], Outcome | None] = lambda rows: None) -> None:
        self.misbehave = misbehave
        self.call_rows: list[int] = []

    def predict(self, values: Values) -> Outcome:
        """Answer, and note how many rows there were."""
        self.call_rows.append(len(values))
        answer = self.misbehave(values.matrix)
        return Outcome(values.matrix[:, 0] * 2) if answer is None else answer


class Chooser:
    """A classifier of two classes, by the sign of the first column."""

    outputs = (Output(classes=("no", "certainly")),)

    def __init__(self, classes: int = 2) -> None:
        self.classes = classes

    def predict(self, values: Values) -> Outcome:
        """Answer with labels of unequal length, and probabilities of as many classes as told."""
        positive = values.matrix[:, 0] > 0
        probabilities = np.zeros((len(values), self.classes))
        probabilities[:, 0] = ~positive
        probabilities[:, -1] = positive
        return Outcome(np.array(["no", "certainly"])[positive.astype(int)], probabilities)


def numbered(rows: int) -> Values:
    """Make rows that carry their own number."""
    return Values(np.column_stack([np.arange(rows, dtype=np.float64), np.ones(rows)]))


def raise_on(guilty: set[int], error: type[BaseException] = ValueError) -> Callable[[Matrix], None]:
    """Make a misbehaviour that raises if one of these rows is in the call."""

    def misbehave(rows: Matrix) -> None:
        if guilty & {int(number) for number in rows[:, 0]}:
            raise error("/home/secret/model.py told a secret")

    return misbehave


@pytest.mark.parametrize(("rows", "limit", "calls"), [(10, 4, [4, 4, 2]), (4, 4, [4]), (3, 100, [3]), (3, 1, [1] * 3)])
def test_calls_keep_to_the_row_limit(rows: int, limit: int, calls: list[int]) -> None:
    """Rows go to the model in as few calls as the limit allows, in order."""
    model = Doubler()

    outcome = score_values(model, numbered(rows), limit)

    assert model.call_rows == calls
    assert outcome.calls == len(calls)
    assert outcome.predictions.tolist() == [2.0 * n for n in range(rows)]
    assert outcome.errors == {}
    assert outcome.predict_seconds > 0


def test_no_rows_need_no_call() -> None:
    """An empty matrix has an empty outcome."""
    model = Doubler()

    outcome = score_values(model, numbered(0), 8)

    assert (model.call_rows, outcome.list_predictions()) == ([], [])


@pytest.mark.parametrize("limit", [1, 7, 16, 64])
@pytest.mark.parametrize("guilty", [{n} for n in range(16)] + [{0, 15}, {3, 4}, {7, 8}, {1, 5, 9, 13}])
def test_exactly_the_guilty_rows_fail(guilty: set[int], limit: int) -> None:
    """Wherever the guilty rows stand, they alone fail, and all others are scored correctly."""
    outcome = score_values(Doubler(raise_on(guilty)), numbered(16), limit)

    assert set(outcome.errors) == guilty
    assert outcome.list_predictions() == [None if n in guilty else 2.0 * n for n in range(16)]


def test_one_guilty_row_is_found_in_a_logarithmic_number_of_calls() -> None:
    """One bad row among 512 costs two calls a halving, not 512 calls."""
    outcome = score_values(Doubler(raise_on({300})), numbered(512), 512)

    assert outcome.bisections == 9
    assert outcome.calls == 1 + 2 * 9


def test_all_rows_may_fail() -> None:
    """If every row is guilty, every row has its error and the outcome still has its length."""
    outcome = score_values(Doubler(raise_on(set(range(5)))), numbered(5), 8)

    assert outcome.list_predictions() == [None] * 5
    assert outcome.list_probabilities() is None
    assert outcome.calls == 9


def test_the_message_names_the_class_of_the_error_and_nothing_else() -> None:
    """What a caller reads never quotes the model's own message."""
    outcome = score_values(Doubler(raise_on({1}, KeyError)), numbered(3), 3)

    assert outcome.errors == {1: RowError("model_error", "the model raised KeyError on this row")}


def test_too_little_memory_halves_the_batch() -> None:
    """A call that does not fit into memory is made with fewer rows, and no row fails."""

    def misbehave(rows: Matrix) -> None:
        if len(rows) > 10:
            raise MemoryError

    model = Doubler(misbehave)

    outcome = score_values(model, numbered(64), 64)

    assert outcome.errors == {}
    assert outcome.predictions.tolist() == [2.0 * n for n in range(64)]
    assert outcome.bisections == 7


def test_too_little_memory_for_one_row_is_that_rows_error() -> None:
    """A row that never fits fails alone; nothing propagates."""
    outcome = score_values(Doubler(raise_on({2}, MemoryError)), numbered(4), 4)

    assert outcome.errors == {2: RowError("model_error", "the model ran out of memory on this row")}


@pytest.mark.parametrize("lost", [1, 2])
def test_a_wrong_number_of_answers_never_shifts_rows(lost: int) -> None:
    """A model that drops the answer of one row fails on that row; no row gets its neighbour's answer."""

    def misbehave(rows: Matrix) -> Outcome | None:
        return Outcome(rows[rows[:, 0] != lost, 0] * 2)

    outcome = score_values(Doubler(misbehave), numbered(8), 8)

    assert set(outcome.errors) == {lost}
    assert "shape (0,) for 1 row" in outcome.errors[lost].detail
    assert outcome.list_predictions() == [None if n == lost else 2.0 * n for n in range(8)]


@pytest.mark.parametrize("shape", [(), (4, 2), (5,), (0,)])
def test_an_answer_of_the_wrong_shape_fails_its_rows(shape: tuple[int, ...]) -> None:
    """An answer that is not one value a row is never taken."""
    outcome = score_values(Doubler(lambda rows: Outcome(np.zeros(shape))), numbered(4), 4)

    assert set(outcome.errors) == {0, 1, 2, 3}


def test_probabilities_need_a_column_a_class() -> None:
    """Probabilities of more classes than the signature has are refused."""
    outcome = score_values(Chooser(classes=3), numbered(2), 2)

    assert outcome.errors[0].detail == ("the model returned probabilities of shape (1, 3) for 1 row(s) and 2 classes")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_prediction_fails_its_row_only(value: float) -> None:
    """NaN or infinity is an error of its row, found without a further call."""

    def misbehave(rows: Matrix) -> Outcome:
        return Outcome(np.where(rows[:, 0] == 2, value, rows[:, 0]))

    outcome = score_values(Doubler(misbehave), numbered(5), 2)

    assert outcome.errors == {2: RowError("model_error", "the model returned a non-finite value")}
    assert outcome.list_predictions() == [0.0, 1.0, None, 3.0, 4.0]
    assert (outcome.calls, outcome.bisections) == (3, 0)


def test_a_non_finite_probability_fails_its_row_only() -> None:
    """A label whose probabilities are NaN is not an answer."""

    class Unsure(Chooser):
        def predict(self, values: Values) -> Outcome:
            outcome = super().predict(values)
            assert outcome.probabilities is not None
            outcome.probabilities[values.matrix[:, 0] == 1] = np.nan
            return outcome

    outcome = score_values(Unsure(), numbered(3), 3)

    assert outcome.list_predictions() == ["no", None, "certainly"]
    assert outcome.list_probabilities() == [[1.0, 0.0], None, [0.0, 1.0]]


def test_labels_of_different_calls_are_not_cut_off() -> None:
    """Long labels survive when another call gave only short ones."""

    class Short(Chooser):
        def predict(self, values: Values) -> Outcome:
            outcome = super().predict(values)
            return Outcome(np.array(outcome.predictions.tolist()), outcome.probabilities)

    outcome = score_values(Short(), numbered(3), 1)

    assert outcome.list_predictions() == ["no", "certainly", "certainly"]


def test_bisection_ends_when_time_is_up() -> None:
    """Rows that fail together when no time is left all fail, and none is scored twice for ever."""
    model = Doubler(raise_on(set(range(64)), ValueError))
    ticks = iter(range(10_000))

    outcome = score_values(model, numbered(64), 64, patience_seconds=5, clock=lambda: float(next(ticks)))

    assert sorted(outcome.errors) == list(range(64))
    assert {error.code for error in outcome.errors.values()} == {"model_error"}
    assert outcome.calls < 20


def test_a_slice_counts_its_rows_from_zero() -> None:
    """A job's part of a micro-batch has its own rows, answers and errors."""
    whole = score_values(Doubler(raise_on({3})), numbered(6), 6)

    part = whole.slice(2, 5)

    assert part.list_predictions() == [4.0, None, 8.0]
    assert list(part.errors) == [1]
    assert whole.slice(0, 3).errors == {}
    assert part.calls == whole.calls
