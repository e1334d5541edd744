"""What the Python client does with the answers of the contract; the answers are recorded, the HTTP is real."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import scorequeue
from scorequeue import (
    Client,
    Job,
    JobFailed,
    JobTimeout,
    OutcomeUnknown,
    Progress,
    RequestRefused,
    ServiceUnreachable,
    WrongUse,
)
from tests.unit.recorded_service import JOB_ID, Answer, RecordedService, job_record, problem

JOB = f"/v1/jobs/{JOB_ID}"
ACCEPTED = Answer(job_record("queued"), 202, {"Location": JOB, "Retry-After": "1"})
FILE = b"a,b\n1,2\n3,4\n" * 50_000


@pytest.fixture
def service() -> Iterator[RecordedService]:
    """Play recorded answers."""
    with RecordedService() as service:
        yield service


@pytest.fixture
def client(service: RecordedService) -> Iterator[Client]:
    """Make a client of the server that plays."""
    with Client(service.url, timeout=5) as client:
        yield client


@pytest.fixture
def refused_url() -> str:
    """Find an address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_the_client_is_light() -> None:
    """Importing the client loads neither the service nor pandas, numpy or the command line."""
    heavy = "{'api', 'worker', 'shared', 'flask', 'celery', 'redis', 'sklearn', 'numpy', 'pandas', 'typer'}"
    code = f"import sys, scorequeue; sys.exit(', '.join({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == ""


def test_version_is_that_of_the_package() -> None:
    """The version in the code is the one that is published."""
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    assert scorequeue.__version__ == project["version"]


# Submitting


def test_submit_sends_what_the_contract_asks_for(service: RecordedService, client: Client) -> None:
    """A submission has model, rows and the options that were given, and a quoted idempotency key."""
    service.play("POST", "/v1/jobs", ACCEPTED)

    job = client.submit([[1, 2.5]], model="churn@champion", priority="high", metadata={"campaign": "x"})

    assert (job.id, job.status, job.model, job.done) == (JOB_ID, "queued", "churn:1", False)
    request = service.requests[0]
    assert request.json == {
        "model": "churn@champion",
        "rows": [[1, 2.5]],
        "priority": "high",
        "metadata": {"campaign": "x"},
    }
    assert request.headers["Idempotency-Key"].startswith('"')
    assert "Authorization" not in request.headers


