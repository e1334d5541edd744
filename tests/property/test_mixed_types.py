"""Mixed types: in whatever form rows come, the model gets the frame that they were written from."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyRegressor

from shared.codec import decode_values, encode_values
from shared.signature import INTEGER_LIMIT, Signature
from shared.values import Values, join_values, recode_values
from tests.forms import FILES, READERS
from worker.frames import Framer, read_frame
from worker.signatures import derive_signature

every_form = pytest.mark.parametrize("form", READERS)
every_file = pytest.mark.parametrize("form", FILES)

#: What could be taken for something else: a number, a truth value, a missing value, a mark of CSV or of JSON.
odd_texts = st.sampled_from(["1", "1.0", "true", "NA", "nan", "null", " x ", "a,b", 'say "hi"', "two\nlines", "é", "'"])
texts = odd_texts | st.text("abcé\\\"', ", min_size=1, max_size=4)
numbers = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
wholes = st.integers(1 - INTEGER_LIMIT, INTEGER_LIMIT - 1)


def maybe(cells: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw a cell, or none."""
    return st.none() | cells


@st.composite
def draw_frame(draw: st.DrawFn, text: st.SearchStrategy[str] = texts) -> pd.DataFrame:
    """Draw a frame with a column of each type, missing values among most of them."""
    rows = draw(st.integers(1, 6))

    def draw_cells(cells: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(cells, min_size=rows, max_size=rows))

    sizes = pd.CategoricalDtype(["small", "large", "huge"], ordered=draw(st.booleans()))
    years = pd.CategoricalDtype([2007, 2008, 2009])
    return pd.DataFrame(
        {
            "number": pd.Series(draw_cells(maybe(numbers)), dtype="float64"),
            "single": pd.Series(draw_cells(maybe(singles)), dtype="float32"),
            "whole": pd.Series(draw_cells(wholes), dtype="int64"),
            "masked": pd.Series(draw_cells(maybe(wholes)), dtype="Int64"),
            "truth": pd.Series(draw_cells(st.booleans()), dtype="bool"),
            "perhaps": pd.Series(draw_cells(maybe(st.booleans())), dtype="boolean"),
            "text": pd.Series(draw_cells(maybe(text)), dtype="str"),
            "object": pd.Series(draw_cells(maybe(text)), dtype="object"),
            "size": pd.Series(draw_cells(maybe(st.sampled_from(sizes.categories.tolist()))), dtype=sizes),
            "year": pd.Series(draw_cells(maybe(st.sampled_from([2007, 2008, 2009]))), dtype=years),
        }
    )  # fmt: skip


def describe(frame: pd.DataFrame) -> Signature:
    """Derive the signature of a model that was fitted on a frame, and on missing values where its types have them."""
    signature = derive_signature(DummyRegressor().fit(frame, np.arange(len(frame))), frame)
    columns = tuple(
        msgspec.structs.replace(column, nullable=column.name not in ("whole", "truth")) for column in signature.columns
    )
    return msgspec.structs.replace(signature, columns=columns)


def make_frame(values: Values, signature: Signature) -> pd.DataFrame:
    """Make what the model gets."""
    frame: pd.DataFrame = Framer(signature.columns, named=True).make(values)
    return frame


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Assert that two frames are equal in types, order and every bit."""
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@every_form
@given(frame=draw_frame())
@settings(deadline=None, max_examples=20)
def test_the_model_gets_the_frame_that_was_sent(form: str, frame: pd.DataFrame) -> None:
    """Types, values, missing values and the order of rows are the same, whatever the form."""
    signature = describe(frame)

    values, faults = READERS[form](frame, signature)

    assert not faults
    assert_same(make_frame(values, signature), frame)
    assert_same(make_frame(read_frame(frame, signature.columns), signature), frame)


@every_form
@given(trained=draw_frame(), sent=draw_frame(st.text("abxyz", min_size=1, max_size=3)))
@settings(deadline=None, max_examples=15)
def test_texts_that_were_never_seen_reach_the_model(form: str, trained: pd.DataFrame, sent: pd.DataFrame) -> None:
    """Texts that are no categories come to the model as they are, next to those that are."""
    signature = describe(trained)

    values, faults = READERS[form](sent, signature)

    assert not faults
    found = make_frame(values, signature)
    assert found["text"].tolist() == make_frame(read_frame(sent, signature.columns), signature)["text"].tolist()
    for name in ("text", "object"):
        assert found[name].isna().tolist() == sent[name].isna().tolist()
        assert found[name].dropna().tolist() == sent[name].dropna().tolist()
    numeric = ["number", "single", "whole", "truth"]
    assert_same(found[numeric], sent[numeric])


@given(frames=st.lists(draw_frame(st.sampled_from("abcdef")), min_size=2, max_size=4))
@settings(deadline=None, max_examples=20)
def test_jobs_in_one_call_keep_their_own_texts(frames: list[pd.DataFrame]) -> None:
    """Jobs that are joined to one call, each with texts of its own, come apart as they were sent."""
    signature = describe(frames[0])
    parts = [decode_values(encode_values(read_frame(frame, signature.columns))) for frame in frames]

    whole = make_frame(join_values(parts, signature), signature)

    start = 0
    for frame in frames:
        own = whole.iloc[start : start + len(frame)].reset_index(drop=True)
        start += len(frame)
        for name in frame.columns:
            assert [str(cell) for cell in own[name].dropna()] == [str(cell) for cell in frame[name].dropna()]
            assert own[name].isna().tolist() == frame[name].isna().tolist()
    assert start == len(whole)


@given(old=draw_frame(st.sampled_from("abcd")), new=draw_frame(st.sampled_from("cdef")), data=st.data())
@settings(deadline=None, max_examples=20)
def test_rows_change_to_the_codes_of_another_version(old: pd.DataFrame, new: pd.DataFrame, data: st.DataObject) -> None:
    """A shadow that knows other categories gets the same texts as the version that was asked."""
    asked, shadow = describe(old), describe(new)
    sent = data.draw(draw_frame(st.sampled_from("abcdefgh")))

    recoded = recode_values(read_frame(sent, asked.columns), asked, shadow)

    found, expected = make_frame(recoded, shadow), make_frame(read_frame(sent, shadow.columns), shadow)
    for name in sent.columns:
        assert [str(cell) for cell in found[name]] == [str(cell) for cell in expected[name]]


@every_file
@given(frame=draw_frame(), wrong=st.data())
@settings(deadline=None, max_examples=15)
def test_a_faulty_row_harms_no_other(form: str, frame: pd.DataFrame, wrong: st.DataObject) -> None:
    """A row that lacks a value which must be there fails alone; all others are read as if it were not there."""
    guilty = wrong.draw(st.sets(st.integers(0, len(frame) - 1)))
    signature = describe(frame)
    columns = [msgspec.structs.replace(signature.columns[0], nullable=False), *signature.columns[1:]]
    signature = msgspec.structs.replace(signature, columns=tuple(columns))
    sent = frame.assign(number=[None if row in guilty else 0.5 for row in range(len(frame))]).astype({"number": float})

    values, faults = READERS[form](sent, signature)

    assert {row: (fault.code, fault.column) for row, fault in faults.items()} == dict.fromkeys(
        guilty, ("missing_value", "number")
    )
    good = [row for row in range(len(frame)) if row not in guilty]
    if good:
        kept = make_frame(values[np.array(good)], signature)
        assert_same(kept.drop(columns="number"), sent.iloc[good].reset_index(drop=True).drop(columns="number"))
