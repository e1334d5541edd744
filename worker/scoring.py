"""Scoring: values in, checked answers out; it knows numpy and nothing of queues, jobs' states or files.

A model that fails on some rows must not take their neighbours down: a call that raises is halved until only
the guilty rows are left.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from shared.signature import Output
from shared.values import Matrix, Values


class RowError(NamedTuple):
    """Why a row has no answer: a code of the contract and a sentence for the caller."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answers to rows, one by one.

    Parameters
    ----------
    predictions : ndarray, shape (n_rows,) or (n_rows, n_outputs)
        Labels or numbers; where `errors` has the row, a filler that means nothing.
    probabilities : ndarray of float64, shape (n_rows, n_classes), or None
        Of several outputs those of the first, then those of the next. None for a regressor and for a classifier that
        gives none.
    errors : dict of int to RowError
        By row number from 0; the rows that failed, and only these.
    calls, bisections : int
        Model calls made, and how many of them had to be halved.
    predict_seconds : float
        Time spent in the model.
    """

    predictions: npt.NDArray[Any]
    probabilities: Matrix | None = None
    errors: dict[int, RowError] = field(default_factory=dict)
    calls: int = 1
    bisections: int = 0
    predict_seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.predictions)

    def slice(self, start: int, stop: int) -> Outcome:
        """Cut out the rows of one job.

        Its rows count from 0 again; `calls`, `bisections` and `predict_seconds` stay those of the whole
        micro-batch, so count them once.
        """
        errors = self.errors and {row - start: error for row, error in self.errors.items() if start <= row < stop}
        return replace(
            self,
            predictions=self.predictions[start:stop],
            probabilities=None if self.probabilities is None else self.probabilities[start:stop],
            errors=errors,
        )

    def take(self, rows: npt.NDArray[np.int64]) -> Outcome:
        """Choose answered rows; none of them may have failed."""
        return replace(
            self,
            predictions=self.predictions[rows],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            errors={},
        )

    def list_columns(self) -> list[npt.NDArray[Any]]:
        """Cut into the predictions of each output, and the probabilities of each class."""
        predictions = self.predictions.reshape(len(self), -1)
        return [*predictions.T, *(() if self.probabilities is None else self.probabilities.T)]

    def list_predictions(self) -> list[Any]:
        """Turn the predictions into plain Python values, None for a row that failed."""
        return _blank_failed(self.predictions.tolist(), self.errors)

    def list_probabilities(self) -> list[Any] | None:
        """Turn the probabilities into lists of floats, None for a row that failed."""
        return None if self.probabilities is None else _blank_failed(self.probabilities.tolist(), self.errors)


class Predictor(Protocol):
    """What `score_values` needs of a model."""

    @property
    def outputs(self) -> Sequence[Output]:
        """What it answers to each row."""

    def predict(self, values: Values) -> Outcome:
        """Answer every row in one call, unchecked; may raise anything."""


class WrongShape(ValueError):
    """The model's answer does not have the rows or the classes that it must have."""


class Piece(NamedTuple):
    """The answer to rows `start` to before `stop`."""

    start: int
    stop: int
    answer: Outcome