def test_address_and_key_may_come_from_the_environment(
    service: RecordedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for the commands; what is said in the call counts more."""
    monkeypatch.setenv("SCOREQUEUE_URL", service.url)
    monkeypatch.setenv("SCOREQUEUE_API_KEY", "sq_of_the_environment")
    service.play("GET", JOB, job_record())

    with Client(timeout=5) as client:
        client.job(JOB_ID)
    with Client(timeout=5, api_key="sq_own") as client:
        client.job(JOB_ID)

    sent = [request.headers["Authorization"] for request in service.requests]
    assert sent == ["Bearer sq_of_the_environment", "Bearer sq_own"]


def test_api_key_is_a_bearer_token(service: RecordedService) -> None:
    """A key that is given to the client goes with every request."""
    service.play("GET", JOB, job_record())

    with Client(service.url, api_key="secret") as client:
        client.job(JOB_ID)

    assert service.requests[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("rows", "sent"),
    [
        ([[1.0, float("nan")]], [[1.0, None]]),
        ([{"a": float("nan")}], [{"a": None}]),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        ([np.array([1.0, 2.0])], [[1.0, 2.0]]),
        ([(np.float64(1.5), np.int64(2))], [[1.5, 2]]),
        (pd.DataFrame({"a": [1.5], "b": [np.nan]}), [{"a": 1.5, "b": None}]),
    ],
)
def test_rows_may_be_of_any_common_form(service: RecordedService, client: Client, rows, sent) -> None:
    """Lists, mappings, arrays and frames become JSON, and NaN becomes null."""
    service.play("POST", "/v1/jobs", ACCEPTED)
    client.submit(rows, model="churn")
    assert service.requests[0].json["rows"] == sent


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1.0], [float("inf")]], "row 1, column 0: inf"),
        ([{"a": float("-inf")}], "row 0, column a: -inf"),
        ("rows.csv", "must be a list of rows"),
        ([[object()]], "object has no form in JSON"),
    ],
)
def test_rows_without_a_form_in_json_are_not_sent(service: RecordedService, client: Client, rows, words) -> None:
    """What JSON cannot carry is refused before anything is sent, with its row and column."""
    with pytest.raises(WrongUse, match=words):
        client.submit(rows, model="churn")
    assert service.requests == []


def test_refusal_carries_every_fault(service: RecordedService, client: Client) -> None:
    """A 422 becomes an error with the faults as data, and a message with row and column of the first ones."""
    faults = [
        {"pointer": f"/rows/{row}/1", "detail": "expected a number, got 'x'", "column": "bmi", "code": "type_error"}
        for row in range(20)
    ]
    service.play("POST", "/v1/jobs", problem(422, "schema_mismatch", "20 faults", errors=faults))

    with pytest.raises(RequestRefused) as caught:
        client.submit([["x"]], model="churn")

    assert (caught.value.status, caught.value.code, len(caught.value.errors)) == (422, "schema_mismatch", 20)
    first, second, *_, last = str(caught.value).splitlines()
    assert first == "schema_mismatch: 20 faults"
    assert second.strip() == "row 0, column bmi: expected a number, got 'x'"
    assert last.strip() == "… and 15 more"


# Waiting and results


def test_wait_asks_the_service_to_wait_and_result_is_the_json(service: RecordedService, client: Client) -> None:
    """Waiting long-polls until the job is done; then the result is fetched."""
    service.play("POST", "/v1/jobs", ACCEPTED)
    service.play("GET", JOB, job_record("queued"), job_record("running"), job_record())
    service.play("GET", f"{JOB}/result", {"predictions": [1]})

    job = client.submit([[1.0]], model="churn").wait(timeout=30)

    assert job.status == "succeeded"
    assert job.result() == {"predictions": [1]}
    assert {request.headers["Prefer"] for request in service.sent("GET", JOB)} == {"wait=20"}


def test_submit_with_wait_has_the_result_at_once(service: RecordedService, client: Client) -> None:
    """A submission that waits gets job and result in one exchange."""
    service.play("POST", "/v1/jobs", job_record(result={"predictions": [7]}))

    job = client.submit([[1.0]], model="churn", wait=10)

    assert job.wait().result() == {"predictions": [7]}
    assert [request.headers["Prefer"] for request in service.requests] == ["wait=10"]


def test_wait_ends_with_the_callers_patience(service: RecordedService, client: Client) -> None:
    """A job that is not done in time raises an error that has the job, and nothing is canceled."""
    service.play("GET", JOB, job_record("queued"))

    with pytest.raises(JobTimeout, match=r"still queued after 0\.2 s") as caught:
        client.job(JOB_ID).wait(timeout=0.2)

    assert caught.value.job.id == JOB_ID
    assert service.sent("POST", f"{JOB}/cancel") == []


def test_wait_outlasts_a_restart_of_the_service(service: RecordedService, client: Client) -> None:
    """A service that is away for a moment does not end the wait for a job."""
    away = Answer(b"x", cut_after=0)
    service.play("GET", JOB, job_record("queued"), *[away] * 6, job_record())
    assert client.job(JOB_ID).wait(timeout=30).status == "succeeded"


def test_an_outage_begins_when_the_service_is_away(
    service: RecordedService, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the service itself waited for the end of the job is not taken from the time in which it may be away."""
    service.play("GET", JOB, job_record("queued"), job_record())
    job, look, now = client.job(JOB_ID), Job._look, [1000.0]
    failures = iter((31.0, 1.0, 1.0))

    def fail_late(self: Job, wait: float) -> float | None:
        if seconds := next(failures, None):
            now[0] += seconds
            raise ServiceUnreachable(service.url, "connection reset")
        return look(self, wait)

    monkeypatch.setattr(Job, "_look", fail_late)
    monkeypatch.setattr("scorequeue.job.time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: None))

    assert job.wait(timeout=600).status == "succeeded"


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        ("failed", {"code": "model_error", "detail": "predict raised ValueError"}, "model_error: predict raised"),
        ("expired", {"code": "deadline_exceeded", "detail": "it waited 30 s"}, "deadline_exceeded: it waited"),
        ("canceled", None, "canceled"),
    ],
)
def test_a_job_without_result_fails(service: RecordedService, client: Client, status, error, words) -> None:
    """Asking a failed, expired or canceled job for its result raises an error with the reason."""
    service.play("GET", JOB, job_record(status, error=error))

    with pytest.raises(JobFailed, match=words) as caught:
        client.job(JOB_ID).wait().result()

    assert caught.value.job.status == status


