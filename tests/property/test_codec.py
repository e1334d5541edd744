"""Rows come out of a payload as they went in; anything else is refused, never scored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codec import NewerPayload, UnknownPayload, decode_values, encode_values
from shared.signature import Label
from shared.values import Values

SHAPES = st.tuples(st.integers(0, 20), st.integers(1, 8))
#: What is no category of a column.
OTHERS = st.lists(
    st.text(st.characters(codec="utf-8")) | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.booleans(),
    max_size=4,
).map(tuple)


@given(shape=SHAPES, others=OTHERS, data=st.data())
def test_rows_survive_exactly(shape: tuple[int, int], others: tuple[Label, ...], data: st.DataObject) -> None:
    """Every bit of every number comes back, NaN included, and each text with its type."""
    numbers = data.draw(st.lists(st.floats(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    matrix = np.array(numbers, dtype=np.float64).reshape(shape)
    others = tuple(label for label in others if label not in (np.inf, -np.inf))

    again = decode_values(encode_values(Values(matrix, others)))

    assert again.matrix.shape == matrix.shape
    assert again.matrix.tobytes() == matrix.tobytes()
    assert (again.others, list(map(type, again.others))) == (others, list(map(type, others)))


@given(shape=SHAPES, others=OTHERS, cut=st.integers(1, 50))
def test_cut_payload_is_refused(shape: tuple[int, int], others: tuple[Label, ...], cut: int) -> None:
    """A payload that lost bytes is an error."""
    payload = encode_values(Values(np.zeros(shape), others))

    with pytest.raises(UnknownPayload):
        decode_values(payload[: max(0, len(payload) - cut)])


def test_payload_of_numbers_alone_is_one_that_older_workers_read() -> None:
    """Only values that are no categories need the second version of payloads."""
    assert encode_values(Values(np.zeros((1, 1))))[0] == 1
    assert encode_values(Values(np.zeros((1, 1)), ("Mars",)))[0] == 2


def test_payload_of_another_release_is_refused() -> None:
    """A payload says its version, and only the known ones are read."""
    payload = encode_values(Values(np.zeros((1, 1))))

    with pytest.raises(NewerPayload, match="version 9"):
        decode_values(b"\x09" + payload[1:])
    with pytest.raises(UnknownPayload, match="version 0"):
        decode_values(b"\x00" + payload[1:])
