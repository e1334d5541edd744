"""The demo's checks find what is wrong: a check that cannot fail proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from scorequeue.demo_checks import Answer, Differences, compare_answers, compare_files, list_answers

EXPECTED = [Answer("benign", [0.9, 0.1]), Answer("malignant", [0.2, 0.8])]
SOURCE = b"id,a\n1,0.5\n2,0.7\n"
HEADER = b"id,a,prediction,probability_benign,probability_malignant,error_code,error_message\n"
GOOD = HEADER + b"1,0.5,benign,0.9,0.1,,\n2,0.7,malignant,0.2,0.8,,\n"


@pytest.fixture
def differences() -> Differences:
    """Nothing found yet."""
    return Differences()


def test_equal_within_the_tolerance(differences: Differences) -> None:
    """The same label with numbers that differ in the tenth digit is equal."""
    compare_answers([Answer("benign", [0.9 + 1e-10, 0.1])], EXPECTED, differences, "job")
    assert (differences.compared, differences.found) == (1, 0)


@pytest.mark.parametrize(
    "wrong",
    [Answer("malignant", [0.9, 0.1]), Answer("benign", [0.90001, 0.1]), Answer("benign", []), Answer(None, [0.9, 0.1])],
)
def test_a_wrong_answer_is_found(differences: Differences, wrong: Answer) -> None:
    """Another label, another probability, or none, is a difference that names its place."""
    compare_answers([wrong], EXPECTED, differences, "job")
    assert differences.found == 1
    assert differences.shown[0].startswith("job 0")


def test_answers_repeat_with_their_rows(differences: Differences) -> None:
    """When the rows were submitted over and over, so are the answers that are expected."""
    compare_answers([*EXPECTED, EXPECTED[0], EXPECTED[0]], EXPECTED, differences, "job")
    assert (differences.compared, differences.found) == (4, 1)


def test_a_regression_has_no_probabilities(differences: Differences) -> None:
    """Numbers are compared within the tolerance, without probabilities."""
    got = list_answers({"predictions": [1.0, 2.0]})
    compare_answers(got, list_answers({"predictions": [1.0 + 1e-9, 2.1], "probabilities": None}), differences, "row")
    assert differences.found == 1


@pytest.mark.parametrize(
    ("scored", "found"),
    [
        (GOOD, 0),
        (GOOD.replace(b"0.7,malignant", b"0.70,malignant"), 2),
        (GOOD.replace(b"0.2,0.8", b"0.3,0.7"), 1),
        (GOOD.replace(b"malignant,0.2,0.8,,", b",,,missing_value,a is missing"), 1),
        (GOOD + b"3,0.9,benign,1,0,,\n", 1),
        (HEADER + b"1,0.5,benign,0.9,0.1,,\n", 2),
        (HEADER + b"2,0.7,malignant,0.2,0.8,,\n1,0.5,benign,0.9,0.1,,\n", 3),
    ],
    ids=["good", "reformatted", "wrong", "failed row", "a row too many", "a row missing", "order"],
)
def test_a_file_is_compared_line_by_line(tmp_path: Path, differences: Differences, scored: bytes, found: int) -> None:
    """A changed byte, a wrong answer, a failed, missing or additional row is found in the scored file."""
    (tmp_path / "in.csv").write_bytes(SOURCE)
    (tmp_path / "out.csv").write_bytes(scored)
    compare_files(tmp_path / "in.csv", tmp_path / "out.csv", EXPECTED, differences)
    assert differences.found == found
