"""What a model version expects and answers: columns, task and classes; nothing of where models are kept."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Literal

import msgspec

#: A class label, or a category, as JSON can carry it.
Label = str | int | float | bool

#: Integers beyond this are not all different as 64-bit floats, nor in most readers of JSON.
INTEGER_LIMIT = 2**53
#: Of categories, in the text of a fault.
_SHOWN_LABELS = 6
_SHOWN_CHARACTERS = 20


class Column(msgspec.Struct, frozen=True, dict=True):
    """One column that a model reads.

    Parameters
    ----------
    name : str
        As it stands in a CSV header or as a key of a JSON row.
    type : {"double", "long", "boolean", "string", "category"}
        ``long`` is a whole number. A ``string`` is any text; a ``category`` is one of a closed set, which the frame
        that the model was trained on declared. A reader must refuse a type that it does not know.
    nullable : bool
        Whether a missing value is allowed.
    min, max : float or None
        Range in the training data, both ends included; for information, not a limit.
    categories : tuple of str, int, float or bool
        Of a string or category: the values seen in training, in an order that never changes. Of a string with too many
        of them: none.
    unseen : {"pass", "error"}
        What becomes of a value that is not among the categories: it reaches the model, or it is an error of its row. As
        the model took it when it was registered.
    dtype : str
        What pandas calls it in the frame that the model reads; empty: float64.
    missing : {"nan", "none", "na"}
        What a missing value is in a column of Python objects.
    """

    name: str
    type: Literal["double", "long", "boolean", "string", "category"] = "double"
    nullable: bool = False
    min: float | None = None
    max: float | None = None
    categories: tuple[Label, ...] = ()
    unseen: Literal["pass", "error"] = "pass"
    dtype: str = ""
    missing: Literal["nan", "none", "na"] = "nan"

    @property
    def is_coded(self) -> bool:
        """Whether its values stand in a matrix by their code (see `shared.values`)."""
        return self.type in ("string", "category")

    @cached_property
    def codes(self) -> dict[Label, int]:
        """The code of each category."""
        return {label: code for code, label in enumerate(self.categories)}

    @property
    def holds(self) -> Literal["number", "boolean", "text"]:
        """What its values are in JSON."""
        if self.type == "category":
            first = self.categories[0] if self.categories else ""
            return "boolean" if isinstance(first, bool) else "text" if isinstance(first, str) else "number"
        return "text" if self.type == "string" else "boolean" if self.type == "boolean" else "number"

    @property
    def expected(self) -> str:
        """What a value must be, for the text of a fault."""
        if self.is_coded and self.categories and self.unseen == "error":
            return "one of " + _list_some(self.categories)
        if self.type == "long":
            return "a whole number"
        return {"number": "a number", "boolean": "true or false", "text": "a text"}[self.holds]


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model answers to each row, or one of several such answers.

    Parameters
    ----------
    name : str
        Empty if it is the only one.
    classes : tuple of str, int, float or bool, or None
        In the order of its probabilities; None for a number.
    gives_probabilities : bool
        Whether there is one for each class; of a number it means nothing.
    """

    name: str = ""
    classes: tuple[Label, ...] | None = None
    gives_probabilities: bool = True

    @property
    def prediction_column(self) -> str:
        """The name of its column in a scored file."""
        return f"prediction_{self.name}" if self.name else "prediction"

    @property
    def probability_columns(self) -> list[str]:
        """The names of the columns of its probabilities."""
        begin = f"probability_{self.name}_" if self.name else "probability_"
        return [f"{begin}{label}" for label in (self.classes or ()) if self.gives_probabilities]


class Signature(msgspec.Struct, frozen=True, dict=True):
    """The columns in the model's order, and what it answers.

    Parameters
    ----------
    columns : tuple of Column
    task : {"classification", "regression"}
    classes : tuple of str, int, float or bool, or None
        In the order of the columns of `probabilities`; None for a regression, and if there are several outputs.
    outputs : tuple of Output
        If there are several, or the one gives no probabilities of its classes; else empty, see `answers`.

    Raises
    ------
    ValueError
        No column, a column twice, classes that do not fit the task, or outputs whose columns would have the same name.
    """

    columns: tuple[Column, ...]
    task: Literal["classification", "regression"]
    classes: tuple[Label, ...] | None = None
    outputs: tuple[Output, ...] = ()

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names:
            raise ValueError("a signature needs at least one column")
        if len(set(names)) < len(names):
            doubled = min(name for name, count in Counter(names).items() if count > 1)
            raise ValueError(f"column {doubled!r} stands twice in the signature")
        if any((self.task == "classification") != bool(output.classes) for output in self.answers):
            raise ValueError("a classification needs its classes, and a regression has none")
        added = Counter(
            name for output in self.answers for name in (output.prediction_column, *output.probability_columns)
        )
        if len(self.answers) > 1 and added.most_common(1)[0][1] > 1:
            raise ValueError(f"two outputs would write the column {added.most_common(1)[0][0]!r}; name them otherwise")

    @cached_property
    def answers(self) -> tuple[Output, ...]:
        """What it answers to each row: one output or several."""
        return self.outputs or (Output(classes=self.classes),)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The columns' names in the model's order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def nullable_columns(self) -> tuple[bool, ...]:
        """For each column in the model's order, whether a missing value is allowed."""
        return tuple(column.nullable for column in self.columns)

    @cached_property
    def category_counts(self) -> tuple[float, ...]:
        """For each column the number of codes that its categories have; infinite where values are no codes."""
        return tuple(len(column.categories) if column.is_coded else float("inf") for column in self.columns)


def _list_some(labels: tuple[Label, ...]) -> str:
    shown = [text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…" for text in map(str, labels)]
    listed = [repr(text) if isinstance(label, str) else text for text, label in zip(shown, labels, strict=True)]
    more = f" and {len(listed) - _SHOWN_LABELS} more" if len(listed) > _SHOWN_LABELS else ""
    return ", ".join(listed[:_SHOWN_LABELS]) + more
