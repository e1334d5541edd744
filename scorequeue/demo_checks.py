"""Compare the service's answers with the model's own, and its output with the input.

It only compares, and neither asks the service nor calls a model.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Relative difference that a number may have, by the definition of *exact* in the design.
RELATIVE_TOLERANCE = 1e-6
#: Differences that are listed.
_SHOWN = 5


@dataclass(frozen=True)
class Answer:
    """What is said of one row: a label or a number, and the probability of each class if there are any."""

    prediction: Any
    probabilities: Sequence[float]

    def equals(self, other: Answer) -> bool:
        """Whether the labels are the same and the numbers within the tolerance."""
        if len(self.probabilities) != len(other.probabilities):
            return False
        pairs = [*zip(self.probabilities, other.probabilities, strict=True)]
        if isinstance(self.prediction, float) and isinstance(other.prediction, float):
            pairs.append((self.prediction, other.prediction))
        elif self.prediction != other.prediction:
            return False
        return all(math.isclose(one, two, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-12) for one, two in pairs)


class Differences:
    """Gathers what was compared and what differed."""

    def __init__(self) -> None:
        self.compared = 0
        self.found = 0
        self.shown: list[str] = []

    def compare(self, place: str, got: Answer, expected: Answer) -> None:
        """Compare one answer."""
        self.compared += 1
        if not got.equals(expected):
            self.note(f"{place}: {got} instead of {expected}")

    def note(self, text: str) -> None:
        """Add a difference of another kind."""
        self.found += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(text)


def read_direct_answers(path: Path) -> list[Answer]:
    """Read what ``python -m worker predict`` wrote."""
    return list_answers(json.loads(path.read_bytes()))


def list_answers(result: Mapping[str, Any]) -> list[Answer]:
    """Take a result apart, a rows job's or the directly called model's, into an answer a row."""
    predictions = result["predictions"]
    probabilities = result.get("probabilities") or [()] * len(predictions)
    return [Answer(*pair) for pair in zip(predictions, probabilities, strict=True)]


def compare_answers(got: Iterable[Answer], expected: Sequence[Answer], differences: Differences, place: str) -> None:
    """Compare answer by answer; where there are more than are expected, these are expected over again."""
    for number, answer in enumerate(got):
        differences.compare(f"{place} {number}", answer, expected[number % len(expected)])


def compare_files(source: Path, scored: Path, expected: Sequence[Answer], differences: Differences) -> None:
    """Compare a scored CSV with its input and with the direct answers, line by line.

    Parameters
    ----------
    source : Path
        A CSV without quoted newlines, so that a line is a record.
    scored : Path
        What the service made of it: every line as it was, and the new columns.
    expected : sequence of Answer, length n_rows
    differences : Differences
        Gets what differs.
    """
    with open(source, "rb") as lines, open(scored, "rb") as scored_lines:
        added = [rest for rest in _split_added(lines, scored_lines, differences) if rest is not None]
    if len(added) != len(expected) + 1:
        differences.note(f"{scored.name} has {len(added) - 1:,} scored rows instead of {len(expected):,}")
        return
    for number, (row, answer) in enumerate(zip(csv.DictReader(added), expected, strict=True), start=1):
        if row["error_code"]:
            differences.note(f"row {number}: {row['error_code']}, {row['error_message']}")
            continue
        probabilities = [float(text) for name, text in row.items() if name.startswith("probability_")]
        differences.compare(f"row {number}", Answer(row["prediction"], probabilities), answer)


def _split_added(
    lines: Iterable[bytes], scored_lines: Iterable[bytes], differences: Differences
) -> Iterator[str | None]:
    """Yield what the service added to each line, or None where the line is not what it was."""
    scored = iter(scored_lines)
    for number, line in enumerate(lines, start=1):
        prefix = line.rstrip(b"\r\n") + b","
        scored_line = next(scored, b"")
        if scored_line.startswith(prefix):
            yield scored_line[len(prefix) :].decode()
        else:
            differences.note(f"line {number}: {scored_line[:60]!r} does not begin as its input {prefix[:60]!r}")
            yield None
    extra = sum(1 for _ in scored)
    if extra:
        differences.note(f"{extra:,} lines more than the input")
