"""Rows in JSON in which all is well, straight to values; it never says what is wrong where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from shared.signature import INTEGER_LIMIT, Column, Label, Signature
from shared.values import Matrix, Others, Values

_KINDS: dict[str, Any] = {"number": float, "boolean": bool, "text": str}


class CleanReader:
    """Reads rows of one signature.

    Parameters
    ----------
    columns : sequence of Column
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        # None is let through in every column: the matrix tells faster where it should not be.
        self.types = [_KINDS[column.holds] | None for column in columns]
        self._all_numbers = all(column.type in ("double", "long") for column in columns)
        row = list[float | None] if self._all_numbers else tuple[tuple(self.types)]  # type: ignore[misc]
        self._lists: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[row])  # type: ignore[valid-type]
        fields = [
            (f"c{index}", kind, None) if column.nullable else (f"c{index}", kind)
            for index, (column, kind) in enumerate(zip(columns, self.types, strict=True))
        ]
        self._objects: msgspec.json.Decoder[Any] | None = None
        if all(is_fit(column.name) for column in columns):
            rename = {f"c{index}": column.name for index, column in enumerate(columns)}
            record = msgspec.defstruct("Row", fields, rename=rename, kw_only=True, forbid_unknown_fields=True, gc=False)
            self._objects = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]
        self._nullable = np.array([column.nullable for column in columns])
        self._whole = np.flatnonzero([column.type == "long" for column in columns])

    def read(self, text: bytes | msgspec.Raw) -> Values | None:
        """Read a list of lists, or of objects by column name; None if anything is not as it should be."""
        try:
            rows = self._lists.decode(text)
        except msgspec.DecodeError:
            rows = self._read_objects(text)
        if not rows:
            return None
        return self._fill_numbers(rows) if self._all_numbers else self.fill(list(zip(*rows, strict=True)))

    def _read_objects(self, text: bytes | msgspec.Raw) -> list[tuple[Any, ...]] | None:
        if self._objects is None:
            return None
        try:
            return [msgspec.structs.astuple(row) for row in self._objects.decode(text)]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _fill_numbers(self, rows: list[Any]) -> Values | None:
        try:
            matrix = np.array(rows, dtype=np.float64)  # null becomes NaN
        except ValueError:  # rows of different lengths
            return None
        fits = matrix.ndim == 2 and matrix.shape[1] == len(self._columns) and self._is_clean(matrix)
        return Values(matrix) if fits else None

    def fill(self, cells: Sequence[Sequence[Any]]) -> Values | None:
        """Put the cells of each column, of its type or None, into values; None if not all is as it should be."""
        matrix, others = np.empty((len(cells[0]), len(self._columns))), Others()
        for index, (column, found) in enumerate(zip(self._columns, cells, strict=True)):
            coded = _code_cells(found, column, others) if column.is_coded else found
            if coded is None:
                return None
            matrix[:, index] = coded  # None becomes NaN
        return Values(matrix, others.list()) if self._is_clean(matrix) else None

    def _is_clean(self, matrix: Matrix) -> bool:
        finite = np.isfinite(matrix)
        if not finite.all() and not (finite | (np.isnan(matrix) & self._nullable)).all():
            return False
        if not self._whole.size:
            return True
        whole = matrix[:, self._whole]
        whole = whole[~np.isnan(whole)]
        return bool(((np.floor(whole) == whole) & (np.abs(whole) < INTEGER_LIMIT)).all())


def find_clean_reader(signature: Signature) -> CleanReader:
    """Return the reader of a signature, which is kept with it: making one takes longer than reading a row."""
    kept = signature.__dict__.get("clean_reader")
    if kept is None:
        kept = signature.__dict__["clean_reader"] = CleanReader(signature.columns)
    reader: CleanReader = kept
    return reader


def is_fit(name: str) -> bool:
    """Whether msgspec takes a member by such a name."""
    return not any(mark in '"\\' or mark < " " for mark in name)


def _code_cells(cells: Sequence[Label | None], column: Column, others: Others) -> Sequence[float | None] | None:
    codes = column.codes
    found: list[float | None] = [None if cell is None else codes.get(cell, -1) for cell in cells]
    if -1 not in found:
        return found
    if column.unseen == "error":
        return None
    return [
        len(codes) + others.add(cell) if code == -1 and cell is not None else code
        for code, cell in zip(found, cells, strict=True)
    ]
