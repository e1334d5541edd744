"""File jobs over HTTP: the file comes back as it was, with the model's columns; its bad rows carry their errors."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.claims import LedgerEntry
from tests.api_under_test import IRIS_CLASSES, IRIS_ROWS, ApiUnderTest, assert_problem, read_id
from tests.packers import PACKERS
from tests.small_models import IRIS_COLUMNS

StartApi = Callable[..., ApiUnderTest]


def make_line_csv(rows: int) -> bytes:
    """Give a file for ``line`` in which each row is different; y = 2a + 3b + 1."""
    return b"id,a,b\n" + b"".join(b"r%d,%d,%d.5\n" % (row, row, row % 7) for row in range(rows))


def fetch_result(api: ApiUnderTest, job_id: str) -> bytes:
    """Give the scored file of a job that must have one."""
    response = api.http.get(f"/v1/jobs/{job_id}/result")
    assert (response.status_code, response.mimetype) == (200, "text/csv"), response.text
    assert int(response.headers["Content-Length"]) == len(response.data)
    return response.data


def read_csv(data: bytes) -> list[dict[str, str]]:
    """Parse a scored file."""
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def list_errors(api: ApiUnderTest, job_id: str) -> list[dict[str, Any]]:
    """Give the failed rows of a job."""
    response = api.http.get(f"/v1/jobs/{job_id}/errors")
    assert (response.status_code, response.mimetype) == (200, "application/x-ndjson")
    return [json.loads(line) for line in response.data.splitlines()]


def test_file_is_scored_like_the_same_rows_in_json(api: ApiUnderTest) -> None:
    """A file's answers are those of a rows job, in added columns; the record tells its way."""
    lines = [",".join(IRIS_COLUMNS)] + [",".join(map(str, row)) for row in IRIS_ROWS]
    response = api.post_file("\n".join(lines).encode() + b"\n", "iris@champion", priority="low")
    job_id = read_id(response)
    submitted = response.get_json()
    assert (submitted["kind"], submitted["status"], submitted["model"]) == ("file", "queued", "iris:1")
    assert submitted["row_counts"] == {"total": 3, "succeeded": 0, "failed": 0, "pending": 3}
    assert int(response.headers["Retry-After"]) >= 1
    refused = api.http.get(f"/v1/jobs/{job_id}/result")
    assert_problem(refused, 409, "job_not_finished")
    assert refused.headers["Retry-After"]
    rows_id = api.submit_rows()

    api.score()

    job = api.get_job(job_id)
    assert (job["status"], job["progress"], job["error"], job["priority"]) == ("succeeded", 1, None, "low")
    assert job["row_counts"] == {"total": 3, "succeeded": 3, "failed": 0, "pending": 0}
    expected = api.http.get(f"/v1/jobs/{rows_id}/result").get_json()
    scored = read_csv(fetch_result(api, job_id))
    probability_columns = [f"probability_{name}" for name in IRIS_CLASSES]
    assert list(scored[0]) == [*IRIS_COLUMNS, "prediction", *probability_columns, "error_code", "error_message"]
    assert [row["prediction"] for row in scored] == expected["predictions"]
    given = [[float(row[name]) for name in probability_columns] for row in scored]
    np.testing.assert_allclose(given, expected["probabilities"], rtol=1e-6)
    assert {(row["error_code"], row["error_message"]) for row in scored} == {("", "")}
    assert list_errors(api, job_id) == []


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("last", [True, False], ids=["newline at the end", "none at the end"])
def test_input_comes_back_byte_for_byte(start_api: StartApi, newline: bytes, bom: bytes, last: bool) -> None:
    """Quotes, newlines in fields, odd spaces, other columns and odd bytes pass through, with columns behind."""
    api = start_api(chunk_rows=2)
    records = [
        b'b,"the ""note""",a',
        b"2,plain,1",
        b'"2","with, comma","1"',
        b'2,"two\r\nlines",1',
        b"2.0e0,\xff\xfe not text,+1.0",
        b"2,=1+1,1",
    ]
    data = bom + newline.join(records) + (newline if last else b"")
    job_id = api.submit_file(data, "line")

    api.score()

    result = fetch_result(api, job_id)
    assert result.startswith(bom)
    position = len(bom)
    for number, record in enumerate(records):
        assert result[position : position + len(record) + 1] == record + b","
        position += len(record) + 1
        end = result.find(newline, position) if last or number < len(records) - 1 else len(result)
        added = result[position:end].split(b",")
        if number == 0:
            assert added == [b"prediction", b"error_code", b"error_message"]
        else:
            assert float(added[0]) == pytest.approx(9)
            assert added[1:] == [b"", b""]
        position = end + (len(newline) if end < len(result) else 0)
    assert position == len(result)


