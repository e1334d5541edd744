"""Columns written as JSON, many values at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

#: What a JSON string cannot hold as it is.
_TO_BE_ESCAPED = r'["\\\x00-\x1f]'


def write_members(names: Sequence[str], columns: Sequence[pa.Array], *, opening: str) -> pa.Array:
    """Write columns as the members of objects: ``{"a":1,"b":null``, without the end of the object.

    Parameters
    ----------
    names : sequence of str
    columns : sequence of pyarrow.Array
        Of equal lengths, at least one.
    opening : str
        What stands before the first member of each: ``{`` for an object, ``,`` for one that goes on.

    Returns
    -------
    pyarrow.Array of large_binary
        One a row.
    """
    pieces: list[Any] = []
    for index, (name, column) in enumerate(zip(names, columns, strict=True)):
        label = ("," if index else opening) + json.dumps(name, ensure_ascii=False) + ":"
        pieces += [_make_scalar(label), write_cells(column)]
    return pc.binary_join_element_wise(*pieces, _make_scalar(""))


def write_cells(column: pa.Array) -> pa.Array:
    """Write values as JSON; ``null`` for what is missing, and for numbers that JSON does not have.

    Returns
    -------
    pyarrow.Array of large_binary
    """
    kind = column.type
    if pa.types.is_null(kind):
        cells = pa.nulls(len(column), pa.large_binary())
    elif pa.types.is_dictionary(kind):
        cells = write_cells(column.dictionary).take(column.indices)
    elif pa.types.is_floating(kind):
        wide = column.cast(pa.float64())
        cells = pc.if_else(pc.is_finite(wide), wide, None).cast(pa.large_string()).cast(pa.large_binary())
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        cells = column.cast(pa.large_string()).cast(pa.large_binary())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        cells = _write_texts(column)
    else:
        cells = pa.array([None if v is None else msgspec.json.encode(v) for v in column.to_pylist()], pa.large_binary())
    return pc.fill_null(cells, _make_scalar("null"))


def _write_texts(column: pa.Array) -> pa.Array:
    plain = column.cast(pa.large_string())
    if pc.any(pc.match_substring_regex(plain, _TO_BE_ESCAPED)).as_py():
        encoded = plain.dictionary_encode()
        written = [msgspec.json.encode(text) for text in encoded.dictionary.to_pylist()]
        return pa.array(written, pa.large_binary()).take(encoded.indices)
    quote = pa.scalar('"', pa.large_string())
    return pc.binary_join_element_wise(quote, plain, quote, pa.scalar("", pa.large_string())).cast(pa.large_binary())


def _make_scalar(text: str) -> pa.Scalar:
    return pa.scalar(text.encode(), pa.large_binary())
