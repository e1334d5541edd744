"""Files that cannot be taken: refused whole, with what was wrong and where, and nothing of them kept."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.api_under_test import ApiUnderTest, assert_problem
from tests.packers import PACKERS

StartApi = Callable[..., ApiUnderTest]
CSV = b"a,b\n1,2\n3,4\n"
BOUNDARY = "frontier"


@pytest.fixture(autouse=True)
def _keeps_nothing(api: ApiUnderTest) -> Iterator[None]:
    """Whatever a test of this file sends is refused: no job, no file and no half of a file is left."""
    yield
    assert api.http.get("/v1/jobs").get_json()["jobs"] == []
    assert api.list_kept_files() == []


def digest(data: bytes, algorithm: str = "sha-256") -> str:
    """Give the value of Content-Digest for `data`."""
    raw = hashlib.new(algorithm.replace("-", ""), data).digest()
    return f"{algorithm}=:{base64.b64encode(raw).decode()}:"


def post_stream(api: ApiUnderTest, data: bytes, length: int | None, **headers: str) -> Any:
    """Send a body that claims another length than it has, or none."""
    return api.http.post(
        "/v1/jobs?model=line",
        data=data,
        content_type=headers.pop("content_type", "text/csv"),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        environ_overrides={"HTTP_TRANSFER_ENCODING": "chunked"} if length is None else {"CONTENT_LENGTH": str(length)},
    )


def make_part(name: str, value: bytes | str, more: str = "") -> bytes:
    """Give one part of a form."""
    content = value if isinstance(value, bytes) else value.encode()
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def post_form(
    api: ApiUnderTest, *parts: bytes, end: bytes | None = None, boundary: str = f"boundary={BOUNDARY}"
) -> Any:
    """Send a form as it is."""
    body = b"".join(parts) + (f"--{BOUNDARY}--\r\n".encode() if end is None else end)
    return api.http.post("/v1/jobs", data=body, content_type=f"multipart/form-data; {boundary}")


FILE_PART = make_part("file", CSV, '; filename="in.csv"')
MODEL_PART = make_part("model", "line")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\n", "blank"),
        (b"\n1,2\n", "blank"),
        (b'a,b\n1,"2\n', "never closed"),
        (b'"a,b\n1,2\n', "never closed"),
        (b"a\0,b\n1,2\n", "zero bytes"),
        (b"a,b\xff\n1,2\n", "UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-8"),
        (b"PK\x03\x04\x14\0\0\0", "zero bytes"),
    ],
)
def test_what_is_not_csv_is_malformed(api: ApiUnderTest, data: bytes, says: str) -> None:
    """An empty file, one without a header, an open quote or another format: a 400 that names it."""
    assert says in assert_problem(post_stream(api, data, len(data)), 400, "malformed_csv")["detail"]


def test_file_without_the_models_columns_names_the_nearest(api: ApiUnderTest) -> None:
    """Each missing column is named, with the names in the file that come near to it."""
    header = b"Sepal_Length,sepal width,petal_length,unrelated\n"
    problem = assert_problem(api.post_file(header + b"1,2,3,4\n"), 422, "schema_mismatch")

    faults = {fault["column"]: fault for fault in problem["errors"]}
    assert set(faults) == {"sepal_length", "sepal_width", "petal_width"}
    assert all(fault["code"] == "missing_column" for fault in faults.values())
    assert "did you mean Sepal_Length" in faults["sepal_length"]["detail"]
    assert "sepal width" in faults["sepal_width"]["detail"]
    assert "unrelated" not in faults["petal_width"]["detail"]
    assert "iris:1" in problem["detail"]


@pytest.mark.parametrize("header", [b"a,b,a\n", b"a,b,b,b\n"])
def test_file_with_a_needed_column_twice_is_refused(api: ApiUnderTest, header: bytes) -> None:
    """Which of two columns is meant is not guessed."""
    problem = assert_problem(api.post_file(header + b"1,2,3\n", "line"), 422, "schema_mismatch")
    assert [fault["code"] for fault in problem["errors"]] == ["duplicate_column"]


def test_wrong_delimiter_shows_as_missing_columns(api: ApiUnderTest) -> None:
    """A semicolon file read with commas has one strange column, and the answer shows it."""
    assert_problem(api.post_file(b"a;b\n1;2\n", "line"), 422, "schema_mismatch")


@pytest.mark.parametrize("name", [b"prediction", b"error_code", b"error_message"])
def test_column_that_would_be_written_twice_is_a_collision(api: ApiUnderTest, name: bytes) -> None:
    """A name that scoring adds must not be in the file; the answer names it and the way out."""
    problem = assert_problem(api.post_file(b"a,b," + name + b"\n1,2,3\n", "line"), 422, "column_collision")
    assert name.decode() in problem["detail"]
    assert "column_prefix" in problem["detail"]


def test_prefix_may_collide_too(api: ApiUnderTest) -> None:
    """The names as they will be written count."""
    answer = api.post_file(b"a,b,my_prediction\n1,2,3\n", "line", column_prefix="my_")
    assert_problem(answer, 422, "column_collision")


@pytest.mark.parametrize("length", [len(CSV) + 1, 10**6])
def test_upload_that_is_cut_off_is_incomplete(api: ApiUnderTest, length: int) -> None:
    """Fewer bytes than Content-Length said are not a file."""
    problem = assert_problem(post_stream(api, CSV, length), 400, "incomplete_upload")
    assert f"{len(CSV)} of {length} bytes" in problem["detail"]


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
@pytest.mark.parametrize("length", [None, len(CSV)])
def test_upload_that_does_not_match_its_digest_is_incomplete(
    api: ApiUnderTest, algorithm: str, length: int | None
) -> None:
    """A wrong Content-Digest refuses the file, with and without Content-Length."""
    answer = post_stream(api, CSV, length, Content_Digest=digest(CSV + b"5,6\n", algorithm))
    assert_problem(answer, 400, "incomplete_upload")


def test_digest_that_is_not_base64_is_a_wrong_parameter(api: ApiUnderTest) -> None:
    """A digest that cannot be read is not ignored."""
    assert_problem(post_stream(api, CSV, len(CSV), Content_Digest="sha-256=:abc:"), 400, "invalid_parameter")


@pytest.mark.parametrize("headers", [{}, {"Content_Digest": "md5=:XUFAKrxLKna5cZ2REBfFkg==:"}, {"Content_Digest": "x"}])
def test_upload_without_an_end_needs_a_length(api: ApiUnderTest, headers: dict[str, str]) -> None:
    """With neither length nor a digest that is understood, a cut could not be seen: 411."""
    assert_problem(post_stream(api, CSV, None, **headers), 411, "length_required")


def test_body_over_the_limit_is_refused(start_api: StartApi) -> None:
    """A file over its limit, and JSON over its own, are a 413 that names the limit; the length need not be told."""
    api = start_api(max_file_bytes=100, max_body_bytes=50)
    large = b"a,b\n" + b"1,2\n" * 100
    json = b'{"model": "line", "rows": [[1, 2]], "metadata": {"x": "yyyyyyyyyyyyyyyyyyyyyyyy"}}'
    for answer in (
        post_stream(api, large, len(large)),
        post_stream(api, large, None, Content_Digest=digest(large)),
        post_stream(api, CSV, 10**15),
        post_form(api, make_part("file", large), MODEL_PART),
    ):
        assert "100 bytes" in assert_problem(answer, 413, "payload_too_large")["detail"]
    for length in (len(json), None):
        answer = post_stream(api, json, length, content_type="application/json")
        assert "50 bytes" in assert_problem(answer, 413, "payload_too_large")["detail"]


def test_json_that_is_cut_off_is_incomplete(api: ApiUnderTest) -> None:
    """Content-Length and Content-Digest hold for JSON bodies as well."""
    body = b'{"model": "line", "rows": [[1, 2]]}'
    answer = post_stream(api, body, len(body) + 5, content_type="application/json")
    assert_problem(answer, 400, "incomplete_upload")
    answer = post_stream(api, body, None, content_type="application/json", Content_Digest=digest(b"else"))
    assert_problem(answer, 400, "incomplete_upload")


WRONG_OPTIONS = [
    ("priority", "urgent"),
    ("deadline_seconds", "soon"),
    ("deadline_seconds", "0"),
    ("deadline_seconds", "nan"),
    ("deadline_seconds", "inf"),
    ("deadline_seconds", "1e9"),
    ("retention_seconds", "-1"),
    ("retention_seconds", "nan"),
    ("delimiter", ""),
    ("delimiter", "ab"),
    ("delimiter", "€"),
    ("delimiter", '"'),
    ("delimiter", "\n"),
    ("delimiter", "1"),
    ("on_row_error", "explode"),
    ("error_threshold", "1.5"),
    ("error_threshold", "-0.1"),
    ("error_threshold", "nan"),
    ("error_threshold", "some"),
    ("colour", "red"),
    ("metadata", "x"),
]


@pytest.mark.parametrize(("name", "value"), WRONG_OPTIONS)
def test_wrong_option_is_named(api: ApiUnderTest, name: str, value: str) -> None:
    """An option that is unknown or out of range is a 400 that names it, in the query and in a form alike."""
    for answer in (
        api.post_file(CSV, "line", **{name: value}),
        post_form(api, FILE_PART, MODEL_PART, make_part(name, value)),
    ):
        assert name in assert_problem(answer, 400, "invalid_parameter")["detail"]


@pytest.mark.parametrize("reference", ["lien", "line:2", "line@best", "../line"])
def test_unknown_model_of_a_file_is_a_404(api: ApiUnderTest, reference: str) -> None:
    """A wrong model is told, in the query and in a form alike."""
    assert_problem(api.post_file(CSV, reference), 404, "unknown_model")
    assert_problem(post_form(api, FILE_PART, make_part("model", reference)), 404, "unknown_model")


def test_model_must_be_named_when_there_are_two(api: ApiUnderTest) -> None:
    """Without a model the answer lists what there is."""
    assert "iris, line" in assert_problem(api.post_file(CSV, ""), 400, "invalid_parameter")["detail"]
    assert "iris, line" in assert_problem(post_form(api, FILE_PART), 400, "invalid_parameter")["detail"]


BAD_FORMS: dict[str, tuple[tuple[bytes, ...], bytes | None, str]] = {
    "no part named file": ((MODEL_PART, make_part("data", CSV)), None, "malformed_file"),
    "two parts named file": ((FILE_PART, FILE_PART, MODEL_PART), None, "malformed_file"),
    "no part at all": ((), None, "malformed_file"),
    "empty": ((), b"\r\n", "incomplete_upload"),
    "cut off in the file": ((MODEL_PART, FILE_PART[:-5]), b"", "incomplete_upload"),
    "cut off after the file": ((MODEL_PART, FILE_PART), b"", "incomplete_upload"),
    "cut off in the end mark": ((MODEL_PART, FILE_PART), b"--front", "incomplete_upload"),
    "cut off in a header": ((MODEL_PART, FILE_PART[:40]), b"", "incomplete_upload"),
    "another boundary": ((b"--other\r\n\r\n\r\n--other--\r\n",), b"", "incomplete_upload"),
    "part without a name": (
        (FILE_PART, f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nx\r\n".encode()),
        None,
        "malformed_file",
    ),
    "part without disposition": (
        (FILE_PART, f"--{BOUNDARY}\r\nContent-Type: text/csv\r\n\r\nx\r\n".encode()),
        None,
        "malformed_file",
    ),
    "header that is not UTF-8": ((FILE_PART.replace(b"in.csv", b"\xff.csv"), MODEL_PART), None, "malformed_file"),
    "field without end": ((FILE_PART, make_part("model", "x" * 70_000)), None, "payload_too_large"),
    "hundreds of fields": ((FILE_PART, make_part("x", "") * 200), None, "payload_too_large"),
    "preamble without end": ((b"x" * 3_000_000, FILE_PART, MODEL_PART), None, "payload_too_large"),
    "not CSV inside": ((MODEL_PART, make_part("file", b'a,b\n"')), None, "malformed_csv"),
}


@pytest.mark.parametrize(("parts", "end", "code"), BAD_FORMS.values(), ids=BAD_FORMS)
def test_bad_form_is_refused(api: ApiUnderTest, parts: tuple[bytes, ...], end: bytes | None, code: str) -> None:
    """A form that is cut off, lacks the file or cannot be read is refused whole."""
    assert_problem(post_form(api, *parts, end=end), 413 if code == "payload_too_large" else 400, code)


@pytest.mark.parametrize("boundary", ["", "boundary=", "boundary*=utf-8''%E2%82%AC", "charset=x"])
def test_form_without_a_usable_boundary_is_malformed(api: ApiUnderTest, boundary: str) -> None:
    """Without a boundary a form cannot be read."""
    answer = post_form(api, FILE_PART, MODEL_PART, boundary=boundary)
    assert answer.status_code == 400
    assert_problem(answer, 400, "malformed_file" if "E2" not in boundary else answer.get_json(force=True)["code"])


@pytest.mark.parametrize("encoding", ["br", "compress", "gzip, br"])
def test_unknown_encoding_is_unsupported(api: ApiUnderTest, encoding: str) -> None:
    """A body packed in a way that is not understood is a 415, not garbage."""
    answer = api.post_file(CSV, "line", headers={"Content-Encoding": encoding})
    assert_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_cut_off_compressed_file_is_kept_nowhere(api: ApiUnderTest, encoding: str) -> None:
    """Half of it with an honest length is refused all the same, and leaves nothing."""
    packed = PACKERS[encoding](CSV * 500)

    answer = api.post_file(packed[: len(packed) // 2], "line", headers={"Content-Encoding": encoding})

    assert_problem(answer, 400, "incomplete_upload")
