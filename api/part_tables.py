"""Parts of results read as Arrow tables: so a result becomes one of another format.

All tables of one result have the same columns and types: of CSV the model's columns are numbers and the others texts;
of JSON lines what the values are; of Parquet what they were.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from shared.columns import NUMBER, neutralise
from shared.lines import BOM
from shared.records import count_fields, find_records, split_fields
from shared.signature import Label, Output
from shared.tables import added_fields, read_table

_WHOLE_NUMBER = f"^(?:{NUMBER.pattern.replace('++', '+').replace('*+', '*')})$"
_RECORD = msgspec.json.Decoder(dict[str, Any])
#: An integer of JSON that fits into a column of integers.
_INTEGERS = range(-(2**63), 2**63)


class CsvParts:
    """Reads parts of a scored CSV file.

    Parameters
    ----------
    columns : sequence of str
        Of the input's header; what stands there twice gets a number behind it.
    numeric : container of str
        Those that are read as numbers; what is none is null.
    delimiter : bytes
        One byte.
    outputs : sequence of Output
        What the model answers.
    prefix : str
        Before the names of the added columns.
    """

    def __init__(
        self,
        columns: Sequence[str],
        numeric: Iterable[str],
        delimiter: bytes,
        outputs: Sequence[Output],
        prefix: str,
    ) -> None:
        self._numeric = set(numeric)
        self._delimiter = delimiter
        self._columns = list(columns)
        self._added = added_fields(outputs, prefix)
        #: By the place of a column of labels: what its texts are.
        self._labels = {
            place: {neutralise(str(label)): label for label in output.classes}
            for place, output in enumerate(outputs, len(self._columns))
            if output.classes is not None
        }
        own = [
            pa.field(name, pa.float64() if column in self._numeric else pa.string())
            for name, column in zip(_number_doubles(columns), columns, strict=True)
        ]
        self.schema = pa.schema([*own, *self._added])

    def read(self, data: bytes) -> pa.Table:
        """Read one part."""
        width = len(self.schema)
        records = find_records(data, self._delimiter)
        if not len(records.ends):
            return self.schema.empty_table()
        malformed = np.flatnonzero(count_fields(data, self._delimiter, records.ends) != width)
        if malformed.size:
            data = self._mend(data, records.starts, records.content_ends, set(malformed.tolist()))
        texts = self._parse(data)
        columns = []
        for index, field in enumerate(self.schema):
            labels = self._labels.get(index)
            columns.append(_read_labels(texts[index], field, labels) if labels else self._convert(texts[index], index))
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _parse(self, data: bytes) -> list[pa.Array]:
        names = [str(index) for index in range(len(self.schema))]
        table = pyarrow.csv.read_csv(
            pa.py_buffer(b"\n" + data),  # the line before keeps the first bytes from being taken for a byte order mark
            pyarrow.csv.ReadOptions(use_threads=False, block_size=len(data) + 2, column_names=names, skip_rows=1),
            pyarrow.csv.ParseOptions(
                delimiter=self._delimiter.decode(), newlines_in_values=True, ignore_empty_lines=False
            ),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary())),
        )
        return [column.combine_chunks() for column in table.columns]

    def _convert(self, column: pa.Array, index: int) -> pa.Array:
        text = _decode(column)
        if pa.types.is_floating(self.schema.field(index).type):
            text = pc.utf8_trim(text, " \t")
            return pc.if_else(pc.match_substring_regex(text, _WHOLE_NUMBER), text, None).cast(pa.float64())
        if index < len(self._columns):
            return text
        return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)

    def _mend(self, data: bytes, starts: Any, content_ends: Any, malformed: set[int]) -> bytes:
        """Give records of too few or too many fields as many as the header has: the added cells are their last."""
        added, width = len(self._added), len(self._columns)
        pieces = []
        for row, (start, stop) in enumerate(zip(starts.tolist(), content_ends.tolist(), strict=True)):
            record = data[start:stop]
            if row in malformed:
                fields = split_fields(record.decode("latin-1"), self._delimiter)
                own = [*fields[:-added], *[""] * width][:width]
                cells = ('"' + field.replace('"', '""') + '"' for field in [*own, *fields[-added:]])
                record = self._delimiter.join(cell.encode("latin-1") for cell in cells)
            pieces.append(record)
        return b"\n".join(pieces) + b"\n"


class LineParts:
    """Reads parts of scored JSON lines; all of them must be looked at before the first is read.

    Parameters
    ----------
    added : sequence of pyarrow.Field
        The members that scoring added; they become the last columns.
    """

    def __init__(self, added: Sequence[pa.Field]) -> None:
        self._added = list(added)
        self._kinds: dict[str, set[str]] = {}

    def look_at(self, data: bytes) -> None:
        """Note names and kinds of the members of a part."""
        for record in _decode_records(data):
            for name, value in record.items():
                self._kinds.setdefault(name, set()).add(_name_kind(value))

    @property
    def schema(self) -> pa.Schema:
        """The columns, in the order in which they first appeared."""
        added = {field.name for field in self._added}
        own = [pa.field(name, _choose_type(kinds)) for name, kinds in self._kinds.items() if name not in added]
        return pa.schema([*own, *self._added])

    def read(self, data: bytes) -> pa.Table:
        """Read one part."""
        schema, records = self.schema, list(_decode_records(data))
        columns = []
        for field in schema:
            values = [record.get(field.name) for record in records]
            if pa.types.is_string(field.type):
                values = [v if v is None or isinstance(v, str) else msgspec.json.encode(v).decode() for v in values]
            columns.append(pa.array(values, field.type))
        return pa.Table.from_arrays(columns, schema=schema)


class ArrowParts:
    """Reads parts that are tables already."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema

    def read(self, data: bytes) -> pa.Table:
        """Read one part."""
        return read_table(data)


def _decode_records(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.removeprefix(BOM).split(b"\n"):
        if line:
            yield _decode_record(line)


def _decode_record(line: bytes) -> dict[str, Any]:
    try:
        return _RECORD.decode(line)
    except msgspec.DecodeError:  # NaN, as Python writes it, passes through a scored file
        record: dict[str, Any] = json.loads(line)
        return record


def _name_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if value in _INTEGERS else "other"
    return {float: "float", str: "str", type(None): "null"}.get(type(value), "other")


def _choose_type(kinds: set[str]) -> pa.DataType:
    kinds = kinds - {"null"}
    if kinds <= {"int"} and kinds:
        return pa.int64()
    if kinds <= {"int", "float"} and kinds:
        return pa.float64()
    return pa.bool_() if kinds == {"bool"} else pa.string()


def _number_doubles(columns: Sequence[str]) -> list[str]:
    """Return the names, the second and later of equal ones with a number behind."""
    seen: Counter[str] = Counter()
    names = []
    for column in columns:
        seen[column] += 1
        names.append(column if seen[column] == 1 else f"{column}.{seen[column] - 1}")
    return names


def _read_labels(column: pa.Array, field: pa.Field, known: Mapping[str, Label]) -> pa.Array:
    encoded = _decode(column).dictionary_encode()
    labels = [known.get(text) for text in encoded.dictionary.to_pylist()]
    if pa.types.is_string(field.type):
        labels = [None if label is None else str(label) for label in labels]
    return pa.array(labels, field.type).take(encoded.indices)


def _decode(column: pa.Array) -> pa.Array:
    """Return a column of bytes as text; what is not UTF-8 in it is replaced."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([None if value is None else value.decode("utf-8", "replace") for value in column.to_pylist()])
