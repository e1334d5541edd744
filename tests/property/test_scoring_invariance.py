"""Scoring is the same however the rows are cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.signature import Output
from shared.values import Matrix, Values
from worker.scoring import Outcome, score_values


class Picky:
    """A classifier that raises on some rows and answers NaN on others, as the rows themselves say."""

    outputs = (Output(classes=("even", "odd")),)

    def predict(self, values: Values) -> Outcome:
        """Answer; 13 makes the call raise, 7 makes the row's probabilities NaN."""
        numbers = values.matrix[:, 0]
        if (numbers == 13).any():
            raise ArithmeticError
        odd = numbers % 2
        probabilities = np.column_stack([1 - odd, odd])
        probabilities[numbers == 7] = np.nan
        return Outcome(np.array(["even", "odd"]).take(odd.astype(int)), probabilities)


rows = st.lists(st.integers(0, 15), max_size=60).map(lambda numbers: np.array(numbers, dtype=np.float64).reshape(-1, 1))


@given(matrix=rows, limit=st.integers(1, 70))
def test_each_row_is_answered_as_if_it_were_alone(matrix: Matrix, limit: int) -> None:
    """Whatever the row limit and the neighbours, a row gets its own answer or its own error."""
    outcome = score_values(Picky(), Values(matrix), limit)

    assert outcome.list_predictions() == [
        None if value in (7, 13) else ("odd" if value % 2 else "even") for value in matrix[:, 0]
    ]
    assert set(outcome.errors) == {row for row, value in enumerate(matrix[:, 0]) if value in (7, 13)}
    assert outcome.calls >= outcome.bisections


@given(matrix=rows, limit=st.integers(1, 70), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_slices_put_together_are_the_whole(matrix: Matrix, limit: int, cuts: list[int]) -> None:
    """Cutting an outcome into jobs gives what scoring each job by itself would have given."""
    whole = score_values(Picky(), Values(matrix), limit)
    bounds = sorted({0, len(matrix), *(min(cut, len(matrix)) for cut in cuts)})

    for start, stop in pairwise(bounds):
        part = whole.slice(start, stop)
        alone = score_values(Picky(), Values(matrix[start:stop]), limit)
        assert part.list_predictions() == alone.list_predictions()
        assert part.errors == alone.errors
        if alone.probabilities is not None:
            assert part.list_probabilities() == alone.list_probabilities()
