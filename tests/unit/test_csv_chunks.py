"""Scoring of one chunk of a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from shared.signature import Column, Label, Signature
from shared.values import Values
from worker.chunks import ChunkMismatch, ScoredChunk
from worker.csv_chunks import score_chunk
from worker.scoring import Outcome, RowError


def add_columns(values: Values) -> Outcome:
    """Answer like a regressor: the sum of a row."""
    return Outcome(values.matrix.sum(axis=1))


def find_sign(values: Values) -> Outcome:
    """Answer like a classifier of the labels 0 and 1, with their probabilities."""
    high = 1 / (1 + np.exp(-values.matrix[:, 0]))
    return Outcome((high > 0.5).astype(np.int64), np.column_stack((1 - high, high)))


def sign(nullable: str = "", names: str = "ab", classes: tuple[Label, ...] | None = None) -> Signature:
    """Make a signature of columns with names of one letter, some of them nullable."""
    columns = tuple(Column(name, nullable=name in nullable) for name in names)
    return Signature(columns, "classification" if classes else "regression", classes)


def score(data: bytes, columns: str = "a,b", **options: Any) -> ScoredChunk:
    """Score data whose model reads `a` and `b`, with the count of rows that its newlines suggest."""
    arguments: dict[str, Any] = {
        "columns": columns.split(","),
        "signature": sign(),
        "delimiter": b",",
        "predict": add_columns,
        "expected_rows": len(data.splitlines()),
        "first_row": 0,
        "first_line": 2,
    }
    return score_chunk(data, **{**arguments, **options})


def list_errors(scored: ScoredChunk) -> list[dict[str, Any]]:
    """Return the errors as they were written."""
    return [msgspec.json.decode(line) for line in scored.errors.splitlines()]


def list_codes(scored: ScoredChunk) -> list[tuple[int, str, str | None]]:
    """Return row, code and column of each error."""
    return [(error["row"], error["code"], error["column"]) for error in list_errors(scored)]


def test_records_come_back_with_the_new_columns() -> None:
    """Each record keeps its bytes and its newline, and gets the new cells between them."""
    scored = score(b'1,2\r\n" 3",0.5\n4 ,-1e1')

    assert scored == (b'1,2,3,,\r\n" 3",0.5,3.5,,\n4 ,-1e1,-6,,', b"", 3, 0)


def test_classifier_adds_a_probability_a_class() -> None:
    """Label and probabilities stand in the order of the classes, with digits enough to read them back."""
    scored = score(b"0,2\n3,4\n", predict=find_sign, signature=sign(classes=(0, 1)))

    high = float(1 / (1 + np.exp(-3.0)))
    assert scored.data == f"0,2,0,0.5,0.5,,\n3,4,1,{1 - high!r},{high!r},,\n".encode()


def test_columns_are_found_by_name() -> None:
    """Columns in another order and columns that the model does not use do not matter."""
    scored = score(
        b'x,2,"y\n",1\n,4,,3\n', "id,b,note,a", predict=find_sign, signature=sign(classes=(0, 1)), expected_rows=2
    )

    assert (scored.succeeded, scored.failed) == (2, 0)
    assert scored.data.startswith(b'x,2,"y\n",1,1,')


def test_unused_columns_need_not_be_utf8() -> None:
    """Bytes that are not UTF-8 pass through untouched, and fail only the row whose own number they spoil."""
    scored = score(b"\xff\xfe,1,2\nx,\xff,2\n\xfe,x,2\n", "id,a,b")

    assert scored.data.startswith(b"\xff\xfe,1,2,3,,\nx,\xff,2,,malformed_row,")
    assert list_codes(scored) == [(2, "malformed_row", "a"), (3, "type_error", "a")]


def test_bad_rows_are_told_with_row_line_and_column() -> None:
    """A row that cannot be read has empty predictions and its error, here and in the list."""
    scored = score(b'1,2\n"x\ny",2\n3,4\n', expected_rows=3, first_row=10, first_line=15)

    detail = r"row 12, line 16, column 'a': found 'x\ny', expected a number"
    assert scored.data == b'1,2,3,,\n"x\ny",2,,type_error,"' + detail.encode() + b'"\n3,4,7,,\n'
    assert list_errors(scored) == [{"row": 12, "line": 16, "column": "a", "code": "type_error", "detail": detail}]
    assert (scored.succeeded, scored.failed) == (2, 1)


@pytest.mark.parametrize(
    ("record", "code", "column", "detail"),
    [
        ("1", "malformed_row", None, "found 1 field(s), expected 2 fields"),
        ("1,2,3", "malformed_row", None, "found 3 field(s), expected 2 fields"),
        ("", "malformed_row", None, "found a blank line, expected 2 fields"),
        ("1,", "missing_value", "b", "the value is missing, expected a number"),
        ('1,""', "missing_value", "b", "the value is missing, expected a number"),
        (" NA ,x", "missing_value", "a", "the value is missing, expected a number"),
        ("1,inf", "non_finite", "b", "found 'inf', expected a finite number"),
        ("-Infinity,1", "non_finite", "a", "found '-Infinity', expected a finite number"),
        ("1,1e999", "non_finite", "b", "found '1e999', expected a number below 1.8e308 in size"),
        ("1,x", "type_error", "b", "found 'x', expected a number"),
        ("1,0x10", "type_error", "b", "found '0x10', expected a number"),
        ("1," + "x" * 41, "type_error", "b", f"found '{'x' * 40}…', expected a number"),
        ("\ufeff1,1", "type_error", "a", r"found '\ufeff1', expected a number"),
    ],
)
@pytest.mark.parametrize("neighbour", ["5,6", "5,x"])
def test_each_fault_has_its_code(record: str, code: str, column: str | None, detail: str, neighbour: str) -> None:
    """A fault has the same code and detail whether the other rows are good or not."""
    scored = score(f"{record}\n{neighbour}\n".encode(), expected_rows=2)

    fault = list_errors(scored)[0]
    assert (fault["row"], fault["code"], fault["column"]) == (1, code, column)
    assert fault["detail"].endswith(": " + detail)
    assert scored.data.startswith(record.encode() + b",," + code.encode() + b",")


@pytest.mark.parametrize("text", ["1", "+1", " 1\t", "1.", "01", "1e0", ".1E+1", "10e-1", '"1"', '" 1"', '"1".'])
@pytest.mark.parametrize("neighbour", ["5,6", "5,x"])
def test_spellings_of_a_number(text: str, neighbour: str) -> None:
    """Everything that says one is one, whether the other rows are good or not."""
    assert score(f"{text},1\n{neighbour}\n".encode()).data.startswith(f"{text},1,2,,\n".encode())


@pytest.mark.parametrize("text", ["", "NA", "nan", "NAN", "-nan", "+NaN", "null", "None", "<NA>", "#N/A", " ", "n/a"])
@pytest.mark.parametrize("neighbour", ["5,6", "5,x"])
def test_spellings_of_a_missing_value(text: str, neighbour: str) -> None:
    """A missing value fails the row, or reaches the model as NaN if its column may lack one."""
    seen: list[Any] = []

    def predict(values: Values) -> Outcome:
        seen.append(values.matrix)
        return Outcome(np.zeros(len(values)))

    data = f"1,{text}\n{neighbour}\n".encode()
    assert list_codes(score(data))[0] == (1, "missing_value", "b")
    scored = score(data, signature=sign("b"), predict=predict)
    assert scored.data.startswith(f"1,{text},0,,\n".encode())
    assert np.isnan(seen[0][0, 1])


def test_blank_line_is_malformed_even_if_every_column_may_lack_values() -> None:
    """In a file of several columns a blank line is no row of missing values."""
    scored = score(b"1,2\n\n3,4\n", signature=sign("ab"))

    assert list_codes(scored) == [(2, "malformed_row", None)]


@pytest.mark.parametrize("other", [b"1", b"x"])
def test_blank_line_of_a_single_column_is_a_missing_value(other: bytes) -> None:
    """In a file of one column a blank line has one empty field."""
    data = b"\n" + other + b"\r\n\r\n"
    options = {"expected_rows": 3}

    codes = [code for _, code, _ in list_codes(score(data, "a", signature=sign(names="a"), **options))]
    assert [code for code in codes if code != "type_error"] == ["missing_value", "missing_value"]
    lenient = score(
        data, "a", signature=sign("a", "a"), predict=lambda values: Outcome(values.matrix[:, 0] * 0 + 7), **options
    )
    assert lenient.failed == (other == b"x")


def test_model_errors_land_on_their_rows() -> None:
    """A row on which the model failed has its error, also when rows before it never reached the model."""

    def predict(values: Values) -> Outcome:
        return Outcome(values.matrix[:, 0], errors={1: RowError("model_error", "=cmd, refused")})

    scored = score(b"x,2\n1,2\n3,4\n5,6\n", predict=predict)

    assert list_codes(scored) == [(1, "type_error", "a"), (3, "model_error", None)]
    assert scored.data.splitlines()[1:] == [b"1,2,1,,", b'3,4,,model_error,"\'=cmd, refused"', b"5,6,5,,"]


def test_chunk_without_a_good_row_never_calls_the_model() -> None:
    """If no row can be read there is nothing to predict, and all the cells stay empty."""

    def predict(values: Values) -> Outcome:
        raise AssertionError(f"called with {len(values)} rows")

    scored = score(b"x,1\n\n", predict=predict, signature=sign(classes=("n", "y")))

    assert (scored.succeeded, scored.failed) == (0, 2)
    assert scored.data.startswith(b"x,1,,,,type_error,")
    assert b"\n,,,,malformed_row," in scored.data


def test_every_row_may_fail_in_the_model() -> None:
    """If the model fails on all rows, the fillers that it returns are never shown."""

    def predict(values: Values) -> Outcome:
        error = RowError("model_error", "no")
        return Outcome(np.full(len(values), None, dtype=object), errors=dict.fromkeys(range(len(values)), error))

    scored = score(b"1,2\n3,4\n", predict=predict, signature=sign(classes=("n", "y")))

    assert scored.data == b"1,2,,,,model_error,no\n3,4,,,,model_error,no\n"


@pytest.mark.parametrize(
    ("labels", "cells"),
    [
        (np.array(["yes", "no, never"]), [b"yes", b'"no, never"']),
        (np.array(["=x", "-1"], dtype=object), [b"'=x", b"-1"]),
        (np.array([7, -8]), [b"7", b"-8"]),
        (np.array([True, False]), [b"True", b"False"]),
        (np.array([1.0, 0.5]), [b"1.0", b"0.5"]),
    ],
)
def test_labels_are_written_as_in_the_column_names(labels: np.ndarray[Any, Any], cells: Sequence[bytes]) -> None:
    """A label reads like the class in ``probability_<class>``; text is quoted and made harmless."""
    scored = score(
        b"1,2\n3,4\n", predict=lambda values: Outcome(labels), signature=sign(classes=tuple(labels.tolist()))
    )

    assert scored.data == b"1,2,%s,,,,\n3,4,%s,,,,\n" % tuple(cells)


@pytest.mark.parametrize("delimiter", [b";", b"\t", b"|", b" "])
def test_added_columns_use_the_delimiter_of_the_file(delimiter: bytes) -> None:
    """The new cells are separated as the file's own are."""
    data = b"1,2\n1.5,x,\n".replace(b",", delimiter)

    scored = score(data, delimiter=delimiter)

    assert scored.data.startswith(b"1,2,3,,\n1.5,x,,,malformed_row,".replace(b",", delimiter))


def test_names_that_stand_twice_do_not_matter_if_unused() -> None:
    """Columns are read by position, so a doubled name elsewhere is harmless."""
    assert score(b"x,1,y,2\n", "id,a,id,b").data == b"x,1,y,2,3,,\n"


def test_bytes_that_do_not_fit_the_plan_are_refused() -> None:
    """Another number of records than the plan counts means that the input has changed."""
    with pytest.raises(ChunkMismatch, match="counts 3 records from row 6, found 2"):
        score(b"1,2\n3,4\n", expected_rows=3, first_row=5)


def test_wide_records_and_long_fields_are_read() -> None:
    """Ten thousand columns, and a field of megabytes beside the numbers, are no trouble."""
    wide = score(b"1," * 9_999 + b"2\n", ",".join(["a", *(f"x{i}" for i in range(9_998)), "b"]))
    assert wide.data.endswith(b",1,2,3,,\n")
    for last in (b"2", b"x"):
        long = score(b'1,"' + b"y" * (10 << 20) + b'",' + last + b"\n3,,4\n", "a,note,b")
        assert long.data.endswith(b"3,,4,7,,\n")
