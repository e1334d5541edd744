"""Data quality is the same however the rows are cut, and is what a plain look at each cell says."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.manifest import Manifest
from shared.quality import QualityReference, ScoreBins
from shared.signature import Column, Signature
from shared.values import Matrix
from worker.quality import QualityTally
from worker.scoring import Outcome

COLUMNS = (Column("a", min=-1.0, max=1.0), Column("b", nullable=True, min=0.0, max=0.0), Column("c", nullable=True))
MANIFEST = Manifest(
    name="churn",
    version=1,
    created_at="2026-01-01T00:00:00Z",
    sha256="0" * 64,
    size=1,
    libraries={},
    signature=Signature(COLUMNS, "regression"),
    quality=QualityReference(2, (0, 0, 0), (ScoreBins("prediction", (-0.5, 0.5), (1, 0, 1)),)),
)
CELLS = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, math.nan])


@given(
    matrix=st.integers(0, 50).flatmap(lambda rows: arrays(np.float64, (rows, 3), elements=CELLS)),
    cuts=st.lists(st.integers(0, 50), max_size=5),
)
def test_counts_of_pieces_add_up_to_those_of_the_whole(matrix: Matrix, cuts: list[int]) -> None:
    """Each cell is looked at once, by itself."""
    scores = np.nan_to_num(matrix.sum(axis=1))
    whole, pieces = QualityTally(MANIFEST), QualityTally(MANIFEST)

    whole.count(matrix, Outcome(scores))
    for start, stop in pairwise(sorted({0, len(matrix), *(min(cut, len(matrix)) for cut in cuts)})):
        pieces.count(matrix[start:stop], Outcome(scores[start:stop]))

    counts = +whole.take_counts()
    assert +pieces.take_counts() == counts
    for place, column in enumerate(COLUMNS):
        cells = matrix[:, place].tolist()
        lower, upper = (-math.inf, math.inf) if column.min is None else (column.min, column.max or 0.0)
        assert counts[f"m:{place}"] == sum(map(math.isnan, cells))
        assert counts[f"o:{place}"] == sum(cell < lower or cell > upper for cell in cells)
    found = [counts[f"s:0:{place}"] for place in range(3)]
    assert found == [np.sum(scores <= -0.5), np.sum((scores > -0.5) & (scores <= 0.5)), np.sum(scores > 0.5)]
