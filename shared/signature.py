"""What a model version expects and answers: columns, task and classes; nothing of where models are kept."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import msgspec

#: A class label, as JSON can carry it.
Label = str | int | float | bool


class Column(msgspec.Struct, frozen=True):
    """One column that a model reads.

    Parameters
    ----------
    name : str
        As it stands in a CSV header or as a key of a JSON row.
    type : {"double"}
        Only numbers for now; a reader must refuse a type that it does not know.
    nullable : bool
        Whether a missing value is allowed (it reaches the model as NaN).
    min, max : float or None
        Range in the training data, both ends included; for information, not a limit.
    """

    name: str
    type: Literal["double"] = "double"
    nullable: bool = False
    min: float | None = None
    max: float | None = None


class Signature(msgspec.Struct, frozen=True, dict=True):
    """The columns in the model's order, and what it answers.

    Parameters
    ----------
    columns : tuple of Column
    task : {"classification", "regression"}
    classes : tuple of str, int, float or bool, or None
        In the order of the columns of `probabilities`; None for a regression.

    Raises
    ------
    ValueError
        No column, a column twice, or classes that do not fit the task.
    """

    columns: tuple[Column, ...]
    task: Literal["classification", "regression"]
    classes: tuple[Label, ...] | None = None

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names:
            raise ValueError("a signature needs at least one column")
        doubled = {name for name in names if names.count(name) > 1}
        if doubled:
            raise ValueError(f"column {min(doubled)!r} stands twice in the signature")
        if (self.task == "classification") != bool(self.classes):
            raise ValueError("a classification needs its classes, and a regression has none")

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The columns' names in the model's order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def nullable_columns(self) -> tuple[bool, ...]:
        """For each column in the model's order, whether a missing value is allowed."""
        return tuple(column.nullable for column in self.columns)