def test_result_of_a_running_job_is_refused(service: RecordedService, client: Client) -> None:
    """Asking too early is the service's 409, not a wait."""
    service.play("GET", JOB, job_record("running"))
    service.play("GET", f"{JOB}/result", problem(409, "job_not_finished", "running", headers={"Retry-After": "1"}))

    with pytest.raises(RequestRefused) as caught:
        client.job(JOB_ID).result()

    assert (caught.value.code, caught.value.retry_after) == ("job_not_finished", 1)


def test_failed_rows_are_listed_one_by_one(service: RecordedService, client: Client) -> None:
    """The errors of a job come as NDJSON and are read record by record."""
    service.play("GET", JOB, job_record("partially_succeeded"))
    service.play("GET", f"{JOB}/errors", b'{"row":3,"code":"type_error"}\n{"row":9,"code":"missing_value"}\n')

    assert [fault["row"] for fault in client.job(JOB_ID).errors()] == [3, 9]


def test_cancel_and_delete(service: RecordedService, client: Client) -> None:
    """A canceled job says so; a deleted one is asked to be removed."""
    service.play("GET", JOB, job_record("queued"))
    service.play("POST", f"{JOB}/cancel", job_record("canceled"))
    service.play("DELETE", JOB, Answer(b"", 204))

    job = client.job(JOB_ID).cancel()
    job.delete()

    assert job.status == "canceled"
    assert len(service.sent("DELETE", JOB)) == 1


# Listing


def test_jobs_follow_the_pages(service: RecordedService, client: Client) -> None:
    """Iterating over jobs fetches the next page only when it is needed, by the link that the service gives."""
    link = '</v1/jobs?status=failed&limit=2&after=abc>; rel="next"'
    page = {"jobs": [job_record(), job_record()]}
    service.play("GET", "/v1/jobs", Answer(page, headers={"Link": link}), {"jobs": [job_record("failed")]})

    jobs = client.jobs(status="failed", page_size=2)
    next(jobs)
    assert [request.target for request in service.requests] == ["/v1/jobs?status=failed&limit=2"]

    assert [job.status for job in jobs] == ["succeeded", "failed"]
    assert service.requests[-1].target == "/v1/jobs?status=failed&limit=2&after=abc"


def test_queues_and_models(service: RecordedService, client: Client) -> None:
    """Queues and models are plain records; pausing names the model in the path."""
    service.play("GET", "/v1/queues", {"queues": [{"model": "churn", "depth": 2}]})
    service.play("POST", "/v1/queues/churn/pause", {})
    service.play("GET", "/v1/models", {"models": [{"name": "churn"}]})

    assert client.queues()[0]["depth"] == 2
    client.pause_queue("churn")
    assert client.models() == [{"name": "churn"}]


@pytest.mark.parametrize(("reference", "version"), [("churn", 3), ("churn@old", 1), ("churn:2", 2)])
def test_a_reference_means_a_version(service: RecordedService, client: Client, reference: str, version: int) -> None:
    """A name means its champion, an alias what it points at, and a version itself."""
    service.play("GET", "/v1/models/churn", {"name": "churn", "aliases": {"champion": 3, "old": 1}})
    service.play("GET", f"/v1/models/churn/versions/{version}", {"name": "churn", "version": version})
    assert client.model_version(reference)["version"] == version


