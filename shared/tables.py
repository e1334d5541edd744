"""Parts of results as Arrow tables: as rows of Parquet files are kept, and as results become of another format."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from shared.columns import added_columns
from shared.signature import Output

_CODECS = pa.ipc.IpcWriteOptions(compression="lz4")


def added_fields(outputs: Sequence[Output], prefix: str = "") -> list[pa.Field]:
    """Return the fields of the columns that scoring adds.

    Parameters
    ----------
    outputs : sequence of Output
        What the model answers.
    prefix : str
        Put before each name.
    """
    labels = [_label_type(output.classes) for output in outputs]
    probabilities = [pa.float64() for output in outputs for _ in output.probability_columns]
    types = [*labels, *probabilities, pa.string(), pa.string()]
    return [pa.field(name, kind) for name, kind in zip(added_columns(outputs, prefix), types, strict=True)]


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
