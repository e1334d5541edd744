"""What registration finds out about an estimator by asking it: what it reads, and its manners.

Nothing is concluded from the names of classes where it can be tried on the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shared.signature import Signature
from shared.values import Values
from worker.backend_checks import mix_rows
from worker.backends import EstimatorRunner
from worker.frames import read_frame
from worker.signatures import Rows, derive_signature
from worker.unseen import decide_unseen

#: Rows on which `predict` and the most probable class are compared; more only costs time.
COMPARED_ROWS = 2_000


class Described(NamedTuple):
    """An estimator's signature, and the sample that it was tried on.

    Parameters
    ----------
    signature : Signature
    sample : ndarray or DataFrame
        With the types that the estimator takes.
    values : Values
        The same rows.
    labels_from_probabilities : bool
        Whether its labels are always those of its highest probabilities.
    """

    signature: Signature
    sample: Rows
    values: Values
    labels_from_probabilities: bool


def describe_model(
    estimator: Any, sample: Rows, names: Sequence[str] | None = None, outputs: Sequence[str] = ()
) -> Described:
    """Describe an estimator; `names` are those of its columns.

    Raises
    ------
    ValueError
        The sample does not fit it, or it cannot be served; the message says why.
    """
    sample = _choose_types(estimator, sample)
    signature = derive_signature(estimator, sample, names, outputs)
    values = read_frame(sample, signature.columns)
    runner = EstimatorRunner(estimator, signature.columns, signature.answers)
    follows = _check_answers(runner, sample[:COMPARED_ROWS], values[:COMPARED_ROWS], signature)
    return Described(decide_unseen(signature, values, runner.answer), sample, values, follows)


def _choose_types(estimator: Any, sample: Rows) -> Rows:
    """Return the sample as the estimator takes it: a CSV file does not say which texts were categories."""
    if not hasattr(sample, "iloc") or not hasattr(estimator, "predict"):
        return sample
    texts = [name for name in sample.columns if sample[name].dtype == "str"]
    if not texts:
        return sample
    refusal = _try_predict(estimator, sample)
    if refusal is None:
        return sample
    categorical = sample.astype(dict.fromkeys(texts, "category"))
    if _try_predict(estimator, categorical) is not None:  # then the first one tells more
        raise ValueError(f"the model cannot score the sample: {type(refusal).__name__}: {refusal}") from refusal
    return categorical


def _try_predict(estimator: Any, sample: Rows) -> Exception | None:
    try:
        estimator.predict(sample.iloc[:COMPARED_ROWS])
    except Exception as error:  # noqa: BLE001 - each library refuses in its own way
        return error
    return None


def _check_answers(runner: EstimatorRunner, sample: Rows, values: Values, signature: Signature) -> bool:
    """Check the estimator's manners, and tell whether its labels follow from its probabilities.

    Some classifiers decide otherwise (SVC by its decision function, others by a threshold), so it is tried:
    on the sample and on points half-way between its rows, where the classes meet.
    """
    estimator, rows = runner.estimator, runner.framer.make(values)
    before = rows.copy()
    labels = np.asarray(estimator.predict(rows))
    if not _are_same(labels, np.asarray(estimator.predict(sample))):
        raise ValueError("the estimator answers the sample otherwise when its rows are made again from their values")
    follows = False
    if runner.gives_probabilities and len(runner.outputs) == 1:
        mixed = runner.framer.make(mix_rows(values, signature.columns))
        follows = all(_labels_follow(estimator, probe) for probe in (rows, mixed))
    if not (before.equals(rows) if hasattr(rows, "equals") else np.array_equal(before, rows, equal_nan=True)):
        # A row that is scored again, alone, would then be another row.
        raise ValueError("the estimator alters the rows that it predicts: set copy=True on its steps")
    return follows


def _are_same(answers: npt.NDArray[Any], others: npt.NDArray[Any]) -> bool:
    if answers.dtype.kind != "f" or others.dtype.kind != "f":
        return bool(np.array_equal(answers, others))
    # Sums over an array that lies otherwise in memory may differ in their last bits.
    return bool(np.allclose(answers, others, rtol=1e-9, atol=1e-12, equal_nan=True))


def _labels_follow(estimator: Any, rows: Rows) -> bool:
    likeliest = estimator.classes_.take(np.argmax(estimator.predict_proba(rows), axis=1))
    return bool(np.array_equal(likeliest, estimator.predict(rows)))
