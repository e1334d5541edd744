"""Rows to bytes and back: the payload that a job carries from the API to a worker.

A payload starts with its version, so that a worker of an older or newer release can tell what it reads
instead of scoring noise.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

_VERSION = 1
_HEADER = struct.Struct("<BII")


class UnknownPayload(ValueError):
    """The payload is of a version that this release cannot read, or it is cut off."""


class NewerPayload(UnknownPayload):
    """A newer release wrote it: its workers can read it."""


def encode_matrix(matrix: Matrix) -> bytes:
    """Encode rows for the way through Redis.

    Parameters
    ----------
    matrix : ndarray of float64, shape (n_rows, n_columns)
    """
    rows, columns = matrix.shape
    return _HEADER.pack(_VERSION, rows, columns) + np.ascontiguousarray(matrix, dtype="<f8").tobytes()


def decode_matrix(payload: bytes) -> Matrix:
    """Decode what `encode_matrix` made.

    Returns
    -------
    ndarray of float64, shape (n_rows, n_columns)
        Read only: it shares the payload's memory.

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
    if version > _VERSION:
        raise NewerPayload(f"payload version {version}; this release reads version {_VERSION}")
    if version != _VERSION:
        raise UnknownPayload(f"payload version {version}; this release reads version {_VERSION}")
    if len(payload) != _HEADER.size + 8 * rows * columns:
        raise UnknownPayload(f"a payload of {rows} x {columns} numbers cannot have {len(payload)} bytes")
    return np.frombuffer(payload, dtype="<f8", offset=_HEADER.size).reshape(rows, columns)
