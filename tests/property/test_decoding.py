"""Compressed bodies: whole or refused, whatever the blocks in which they come, and never a bomb."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.decoding import decode_blocks
from shared.errors import ServiceError
from tests.packers import PACKERS

encodings = pytest.mark.parametrize("encoding", PACKERS)
LIMIT = 1 << 30


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """Give the data in blocks."""
    return (data[start : start + size] for start in range(0, len(data), size))


def unpack(data: bytes, encoding: str, size: int = 1 << 16, limit: int = LIMIT) -> bytes:
    """Unpack a whole body."""
    return b"".join(decode_blocks(cut(data, size), encoding, limit))


@encodings
@given(parts=st.lists(st.binary(max_size=3_000), min_size=1, max_size=4), size=st.integers(1, 700))
def test_every_byte_comes_back(encoding: str, parts: list[bytes], size: int) -> None:
    """One member or several, in blocks of any size: the bytes are those that were packed."""
    packed = b"".join(PACKERS[encoding](part) for part in parts)

    assert unpack(packed, encoding, size) == b"".join(parts)


@encodings
@given(data=st.binary(max_size=2_000), end=st.floats(0, 0.999))
def test_body_without_its_end_mark_is_refused(encoding: str, data: bytes, end: float) -> None:
    """Cut off anywhere, even before the first byte, it is incomplete."""
    packed = PACKERS[encoding](data)

    with pytest.raises(ServiceError) as refusal:
        unpack(packed[: int(len(packed) * end)], encoding)

    assert refusal.value.code == "incomplete_upload"


@encodings
@pytest.mark.parametrize("rubbish", [b"a,b\n1,2\n" * 100, bytes(range(256)) * 8])
def test_what_is_not_packed_is_told(encoding: str, rubbish: bytes) -> None:
    """Plain text that calls itself compressed is malformed, and so is what follows an end mark."""
    for data in (rubbish, PACKERS[encoding](b"a,b\n") + rubbish):
        with pytest.raises(ServiceError) as refusal:
            unpack(data, encoding)
        assert refusal.value.code == "malformed_file"


def test_altered_bytes_are_noticed() -> None:
    """The checksum of a gzip member is compared."""
    packed = bytearray(gzip.compress(b"a,b\n1,2\n" * 50))
    packed[-6] ^= 1

    with pytest.raises(ServiceError, match="not gzip") as refusal:
        unpack(bytes(packed), "gzip")

    assert refusal.value.code == "malformed_file"


@encodings
def test_bomb_is_refused_before_it_goes_off(encoding: str) -> None:
    """What unpacks to a thousand times its size, or past the limit, is refused on the way, a block at a time."""
    bomb = PACKERS[encoding](b"\0" * (64 << 20))
    if encoding == "gzip":  # which never packs by much more than a thousand
        bomb = gzip.compress(b"\0" * (200 << 20), 9)
    sizes: list[int] = []

    with pytest.raises(ServiceError) as refusal:
        sizes.extend(map(len, decode_blocks(cut(bomb, 1 << 16), encoding, LIMIT)))

    assert refusal.value.code == "payload_too_large"
    assert max(sizes) <= 1 << 18
    with pytest.raises(ServiceError, match="more than 1000 bytes"):
        unpack(PACKERS[encoding](b"a,b\n" * 1_000), encoding, limit=1_000)