def test_an_unknown_alias_names_those_that_there_are(service: RecordedService, client: Client) -> None:
    """A wrong alias is refused with the right ones."""
    service.play("GET", "/v1/models/churn", {"name": "churn", "aliases": {"champion": 3}})
    with pytest.raises(WrongUse, match="no alias best; it has champion"):
        client.model_version("churn@best")


# When things go wrong


def test_retry_after_is_honoured(service: RecordedService, client: Client) -> None:
    """A submission that is turned away for now is made again after the time that the service names."""
    turned_away = problem(429, "queue_full", "full", headers={"Retry-After": "0.3"})
    service.play("POST", "/v1/jobs", turned_away, ACCEPTED)
    began_at = time.monotonic()

    job = client.submit([[1.0]], model="churn")

    assert job.id == JOB_ID
    assert time.monotonic() - began_at >= 0.3
    keys = {request.headers["Idempotency-Key"] for request in service.requests}
    assert len(keys) == 1


def test_a_wait_beyond_patience_is_refused_at_once(service: RecordedService) -> None:
    """When the service asks for more time than the caller has, the caller learns it at once."""
    service.play("POST", "/v1/jobs", problem(429, "queue_full", "full", headers={"Retry-After": "600"}))

    with Client(service.url, patience=5) as client, pytest.raises(RequestRefused) as caught:
        client.submit([[1.0]], model="churn")

    assert (caught.value.retry_after, len(service.requests)) == (600, 1)


def test_a_submission_with_unknown_outcome_is_repeated_under_its_key(service: RecordedService, client: Client) -> None:
    """When the connection breaks before the answer, the same key lets the service answer with the first job."""
    service.play("POST", "/v1/jobs", Answer(job_record(), 202, cut_after=5), Answer(job_record(), 202))

    assert client.submit([[1.0]], model="churn").id == JOB_ID

    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 1
    assert len(service.requests) == 2


def test_a_submission_without_any_answer_says_so(service: RecordedService, client: Client) -> None:
    """When no repetition is answered either, the caller learns that the job may exist."""
    service.play("POST", "/v1/jobs", *[Answer(job_record(), 202, cut_after=5)] * 10)

    with pytest.raises(OutcomeUnknown, match="may have been accepted"):
        client.submit([[1.0]], model="churn")


def test_a_broken_read_is_repeated(service: RecordedService, client: Client) -> None:
    """Reading changes nothing, so a broken answer is asked for again."""
    service.play("GET", JOB, Answer(job_record(), cut_after=5), job_record())
    assert client.job(JOB_ID).status == "succeeded"


def test_nobody_there(refused_url: str) -> None:
    """A refused connection is tried a few times, for a bounded time, and then named with its address."""
    began_at = time.monotonic()

    with Client(refused_url) as client, pytest.raises(ServiceUnreachable, match=r"connection refused") as caught:
        client.submit([[1.0]], model="churn")

    assert caught.value.url == refused_url
    assert not isinstance(caught.value, OutcomeUnknown)
    assert time.monotonic() - began_at < 5


