"""What holds for every CSV file: bytes, order, errors, and the same result however it is cut."""

from __future__ import annotations

import csv
import io
from typing import NamedTuple

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.plans import MalformedFile, Plan
from shared.records import RecordScanner
from shared.signature import Column, Signature
from shared.values import Values
from worker.chunks import ScoredChunk
from worker.csv_chunks import ChunkReader, score_chunk
from worker.scoring import Outcome, RowError

COLUMNS = ["id", "b", "note", "a"]
#: A missing `b` is allowed.
SIGNATURE = Signature((Column("a"), Column("b", nullable=True)), "classification", ("down", "up, or so"))
HEADER = b"id,b,note,a"
#: The model refuses numbers below this, so that its errors mix with those of reading.
REFUSED_BELOW = -50


class Cell(NamedTuple):
    """A field's content, and the code that it deserves in a column that the model reads."""

    content: bytes
    code: str | None


class Record(NamedTuple):
    """A record as it stands in the file, and the code of its error."""

    content: bytes
    code: str | None


def write_field(content: bytes, *, quoted: bool) -> bytes:
    """Write a field, in quotes where it must be."""
    if quoted or any(mark in content for mark in b',"\r\n'):
        return b'"' + content.replace(b'"', b'""') + b'"'
    return content


plain_numbers = (st.floats(allow_nan=False, allow_infinity=False) | st.integers(-99, 99)).map(repr)
numbers = st.tuples(st.sampled_from(["", " ", "\t "]), plain_numbers, st.sampled_from(["", " "])).map("".join)
missing = st.sampled_from(["", "NA", " nan", "NaN", "null", "None", "-nan", "NAN", "<NA> "])
infinite = st.sampled_from(["inf", "-Infinity", "1e999", " INF "])
words = st.sampled_from(["x", "1,5", 'say "1"', "1\n2", "größe", "1_0", "0x1", "\uff11", "=1", "\0", "1\r", "\ufeff1"])
notes = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8).map(str.encode),
    words.map(str.encode),
    numbers.map(str.encode),
    st.binary(max_size=3),
)
cells = st.one_of(
    *[numbers.map(lambda text: Cell(text.encode(), None))] * 5,
    missing.map(lambda text: Cell(text.encode(), "missing_value")),
    infinite.map(lambda text: Cell(text.encode(), "non_finite")),
    words.map(lambda text: Cell(text.encode(), "type_error")),
    st.just(Cell(b"1\xff", "malformed_row")),
)
#: A quote in a field that does not begin with one is an ordinary byte; so is one after the closing quote.
stray_quotes = st.sampled_from([b'5" pipe', b'a""b', b"it's \"", b'"x"y', b'"x"y"', b'""y""'])


def judge_row(first: Cell, second: Cell) -> str | None:
    """Return the code of the fault that is told first, by the model's order of columns."""
    if first.code:
        return first.code
    if second.code and second.code != "missing_value":
        return second.code
    return "model_error" if float(first.content) < REFUSED_BELOW else None


@st.composite
def draw_record(draw: st.DrawFn) -> Record:
    """Draw a record of id, b, note and a: one in ten has a field too few or too many, or is blank."""
    a, b = draw(cells), draw(cells)
    contents = [draw(notes), b.content, draw(notes), a.content]
    fields = [write_field(content, quoted=draw(st.booleans())) for content in contents]
    if draw(st.integers(0, 7)) == 0:
        fields[2] = draw(stray_quotes)
    shape = draw(st.sampled_from(["whole"] * 27 + ["short", "long", "blank"]))
    if shape == "whole":
        return Record(b",".join(fields), judge_row(a, b))
    fields = {"short": fields[:3], "long": [*fields, b""], "blank": []}[shape]
    return Record(b",".join(fields), "malformed_row")


record_lists = st.lists(draw_record(), max_size=12)
newlines = st.sampled_from([b"\n", b"\r\n"])


@st.composite
def draw_file(draw: st.DrawFn) -> tuple[bytes, list[Record], list[bytes]]:
    """Draw a file, its records and what ends each; the last may end with nothing."""
    drawn = draw(record_lists)
    ends = [draw(newlines) for _ in drawn]
    if drawn and drawn[-1].content and draw(st.booleans()):
        ends[-1] = b""
    rows = b"".join(record.content + end for record, end in zip(drawn, ends, strict=True))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + HEADER + draw(newlines) + rows, drawn, ends


def scan_file(data: bytes, block_bytes: int = 1 << 20, **limits: int) -> Plan:
    """Return the plan of a file that is fed in blocks of a size."""
    scanner = RecordScanner(b",", **limits)
    for start in range(0, len(data), block_bytes):
        scanner.feed(data[start : start + block_bytes])
    return scanner.finish()


def predict(values: Values) -> Outcome:
    """Answer each row by itself, and refuse some."""
    matrix = values.matrix
    a, b = matrix[:, 0], np.nan_to_num(matrix[:, 1])
    refused = np.flatnonzero(a < REFUSED_BELOW).tolist()
    share = 1 / (2 + np.abs(np.tanh(b)))
    labels = np.where(b > 0, "up, or so", "down")
    errors = {row: RowError("model_error", f"refused {a[row]!r}, sorry") for row in refused}
    return Outcome(labels, np.column_stack((share, 1 - share)), errors)


def score_file(data: bytes, plan: Plan) -> ScoredChunk:
    """Score the chunks of a plan one by one, and join what comes out."""
    parts = [
        score_chunk(
            data[chunk.offset : chunk.offset + chunk.length],
            columns=COLUMNS,
            signature=SIGNATURE,
            delimiter=b",",
            predict=predict,
            expected_rows=chunk.rows,
            first_row=chunk.first_row,
            first_line=chunk.first_line,
        )
        for chunk in plan.chunks
    ]
    return ScoredChunk(
        b"".join(part.data for part in parts),
        b"".join(part.errors for part in parts),
        sum(part.succeeded for part in parts),
        sum(part.failed for part in parts),
    )


