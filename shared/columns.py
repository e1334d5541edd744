"""The columns of a CSV file: what a model needs of a header, and what scoring adds to it."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from shared.errors import ServiceError
from shared.records import split_newline
from shared.signature import Output

#: A number as it may stand in a field: decimal, point and exponent optional.
NUMBER = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")

#: Spellings of a missing value: pyarrow's and pandas' defaults together. Spaces and tabs around them do not
#: count in a column of numbers, nor do the case and the sign of ``nan``. A text that is a category is no missing value.
MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)

#: What a spreadsheet may take for the start of a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
#: Suggestions cost time in proportion to missing times present names; beyond this they help nobody.
_SUGGESTIONS_MAX = 10
_SUGGESTION_POOL_MAX = 2_000


class ColumnCollision(ServiceError, ValueError):
    """The input already has columns with the names of those that scoring adds.

    Parameters
    ----------
    names : list of str
        The names that stand in both.
    """

    def __init__(self, names: list[str]) -> None:
        listed = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        super().__init__(
            "column_collision", f"the input already has {listed}; give a column_prefix for the added columns"
        )
        self.names = names


class MissingColumn(msgspec.Struct, frozen=True):
    """A column that the model needs and the header lacks, with the nearest names that it has."""

    name: str
    nearest: list[str]


class ColumnFaults(msgspec.Struct, frozen=True):
    """Why a header does not fit a model: `missing` columns, and needed names that it has more than once."""

    missing: list[MissingColumn]
    duplicated: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.duplicated)


def added_columns(outputs: Sequence[Output], prefix: str = "") -> list[str]:
    """Return the names of the columns that scoring adds: predictions, probabilities, the row's error.

    Parameters
    ----------
    outputs : sequence of Output
        What the model answers.
    prefix : str
        Put before each name.
    """
    predictions = [output.prediction_column for output in outputs]
    probabilities = [name for output in outputs for name in output.probability_columns]
    return [prefix + name for name in (*predictions, *probabilities, "error_code", "error_message")]


def find_collisions(columns: Sequence[str], added: Iterable[str]) -> list[str]:
    """Return the added names that the header already has."""
    present = set(columns)
    return [name for name in added if name in present]


def missing_columns(columns: Sequence[str], signature_columns: Sequence[str]) -> ColumnFaults:
    """Compare a header with what a model needs.

    Parameters
    ----------
    columns : sequence of str
        The header's names.
    signature_columns : sequence of str
        The model's names.

    Returns
    -------
    ColumnFaults
        False when the file can be scored; order and further columns do not matter.
    """
    counts = Counter(columns)
    missing = [name for name in signature_columns if name not in counts]
    # A name that another column of the model takes is not what was meant.
    needed = set(signature_columns)
    # A name that another column of the model takes is not what was meant. Case and spaces are common slips.
    spare = [name for name in counts if name not in needed][:_SUGGESTION_POOL_MAX] if missing else []
    pool = {_fold_name(name): name for name in spare}
    return ColumnFaults(
        missing=[
            MissingColumn(name, _suggest_names(name, pool) if index < _SUGGESTIONS_MAX else [])
            for index, name in enumerate(missing)
        ],
        duplicated=[name for name in signature_columns if counts[name] > 1],
    )


def _fold_name(name: str) -> str:
    return name.strip().casefold()


def _suggest_names(name: str, pool: dict[str, str]) -> list[str]:
    return [pool[folded] for folded in difflib.get_close_matches(_fold_name(name), pool)]


def output_header(
    header: bytes,
    columns: Sequence[str],
    outputs: Sequence[Output],
    delimiter: bytes,
    prefix: str = "",
) -> bytes:
    """Return the header record of the scored file: as it came, then the added names, then its newline.

    Parameters
    ----------
    header : bytes
        The input's header record, with byte order mark and newline if it has them.
    columns : sequence of str
        The names in it.
    outputs : sequence of Output
        What the model answers.
    delimiter : bytes
        One byte.
    prefix : str
        Put before each added name.

    Raises
    ------
    ColumnCollision
        A name to be added is in the header already.
    """
    names = added_columns(outputs, prefix)
    collisions = find_collisions(columns, names)
    if collisions:
        raise ColumnCollision(collisions)
    content, newline = split_newline(header)
    return delimiter.join([content, *(quote_text(name, delimiter) for name in names)]) + newline


def neutralise(text: str) -> str:
    """Return a text that we add so that it is harmless to a spreadsheet.

    What looks like a formula gets a ``'`` in front; a plain number, such as the label ``-1``, is none.
    """
    return "'" + text if text.startswith(_FORMULA_STARTS) and not NUMBER.fullmatch(text) else text


def quote_text(text: str, delimiter: bytes) -> bytes:
    """Return a text that we add as a cell: harmless to a spreadsheet, quoted where RFC 4180 demands it."""
    text = neutralise(text)
    if any(mark in text for mark in (delimiter.decode(), '"', "\n", "\r")):
        text = '"' + text.replace('"', '""') + '"'
    return text.encode("utf-8", "replace")
