"""The golden sample: rows whose answers registration wrote down, asked again of every model that was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from shared.manifest import GoldenSample, Manifest
from shared.rows import read_rows
from shared.signature import Output, Signature
from shared.values import Values
from worker.outputs import join_probabilities
from worker.scoring import Outcome, check_shape
from worker.signatures import Rows

#: Rows of a golden sample; fewer of a very wide model, whose manifest would grow large.
GOLDEN_ROWS = 16
_MOST_CELLS = 20_000
#: Rows among which they are chosen.
_LOOKED_AT_ROWS = 2_000
#: What another processor's arithmetic may differ by. ONNX models compute in single precision.
TOLERANCE = 1e-6
ONNX_TOLERANCE = 1e-5


class Answering(Protocol):
    """What is asked of a model."""

    @property
    def manifest(self) -> Manifest:
        """What vouches for it."""

    @property
    def outputs(self) -> Sequence[Output]:
        """What it answers to each row."""

    def predict(self, values: Values) -> Outcome:
        """Answer every row in one call."""


class WrongAnswer(ValueError):
    """A model does not answer its golden sample as it did when it was registered."""


def take_golden_sample(estimator: Any, sample: Rows, outputs: Sequence[Output] = (Output(),)) -> GoldenSample:
    """Choose rows of a sample and ask the estimator itself for their answers.

    Raises
    ------
    ValueError
        No row of the sample can be written in JSON and gets an answer that can.
    """
    rows = _choose_rows(sample)
    predictions = np.asarray(estimator.predict(rows))
    asks = hasattr(estimator, "classes_") and hasattr(estimator, "predict_proba")
    probabilities = join_probabilities(estimator.predict_proba(rows), outputs) if asks else None
    answered = _find_finite(predictions) if probabilities is None else _find_finite(predictions, probabilities)
    if not answered.any():
        raise ValueError("the estimator answers no row of the sample with a finite value")
    cells = [row for row, keep in zip(list_cells(rows), answered, strict=True) if keep]
    return GoldenSample(
        rows=tuple(tuple(row) for row in cells),
        predictions=tuple(predictions[answered].tolist()),
        probabilities=None if probabilities is None else tuple(probabilities[answered].tolist()),
    )


def check_golden_sample(model: Answering) -> None:
    """Ask a model its golden sample, through the code that reads and scores jobs.

    Raises
    ------
    WrongAnswer
        An answer differs by more than the tolerance; the message says which row and how.
    Exception
        Whatever the model raises.
    """
    golden = model.manifest.golden_sample
    if golden is None:
        return
    rows = read_golden_rows(golden, model.manifest.signature)
    answer = model.predict(rows)
    check_shape(answer, len(golden.rows), model.outputs)
    tolerance = ONNX_TOLERANCE if model.manifest.format == "onnx" else TOLERANCE
    compare_answers(golden, answer, max(tolerance, model.manifest.backend.tolerance))


def read_golden_rows(golden: GoldenSample, signature: Signature) -> Values:
    """Read the rows of a golden sample as those of a job are read."""
    return read_rows(msgspec.json.encode(golden.rows), signature, max_rows=len(golden.rows))


def compare_answers(golden: GoldenSample, answer: Outcome, tolerance: float) -> None:
    """Compare answers with those that were written down.

    A label may differ only where the two likeliest classes are within the tolerance of each other; of several outputs,
    which are not converted, none may.

    Raises
    ------
    WrongAnswer
        They differ.
    """
    # As objects: texts and numbers may stand beside each other in the answers of several outputs.
    several = answer.predictions.ndim == 2
    expected = np.asarray(
        golden.predictions, dtype=object if several and answer.predictions.dtype.kind != "f" else None
    )
    tied = np.zeros(len(golden.rows), dtype=bool)
    if golden.probabilities is not None:
        wanted = np.asarray(golden.probabilities, dtype=np.float64)
        if answer.probabilities is None:
            raise WrongAnswer("it gives no probabilities any more")
        _refuse_first(_differ(answer.probabilities, wanted, tolerance), "probabilities", answer.probabilities, wanted)
        if not several and wanted.ndim == 2 and wanted.shape[1] > 1:
            second, first = np.partition(wanted, -2, axis=1)[:, -2:].T
            tied = first - second <= tolerance
    if expected.dtype.kind == "f":
        wrong = _differ(np.asarray(answer.predictions, dtype=np.float64), expected, tolerance)
    else:
        wrong = np.asarray([a != b for a, b in zip(answer.predictions.tolist(), expected.tolist(), strict=True)])
    _refuse_first(wrong & ~tied, "prediction", answer.predictions, expected)


def list_cells(rows: Rows) -> list[list[Any]]:
    """Turn rows of an array or a frame into what a caller would write in JSON."""
    values = rows.to_numpy(dtype=object).tolist() if hasattr(rows, "to_numpy") else np.asarray(rows).tolist()
    return [[_to_cell(value) for value in row] for row in values]


def _to_cell(value: Any) -> Any:
    # Missing values have many forms: None, NaN, NaT, pandas.NA. Only they are not equal to themselves, or say None.
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value


def _choose_rows(sample: Rows) -> Rows:
    """Take rows from all over the sample, one with a missing value among them, none with an infinite one."""
    sample = sample[:: max(1, len(sample) // _LOOKED_AT_ROWS)]
    cells = list_cells(sample)
    good = [row for row, values in enumerate(cells) if not any(_is_infinite(value) for value in values)]
    if not good:
        raise ValueError("every row of the sample has an infinite value")
    most = min(GOLDEN_ROWS, max(1, _MOST_CELLS // len(cells[0])))
    places = np.unique(np.linspace(0, len(good) - 1, most).astype(int))
    chosen = [good[place] for place in places]
    gaps = next((row for row in good if None in cells[row]), None)
    if gaps is not None and gaps not in chosen:
        chosen[-1] = gaps
    return sample.iloc[chosen] if hasattr(sample, "iloc") else np.asarray(sample)[chosen]


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and value in (np.inf, -np.inf)


def _find_finite(*answers: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    finite = np.ones(len(answers[0]), dtype=bool)
    for values in answers:
        if values.dtype.kind == "f":
            finite &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return finite


def _differ(found: npt.NDArray[Any], wanted: npt.NDArray[Any], tolerance: float) -> npt.NDArray[np.bool_]:
    if found.shape != wanted.shape:
        raise WrongAnswer(f"its answers have the shape {found.shape}; {wanted.shape} was registered")
    close = np.isclose(found, wanted, rtol=tolerance, atol=tolerance * 1e-3)
    wrong: npt.NDArray[np.bool_] = ~close.reshape(len(close), -1).all(axis=1)
    return wrong


def _refuse_first(wrong: npt.NDArray[np.bool_], what: str, found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        row = int(rows[0])
        raise WrongAnswer(
            f"its {what} for row {row} of the golden sample is {found[row].tolist()!r};"
            f" {wanted[row].tolist()!r} was registered ({len(rows)} of {len(wrong)} rows differ)"
        )