def test_bad_rows_carry_their_errors(start_api: StartApi) -> None:
    """As many records come out as went in; each bad one has its code, and /errors says where and why."""
    api = start_api(chunk_rows=3)
    data = b'id,a,b\n0,1,2\n1,x,2\n2,1,\n3,1,nan\n4,inf,2\n5,1\n6,1,2,3\n\n8,1e308,1e308\n9,"1\n",2\n10,1,2\n'
    job_id = api.submit_file(data, "line")

    api.score()

    job = api.get_job(job_id)
    assert job["status"] == "partially_succeeded"
    errors = list_errors(api, job_id)
    assert [(error["row"], error["line"], error["column"], error["code"]) for error in errors[:7]] == [
        (2, 3, "a", "type_error"),
        (3, 4, "b", "missing_value"),
        (4, 5, "b", "missing_value"),
        (5, 6, "a", "non_finite"),
        (6, 7, None, "malformed_row"),
        (7, 8, None, "malformed_row"),
        (8, 9, None, "malformed_row"),
    ]
    assert errors[7]["row"] == 9
    assert all(error["detail"] for error in errors)
    failed = len(errors)
    assert job["row_counts"] == {"total": 11, "succeeded": 11 - failed, "failed": failed, "pending": 0}
    scored = fetch_result(api, job_id)
    assert scored.count(b"\n") == data.count(b"\n")
    assert b"\n1,x,2,,type_error," in scored
    assert float(scored.splitlines()[-1].split(b",")[3]) == pytest.approx(9)


def test_file_of_which_every_row_fails_is_failed(api: ApiUnderTest) -> None:
    """Its result is a problem document, and its rows are all in /errors."""
    job_id = api.submit_file(b"a,b\nx,1\ny,2\n", "line")

    api.score()

    assert api.get_job(job_id)["row_counts"] == {"total": 2, "succeeded": 0, "failed": 2, "pending": 0}
    assert_problem(api.http.get(f"/v1/jobs/{job_id}/result"), 500, "model_error")
    assert [error["row"] for error in list_errors(api, job_id)] == [1, 2]


def test_file_with_a_header_only_is_done_at_once(api: ApiUnderTest) -> None:
    """No rows are no fault: the result is the header with the new columns."""
    job_id = api.submit_file(b"a,b\r\n", "line")
    job = api.get_job(job_id)
    assert (job["status"], job["progress"], job["row_counts"]["total"]) == ("succeeded", 1, 0)
    assert fetch_result(api, job_id) == b"a,b,prediction,error_code,error_message\r\n"
    assert list_errors(api, job_id) == []


