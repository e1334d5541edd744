"""Fetching and sending files as HTTP has it: ranges, ETags, names, forms and digests."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api_under_test import ApiUnderTest, assert_problem, read_id

StartApi = Callable[..., ApiUnderTest]
CSV = b"a,b\n" + b"".join(b"%d,2\n" % row for row in range(25))


@pytest.fixture
def scored(start_api: StartApi) -> tuple[ApiUnderTest, str, bytes]:
    """Give a scored file of several chunks: the front end, the result's address and the result."""
    api = start_api(chunk_rows=10)
    address = f"/v1/jobs/{api.submit_file(CSV, 'line')}/result"
    api.score()
    return api, address, api.http.get(address).data


def test_result_is_an_attachment_that_can_be_resumed(scored: tuple[ApiUnderTest, str, bytes]) -> None:
    """The whole result says its length, its name, its ETag and that ranges are served."""
    api, address, whole = scored
    response = api.http.get(address)
    assert response.status_code == 200
    assert response.headers["Accept-Ranges"] == "bytes"
    assert int(response.headers["Content-Length"]) == len(whole)
    assert response.headers["Content-Disposition"].startswith("attachment; filename=job_")
    assert response.headers["ETag"].startswith('"')
    head = api.http.head(address)
    assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", str(len(whole)))


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-9", 0, 10), ("bytes=5-5", 5, 6), ("bytes=40-", 40, None), ("bytes=-7", -7, None),
        ("bytes=30-250", 30, 251), ("bytes=100-99999999", 100, None), ("bytes=1-", 1, None),
    ],
)  # fmt: skip
def test_range_of_the_result(
    scored: tuple[ApiUnderTest, str, bytes], wanted: str, start: int, stop: int | None
) -> None:
    """A range within header, chunks or across them is exactly those bytes."""
    api, address, whole = scored
    response = api.http.get(address, headers={"Range": wanted})
    assert response.status_code == 206
    assert response.data == whole[start:stop]
    first = start % len(whole)
    assert response.headers["Content-Range"] == f"bytes {first}-{first + len(response.data) - 1}/{len(whole)}"
    assert int(response.headers["Content-Length"]) == len(response.data)


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "rows=1-2", "bytes=x", "bytes=9-1", "nonsense"])
def test_range_that_is_not_served_gives_the_whole(scored: tuple[ApiUnderTest, str, bytes], wanted: str) -> None:
    """A range of another unit, several or a malformed one may be ignored, and is."""
    api, address, whole = scored
    response = api.http.get(address, headers={"Range": wanted})
    assert (response.status_code, response.data) == (200, whole)


def test_range_beyond_the_end_is_not_satisfiable(scored: tuple[ApiUnderTest, str, bytes]) -> None:
    """A download that asks past the end learns how long the file is (RFC 9110, 15.5.17)."""
    api, address, whole = scored
    response = api.http.get(address, headers={"Range": f"bytes={len(whole)}-"})
    assert_problem(response, 416, "range_not_satisfiable")
    assert response.headers["Content-Range"] == f"bytes */{len(whole)}"


def test_pieces_make_the_whole(scored: tuple[ApiUnderTest, str, bytes]) -> None:
    """A download in pieces of a size that fits nothing is the file."""
    api, address, whole = scored
    pieces = [api.http.get(address, headers={"Range": f"bytes={at}-{at + 36}"}).data for at in range(0, len(whole), 37)]
    assert b"".join(pieces) == whole


def test_etag_of_the_result_is_honoured(scored: tuple[ApiUnderTest, str, bytes]) -> None:
    """An unchanged result is not sent again, and a range of another file is not appended to this one."""
    api, address, whole = scored
    etag = api.http.get(address).headers["ETag"]
    same = api.http.get(address, headers={"If-None-Match": etag})
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", etag)
    assert api.http.get(address, headers={"If-None-Match": '"other"'}).data == whole

    fitting = api.http.get(address, headers={"Range": "bytes=3-5", "If-Range": etag})
    assert (fitting.status_code, fitting.data) == (206, whole[3:6])
    assert fitting.headers["ETag"] == etag
    for validator in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        stranger = api.http.get(address, headers={"Range": "bytes=3-5", "If-Range": validator})
        assert (stranger.status_code, stranger.data) == (200, whole), validator


FIELDS = {"model": "line", "column_prefix": "p_"}