@given(draw_file())
@settings(deadline=None)
def test_bytes_come_back_and_errors_land_on_their_rows(drawn: tuple[bytes, list[Record], list[bytes]]) -> None:
    """Without the added cells the output is the input; the cells of each row are its own."""
    data, expected, ends = drawn

    scored = score_file(data, scan_file(data))

    rest = scored.data
    for record, end in zip(expected, ends, strict=True):
        assert rest.startswith(record.content + b",")
        rest = rest[len(record.content) :]
        length = scan_file(b"\n".join([b"x", rest]), chunk_rows=1).chunks[0].length
        written, rest = rest[:length], rest[length:]
        assert written.endswith(end)
        cells = next(csv.reader(io.StringIO(written.removesuffix(end).decode(), newline="")))
        assert len(cells) == 6  # an empty one before the first delimiter, then the five that were added
        assert cells[4] == (record.code or "")
        assert [bool(cell) for cell in cells[1:4]] == [not record.code] * 3
    assert rest == b""
    errors = [msgspec.json.decode(line) for line in scored.errors.splitlines()]
    assert [(error["row"], error["code"]) for error in errors] == [
        (row, record.code) for row, record in enumerate(expected, 1) if record.code
    ]
    assert (scored.failed, scored.succeeded) == (len(errors), len(expected) - len(errors))


@given(draw_file(), st.integers(1, 40), st.integers(1, 60), st.integers(1, 5))
@settings(deadline=None)
def test_whole_is_chunked(
    drawn: tuple[bytes, list[Record], list[bytes]], block_bytes: int, chunk_bytes: int, chunk_rows: int
) -> None:
    """The output does not depend on where blocks and chunks are cut, and no chunk passes its limits."""
    data, expected, _ = drawn

    whole = scan_file(data)
    plan = scan_file(data, block_bytes, chunk_bytes=chunk_bytes, chunk_rows=chunk_rows)

    assert plan == scan_file(data, chunk_bytes=chunk_bytes, chunk_rows=chunk_rows)
    assert plan.rows == whole.rows == len(expected) == sum(chunk.rows for chunk in plan.chunks)
    assert len(plan.header) + sum(chunk.length for chunk in plan.chunks) == plan.file_bytes == len(data)
    assert all(chunk.rows == 1 or chunk.length <= chunk_bytes for chunk in plan.chunks)
    assert all(1 <= chunk.rows <= chunk_rows for chunk in plan.chunks)
    assert score_file(data, plan) == score_file(data, whole)


def check_readings_agree(data: bytes, columns: list[str], nullable: list[bool]) -> None:
    """Assert that many records at once and single records are read alike, bit by bit."""
    signature = Signature(tuple(map(Column, "ab", ["double"] * 2, nullable)), "regression")
    at_once, singly = (ChunkReader(data, columns=columns, signature=signature, delimiter=b",") for _ in range(2))
    at_once.read_all()
    singly.read_singly(range(len(singly.values)))
    good = [row for row in range(len(singly.values)) if row not in singly.faults]
    assert at_once.faults == singly.faults
    assert np.array_equal(at_once.values.matrix[good], singly.values.matrix[good], equal_nan=True)


@given(draw_file(), st.lists(st.booleans(), min_size=2, max_size=2))
@settings(deadline=None)
def test_fast_and_slow_reading_agree(drawn: tuple[bytes, list[Record], list[bytes]], nullable: list[bool]) -> None:
    """A row is worth the same whether pyarrow reads it among others or it is read alone."""
    data = drawn[0]
    plan = scan_file(data)

    check_readings_agree(data[len(plan.header) :], COLUMNS, nullable)


#: Every letter of a number, a missing value and an infinity, and every mark of CSV.
number_soup = st.text("0123456789+-.eExnaNAinfty_() \t", max_size=6)


@given(st.lists(st.tuples(number_soup, number_soup), min_size=1, max_size=4), st.booleans())
@settings(deadline=None, max_examples=300)
def test_fast_and_slow_reading_agree_on_odd_numbers(rows: list[tuple[str, str]], nullable: bool) -> None:
    """Both ways of reading accept the same spellings, whatever the characters."""
    data = "".join(f"{a},{b}\n" for a, b in rows).encode()

    check_readings_agree(data, ["a", "b"], [nullable, nullable])


@given(st.text('1,"\n\r x', max_size=30), st.booleans())
@settings(deadline=None, max_examples=300)
def test_fast_and_slow_reading_agree_on_any_bytes(text: str, nullable: bool) -> None:
    """Both ways of reading agree on quotes and newlines in any disorder."""
    try:
        check_readings_agree(text.encode(), ["a", "b"], [nullable, nullable])
    except MalformedFile:
        assert '"' in text


@given(st.text('1,"\n\r x', max_size=40), st.integers(1, 10))
@settings(deadline=None, max_examples=300)
def test_scanner_counts_what_the_csv_module_counts(text: str, block_bytes: int) -> None:
    """Records, and the lines on which they begin, are those that Python's csv module finds."""
    text = "header\n" + text
    reader = csv.reader(io.StringIO(text, newline=""))
    lines = []
    for _ in reader:
        lines.append(reader.line_num + 1)  # noqa: PERF401 - the number is read after each step

    try:
        plan = scan_file(text.encode(), block_bytes, chunk_rows=1)
    except MalformedFile as error:
        opening = text.splitlines(keepends=True)[error.line - 1]
    else:
        opening = '"'
        assert [chunk.first_line for chunk in plan.chunks] == lines[:-1]
    assert '"' in opening
