"""Rows in JSON are checked cell by cell; a fault names its row and column."""

from __future__ import annotations

import numpy as np
import pytest

from shared.errors import ServiceError
from shared.rows import read_rows
from shared.signature import Column, Signature

SIGNATURE = Signature(columns=(Column("a"), Column("b", nullable=True)), task="regression")


def refuse(text: bytes) -> ServiceError:
    """Return the error that rows raise."""
    with pytest.raises(ServiceError) as refusal:
        read_rows(text, SIGNATURE, max_rows=10)
    return refusal.value


@pytest.mark.parametrize(
    "text",
    [b"[[1,2.5],[3,4]]", b'[{"a":1,"b":2.5},{"b":4,"a":3}]', b'[{"a":1,"b":2.5},[3,4]]', b"[[1.0,25e-1],[3,4.0]]"],
    ids=["lists", "objects", "mixed", "exponents"],
)
def test_rows_are_read_in_the_signature_order(text: bytes) -> None:
    """Lists and objects give the same values."""
    np.testing.assert_array_equal(read_rows(text, SIGNATURE, max_rows=10).matrix, [[1, 2.5], [3, 4]])


@pytest.mark.parametrize("text", [b"[[1,null]]", b'[{"a":1,"b":null}]', b'[{"a":1}]'], ids=["list", "null", "left out"])
def test_missing_value_is_nan_where_the_model_allows_it(text: bytes) -> None:
    """A nullable column may be null, or left out of an object."""
    matrix = read_rows(text, SIGNATURE, max_rows=10).matrix

    assert matrix[0, 0] == 1
    assert np.isnan(matrix[0, 1])


@pytest.mark.parametrize(
    ("text", "pointer", "column", "code"),
    [
        (b"[[1,2],[null,2]]", "#/rows/1/0", "a", "missing_value"),
        (b'[[1,2],["x",2]]', "#/rows/1/0", "a", "type_error"),
        (b"[[true,2]]", "#/rows/0/0", "a", "type_error"),
        (b"[[[1],2]]", "#/rows/0/0", "a", "type_error"),
        (b"[[NaN,2]]", "#/rows/0/0", "a", "non_finite"),
        (b"[[1,-Infinity]]", "#/rows/0/1", "b", "non_finite"),
        (b"[[1e999,2]]", "#/rows/0/0", "a", "non_finite"),
        (b"[[1" + b"0" * 400 + b",2]]", "#/rows/0/0", "a", "non_finite"),
        (b"[[1]]", "#/rows/0", None, "malformed_row"),
        (b"[[1,2,3]]", "#/rows/0", None, "malformed_row"),
        (b"[[]]", "#/rows/0", None, "malformed_row"),
        (b"[1]", "#/rows/0", None, "malformed_row"),
        (b'[{"a":1,"c~/d":2}]', "#/rows/0/c~0~1d", "c~/d", "malformed_row"),
        (b'[{"b":1}]', "#/rows/0/a", "a", "missing_value"),
        (b"[]", "#/rows", None, "malformed_row"),
        (b"{}", "#/rows", None, "malformed_row"),
        (b"null", "#/rows", None, "malformed_row"),
    ],
)
def test_fault_names_its_place(text: bytes, pointer: str, column: str | None, code: str) -> None:
    """Each fault says which row and column, by a JSON Pointer."""
    error = refuse(text)

    assert error.code == "schema_mismatch"
    assert [(fault["pointer"], fault.get("column"), fault["code"]) for fault in error.errors] == [
        (pointer, column, code)
    ]


def test_first_hundred_faults_are_listed() -> None:
    """A file of nonsense does not make an answer of its size."""
    with pytest.raises(ServiceError) as refusal:
        read_rows(b"[" + b",".join([b'["x","y"]'] * 200) + b"]", SIGNATURE, max_rows=1000)
    error = refusal.value

    assert len(error.errors) == 100
    assert "200 of 200 rows" in error.detail


def test_too_many_rows_are_refused() -> None:
    """More rows than a rows job takes belong into a file."""
    assert refuse(b"[" + b",".join([b"[1,2]"] * 11) + b"]").code == "payload_too_large"


@pytest.mark.parametrize("text", [b"", b"[", b"[[1,2]", b"{'a':1}", b"\xff", b"[" * 100_000], ids=repr)
def test_other_texts_are_not_json(text: bytes) -> None:
    """What is not JSON is told as such."""
    assert refuse(text).code == "malformed_json"
