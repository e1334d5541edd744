"""Rows come out of a payload as they went in; anything else is refused, never scored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.codec import NewerPayload, UnknownPayload, decode_matrix, encode_matrix

SHAPES = st.tuples(st.integers(0, 20), st.integers(1, 8))


@given(shape=SHAPES, data=st.data())
def test_rows_survive_exactly(shape: tuple[int, int], data: st.DataObject) -> None:
    """Every bit of every number comes back, NaN included."""
    numbers = data.draw(st.lists(st.floats(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    matrix = np.array(numbers, dtype=np.float64).reshape(shape)

    again = decode_matrix(encode_matrix(matrix))

    assert again.shape == matrix.shape
    assert again.tobytes() == matrix.tobytes()


@given(shape=SHAPES, cut=st.integers(1, 50))
def test_cut_payload_is_refused(shape: tuple[int, int], cut: int) -> None:
    """A payload that lost bytes is an error."""
    payload = encode_matrix(np.zeros(shape))

    with pytest.raises(UnknownPayload):
        decode_matrix(payload[: max(0, len(payload) - cut)])


def test_payload_of_another_release_is_refused() -> None:
    """A payload says its version, and only the known one is read."""
    payload = encode_matrix(np.zeros((1, 1)))

    with pytest.raises(NewerPayload, match="version 9"):
        decode_matrix(b"\x09" + payload[1:])