def test_two_workers_share_a_file(start_api: StartApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks scored by turns in two processes give the file that one process gives, and the counts move on the way."""
    monkeypatch.setattr("worker.files.TURN_SECONDS", 0.0)  # a chunk a turn
    api = start_api(chunk_rows=10)
    data = make_line_csv(95)
    shared_id, alone_id = api.submit_file(data, "line"), None
    workers = [api.make_worker(), api.make_worker()]

    seen = []
    for turn in range(10):
        assert workers[turn % 2].score_chunks("files:line:1") == f"model=line:1 chunks=1 rows={5 if turn == 9 else 10}"
        job = api.get_job(shared_id)
        counts = job["row_counts"]
        assert counts["succeeded"] + counts["failed"] + counts["pending"] == counts["total"] == 95
        seen.append((job["status"], counts["succeeded"], job["progress"]))
        if turn < 9:
            assert_problem(api.http.get(f"/v1/jobs/{shared_id}/result"), 409, "job_not_finished")

    assert [status for status, _, _ in seen] == ["running"] * 9 + ["succeeded"]
    assert [done for _, done, _ in seen] == [*range(10, 100, 10), 95]
    assert [progress for _, _, progress in seen] == sorted({progress for _, _, progress in seen})
    alone_id = api.submit_file(data, "line")
    api.score()
    assert fetch_result(api, shared_id) == fetch_result(api, alone_id)
    answers = [float(row["prediction"]) for row in read_csv(fetch_result(api, shared_id))]
    np.testing.assert_allclose(answers, [2 * row + 3 * (row % 7 + 0.5) + 1 for row in range(95)], rtol=1e-6)


@pytest.mark.parametrize(
    ("delimiter", "options", "added"),
    [
        (b";", {"delimiter": ";"}, b"prediction;error_code;error_message"),
        (b";", {"delimiter": "semicolon"}, b"prediction;error_code;error_message"),
        (b"\t", {"delimiter": "tab"}, b"prediction\terror_code\terror_message"),
        (b",", {"column_prefix": "m_"}, b"m_prediction,m_error_code,m_error_message"),
        (b",", {"column_prefix": 'x,"'}, b'"x,""prediction","x,""error_code","x,""error_message"'),
    ],
)
def test_options_shape_the_result(api: ApiUnderTest, delimiter: bytes, options: dict[str, str], added: bytes) -> None:
    """The delimiter is the file's own, and a prefix keeps the new columns apart."""
    job_id = api.submit_file(
        delimiter.join((b"a", b"b")) + b"\n" + delimiter.join((b"1", b"2")) + b"\n", "line", **options
    )

    api.score()

    header, row = fetch_result(api, job_id).splitlines()
    assert header == delimiter.join((b"a", b"b", added))
    cells = row.split(delimiter)
    assert (cells[:2], cells[3:]) == ([b"1", b"2"], [b"", b""])
    assert float(cells[2]) == pytest.approx(9)


def test_prefix_resolves_a_collision(api: ApiUnderTest) -> None:
    """A file that was scored before can be scored again."""
    job_id = api.submit_file(b"a,b,prediction\n1,2,7\n", "line", column_prefix="new_")
    api.score()
    assert read_csv(fetch_result(api, job_id))[0]["new_prediction"].startswith(("9", "8.99"))


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
def test_deleted_file_job_leaves_nothing(start_api: StartApi, state: str) -> None:
    """DELETE removes input, plan and parts, and a chunk that is committed later is refused."""
    api = start_api(chunk_rows=10)
    job_id = api.submit_file(make_line_csv(30), "line")
    store = api.service.store
    if state == "succeeded":
        api.score()
    if state == "running":
        (claim,) = store.claim("files:line:1", "late", lease_seconds=60, max_rows=1, max_bytes=1, max_chunks=1).units
    assert any(job_id in path for path in api.list_kept_files())

    assert api.http.delete(f"/v1/jobs/{job_id}").status_code == 204

    assert api.list_kept_files() == []
    if state == "running":
        entry = LedgerEntry("0000000-1", 10, 10, 0, "")
        assert store.commit_chunk("late", claim, entry, chunks_offered=4) == (False, False)
        store.leave("late")
    assert_problem(api.http.get(f"/v1/jobs/{job_id}/result"), 410, "job_gone")
    api.score()
    assert store.read_queue("files:line:1").outstanding_rows == 0


@pytest.mark.parametrize("left", ["nothing", "no parts", "not all parts"])
@pytest.mark.parametrize("path", ["result", "errors"])
def test_result_whose_files_are_gone_is_gone(start_api: StartApi, left: str, path: str) -> None:
    """Between the removal of files and of the record a caller is told that the job is gone, not that we failed."""
    api = start_api(chunk_rows=10)
    job_id = api.submit_file(make_line_csv(25).replace(b",1,", b",x,").replace(b",21,", b",x,"), "line")
    api.score()
    parts = Path(api.settings.file_store) / "jobs" / job_id / "parts"
    assert api.http.get(f"/v1/jobs/{job_id}/{path}").status_code == 200
    if left == "nothing":
        api.service.files.remove(job_id)
    for part in parts.glob("0000002-*" if left == "not all parts" else "*"):
        part.unlink()
    assert_problem(api.http.get(f"/v1/jobs/{job_id}/{path}"), 410, "job_gone")


@pytest.mark.parametrize("path", ["result", "errors"])
def test_large_rows_result_whose_file_is_gone_is_gone(start_api: StartApi, path: str) -> None:
    """The same holds for a rows job whose result was too large for Redis."""
    api = start_api(inline_bytes=100)
    job_id = api.submit_rows(IRIS_ROWS * 20)
    api.score()
    assert api.http.get(f"/v1/jobs/{job_id}/{path}").status_code == 200
    api.service.files.remove(job_id)
    assert_problem(api.http.get(f"/v1/jobs/{job_id}/{path}"), 410, "job_gone")


BAD_LINE = b"id,a,b\nr0,0,0\nr1,1,1\nr2,x,2\nr3,3,3\nr4,4,\nr5,5,5\nr6,6,6\n"


def test_first_bad_row_ends_a_job_that_wants_none(start_api: StartApi) -> None:
    """With on_row_error=fail the job fails at its first bad row, says where, and scores nothing more."""
    api = start_api(chunk_rows=2, chunks_offered=1)
    job_id = api.submit_file(BAD_LINE, "line", on_row_error="fail")

    api.score()

    job = api.get_job(job_id)
    assert job["status"] == "failed"
    assert job["row_counts"] == {"total": 7, "succeeded": 3, "failed": 1, "pending": 3}
    problem = assert_problem(api.http.get(f"/v1/jobs/{job_id}/result"), 422, "schema_mismatch")
    assert "row 3, line 4, column 'a': found 'x', expected a number" in problem["detail"]
    assert [error["row"] for error in list_errors(api, job_id)] == [3]
    assert api.service.store.read_queue("files:line:1").outstanding_rows == 0


@pytest.mark.parametrize(("threshold", "status"), [("0.28", "failed"), ("0.29", "partially_succeeded")])
def test_job_fails_above_its_error_threshold(start_api: StartApi, threshold: str, status: str) -> None:
    """Two of seven rows are 0.286 of the file: a job that allows less fails, one that allows more does not."""
    api = start_api(chunk_rows=2, chunks_offered=1)
    job_id = api.submit_file(BAD_LINE, "line", error_threshold=threshold)

    api.score()

    assert api.get_job(job_id)["status"] == status
    if status == "failed":
        problem = assert_problem(api.http.get(f"/v1/jobs/{job_id}/result"), 422, "schema_mismatch")
        assert "more than 1 of 7 rows failed" in problem["detail"]


def test_chunk_that_another_holds_is_refused_when_its_job_has_stopped(start_api: StartApi) -> None:
    """A chunk that was under way when its job failed is not counted any more."""
    api = start_api(chunk_rows=2, chunks_offered=4)
    job_id = api.submit_file(BAD_LINE, "line", on_row_error="fail")
    store = api.service.store
    other = store.claim("files:line:1", "other", lease_seconds=5, max_rows=1, max_bytes=1, max_chunks=1).units[0]
    api.score()
    before = api.get_job(job_id)

    stored, _ = store.commit_chunk("other", other, LedgerEntry("x", 1, 2, 0, ""), chunks_offered=4)

    assert not stored
    assert before["status"] == "failed"
    assert api.get_job(job_id) == before


def test_finished_chunks_can_be_had_while_the_rest_is_scored(start_api: StartApi) -> None:
    """With ?partial=true the result so far is the beginning of the whole one, under an ETag of its own."""
    api = start_api(chunk_rows=10, chunks_offered=2)
    data = make_line_csv(45)
    job_id = api.submit_file(data, "line")
    worker = api.make_worker()
    path = f"/v1/jobs/{job_id}/result"
    nothing = api.http.get(path, query_string={"partial": "true"})
    held = api.service.store.claim("files:line:1", "other", lease_seconds=5, max_rows=1, max_bytes=1, max_chunks=1)
    api.service.store.leave("other")
    assert held.units[0].chunk == 0
    worker.score_chunks("files:line:1")
    behind_a_gap = api.http.get(path, query_string={"partial": "true"})
    assert_problem(api.http.get(path), 409, "job_not_finished")
    api.service.store.reclaim("files:line:1", "normal", "other")
    api.score()
    whole = fetch_result(api, job_id)
    complete = api.http.get(path, query_string={"partial": "true"})

    assert (nothing.status_code, nothing.headers["Scorequeue-Rows"]) == (200, "0")
    assert nothing.data == whole.partition(b"\n")[0] + b"\n"
    assert behind_a_gap.data == nothing.data  # chunks after the first that lacks are held back
    assert complete.data == whole
    assert nothing.headers["ETag"] != complete.headers["ETag"]
    assert_problem(api.http.get(path, query_string={"partial": "maybe"}), 400, "invalid_parameter")


def count_chunks(api: ApiUnderTest, job_id: str) -> list[int]:
    """Give the rows of each chunk of a job's plan."""
    return [chunk["rows"] for chunk in json.loads(api.service.files.read_plan(job_id))["chunks"]]


def test_chunks_hold_half_a_second_of_work(start_api: StartApi) -> None:
    """What workers measured decides the rows of a later file's chunks, up to the setting; a slow model gets few."""
    api = start_api(chunk_rows=3_000)
    queue = "files:line:1"
    data = make_line_csv(4_000)
    unknown = api.submit_file(data, "line")
    api.service.store.client.hset(f"sq:queue:{queue}", "chunk_speed", "2000")
    known = api.submit_file(data, "line")
    api.service.store.client.hset(f"sq:queue:{queue}", "chunk_speed", "3")
    slow = api.submit_file(data, "line")

    assert count_chunks(api, unknown) == [3_000, 1_000]
    assert count_chunks(api, known) == [1_000] * 4
    assert count_chunks(api, slow) == [30] * 133 + [10]

    api.score()

    assert fetch_result(api, unknown) == fetch_result(api, known) == fetch_result(api, slow)
    measured = api.service.store.read_chunk_speed(queue)
    assert measured is not None
    assert measured > 3


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_file_is_scored_like_the_plain_one(api: ApiUnderTest, encoding: str) -> None:
    """A gzip or zstd body needs no length: its end mark says that it is whole. The result is that of the plain file."""
    data = make_line_csv(50)
    packed = PACKERS[encoding](data)
    plain = api.submit_file(data, "line")
    answer = api.http.post(
        "/v1/jobs?model=line",
        input_stream=io.BytesIO(packed),
        headers={"Content-Encoding": encoding, "Transfer-Encoding": "chunked"},
        content_type="text/csv",
        environ_overrides={"wsgi.input_terminated": True},
    )
    job_id = read_id(answer)

    api.score()

    results = [api.http.get(f"/v1/jobs/{job}/result").data for job in (plain, job_id)]
    assert results[0] == results[1]
    assert b"prediction" in results[0]


def test_small_file_does_not_wait_for_the_big_one_before_it(start_api: StartApi) -> None:
    """A few chunks of each file are offered at a time, so a small file is done long before the big one is."""
    api = start_api(chunk_rows=1, chunks_offered=2)
    big = api.submit_file(make_line_csv(40), "line")
    small = api.submit_file(make_line_csv(3), "line")
    store, owner = api.service.store, "one by one"
    order: list[str] = []

    while units := store.claim("files:line:1", owner, lease_seconds=60, max_rows=1, max_bytes=1, max_chunks=1).units:
        order.append(units[0].id)
        store.commit_chunk(owner, units[0], LedgerEntry("part", 1, 1, 0, ""), chunks_offered=2)

    assert (order.count(big), order.count(small)) == (40, 3)
    assert max(place for place, job_id in enumerate(order) if job_id == small) < 10


def test_rows_jobs_do_not_wait_for_files(start_api: StartApi) -> None:
    """Files wait in queues of their own: a rows job is claimed at once, however many chunks are there."""
    api = start_api(chunk_rows=1, chunks_offered=2)
    api.submit_file(make_line_csv(40), "line")
    job_id = api.submit_rows([[1.0, 2.0]], "line")

    api.make_worker().score_rows("rows:line:1")

    assert api.get_job(job_id)["status"] == "succeeded"
