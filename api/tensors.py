"""Tensors of the Open Inference Protocol, in JSON or binary, to cells and back; of models and jobs it knows nothing.

A cell is what JSON has: a number, a text, true or false, or None where a value is missing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from shared.errors import ServiceError

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]  # fmt: skip
Shape = Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]], msgspec.Meta(min_length=1, max_length=8)]
Parameters = dict[str, Any]

#: Size of a binary tensor, in its parameters and in those of an output.
BINARY_SIZE = "binary_data_size"

_NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
_LENGTH = struct.Struct("<I")


class InputTensor(msgspec.Struct, kw_only=True):
    """A tensor that is sent: its elements in JSON, or behind it as ``parameters.binary_data_size`` bytes."""

    name: str
    shape: Shape
    datatype: Datatype
    data: Annotated[list[Any], msgspec.Meta(description="Row by row, flat or nested.")] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    parameters: Parameters = {}


class OutputTensor(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A tensor that is answered."""

    name: str
    shape: Shape
    datatype: Datatype
    data: Annotated[list[Any], msgspec.Meta(description="Row by row, flat.")] | msgspec.UnsetType = msgspec.UNSET
    parameters: Parameters = {}


def read_tensor(tensor: InputTensor, binary: bytes | None) -> list[Any]:
    """Return the cells of a tensor, row by row.

    Parameters
    ----------
    tensor : InputTensor
    binary : bytes or None
        Its bytes, if they came behind the JSON.

    Returns
    -------
    list
        As many as its shape says.

    Raises
    ------
    ServiceError
        ``invalid_parameter``: the elements are not those that shape and datatype say.
    """
    if (binary is None) == (tensor.data is msgspec.UNSET):
        raise _wrong(tensor, f"expected either data, or {BINARY_SIZE} in its parameters")
    cells = _read_json(tensor, tensor.data or []) if binary is None else _read_binary(tensor, binary)
    expected = math.prod(tensor.shape)
    if len(cells) != expected:
        raise _wrong(tensor, f"its shape {tensor.shape} means {expected} elements, and it has {len(cells)}")
    return cells


def write_json(datatype: Datatype, cells: Sequence[Any]) -> list[Any]:
    """Return cells as the data of an output in JSON."""
    return [str(cell) for cell in cells] if datatype == "BYTES" else list(cells)


def write_binary(datatype: Datatype, cells: Sequence[Any]) -> bytes:
    """Return cells as the bytes of an output: little-endian, and each text behind its length."""
    if datatype != "BYTES":
        return np.array(cells, dtype=_NUMPY[datatype]).tobytes()
    texts = [str(cell).encode() for cell in cells]
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)


def choose_datatype(labels: Sequence[object]) -> Datatype:
    """Return the datatype that holds all labels."""
    if all(isinstance(label, bool) for label in labels):
        return "BOOL"
    if any(isinstance(label, bool) or not isinstance(label, int | float) for label in labels):
        return "BYTES"
    return "INT64" if all(isinstance(label, int) for label in labels) else "FP64"


def _read_json(tensor: InputTensor, data: list[Any]) -> list[Any]:
    cells = _flatten(data, len(tensor.shape))
    present = [cell for cell in cells if cell is not None]
    kinds = set(map(type, present))
    if tensor.datatype == "BYTES" and kinds <= {str}:
        return cells
    if tensor.datatype == "BOOL" and kinds <= {bool}:
        return cells
    if tensor.datatype.startswith("FP") and kinds <= {int, float}:
        return _round(cells, tensor.datatype) if tensor.datatype != "FP64" else cells
    if tensor.datatype not in ("BYTES", "BOOL") and kinds <= {int}:
        limits = np.iinfo(_NUMPY[tensor.datatype])
        if all(limits.min <= cell <= limits.max for cell in present):
            return cells
    raise _wrong(tensor, f"not all of its elements are {tensor.datatype}")


def _flatten(data: list[Any], depth: int) -> list[Any]:
    for _ in range(depth - 1):
        if not data or not all(isinstance(element, list) for element in data):
            break
        data = [element for nested in data for element in nested]
    return data


def _round(cells: list[Any], datatype: str) -> list[Any]:
    """Round numbers as their datatype does, so that a tensor means the same in JSON as in binary."""
    kind = _NUMPY[datatype].type
    with np.errstate(over="ignore"):
        return [None if cell is None else float(kind(_to_float(cell))) for cell in cells]


def _to_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _read_binary(tensor: InputTensor, binary: bytes) -> list[Any]:
    if tensor.datatype == "BYTES":
        return _read_texts(tensor, binary)
    kind = _NUMPY[tensor.datatype]
    if len(binary) % kind.itemsize:
        raise _wrong(tensor, f"{len(binary)} bytes are no whole number of {tensor.datatype}")
    found: list[Any] = np.frombuffer(binary, dtype=kind).tolist()
    return found


def _read_texts(tensor: InputTensor, binary: bytes) -> list[Any]:
    texts: list[Any] = []
    start = 0
    while start < len(binary):
        end = start + _LENGTH.size
        if end > len(binary) or (end := end + _LENGTH.unpack_from(binary, start)[0]) > len(binary):
            raise _wrong(tensor, f"text {len(texts)} is longer than the bytes that are left")
        try:
            texts.append(binary[start + _LENGTH.size : end].decode())
        except UnicodeDecodeError:
            raise _wrong(tensor, f"text {len(texts)} is not UTF-8") from None
        start = end
    return texts


def _wrong(tensor: InputTensor, reason: str) -> ServiceError:
    return ServiceError("invalid_parameter", f"Input {tensor.name[:100]!r}: {reason}.")
