"""What holds for every file of JSON lines: bytes, order, errors, and the same result however it is cut."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.lines import LineScanner
from shared.plans import MalformedFile, Plan
from shared.signature import Column, Signature
from shared.values import Values
from worker.chunks import ScoredChunk
from worker.ndjson_chunks import MALFORMED_MEMBER, score_chunk
from worker.scoring import Outcome, RowError

SIGNATURE = Signature((Column("a"), Column("größe", nullable=True)), "classification", ("no", 'ye"s'))
ADDED = ["prediction", "probability_no", 'probability_ye"s', "error_code", "error_message"]
REFUSED_BELOW = -50


class Line(NamedTuple):
    """A line as it stands in the file, what Python reads of it, and the code of its error."""

    content: bytes
    record: dict[str, Any] | None
    code: str | None


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-99, 99)
others = st.sampled_from(["x", True, [1], {"b": 1}, "1"])
notes = st.text(st.characters(codec="utf-8"), max_size=8) | st.recursive(
    st.none() | st.booleans() | st.integers(), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
broken = st.sampled_from(
    [b"", b"  ", b"\r", b"[1,2]", b"3", b'"a"', b'{"a":1', b'{"a":1}}', b"nonsense", b'{"a":1} x', b"\xff"]
)


def write_record(record: dict[str, Any], *, spaced: bool, ascii_only: bool) -> bytes:
    """Write an object as somebody might."""
    separators = (" , ", " : ") if spaced else (",", ":")
    text = json.dumps(record, separators=separators, ensure_ascii=ascii_only)
    return (f" {{ {text[1:-1]} }} " if spaced else text).encode()


def judge_record(record: dict[str, Any]) -> str | None:
    """Return the code of the fault that is told first."""
    if "prediction" in record:
        return "malformed_row"
    for name, nullable in (("a", False), ("größe", True)):
        value = record.get(name)
        if value is None:
            if not nullable:
                return "missing_value"
        elif isinstance(value, bool) or not isinstance(value, int | float):
            return "type_error"
        elif not np.isfinite(value):
            return "non_finite"
    return "model_error" if record["a"] < REFUSED_BELOW else None


@st.composite
def draw_line(draw: st.DrawFn) -> Line:
    """Draw a record, of which some are at fault, or a line that is none."""
    if draw(st.integers(0, 12)) == 0:
        return Line(draw(broken), None, "malformed_row")
    record: dict[str, Any] = {}
    for name in draw(st.permutations(["a", "größe", "note", "id"])):
        kind = draw(st.integers(0, 15))
        if name in ("a", "größe"):
            if kind == 0:
                continue
            strange = {1: None, 2: draw(others), 3: float("nan"), 4: float("inf")}
            record[name] = strange.get(kind) if kind in strange else draw(numbers)
        elif kind > 7:
            record[name] = draw(notes)
    if draw(st.integers(0, 20)) == 0:
        record["prediction"] = 1
    content = write_record(record, spaced=draw(st.booleans()), ascii_only=draw(st.booleans()))
    return Line(content, record, judge_record(record))


@st.composite
def draw_file(draw: st.DrawFn) -> tuple[bytes, list[Line], list[bytes]]:
    """Draw a file that begins with a whole record, its lines and what ends each."""
    first = Line(b'{"a":0.5}', {"a": 0.5}, None)
    lines = [first, *draw(st.lists(draw_line(), max_size=12))]
    ends = [draw(st.sampled_from([b"\n", b"\r\n"])) for _ in lines]
    if lines[-1].content.strip() and draw(st.booleans()):
        ends[-1] = b""
    bom = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    lines[0] = first._replace(content=bom + first.content)
    return b"".join(line.content + end for line, end in zip(lines, ends, strict=True)), lines, ends


def scan_file(data: bytes, block_bytes: int = 1 << 20, **limits: int) -> Plan:
    """Return the plan of a file that is fed in blocks of a size."""
    scanner = LineScanner(**limits)
    for start in range(0, len(data), block_bytes):
        scanner.feed(data[start : start + block_bytes])
    return scanner.finish()


def predict(values: Values) -> Outcome:
    """Answer each row by itself, and refuse some."""
    matrix = values.matrix
    high = 1 / (1 + np.exp(-np.clip(matrix[:, 0] + np.nan_to_num(matrix[:, 1]), -30, 30)))
    refused = np.flatnonzero(matrix[:, 0] < REFUSED_BELOW).tolist()
    labels = np.array(["no", 'ye"s'])[(high > 0.5).astype(int)]
    errors = dict.fromkeys(refused, RowError("model_error", "the model raised"))
    return Outcome(labels, np.column_stack((1 - high, high)), errors)


def score_file(data: bytes, plan: Plan) -> list[ScoredChunk]:
    """Score the chunks of a plan."""
    return [
        score_chunk(
            data[chunk.offset : chunk.offset + chunk.length],
            signature=SIGNATURE,
            added=ADDED,
            predict=predict,
            expected_rows=chunk.rows,
            first_row=chunk.first_row,
        )
        for chunk in plan.chunks
    ]


@settings(deadline=None)
@given(draw_file())
def test_each_line_comes_back_with_new_members(drawn: tuple[bytes, list[Line], list[bytes]]) -> None:
    """A record keeps its bytes up to its last brace; what was no record is kept as text; each is valid JSON again."""
    data, lines, ends = drawn

    (scored,) = score_file(data, scan_file(data))

    written = scored.data.split(b"\n")
    assert len(written) == len(lines) + (1 if ends[-1] else 0)
    for line, out in zip(lines, written, strict=False):
        found = json.loads(out.removeprefix(b"\xef\xbb\xbf"))
        assert set(ADDED) <= found.keys()
        assert (found["error_code"], found["prediction"] is None) == (line.code, line.code is not None)
        if line.record is None:
            assert found[MALFORMED_MEMBER] == line.content.rstrip(b"\r").decode("utf-8", "replace")
        else:
            assert out.startswith(line.content.rstrip().removesuffix(b"}").rstrip())


@given(draw_file(), st.integers(1, 5), st.integers(1, 60))
def test_chunks_together_are_the_whole(drawn: tuple[bytes, list[Line], list[bytes]], rows: int, block: int) -> None:
    """However the file is cut and in whatever blocks it comes, data, errors and counts are the same."""
    data, lines, _ = drawn

    (whole,) = score_file(data, scan_file(data))
    chunks = score_file(data, scan_file(data, block, chunk_rows=rows))

    assert b"".join(chunk.data for chunk in chunks) == whole.data
    assert b"".join(chunk.errors for chunk in chunks) == whole.errors
    assert sum(chunk.failed for chunk in chunks) == whole.failed == sum(line.code is not None for line in lines)


@settings(deadline=None)
@given(draw_file())
def test_errors_land_on_their_own_rows(drawn: tuple[bytes, list[Line], list[bytes]]) -> None:
    """Row and line of each error are those of its record."""
    data, lines, _ = drawn

    (scored,) = score_file(data, scan_file(data))

    listed = [msgspec.json.decode(line) for line in scored.errors.splitlines()]
    expected = [(number, line.code) for number, line in enumerate(lines, 1) if line.code]
    assert [(error["row"], error["code"]) for error in listed] == expected
    assert all(error["line"] == error["row"] for error in listed)


@given(st.binary(max_size=40))
def test_any_bytes_are_planned_or_refused(data: bytes) -> None:
    """Rubbish is refused as such; what is planned is all of the bytes."""
    try:
        plan = scan_file(data)
    except MalformedFile as refused:
        code = refused.code
    else:
        code = ""
        assert sum(chunk.length for chunk in plan.chunks) == len(data)
        assert sum(chunk.rows for chunk in plan.chunks) == plan.rows
    assert code in ("", "malformed_file")
