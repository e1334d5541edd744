"""The values of rows as numbers: what a job carries to a model, and what is sliced, joined and halved on the way.

A number stands for itself, true and false for 1 and 0, a text or a category for its code: its place among the
categories of its column in the signature. What is no category comes behind these: code ``len(categories) + i`` is
``others[i]``. A missing value is NaN. So the values of all columns are one matrix, and where all are numbers nothing
else is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.signature import Label, Signature

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Values:
    """The values of rows.

    Parameters
    ----------
    matrix : ndarray of float64, shape (n_rows, n_columns)
        Columns in the signature's order.
    others : tuple of str, int, float or bool
        Values that are not among the categories of the signature.
    """

    matrix: Matrix
    others: tuple[Label, ...] = ()

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, rows: slice | npt.NDArray[Any]) -> Values:
        return Values(self.matrix[rows], self.others)


class Others:
    """Collects values that are no categories, each once, and gives them their numbers."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[bool, Label], int] = {}

    def add(self, label: Label) -> int:
        """Return the number of a value."""
        # To Python true and 1 are equal.
        return self._numbers.setdefault((isinstance(label, bool), label), len(self._numbers))

    def list(self) -> tuple[Label, ...]:
        """Return the values by their numbers."""
        return tuple(label for _, label in self._numbers)


def join_values(parts: Sequence[Values], signature: Signature) -> Values:
    """Put the rows of several jobs of one version one behind the other.

    Parameters
    ----------
    parts : sequence of Values
        At least one.
    signature : Signature
        Of the version.
    """
    if len(parts) == 1:
        return parts[0]
    matrices, others = [part.matrix for part in parts], tuple(label for part in parts for label in part.others)
    if others:
        counts, before = np.array(signature.category_counts), 0
        for index, part in enumerate(parts):
            if part.others:
                matrices[index] = np.where(part.matrix >= counts, part.matrix + before, part.matrix)
                before += len(part.others)
    return Values(np.concatenate(matrices), others)


def recode_values(values: Values, old: Signature, new: Signature) -> Values:
    """Write rows with the codes of another version that has columns of the same names and types.

    Parameters
    ----------
    values : Values
        With the codes of `old`.
    old, new : Signature

    Returns
    -------
    Values
        With the codes of `new`; a value that is no category there is among the others, whatever `unseen` says.
    """
    matrix, others = values.matrix.copy(), Others()
    for index, (before, after) in enumerate(zip(old.columns, new.columns, strict=True)):
        if not before.is_coded or (before.categories == after.categories and not values.others):
            continue
        codes, labels = after.codes, (*before.categories, *values.others)
        present = ~np.isnan(matrix[:, index])
        used, places = np.unique(matrix[present, index].astype(np.int64), return_inverse=True)
        fresh = [
            codes[label] if label in codes else len(codes) + others.add(label)
            for label in (labels[code] for code in used.tolist())
        ]
        matrix[present, index] = np.array(fresh, dtype=np.float64)[places]
    return Values(matrix, others.list())
