"""What a model needs of a header, and what scoring adds to it."""

from __future__ import annotations

import pytest

from shared.columns import (
    ColumnCollision,
    added_columns,
    find_collisions,
    missing_columns,
    output_header,
    quote_text,
)
from shared.signature import Output


def test_added_columns_follow_the_classes() -> None:
    """A classification adds a probability a class, if it gives any, a regression none, all with the prefix."""
    assert added_columns([Output(classes=("no", 1))]) == [
        "prediction", "probability_no", "probability_1", "error_code", "error_message",
    ]  # fmt: skip
    assert added_columns([Output(classes=("no", 1), gives_probabilities=False)]) == [
        "prediction", "error_code", "error_message",
    ]  # fmt: skip
    assert added_columns([Output()], "m_") == ["m_prediction", "m_error_code", "m_error_message"]


def test_added_columns_of_several_outputs_carry_their_names() -> None:
    """Predictions of all outputs come first, then the probabilities of each."""
    assert added_columns([Output("color", ("red", "blue")), Output("ripe", (False, True))]) == [
        "prediction_color", "prediction_ripe",
        "probability_color_red", "probability_color_blue", "probability_ripe_False", "probability_ripe_True",
        "error_code", "error_message",
    ]  # fmt: skip


def test_collisions_are_found_and_named() -> None:
    """A header that has an added name already is refused with that name."""
    assert find_collisions(["a", "prediction"], added_columns([Output()])) == ["prediction"]
    with pytest.raises(ColumnCollision, match=r"'prediction'.*column_prefix") as refused:
        output_header(b"a,prediction\n", ["a", "prediction"], [Output()], b",")
    assert (refused.value.code, refused.value.names) == ("column_collision", ["prediction"])


@pytest.mark.parametrize("newline", [b"", b"\n", b"\r\n"])
def test_header_keeps_its_bytes(newline: bytes) -> None:
    """The header comes back as it was, then the new names, then its own newline."""
    header = b'\xef\xbb\xbf"id" , "x;y"'

    written = output_header(header + newline, ["id ", ' "x', 'y"'], [Output(classes=("a;b",))], b";", "p_")

    assert written == header + b';p_prediction;"p_probability_a;b";p_error_code;p_error_message' + newline


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("plain", b"plain"),
        ("größe", "größe".encode()),
        ("a,b", b'"a,b"'),
        ('say "hi"', b'"say ""hi"""'),
        ("two\nlines", b'"two\nlines"'),
        ("=1+1", b"'=1+1"),
        ("@SUM(A1,A2)", b'"\'@SUM(A1,A2)"'),
        ("-x", b"'-x"),
        ("\tx", b"'\tx"),
        ("\rx", b'"\'\rx"'),
        ("-1", b"-1"),
        ("+1.5e3", b"+1.5e3"),
    ],
)
def test_added_text_is_quoted_and_harmless(text: str, cell: bytes) -> None:
    """Text is quoted where CSV demands it, and cannot start a formula; a number is none."""
    assert quote_text(text, b",") == cell


def test_missing_columns_come_with_the_nearest_names() -> None:
    """A column that is not there is named with those that may have been meant."""
    faults = missing_columns(["AGE ", "incme", "id", "sex"], ["age", "income", "sex"])

    assert faults
    assert [(fault.name, fault.nearest) for fault in faults.missing] == [("age", ["AGE "]), ("income", ["incme"])]
    assert faults.duplicated == []


def test_needed_column_that_stands_twice_is_reported() -> None:
    """A doubled name matters only if the model reads it."""
    assert missing_columns(["a", "b", "a", "c", "c"], ["b", "a"]).duplicated == ["a"]
    assert not missing_columns(["a", "b", "c", "c"], ["b", "a"])


def test_missing_columns_of_a_wide_model_are_found_quickly() -> None:
    """Thousands of missing names are all listed; only the first get suggestions."""
    faults = missing_columns([f"x{index}" for index in range(20_000)], [f"y{index}" for index in range(20_000)])

    assert len(faults.missing) == 20_000
    assert faults.missing[-1].nearest == []
