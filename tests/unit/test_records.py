"""Record boundaries and the plan of chunks."""

from __future__ import annotations

import msgspec
import pytest

from shared.plans import Chunk, MalformedFile, Plan
from shared.records import RecordScanner, check_delimiter, count_fields, find_records, parse_header


def scan(data: bytes, block_bytes: int = 1 << 20, **options: int) -> Plan:
    """Feed data in blocks of a size and return the plan."""
    scanner = RecordScanner(b",", **options)
    for start in range(0, len(data), block_bytes):
        scanner.feed(data[start : start + block_bytes])
    return scanner.finish()


def refuse(data: bytes, **options: int) -> MalformedFile:
    """Return the error that data are refused with."""
    with pytest.raises(MalformedFile) as refused:
        scan(data, **options)
    assert refused.value.code == "malformed_csv"
    return refused.value


def test_plan_holds_every_byte_of_a_small_file() -> None:
    """A small file becomes one chunk after its header."""
    plan = scan(b"a,b\n1,2\n3,4\n")

    assert plan == Plan(b"a,b\n", 2, 12, (Chunk(0, 4, 8, 0, 2, 2),))


def test_plan_survives_json() -> None:
    """A plan is the same after it was written as JSON and read again."""
    plan = scan(b"a,b\r\n1,2\r\n3,4", chunk_rows=1)

    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"chunk_rows": 2}, [2, 2, 1]),
        ({"chunk_bytes": 8}, [2, 2, 1]),
        ({"chunk_bytes": 11}, [2, 2, 1]),
        ({"chunk_bytes": 12}, [3, 2]),
        ({"chunk_bytes": 1}, [1, 1, 1, 1, 1]),
        ({"chunk_bytes": 12, "chunk_rows": 1}, [1, 1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 3, 1000])
def test_chunks_keep_both_limits(options: dict[str, int], rows: list[int], block_bytes: int) -> None:
    """A chunk passes neither limit, unless a single record does, however the bytes arrive."""
    plan = scan(b"a,b\n" + b"1,2\n" * 5, block_bytes, **options)

    assert [chunk.rows for chunk in plan.chunks] == rows
    assert [chunk.first_row for chunk in plan.chunks] == [sum(rows[:index]) for index in range(len(rows))]
    assert [chunk.first_line for chunk in plan.chunks] == [chunk.first_row + 2 for chunk in plan.chunks]


def test_record_larger_than_a_chunk_stands_alone() -> None:
    """A record over the byte limit of chunks makes a chunk by itself."""
    plan = scan(b"a\n1\n" + b"5" * 100 + b"\n2\n3\n", chunk_bytes=10)

    assert [(chunk.length, chunk.rows) for chunk in plan.chunks] == [(2, 1), (101, 1), (4, 2)]


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"a,b\n1,2", 1),
        (b"a,b\r\n1,2\r\n", 1),
        (b"a,b\n\n1,2\n\n", 3),
        (b'a,b\n"x\ny",2\n3,4\n', 2),
        (b'a,b\n"x ""\n"" y",2\n3,4\n', 2),
        (b'a,b\n"x\r\ny",2\r\n3,4', 2),
        (b'a,b\n5" pipe,2\n6" pipe,4\n', 2),
        (b'a,b\nx""y,2\n"",""\n"3",4\n', 3),
        (b'a,b\n"x"y"\n"z",4\n', 2),
        (b"a,b\r1,2\r3,4\r", 2),
        (b"a,b\n1,2\r3,4\r\n\r\r\n", 4),
        (b'"a\nb",c\n1,2\n', 1),
        (b'\xef\xbb\xbf"a\nb",c\n1,2\n', 1),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 2, 5, 1000])
def test_records_are_counted_whatever_the_blocks(data: bytes, rows: int, block_bytes: int) -> None:
    """Quotes, newlines and delimiters mean the same when blocks cut between them."""
    plan = scan(data, block_bytes, chunk_rows=1)

    assert plan.rows == rows == len(plan.chunks)
    assert len(plan.header) + sum(chunk.length for chunk in plan.chunks) == plan.file_bytes == len(data)


def test_first_line_counts_newlines_inside_quotes() -> None:
    """A chunk's first line is what an editor shows, also after records of several lines."""
    plan = scan(b'"a\nb",c\n"1\r\n\n",2\n3,4\n', chunk_rows=1)

    assert [chunk.first_line for chunk in plan.chunks] == [3, 6]


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (b"a,b\r\n1,2\n", b"a,b\r\n"),
        (b"\xef\xbb\xbfa,b\n", b"\xef\xbb\xbfa,b\n"),
        (b"a,b", b"a,b"),
        (b"a,b\r", b"a,b\r"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 1000])
def test_plan_keeps_the_header_as_it_came(data: bytes, header: bytes, block_bytes: int) -> None:
    """The header's newline and a byte order mark are part of it."""
    assert scan(data, block_bytes).header == header


@pytest.mark.parametrize("data", [b"a,b", b"a,b\n", b"\xef\xbb\xbfa,b\r\n"])
def test_header_alone_is_a_plan_without_chunks(data: bytes) -> None:
    """A file of a header only has no rows, and is no error."""
    plan = scan(data)

    assert (plan.rows, plan.chunks, plan.header) == (0, (), data)