def score_values(
    model: Predictor,
    values: Values,
    max_rows: int,
    *,
    patience_seconds: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Score rows in as few model calls as the row limit allows, and pin failures to their rows.

    A call that raises, runs out of memory or gives an answer of the wrong shape is repeated with each half
    of its rows, down to single rows. If all of n rows fail that takes 2n - 1 calls, so there is a bound.

    Parameters
    ----------
    model : Predictor
        Already warmed; only read.
    values : Values
        With the codes of the model's signature.
    max_rows : int
        Rows of one model call; bounds peak memory.
    patience_seconds : float
        Time after which rows that fail together are no longer told apart, and all of them fail.
    clock : callable
        Gives seconds.

    Returns
    -------
    Outcome
        Row i answers input row i. A row on which the model raised, or whose answer is NaN or infinite, has a
        ``model_error`` instead.
    """
    rows = len(values)
    pending = [(start, min(start + max_rows, rows)) for start in range(0, rows, max_rows)][::-1]
    pieces: list[Piece] = []
    errors: dict[int, RowError] = {}
    calls = bisections = 0
    began = clock()
    while pending:
        start, stop = pending.pop()
        calls += 1
        try:
            answer = model.predict(values[start:stop])
            check_shape(answer, stop - start, model.outputs)
        except Exception as error:  # noqa: BLE001 - a model may raise anything, and only its rows may suffer
            failure = _describe_failure(error)
        else:
            pieces.append(Piece(start, stop, answer))
            continue
        # Outside of the handler: the error, and the large arrays its traceback holds, are gone by now.
        if stop - start == 1:
            errors[start] = RowError("model_error", failure)
        elif clock() - began > patience_seconds:
            together = RowError("model_error", f"{failure}, or on one of its neighbours: no time was left to tell")
            errors.update(dict.fromkeys(range(start, stop), together))
        else:
            bisections += 1
            middle = (start + stop) // 2
            pending += [(middle, stop), (start, middle)]
    seconds = clock() - began
    whole = join_pieces(pieces, rows)
    for row in _find_non_finite(whole):
        errors.setdefault(row, RowError("model_error", "the model returned a non-finite value"))
    return Outcome(whole.predictions, whole.probabilities, errors, calls, bisections, seconds)


def check_shape(answer: Outcome, rows: int, outputs: Sequence[Output]) -> None:
    """Check that an answer has one prediction a row and output, and one probability a class.

    Raises
    ------
    WrongShape
        It has not; taking it would give a row the answer of another.
    """
    if answer.predictions.shape != ((rows,) if len(outputs) == 1 else (rows, len(outputs))):
        raise WrongShape(f"the model returned predictions of shape {answer.predictions.shape} for {rows} row(s)")
    class_count = sum(len(output.classes or ()) for output in outputs)
    if answer.probabilities is not None and answer.probabilities.shape != (rows, class_count):
        raise WrongShape(
            f"the model returned probabilities of shape {answer.probabilities.shape} for {rows} row(s)"
            f" and {class_count} classes"
        )


def find_likeliest(probabilities: Matrix) -> npt.NDArray[np.intp]:
    """Return the place of each row's highest probability, the first of equal ones: what decides every label."""
    if probabilities.shape[1] == 2:  # argmax along so short an axis costs more than a fast model
        return (probabilities[:, 1] > probabilities[:, 0]).astype(np.intp)
    likeliest: npt.NDArray[np.intp] = probabilities.argmax(axis=1)
    return likeliest


def _describe_failure(error: Exception) -> str:
    if isinstance(error, WrongShape):
        return str(error)
    if isinstance(error, MemoryError):
        return "the model ran out of memory on this row"
    # The class alone: a message may quote a path or a secret.
    return f"the model raised {type(error).__name__} on this row"


def join_pieces(pieces: list[Piece], rows: int) -> Outcome:
    """Put predictions and probabilities of pieces into an outcome of so many rows, without their errors."""
    if len(pieces) == 1 and pieces[0].stop - pieces[0].start == rows:
        return pieces[0].answer
    if not pieces:
        return Outcome(np.full(rows, None, dtype=object))
    if sum(piece.stop - piece.start for piece in pieces) == rows:
        answers = [piece.answer for piece in sorted(pieces, key=lambda piece: piece.start)]
        joined = [answer.probabilities for answer in answers if answer.probabilities is not None]
        predictions = np.concatenate([answer.predictions for answer in answers])
        return Outcome(predictions, np.concatenate(joined) if joined else None)
    first = pieces[0].answer
    kind = np.result_type(*(piece.answer.predictions for piece in pieces))
    predictions = np.zeros((rows, *first.predictions.shape[1:]), kind)
    probabilities = None if first.probabilities is None else np.zeros((rows, first.probabilities.shape[1]))
    for start, stop, answer in pieces:
        predictions[start:stop] = answer.predictions
        if probabilities is not None:
            probabilities[start:stop] = answer.probabilities
    return Outcome(predictions, probabilities)


def _find_non_finite(answer: Outcome) -> list[int]:
    bad = np.zeros(len(answer.predictions), dtype=bool)
    for values in (answer.predictions, answer.probabilities):
        # Looking at each row costs ten times as much, and is hardly ever needed.
        if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
            bad |= ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return np.flatnonzero(bad).tolist() if bad.any() else []


def _blank_failed(values: list[Any], errors: dict[int, RowError]) -> list[Any]:
    for row in errors:
        values[row] = None
    return values