def test_a_silent_service_is_not_waited_for_without_end() -> None:
    """A service that accepts and never answers is given up after the time limit."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.2, patience=0.1) as client, pytest.raises(ServiceUnreachable, match="in time"):
            client.job(JOB_ID)


@pytest.mark.parametrize("body", [b"<html>It works!</html>", b"[]"])
def test_another_server_is_recognised(service: RecordedService, client: Client, body: bytes) -> None:
    """A web server that is not the service gives a clear error, not a KeyError."""
    service.play("POST", "/v1/jobs", body)
    with pytest.raises(ServiceUnreachable, match="service"):
        client.submit([[1.0]], model="churn")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://[::1"])
def test_a_wrong_address_is_refused_at_once(url: str) -> None:
    """An address that is none says so, and what is expected."""
    with pytest.raises(WrongUse, match=r"expected one as http://"):
        Client(url)


# Files


def play_file_job(service: RecordedService, *downloads: Answer | bytes) -> None:
    """Record a file job that succeeds, and the answers to its download."""
    counts = {"total": 10, "succeeded": 10, "failed": 0, "pending": 0}
    running = {"total": 10, "succeeded": 4, "failed": 0, "pending": 6}
    service.play("POST", "/v1/jobs", Answer(job_record("queued", kind="file"), 202))
    service.play(
        "GET",
        JOB,
        job_record("running", kind="file", row_counts=running),
        job_record(kind="file", row_counts=counts),
    )
    service.play("GET", f"{JOB}/result", *downloads)


def test_score_file_uploads_follows_and_downloads(service: RecordedService, client: Client, tmp_path: Path) -> None:
    """A file goes up as it is with its length, its progress is told, and the result lies in place as a whole."""
    play_file_job(service, FILE)
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(FILE)
    seen: list[Progress] = []

    job = client.score_file(source, target, "churn", seen.append, delimiter=";")

    assert job.status == "succeeded"
    assert target.read_bytes() == FILE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]
    upload = service.requests[0]
    assert upload.target == "/v1/jobs?model=churn&delimiter=%3B"
    assert (upload.headers["Content-Type"], upload.headers["Content-Length"]) == ("text/csv", str(len(FILE)))
    assert upload.body == FILE
    assert [str(progress) for progress in seen if progress.step == "score"] == [
        "score: 4 of 10 rows",
        "score: 10 of 10 rows",
    ]
    assert {progress.step for progress in seen} == {"upload", "score", "download"}


def test_a_broken_download_goes_on_where_it_stopped(service: RecordedService, client: Client, tmp_path: Path) -> None:
    """After a cut, only the rest is asked for, and the file is whole."""
    rest = Answer(FILE[1000:], 206, {"Content-Range": f"bytes 1000-{len(FILE) - 1}/{len(FILE)}"})
    play_file_job(service, Answer(FILE, cut_after=1000), rest)
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b"a\n")

    client.score_file(source, target, "churn")

    assert target.read_bytes() == FILE
    ranges = [request.headers.get("Range") for request in service.sent("GET", f"{JOB}/result")]
    assert ranges == [None, "bytes=1000-"]


def test_a_download_that_cannot_be_resumed_begins_anew(
    service: RecordedService, client: Client, tmp_path: Path
) -> None:
    """A service that answers the whole file again gives the whole file, not one and a half."""
    play_file_job(service, Answer(FILE, cut_after=1000), Answer(FILE, cut_after=500), FILE)
    (tmp_path / "in.csv").write_bytes(b"a\n")

    client.score_file(tmp_path / "in.csv", tmp_path / "out.csv", "churn")

    assert (tmp_path / "out.csv").read_bytes() == FILE


def test_a_later_run_continues_the_download_of_an_earlier_one(
    service: RecordedService, client: Client, tmp_path: Path
) -> None:
    """When the connection breaks for good, the part stays, and the next run asks for the rest."""
    service.play("GET", JOB, job_record(kind="file"))
    nothing_more = [Answer(b"x", 206, {"Content-Range": "bytes 1000-1000/1001"}, cut_after=0)] * 5
    rest = Answer(FILE[1000:], 206, {"Content-Range": f"bytes 1000-{len(FILE) - 1}/{len(FILE)}"})
    service.play("GET", f"{JOB}/result", Answer(FILE, cut_after=1000), *nothing_more, rest)
    target = tmp_path / "out.csv"

    with pytest.raises(ServiceUnreachable, match="download broke"):
        client.job(JOB_ID).download(target)
    assert not target.exists()
    client.job(JOB_ID).download(target)

    assert target.read_bytes() == FILE
    assert list(tmp_path.iterdir()) == [target]


def test_a_download_that_was_whole_already_is_only_renamed(
    service: RecordedService, client: Client, tmp_path: Path
) -> None:
    """A part that has every byte (the earlier run ended just before the rename) is taken as it is."""
    service.play("GET", JOB, job_record(kind="file"))
    service.play("GET", f"{JOB}/result", problem(416, "invalid_parameter", "no such range"), Answer(FILE))
    target = tmp_path / "out.csv"
    (tmp_path / f".out.csv.{JOB_ID}.part").write_bytes(FILE)

    client.job(JOB_ID).download(target)

    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == FILE


@pytest.mark.parametrize(
    ("name", "accept"),
    [
        ("out.csv", "text/csv"),
        ("out.parquet", "application/vnd.apache.parquet"),
        ("out.ndjson", "application/x-ndjson"),
    ],
)
def test_a_download_asks_for_the_format_that_its_name_says(
    service: RecordedService, client: Client, tmp_path: Path, name: str, accept: str
) -> None:
    """The target's ending picks the format, and the service is given time to write it."""
    service.play("GET", JOB, job_record(kind="file"))
    soon = problem(409, "job_not_finished", "The result is being written.", headers={"Retry-After": "0"})
    service.play("GET", f"{JOB}/result", soon, soon, FILE)

    client.job(JOB_ID).download(tmp_path / name)

    assert (tmp_path / name).read_bytes() == FILE
    assert [request.headers["Accept"] for request in service.requests[1:]] == [accept] * 3


