"""Categories: those that the encoders inside a model know, and what the model does with one that nobody knows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from shared.signature import Column, Label, Signature
from shared.values import Values

#: Texts of a column that are kept as its categories; with more it is taken for free text.
MOST_CATEGORIES = 1_000

#: Rows in which an unseen value is tried.
_TRIED_ROWS = 8


def add_known_categories(columns: Sequence[Column], estimator: Any) -> tuple[Column, ...]:
    """Add to the texts that a sample happens to have those that the model's own encoders know.

    Raises
    ------
    ValueError
        An encoder knows texts of a column in which the sample has numbers: it would take none of them for known.
    """
    known: dict[int, set[str]] = {}
    for position, labels in find_encoded(estimator, range(len(columns))):
        known.setdefault(position, set()).update(label for label in labels if isinstance(label, str))
        if columns[position].holds == "number" and any(isinstance(label, str) for label in labels):
            raise ValueError(
                f"column {columns[position].name!r} holds numbers in the sample, and the model was fitted on texts, as"
                f" {labels[0]!r} (a Parquet file keeps texts that look like numbers)"
            )
    return tuple(_add_texts(column, known.get(index, set())) for index, column in enumerate(columns))


def find_encoded(estimator: Any, positions: Sequence[int]) -> Iterator[tuple[int, list[Any]]]:
    """Yield each column that an encoder reads as it comes in, and the encoder's categories of it.

    Parameters
    ----------
    estimator : object
        Fitted; pipelines and column transformers are looked into.
    positions : sequence of int
        The columns that it reads.
    """
    if hasattr(estimator, "transformers_") and hasattr(estimator, "_transformer_to_input_indices"):
        for name, inner, _ in estimator.transformers_:
            yield from find_encoded(
                inner, [positions[index] for index in estimator._transformer_to_input_indices[name]]
            )
    elif hasattr(estimator, "steps"):
        # A step before may replace what is missing; the categories that it puts in are none that come in.
        for _, step in estimator.steps:
            yield from find_encoded(step, positions)
            if not _keeps_columns(step):
                return
    elif len(categories := getattr(estimator, "categories_", ())) == len(positions):
        yield from zip(positions, map(list, categories), strict=True)


def decide_unseen(signature: Signature, values: Values, answer: Callable[[Values], Any]) -> Signature:
    """Try what the model does with a value that no category is, and write it down.

    Parameters
    ----------
    signature : Signature
        Whose columns let such values pass.
    values : Values
        Rows that the model answers.
    answer : callable
        Calls the model; may raise anything.
    """
    columns = [
        msgspec.structs.replace(column, unseen="error")
        if column.is_coded and column.categories and _is_refused(index, column, values, answer)
        else column
        for index, column in enumerate(signature.columns)
    ]
    return msgspec.structs.replace(signature, columns=tuple(columns))


def _is_refused(index: int, column: Column, values: Values, answer: Callable[[Values], Any]) -> bool:
    stranger = _make_stranger(column)
    if stranger is None:
        return True
    rows = values.matrix[:_TRIED_ROWS].copy()
    rows[:, index] = len(column.categories) + len(values.others)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some encoders warn, and go on
        try:
            answer(Values(rows, (*values.others, stranger)))
        except Exception:  # noqa: BLE001 - each library refuses in its own way
            return True
    return False


def _make_stranger(column: Column) -> Label | None:
    """Make a value that no category is; None if there can be none."""
    if column.holds == "boolean":
        return None
    if column.holds == "number":
        return 1 + max(label for label in column.categories if not isinstance(label, str))
    stranger = "unseen"
    while stranger in column.codes:
        stranger += "_"
    return stranger


def _add_texts(column: Column, labels: set[str]) -> Column:
    if column.type != "string" or not column.categories or labels <= column.codes.keys():
        return column
    both = sorted({*map(str, column.categories), *labels})
    return msgspec.structs.replace(column, categories=tuple(both) if len(both) <= MOST_CATEGORIES else ())


def _keeps_columns(step: Any) -> bool:
    """Whether a step hands its columns on, one for one."""
    return isinstance(step, str) or len(getattr(step, "statistics_", ())) == getattr(step, "n_features_in_", -1) != -1
