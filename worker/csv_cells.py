"""The cells that scoring adds to the records of a CSV file, and the records with them.

It knows what stands in a cell and nothing of how rows are read or scored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.columns import quote_text
from shared.plans import Offsets
from shared.signature import Output
from worker.chunks import Answers


def format_cells(answers: Answers, outputs: Sequence[Output], delimiter: bytes) -> list[pa.Array]:
    """Return the cells to be added: predictions, probabilities, code and detail of the fault; null where there is none.

    Parameters
    ----------
    answers : Answers
    outputs : sequence of Output
        What the model answers.
    delimiter : bytes
        One byte.

    Returns
    -------
    list of pyarrow.Array of binary
        One a column, each with one cell a row.
    """
    probabilities = sum(len(output.probability_columns) for output in outputs)
    columns = answers.make_columns(len(outputs) + probabilities)
    is_label = [output.classes is not None for output in outputs] + [False] * probabilities
    written = [
        _write_texts(column, delimiter) if label else _write_numbers(column)
        for column, label in zip(columns, is_label, strict=True)
    ]
    return [*written, *(_write_texts(column, delimiter) for column in answers.make_fault_columns())]


def _write_numbers(column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
    # The shortest digits that read back as the same number.
    return column.cast(pa.string()).cast(pa.binary())


def _write_texts(column: pa.Array, delimiter: bytes) -> pa.Array:
    """Write each different text or label once; labels are few and rows are many."""
    if column.null_count == len(column):
        return pa.nulls(len(column), pa.binary())
    encoded = column.dictionary_encode()
    texts = [quote_text(str(text), delimiter) for text in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.binary()).take(encoded.indices)


def join_cells(data: bytes, content_ends: Offsets, added: list[pa.Array], delimiter: bytes) -> bytes:
    """Put a row's cells before the newline of its record, for all records at once."""
    rows = len(content_ends)
    if not rows:
        return b""
    # Cut before each newline instead of after it, the data need no copy: element i is the newline of record
    # i - 1 with the content of record i, and the last newline is left over.
    offsets = np.concatenate(([0], content_ends)).astype(np.int32)
    records = pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    joined = pc.binary_join_element_wise(
        records, *added, pa.scalar(delimiter), null_handling="replace", null_replacement=""
    )
    values = memoryview(joined.buffers()[2])[: joined.total_values_length]
    return b"".join((values, memoryview(data)[offsets[-1] :]))