def test_a_job_that_goes_on_is_not_downloaded(service: RecordedService, client: Client, tmp_path: Path) -> None:
    """The result of a job that is not done is refused at once: who wants it waits first."""
    service.play("GET", JOB, job_record("running", kind="file"))

    with pytest.raises(RequestRefused, match="wait for it first"):
        client.job(JOB_ID).download(tmp_path / "out.csv")


def test_a_file_in_a_bucket_is_named_and_not_sent(service: RecordedService, client: Client) -> None:
    """An address goes as ``input``, with the options beside it."""
    service.play("POST", "/v1/jobs", Answer(job_record("queued", kind="file"), 202))

    client.submit_file("s3://lake/in.parquet", "churn", priority="low", delimiter=None)

    assert service.requests[0].json == {"model": "churn", "priority": "low", "input": "s3://lake/in.parquet"}


def test_a_preview_sends_no_more_than_the_beginning(service: RecordedService, client: Client, tmp_path: Path) -> None:
    """Of a large CSV file a dry run sends its first sixteen megabytes: a hundred rows of any width."""
    (tmp_path / "in.csv").write_bytes(b"a\n" + b"1\n" * 9_000_000)
    service.play("POST", "/v1/jobs", {"preview": [], "differences": []})

    assert client.preview_file(tmp_path / "in.csv", "churn")["preview"] == []

    assert service.requests[0].target == "/v1/jobs?model=churn&dry_run=true"
    assert len(service.requests[0].body) == 16 << 20


def test_a_failed_file_job_leaves_nothing_behind(service: RecordedService, client: Client, tmp_path: Path) -> None:
    """If the job fails there is no output file, and an old one stays as it was."""
    service.play("POST", "/v1/jobs", Answer(job_record("queued", kind="file"), 202))
    error = {"code": "schema_mismatch", "detail": "the file lacks column 'bmi'"}
    service.play("GET", JOB, job_record("failed", kind="file", error=error))
    (tmp_path / "in.csv").write_bytes(b"a\n1\n")
    (tmp_path / "out.csv").write_text("old")

    with pytest.raises(JobFailed, match="lacks column 'bmi'"):
        client.score_file(tmp_path / "in.csv", tmp_path / "out.csv", "churn")

    assert (tmp_path / "out.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("missing.csv", "out.csv", "No such file"),
        (".", "out.csv", "directory|not a regular file"),
        ("in.csv", "missing/out.csv", "there is no folder"),
        ("in.csv", ".", "is a folder"),
        ("in.csv", "in.csv", "would be overwritten"),
        ("in.csv", "out.csv.gz", "not compressed"),
    ],
)
def test_wrong_paths_are_refused_before_the_upload(
    service: RecordedService, client: Client, tmp_path: Path, source: str, target: str, words: str
) -> None:
    """Nothing is uploaded whose result could not be written, and a missing input is named."""
    (tmp_path / "in.csv").write_bytes(b"a\n1\n")
    with pytest.raises(WrongUse, match=words):
        client.score_file(tmp_path / source, tmp_path / target, "churn")
    assert service.requests == []


