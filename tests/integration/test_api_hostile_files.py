"""Files that nobody should send, and somebody will."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Iterable

import pytest

from shared.plans import COLUMNS_MAX
from shared.sweep import Sweep
from tests.api_under_test import ApiUnderTest, assert_problem, read_id
from worker.files import ChunkScorer

#: One Redis is enough.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)


def test_header_alone_is_a_job_without_rows(api: ApiUnderTest) -> None:
    """A file of columns alone succeeds at once, and its result is a header."""
    job_id = api.submit_file(b"a,b\n", "line")

    assert api.get_job(job_id)["status"] == "succeeded"
    assert api.http.get(f"/v1/jobs/{job_id}/result").data == b"a,b,prediction,error_code,error_message\n"


def test_ten_thousand_columns_pass_through(api: ApiUnderTest) -> None:
    """A very wide file keeps all its cells, and only those of the model are read."""
    names = ["a", "b", *(f"c{index}" for index in range(9_998))]
    row = ",".join(str(index) for index in range(10_000))

    job_id = api.submit_file(f"{','.join(names)}\n{row}\n{row}\n".encode(), "line")
    api.score()

    _, first, second = api.http.get(f"/v1/jobs/{job_id}/result").data.decode().splitlines()
    assert first == second == row + ",4,,"


@pytest.mark.parametrize(("kind", "code"), [("text/csv", "malformed_csv"), ("application/x-ndjson", "malformed_file")])
def test_more_columns_than_anybody_means_are_refused(api: ApiUnderTest, kind: str, code: str) -> None:
    """A header of twenty thousand and some names, or such a record, makes no job."""
    names: Iterable[str] = ["a", "b", *(f"c{number}" for number in range(COLUMNS_MAX))]
    body = ",".join(names) if kind == "text/csv" else json.dumps(dict.fromkeys(names, 1))

    response = api.http.post("/v1/jobs", query_string={"model": "line"}, data=f"{body}\n".encode(), content_type=kind)

    assert_problem(response, 400, code)
    assert api.list_kept_files() == []


def test_line_of_ten_megabytes_is_a_row(api: ApiUnderTest) -> None:
    """A cell of ten megabytes passes through byte for byte."""
    note = "x" * (10 << 20)

    job_id = api.submit_file(f'a,note,b\n1,"{note}",2\n'.encode(), "line")
    api.score()

    result = api.http.get(f"/v1/jobs/{job_id}/result").data
    assert result == f'a,note,b,prediction,error_code,error_message\n1,"{note}",2,9,,\n'.encode()


def test_line_that_never_ends_is_refused(api: ApiUnderTest) -> None:
    """A record over the limit is refused with its line, also if a quote is what makes it so long."""
    problem = assert_problem(api.post_file(b'a,b\n1,2\n3,"' + b"x" * (17 << 20), "line"), 400, "malformed_csv")

    assert "line 3" in problem["detail"]
    assert "quote in line 3" in problem["detail"]
    assert api.list_kept_files() == []


@pytest.mark.parametrize("media_type", ["text/csv", "application/x-ndjson", "application/vnd.apache.parquet"])
def test_binary_rubbish_is_refused_or_fails_row_by_row(api: ApiUnderTest, media_type: str) -> None:
    """Random bytes are no file of any format."""
    data = os.urandom(100_000)

    response = api.http.post("/v1/jobs", query_string={"model": "line"}, data=data, content_type=media_type)

    assert response.status_code in (400, 422), response.text
    assert api.list_kept_files() == []


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/", "..", "con/", "a\\b\\", ".", "x" * 5000 + ".csv", "\u202egpj.csv"]
)
def test_name_of_a_file_goes_nowhere(api: ApiUnderTest, name: str) -> None:
    """Whatever a form calls its file, it is stored under the job's id, and offered under a harmless name."""
    fields = {"file": (io.BytesIO(b"a,b\n1,2\n"), name, "text/csv"), "model": "line"}

    job_id = read_id(api.http.post("/v1/jobs", data=fields, content_type="multipart/form-data"))
    api.score()

    assert {kept.split("/")[1] for kept in api.list_kept_files() if "/" in kept} == {job_id}
    offered = api.http.get(f"/v1/jobs/{job_id}/result").headers["Content-Disposition"]
    assert "/" not in offered.partition("filename*")[0]
    assert "\\" not in offered
    assert "\n" not in offered


def test_bomb_is_refused_before_it_fills_the_store(api: ApiUnderTest) -> None:
    """What unpacks to a thousand times its size is refused on the way, in a form as well."""
    bomb = gzip.compress(b"a,b\n" + b"0" * (64 << 20))
    fields = {"file": (io.BytesIO(bomb), "rows.csv.gz"), "model": "line"}

    packed = api.post_file(bomb, "line", headers={"Content-Encoding": "gzip"})
    in_form = api.http.post("/v1/jobs", data=fields, content_type="multipart/form-data")

    assert packed.status_code in (400, 413)
    assert in_form.status_code in (400, 413)
    assert api.list_kept_files() == []


def test_truncated_gzip_in_a_form_is_incomplete(api: ApiUnderTest) -> None:
    """A compressed file in a form is known to be whole by its own end, not the form's."""
    data = gzip.compress(b"a,b\n1,2\n" * 1000)[:-4]
    fields = {"file": (io.BytesIO(data), "rows.csv.gz"), "model": "line"}

    response = api.http.post("/v1/jobs", data=fields, content_type="multipart/form-data")

    assert_problem(response, 400, "incomplete_upload")
    assert api.list_kept_files() == []


def test_cancel_leaves_the_input_alone(start_api: object, monkeypatch: pytest.MonkeyPatch, api: ApiUnderTest) -> None:
    """When a file job was canceled the sweep removes what was scored; a part that comes later is removed as well."""
    small = start_api(chunk_rows=1000)  # type: ignore[operator]
    job_id = small.submit_file(b"a,b\n" + b"1,2\n" * 3000, "line")
    worker = small.make_worker()
    scorer: ChunkScorer = worker._chunks
    scorer._score_or_fail("files:line:1", "line", 1, scorer._claim("files:line:1", clear_wakeup=True))
    late = scorer._claim("files:line:1", clear_wakeup=True)
    assert any("/parts/" in name for name in small.list_kept_files())

    assert small.http.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    scorer._score_or_fail("files:line:1", "line", 1, late)
    sweep = Sweep(small.service.store, small.service.files, small.service.publisher, "test")
    sweep.run_once()

    assert small.get_job(job_id)["status"] == "canceled"
    kept = [name for name in small.list_kept_files() if name.startswith(f"jobs/{job_id}/")]
    assert kept == [f"jobs/{job_id}/input", f"jobs/{job_id}/plan.json"]