def test_columns_are_known_before_the_upload_ends() -> None:
    """The header's names are there as soon as its record has passed."""
    scanner = RecordScanner()

    scanner.feed(b"\xef\xbb\xbfage,na")
    too_early = scanner.columns
    scanner.feed(b"me\n1")

    assert too_early is None
    assert scanner.columns == ["age", "name"]
    assert scanner.header == b"\xef\xbb\xbfage,name\n"


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_empty_file_is_refused(data: bytes) -> None:
    """Nothing, or a byte order mark alone, is no CSV file."""
    assert "empty" in refuse(data).detail


@pytest.mark.parametrize("block_bytes", [1, 4, 1000])
def test_unclosed_quote_is_refused_with_its_line(block_bytes: int) -> None:
    """A quote that is never closed is named by the line on which it opened."""
    with pytest.raises(MalformedFile, match="line 3: a quote opens here and is never closed") as refused:
        scan(b'a,b\n1,2\nx,"say ""hi""\n5,6\n7,8\n', block_bytes)

    assert refused.value.line == 3


@pytest.mark.parametrize(
    "data",
    [
        b"a\x00b,c\n1,2\n",
        "a,b\n1,2\n".encode("utf-16"),
        b"PK\x03\x04\x00\x00\x00\x00",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0\n",
        b"\n1,2\n",
        b"\xef\xbb",
    ],
)
def test_header_that_is_not_text_is_refused(data: bytes) -> None:
    """Binary files, other encodings and a blank first line are refused at the header."""
    assert refuse(data).line == 1


def test_zero_bytes_after_the_header_are_data() -> None:
    """A zero byte in a row is that row's affair."""
    assert scan(b"a\n\x00\n1\n").rows == 2


@pytest.mark.parametrize("block_bytes", [1, 7, 1000])
def test_record_over_the_limit_is_refused_with_its_line(block_bytes: int) -> None:
    """A record may be as long as the limit and no longer."""
    data = b"a\n" + b"1" * 19 + b"\n" + b"1" * 20 + b"\n2\n"

    with pytest.raises(MalformedFile, match="line 3: the record that begins here is over 20 bytes") as refused:
        scan(data, block_bytes, record_max_bytes=20)
    assert refused.value.line == 3


def test_runaway_quote_is_hinted_at() -> None:
    """A record that is too long because a quote stays open says where it opened."""
    error = refuse(b'a,b\n1,\n2,"x\n' + b"3,4\n" * 20, record_max_bytes=30)

    assert error.line == 3
    assert "is the quote in line 3 never closed?" in error.detail


def test_header_of_too_many_columns_is_refused() -> None:
    """Columns are counted against their limit."""
    assert "4 columns; at most 3" in refuse(b"a,b,c,d\n", columns_max=3).detail


def test_wide_header_and_long_field_pass() -> None:
    """Ten thousand columns and a field of megabytes are legal."""
    header = ",".join(f"column{index}" for index in range(10_000)).encode() + b"\n"

    assert scan(header + b"1," * 9_999 + b"1\n").rows == 1
    assert scan(b"a,b\n" + b"x" * (10 << 20) + b',"' + b"y\n" * (1 << 20) + b'"\n1,2\n').rows == 2


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (b"a,b\r\n", ["a", "b"]),
        (b'\xef\xbb\xbf"a ""x""","b,\nc",\n', ['a "x"', "b,\nc", ""]),
        ("größe,größe".encode(), ["größe", "größe"]),
        (b"a", ["a"]),
    ],
)
def test_header_is_read_as_csv(header: bytes, names: list[str]) -> None:
    """Quotes and a byte order mark are taken off the names, and a name may stand there twice."""
    assert parse_header(header, b",") == names


@pytest.mark.parametrize("delimiter", [b"", b",,", b'"', b"\n", b"\r", b"1", b".", b"-", b"e", b"\xe9", b"\0"])
def test_delimiter_that_cannot_separate_numbers_is_refused(delimiter: bytes) -> None:
    """A delimiter that may stand inside a number or that means something else is refused."""
    with pytest.raises(ValueError, match="delimiter"):
        check_delimiter(delimiter)


def test_chunk_of_no_size_is_refused() -> None:
    """Limits that leave no room for a record are a programming error."""
    with pytest.raises(ValueError, match="a chunk needs room"):
        RecordScanner(chunk_rows=0)


def test_records_of_a_chunk_are_found_with_their_lines() -> None:
    """Content, newline and line of each record are known."""
    table = find_records(b'\n1,"\n"\r\n\r2', b",")

    assert table.starts.tolist() == [0, 1, 8, 9]
    assert table.content_ends.tolist() == [0, 6, 8, 10]
    assert table.ends.tolist() == [1, 8, 9, 10]
    assert table.lines.tolist() == [0, 1, 3, 4]


def test_fields_are_counted_outside_quotes() -> None:
    """Delimiters inside quotes do not separate."""
    data = b'1;2\n"a;b";";"\n\n5";6";7\n;'

    assert count_fields(data, b";", find_records(data, b";").ends).tolist() == [2, 2, 1, 3, 2]


def test_chunk_that_ends_inside_quotes_is_refused() -> None:
    """Bytes that are no run of whole records are not taken for one."""
    with pytest.raises(MalformedFile, match="line 2"):
        find_records(b'1\n"2\n', b",")
