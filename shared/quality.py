"""Data quality: what the values and the scores of a version are like, beside those of its training sample.

It counts nothing itself and knows no Redis (`shared.quality_counts`); workers count (`worker.quality`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec


class ScoreBins(msgspec.Struct, frozen=True):
    """How one score of a version is divided into bins, and how many rows of the training sample fell in each.

    Parameters
    ----------
    name : str
        As the column of a scored file: ``prediction``, ``probability_yes``, ``prediction_height``.
    edges : tuple of float
        Of numbers: bin i holds what is above ``edges[i - 1]`` and not above ``edges[i]``. Of labels: none, and each
        class is a bin.
    counts : tuple of int
        One a bin.
    """

    name: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]


class QualityReference(msgspec.Struct, frozen=True):
    """What registration counted in the training sample.

    Parameters
    ----------
    rows : int
        Looked at.
    missing : tuple of int
        For each column in the signature's order.
    scores : tuple of ScoreBins
    """

    rows: int
    missing: tuple[int, ...]
    scores: tuple[ScoreBins, ...]


def measure_shift(expected: Sequence[int], found: Sequence[int]) -> float:
    """Return the population stability index of two distributions over the same bins: 0 if they are the same.

    The usual reading: below 0.1 nothing has changed, above 0.25 much has. Half a row is added to each bin, so that an
    empty one does not make it infinite.

    Parameters
    ----------
    expected, found : sequence of int
        Rows in each bin.
    """
    bins = len(expected)
    all_expected, all_found = sum(expected) + bins / 2, sum(found) + bins / 2
    index = 0.0
    for one, other in zip(expected, found, strict=True):
        p, q = (one + 0.5) / all_expected, (other + 0.5) / all_found
        index += (q - p) * math.log(q / p)
    return index


def expect_shift(expected: Sequence[int], found: Sequence[int]) -> float:
    """Return the index that chance alone would give so few rows, on average: what is not above it says nothing."""
    one, other = sum(expected), sum(found)
    return (len(expected) - 1) * (1 / one + 1 / other) if one and other else math.inf
