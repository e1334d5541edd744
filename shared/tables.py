"""Parts of results as Arrow tables: as rows of Parquet files are kept, and as results become of another format."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from shared.columns import added_columns

_CODECS = pa.ipc.IpcWriteOptions(compression="lz4")


def added_fields(classes: Sequence[object] | None, prefix: str = "") -> list[pa.Field]:
    """Return the fields of the columns that scoring adds.

    Parameters
    ----------
    classes : sequence or None
        The class labels in the order of the probabilities; None for a regression.
    prefix : str
        Put before each name.
    """
    prediction, *probabilities, code, message = added_columns(classes, prefix)
    label = _label_type(classes)
    types = [label, *[pa.float64()] * len(probabilities), pa.string(), pa.string()]
    return [pa.field(name, kind) for name, kind in zip((prediction, *probabilities, code, message), types, strict=True)]


def write_table(table: pa.Table) -> bytes:
    """Write a table as an Arrow stream: the same bytes for the same table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_CODECS) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def read_table(data: bytes) -> pa.Table:
    """Read what `write_table` wrote."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()


def _label_type(classes: Sequence[object] | None) -> pa.DataType:
    if classes is None:
        return pa.float64()
    kinds = {type(label) for label in classes}
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    return types.get(kinds.pop(), pa.string()) if len(kinds) == 1 else pa.string()