@pytest.mark.parametrize("order", ["options first", "file first"])
def test_form_with_options_on_either_side(api: ApiUnderTest, order: str) -> None:
    """A browser's form is a file job, wherever its fields stand; the result is named after the file."""
    file = {"file": (io.BytesIO(CSV), "customers of may.csv")}
    data = FIELDS | file if order == "options first" else file | FIELDS
    response = api.http.post("/v1/jobs", data=data, content_type="multipart/form-data", buffered=True)
    job_id = read_id(response)

    api.score()

    result = api.http.get(f"/v1/jobs/{job_id}/result")
    assert result.data.startswith(b"a,b,p_prediction,p_error_code,p_error_message\n0,2,")
    assert result.data.count(b"\n") == CSV.count(b"\n")
    assert result.headers["Content-Disposition"] == 'attachment; filename="customers of may.scored.csv"'


@pytest.mark.parametrize("padding", [0, 1, 250_000, 262_000, 262_144, 700_000])
def test_form_of_several_blocks_is_taken_whole(api: ApiUnderTest, padding: int) -> None:
    """Wherever a block of the body ends, in the file or in a boundary, the file is the same."""
    boundary = b"\r\n--b"
    data = b"a,b,c\n" + b"".join(b"1,2,%s\n" % (b"x" * 990) for _ in range(padding // 997)) + b"1,2," + boundary + b"\n"
    body = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nline\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + data.replace(boundary, b"\r\n--a")
        + b"\r\n--b--\r\n"
    )  # fmt: skip
    job_id = read_id(api.http.post("/v1/jobs", data=body, content_type="multipart/form-data; boundary=b"))
    kept = Path(api.settings.file_store) / "jobs" / job_id / "input"
    assert kept.read_bytes() == data.replace(boundary, b"\r\n--a")


@pytest.mark.parametrize(
    ("disposition", "shown"),
    [
        ('filename="../../etc/passwd"', "passwd.scored.csv"),
        (r'filename="C:\\data\\may.csv"', "may.scored.csv"),
        ("filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x.csv", "aSet-Cookie: x.scored.csv"),
        ('filename="日本.csv"', "filename*=UTF-8''%E6%97%A5%E6%9C%AC.scored.csv"),
        ("filename*=UTF-8''b%C3%BCcher.csv", "b%C3%BCcher.scored.csv"),
        (r'filename="say \"hi\".csv"', r"say \"hi\".scored.csv"),
        ('filename=""', "job_"),
        ("", "job_"),
    ],
)
def test_name_of_the_result_is_harmless(api: ApiUnderTest, disposition: str, shown: str) -> None:
    """Whatever an upload was called, its result can be fetched under a name without path or line break."""
    part = f'Content-Disposition: form-data; name="file"; {disposition}'.rstrip("; ")
    body = f"--b\r\n{part}\r\n\r\na,b\n1,2\n\r\n--b\r\n"
    body += 'Content-Disposition: form-data; name="model"\r\n\r\nline\r\n--b--\r\n'
    response = api.http.post("/v1/jobs", data=body.encode(), content_type="multipart/form-data; boundary=b")
    job_id = read_id(response)
    api.score()

    result = api.http.get(f"/v1/jobs/{job_id}/result")

    assert result.status_code == 200, result.text
    assert shown in result.headers["Content-Disposition"]
    assert result.headers["Content-Disposition"].isascii()
    assert "Set-Cookie" not in result.headers


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
@pytest.mark.parametrize("has_length", [True, False])
def test_digest_makes_an_upload_whole(api: ApiUnderTest, algorithm: str, has_length: bool) -> None:
    """A body that matches its Content-Digest is taken, with and without a length."""
    value = base64.b64encode(hashlib.new(algorithm.replace("-", ""), CSV).digest()).decode()
    response = api.http.post(
        "/v1/jobs?model=line",
        data=CSV,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Digest": f"{algorithm}=:{value}:"},
        environ_overrides={} if has_length else {"HTTP_TRANSFER_ENCODING": "chunked"},
    )
    job_id = read_id(response)
    assert (Path(api.settings.file_store) / "jobs" / job_id / "input").read_bytes() == CSV


def test_large_rows_job_is_kept_in_the_file_store(start_api: StartApi) -> None:
    """Rows and results too large for Redis live in files, come back the same, and go with the job or its refusal."""
    api = start_api(inline_bytes=100, max_queue_rows=50)
    job_id = api.submit_rows([[float(row), 2.0] for row in range(40)], "line")
    assert api.post_rows([[1, 2]] * 40, "line").status_code == 429
    assert {path.split("/")[1] for path in api.list_kept_files()} == {job_id}

    api.score()

    result = api.http.get(f"/v1/jobs/{job_id}/result")
    assert (result.status_code, result.mimetype) == (200, "application/json")
    assert result.get_json()["predictions"] == pytest.approx([2 * row + 7 for row in range(40)])
    assert api.http.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert api.list_kept_files() == []