@pytest.mark.parametrize(
    ("name", "media_type", "encoding"),
    [
        ("x.csv", "text/csv", None),
        ("x.parquet", "application/vnd.apache.parquet", None),
        ("x.NDJSON", "application/x-ndjson", None),
        ("x.csv.gz", "text/csv", "gzip"),
        ("x.jsonl.zst", "application/x-ndjson", "zstd"),
    ],
)
def test_the_name_says_what_a_file_is(
    service: RecordedService, client: Client, tmp_path: Path, name: str, media_type: str, encoding: str | None
) -> None:
    """Type and compression are told from the file's name."""
    service.play("POST", "/v1/jobs", ACCEPTED)
    (tmp_path / name).write_bytes(b"x")

    client.submit_file(tmp_path / name, "churn")

    headers = service.requests[0].headers
    assert (headers["Content-Type"], headers.get("Content-Encoding")) == (media_type, encoding)


def test_an_empty_file_is_the_services_to_judge(service: RecordedService, client: Client, tmp_path: Path) -> None:
    """A file without a byte is sent as one, and the refusal comes back."""
    service.play("POST", "/v1/jobs", problem(400, "malformed_csv", "the file is empty"))
    (tmp_path / "in.csv").touch()

    with pytest.raises(RequestRefused, match="the file is empty"):
        client.submit_file(tmp_path / "in.csv", "churn")

    assert service.requests[0].headers["Content-Length"] == "0"


# Frames


def play_model(service: RecordedService, classes: list[object] | None) -> None:
    """Record a model with the columns a and b."""
    task = "classification" if classes else "regression"
    columns = [{"name": "a", "type": "double"}, {"name": "b", "type": "double"}]
    signature = {"columns": columns, "task": task, "classes": classes}
    service.play("GET", "/v1/models/churn", {"name": "churn", "aliases": {"champion": 1}})
    version = {"name": "churn", "version": 1, "signature": signature}
    service.play("GET", "/v1/models/churn/versions/1", version)


def test_a_frame_comes_back_with_its_scores(service: RecordedService, client: Client) -> None:
    """Columns, order and index stay; labels have their own type; a failed row has its error and no prediction."""
    play_model(service, [0, 1])
    play_file_job(
        service,
        b"a,b,prediction,probability_0,probability_1,error_code,error_message\n"
        b"0.1,1,1,0.25,0.75,,\n,2,,,,missing_value,column a is missing\n3.0,3,0,0.9,0.1,,\n",
    )
    frame = pd.DataFrame({"note": ["x", None, "z"], "b": [1, 2, 3], "a": np.array([0.1, np.nan, 3.0])}, index=[7, 5, 5])

    scored = client.score(frame, model="churn")

    assert service.sent("POST", "/v1/jobs")[0].body == b"a,b\n0.1,1\n,2\n3.0,3\n"
    pd.testing.assert_frame_equal(scored[["note", "b", "a"]], frame)
    assert list(scored.columns[3:]) == [
        "prediction",
        "probability_0",
        "probability_1",
        "error_code",
        "error_message",
    ]
    assert scored["prediction"].iloc[[0, 2]].tolist() == [1, 0]
    assert scored["prediction"].isna().tolist() == [False, True, False]
    assert scored["probability_1"].iloc[0] == 0.75
    assert scored["error_code"].iloc[1] == "missing_value"
    assert scored["error_code"].isna().tolist() == [True, False, True]


