"""What an estimator answers to each row: one output or several, and probabilities in one matrix for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier

from shared.signature import Label, Output
from shared.values import Matrix


def derive_outputs(estimator: Any, rows: Any, names: Sequence[str] = ()) -> tuple[Output, ...]:
    """Ask an estimator what it answers.

    Parameters
    ----------
    estimator : object
        A fitted classifier or regressor.
    rows : ndarray or DataFrame
        Some rows that it can answer.
    names : sequence of str
        Of its outputs, if there are several; by default their places from 0.

    Raises
    ------
    ValueError
        It cannot score the rows, or has not one value a row and output; there are not so many outputs as names; a class
        is none that JSON can carry; or labels or probabilities do not fit the classes.
    """
    answers = np.asarray(_ask(estimator.predict, rows))
    if len(answers) != len(rows) or answers.ndim not in (1, 2):
        raise ValueError(f"one answer a row is expected; predict gave the shape {answers.shape} for {len(rows)} rows")
    if answers.ndim == 2 and answers.shape[1] == 1:
        raise ValueError("predict gives a table of one column: fit the estimator on a flat target, y.ravel()")
    count = 1 if answers.ndim == 1 else answers.shape[1]
    if names and len(names) != count:
        raise ValueError(f"{len(names)} names were given for {count} output(s)")
    names = names or ([""] if count == 1 else [str(place) for place in range(count)])
    if not is_classifier(estimator):
        return tuple(Output(name) for name in names)
    gives = hasattr(estimator, "predict_proba")
    classes = _list_classes(estimator, count)
    outputs = tuple(Output(name, labels, gives) for name, labels in zip(names, classes, strict=True))
    _check_answers(estimator, rows, answers.reshape(len(answers), -1), outputs)
    return outputs


def join_probabilities(given: Any, outputs: Sequence[Output]) -> Matrix:
    """Put probabilities of all outputs into one matrix, those of the first output, then those of the next.

    Parameters
    ----------
    given : ndarray or list of ndarray
        What `predict_proba` gave: of several outputs a list of matrices, or one matrix with the probability of the
        second of two classes of each output.
    outputs : sequence of Output
    """
    if isinstance(given, list):
        return np.hstack(given)
    matrix = np.asarray(given)
    if len(outputs) < 2:
        return matrix
    return np.stack([1 - matrix, matrix], axis=2).reshape(len(matrix), -1)


def split_probabilities(row: Sequence[float], outputs: Sequence[Output]) -> list[list[float]]:
    """Cut a row of the joined matrix into the probabilities of each output."""
    ends = np.cumsum([len(output.classes or ()) for output in outputs])
    return [list(row[end - len(output.classes or ()) : end]) for end, output in zip(ends, outputs, strict=True)]


def list_classes(estimator: Any, outputs: Sequence[Output]) -> list[list[Any]]:
    """Return the classes of each output as a loaded estimator names them now."""
    return [list(labels) for labels in _list_classes(estimator, len(outputs))]


def _ask(call: Callable[[Any], Any], rows: Any) -> Any:
    try:
        return call(rows)
    except Exception as error:  # each library refuses in its own way
        raise ValueError(f"the model cannot score the sample: {type(error).__name__}: {error}") from error


def _list_classes(estimator: Any, count: int) -> list[tuple[Label, ...]]:
    classes = getattr(estimator, "classes_", ())
    if isinstance(classes, np.ndarray) and count == 1:
        return [_read_labels(classes)]
    if isinstance(classes, np.ndarray):  # of labels that are there or not, what it calls classes are their places
        return [(0, 1)] * count
    if len(classes) != count:
        raise ValueError(f"{type(estimator).__name__} has the classes of {len(classes)} outputs, and answers {count}")
    return [_read_labels(np.asarray(labels)) for labels in classes]


def _read_labels(classes: npt.NDArray[Any]) -> tuple[Label, ...]:
    labels = tuple(classes.tolist())
    for label in labels:
        if not isinstance(label, str | int | float | bool):
            raise ValueError(f"the class {label!r} is no text, number or truth value, so JSON cannot carry it")
    return labels


def _check_answers(estimator: Any, rows: Any, answers: npt.NDArray[Any], outputs: Sequence[Output]) -> None:
    if len(outputs) == 1:  # as many estimators with one output show, each in its own way
        return
    for column, output in zip(answers.T, outputs, strict=True):
        strange = set(column.tolist()).difference(output.classes or ())
        if strange:
            raise ValueError(f"output {output.name!r} gives {strange.pop()!r}, which is none of its classes")
    wanted = (len(rows), sum(len(output.classes or ()) for output in outputs))
    if (
        outputs[0].gives_probabilities
        and join_probabilities(_ask(estimator.predict_proba, rows), outputs).shape != wanted
    ):
        raise ValueError("predict_proba does not give one probability for each class of each output")
