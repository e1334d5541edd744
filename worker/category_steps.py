"""Encoders of categories as tables: what an encoder makes of each category is asked of it once, and then looked up.

Only encoders that treat each column by itself are known here; that they do so is seen when they are asked. So the
numbers are the encoder's own, whatever its settings: rare categories, dropped ones, what stands for a missing value.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from shared.signature import Column
from shared.values import Values
from worker.frames import Framer
from worker.tree_ensembles import Array, NotConvertible, OutOfDomain

#: They give for each column what follows from its value alone.
ENCODERS = (OneHotEncoder, OrdinalEncoder, TargetEncoder)
#: May stand before them: they put in for missing values what the encoder then gets.
FILLERS = (SimpleImputer,)
#: Numbers in the tables of one encoder; with more, looking them up gains nothing over computing them.
_MOST_NUMBERS = 1 << 22


class CategoryTables:
    """What encoders make of each value of their columns.

    Parameters
    ----------
    transformers : sequence of object
        Fitted, called one after the other; the first reads the columns.
    columns : sequence of Column
        Categories, or truth values.

    Raises
    ------
    NotConvertible
        A column has no list of categories, an answer follows from several columns, or the tables would be too large.
    """

    def __init__(self, transformers: Sequence[Any], columns: Sequence[Column]) -> None:
        self._counts = [_count_values(column) for column in columns]
        answers = self._ask(transformers, columns)
        if sum(answer.size for answer in answers) > _MOST_NUMBERS:
            raise NotConvertible(f"its step {type(transformers[-1]).__name__} has too many categories")
        base = answers[0][0]
        varies = np.array([~_are_same(answer, base).all(axis=0) for answer in answers])
        if (varies.sum(axis=0) > 1).any():
            raise NotConvertible(f"its step {type(transformers[-1]).__name__} mixes columns")
        varies[0] |= ~varies.any(axis=0)  # the same in every row, whichever column it is counted to
        self._tables = [np.ascontiguousarray(answer[:, own]) for answer, own in zip(answers, varies, strict=True)]
        order = np.concatenate([np.flatnonzero(own) for own in varies])
        self._order = None if (order == np.arange(len(order))).all() else np.argsort(order)

    def __call__(self, rows: Array) -> Array:
        """Look rows up, shape (n_rows, n_columns).

        Raises
        ------
        OutOfDomain
            A value is none of the known ones: the encoder itself must decide.
        """
        parts = [
            table.take(self._find_places(rows[:, index], index), axis=0) for index, table in enumerate(self._tables)
        ]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return joined if self._order is None else joined.take(self._order, axis=1)

    def _find_places(self, codes: Array, index: int) -> Array:
        count, table = self._counts[index], self._tables[index]
        missing = np.isnan(codes)
        if missing.any():
            if len(table) == count:
                raise OutOfDomain("a category is missing")
            codes = np.where(missing, count, codes)
            known = missing | (codes < count)
        else:
            known = codes < count
        if not known.all():
            raise OutOfDomain("a category is not known")
        return codes.astype(np.intp)

    def _ask(self, transformers: Sequence[Any], columns: Sequence[Column]) -> list[Array]:
        """Return for each column what comes out for each of its values, while the others have their first."""
        framer = Framer(columns, named=hasattr(transformers[0], "feature_names_in_"))
        answers = []
        for index, count in enumerate(self._counts):
            values = [*range(count), *([np.nan] if columns[index].nullable else [])]
            codes = np.zeros((len(values), len(columns)))
            codes[:, index] = values
            made = reduce(lambda rows, step: step.transform(rows), transformers, framer.make(Values(codes)))
            answers.append(_make_dense(made))
        return answers


def _count_values(column: Column) -> int:
    if column.type == "boolean":
        return 2
    if not column.is_coded or not column.categories:
        raise NotConvertible(f"of its column {column.name!r} not all categories are known")
    return len(column.categories)


def _make_dense(made: Any) -> Array:
    dense = made.toarray() if hasattr(made, "toarray") else np.asarray(made)
    if dense.dtype.kind not in "fiub":
        raise NotConvertible("a step gives no numbers")
    return dense.astype(np.float64)


def _are_same(answer: Array, base: Array) -> Array:
    same: Array = (answer == base) | (np.isnan(answer) & np.isnan(base))
    return same