def test_labels_keep_their_form(service: RecordedService, client: Client) -> None:
    """A label that looks like a number, or like nothing at all, comes back as the text that it is."""
    play_model(service, ["007", "NA"])
    columns = b"a,b,prediction,probability_007,probability_NA,error_code,error_message\n"
    play_file_job(service, columns + b"1.0,1.0,007,1,0,,\n1.0,1.0,NA,0,1,,\n")

    scored = client.score(pd.DataFrame({"a": [1.0, 1.0], "b": [1.0, 1.0]}), model="churn")

    assert scored["prediction"].tolist() == ["007", "NA"]


def test_numbers_are_sent_and_read_exactly(service: RecordedService, client: Client) -> None:
    """A float32 goes as the number that it is, a flag as 0 or 1, and a prediction is read to the last bit."""
    play_model(service, None)
    play_file_job(service, b"a,b,prediction,error_code,error_message\n0.1,1,0.30000000000000004,,\n")

    scored = client.score(pd.DataFrame({"a": np.array([0.1], "float32"), "b": [True]}), model="churn")

    assert service.sent("POST", "/v1/jobs")[0].body == f"a,b\n{float(np.float32(0.1))!r},1\n".encode()
    assert scored["prediction"].tolist() == [0.1 + 0.2]


def test_an_empty_frame_is_not_sent(service: RecordedService, client: Client) -> None:
    """A frame without rows comes back with the new columns, and no job is made."""
    play_model(service, None)

    scored = client.score(pd.DataFrame({"a": [], "b": []}), model="churn")

    assert list(scored.columns) == ["a", "b", "prediction", "error_code", "error_message"]
    assert service.sent("POST", "/v1/jobs") == []


@pytest.mark.parametrize(
    ("columns", "words"),
    [(["a"], "lacks columns that model churn:1 needs: 'b'"), (["a", "b", "prediction"], "'prediction' already")],
)
def test_a_frame_that_does_not_fit_is_not_sent(
    service: RecordedService, client: Client, columns: list[str], words: str
) -> None:
    """A missing column, or one by the name of a score, is named before anything is sent."""
    play_model(service, None)
    with pytest.raises(WrongUse, match=words):
        client.score(pd.DataFrame({name: [1.0] for name in columns}), model="churn")


def test_a_promotion_is_repeated_while_the_workers_load(service: RecordedService, client: Client) -> None:
    """The request is the same each time, and its answer the model's new state."""
    loading = problem(503, "model_not_ready", "They go on loading: repeat.", headers={"Retry-After": "0"})
    moved = {"name": "churn", "aliases": {"champion": 4}, "checked_by": 2}
    # More often than the transport repeats by itself.
    service.play("PUT", "/v1/models/churn/aliases/champion", *[loading] * 7, moved)

    assert client.promote("churn", 4)["checked_by"] == 2
    assert {request.body for request in service.requests} == {b'{"version": 4}'}


def test_a_refused_promotion_is_not_repeated(service: RecordedService, client: Client) -> None:
    """A version that failed its check fails it again: the reason is raised at once."""
    fault = {"pointer": "#", "code": "model_not_ready", "detail": "its file is gone"}
    refusal = problem(503, "model_not_ready", "churn:4 is not ready", headers={"Retry-After": "60"}, errors=[fault])
    service.play("PUT", "/v1/models/churn/aliases/next", refusal)

    with pytest.raises(RequestRefused, match="churn:4 is not ready"):
        client.promote("churn", {3: 0.9, 4: 0.1}, alias="next", shadow=5)
    (request,) = service.requests
    assert json.loads(request.body) == {"versions": {"3": 0.9, "4": 0.1}, "shadow": 5}


def test_an_alias_to_several_versions_shows_the_one_that_gets_most(service: RecordedService, client: Client) -> None:
    """To look at an alias is to look at its main version."""
    shares = {"versions": {"3": 0.4, "4": 0.6}, "shadow": 5}
    service.play("GET", "/v1/models/churn", {"name": "churn", "aliases": {"champion": shares}})
    service.play("GET", "/v1/models/churn/versions/4", {"version": 4})

    assert client.model_version("churn") == {"version": 4}
