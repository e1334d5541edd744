"""Rows to bytes and back: the payload that a job carries from the API to a worker.

A payload starts with its version, so that a worker of an older or newer release can tell what it reads
instead of scoring noise.
"""

from __future__ import annotations

import struct

import msgspec
import numpy as np

from shared.signature import Label
from shared.values import Values

#: A matrix alone.
_PLAIN = 1
#: A matrix, and in JSON the values that are no categories.
_WITH_OTHERS = 2
_HEADER = struct.Struct("<BII")

_OTHERS = msgspec.json.Decoder(tuple[Label, ...])


class UnknownPayload(ValueError):
    """The payload is of a version that this release cannot read, or it is cut off."""


class NewerPayload(UnknownPayload):
    """A newer release wrote it: its workers can read it."""


def encode_values(values: Values) -> bytes:
    """Encode rows for the way through Redis."""
    rows, columns = values.matrix.shape
    version, rest = (_WITH_OTHERS, msgspec.json.encode(values.others)) if values.others else (_PLAIN, b"")
    return _HEADER.pack(version, rows, columns) + np.ascontiguousarray(values.matrix, dtype="<f8").tobytes() + rest


def decode_values(payload: bytes) -> Values:
    """Decode what `encode_values` made.

    Returns
    -------
    Values
        Its matrix is read only: it shares the payload's memory.

    Raises
    ------
    NewerPayload
        A newer release wrote it.
    UnknownPayload
        It was never a payload, or bytes are missing.
    """
    if len(payload) < _HEADER.size:
        raise UnknownPayload(f"a payload of {len(payload)} bytes is cut off")
    version, rows, columns = _HEADER.unpack_from(payload)
    if version > _WITH_OTHERS:
        raise NewerPayload(f"payload version {version}; this release reads versions up to {_WITH_OTHERS}")
    if version < _PLAIN:
        raise UnknownPayload(f"payload version {version}; this release reads versions from {_PLAIN}")
    end = _HEADER.size + 8 * rows * columns
    if len(payload) < end or (version == _PLAIN and len(payload) > end):
        raise UnknownPayload(f"a payload of {rows} x {columns} numbers cannot have {len(payload)} bytes")
    matrix = np.frombuffer(payload, dtype="<f8", count=rows * columns, offset=_HEADER.size).reshape(rows, columns)
    return Values(matrix, _read_others(payload[end:]) if version == _WITH_OTHERS else ())


def _read_others(text: bytes) -> tuple[Label, ...]:
    try:
        return _OTHERS.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnknownPayload(f"the texts of a payload cannot be read: {error}") from error
