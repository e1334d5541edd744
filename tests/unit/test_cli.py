"""What the command line prints and how it exits; the answers are recorded, the HTTP is real."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import scorequeue
from scorequeue.cli import app, main
from tests.unit.recorded_service import JOB_ID, Answer, RecordedService, job_record, problem

JOB = f"/v1/jobs/{JOB_ID}"
ACCEPTED = Answer(job_record("queued"), 202, {"Location": JOB})

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def service() -> Iterator[RecordedService]:
    """Play recorded answers."""
    with RecordedService() as service:
        yield service


@pytest.fixture
def run(
    service: RecordedService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Run a command line in an empty folder, and return its exit code, output and errors."""
    monkeypatch.setenv("SCOREQUEUE_URL", service.url)
    monkeypatch.delenv("SCOREQUEUE_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scorequeue", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return int(exit_.value.code or 0), output.out, output.err

    return run_command


# Submitting


@pytest.mark.parametrize(
    ("argument", "rows"),
    [
        ("[[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        ("[1, 2]", [[1, 2]]),
        ('{"a": 1}', [{"a": 1}]),
        ('{"rows": [[5]]}', [[5]]),
        ("rows.json", [[6]]),
        ("-", [[7]]),
    ],
)
def test_submit_takes_rows_from_anywhere(
    service: RecordedService, run: Run, monkeypatch: pytest.MonkeyPatch, argument: str, rows: object
) -> None:
    """Rows come as an argument, a file or standard input; the job's id is all that is printed."""
    service.play("POST", "/v1/jobs", ACCEPTED)
    Path("rows.json").write_text("[[6]]")
    monkeypatch.setattr(sys, "stdin", io.StringIO("[[7]]"))

    assert run("submit", argument, "--model", "churn", "--priority", "low") == (0, f"{JOB_ID}\n", "")

    assert service.requests[0].json == {"model": "churn", "rows": rows, "priority": "low"}


def test_submit_uploads_a_csv_as_it_is(service: RecordedService, run: Run) -> None:
    """A file that is no JSON by its name becomes a file job."""
    service.play("POST", "/v1/jobs", ACCEPTED)
    Path("rows.csv").write_bytes(b"a\n1\n")

    assert run("submit", "rows.csv", "-m", "churn")[:2] == (0, f"{JOB_ID}\n")

    assert (service.requests[0].body, service.requests[0].headers["Content-Type"]) == (b"a\n1\n", "text/csv")


def test_submit_and_wait_prints_the_result(service: RecordedService, run: Run) -> None:
    """With --wait the result itself is printed, as JSON."""
    service.play("POST", "/v1/jobs", ACCEPTED)
    service.play("GET", JOB, job_record())
    service.play("GET", f"{JOB}/result", {"predictions": [1]})

    code, output, _ = run("submit", "[[1]]", "-m", "churn", "--wait", "10")

    assert (code, json.loads(output)) == (0, {"predictions": [1]})


def test_submit_that_waits_in_vain_still_prints_the_id(service: RecordedService, run: Run) -> None:
    """A job that is not done in time is not lost: its id is printed, and the exit code says that it is not done."""
    service.play("POST", "/v1/jobs", ACCEPTED)
    service.play("GET", JOB, job_record("queued"))

    code, output, errors = run("submit", "[[1]]", "-m", "churn", "--wait", "0.1")

    assert (code, output) == (1, f"{JOB_ID}\n")
    assert f"scorequeue status {JOB_ID}" in errors


# Looking


def test_status_is_readable_and_json_is_the_record(service: RecordedService, run: Run) -> None:
    """A person sees the fields one below the other; a program gets the whole record."""
    service.play("GET", JOB, job_record("running"))

    code, output, _ = run("status", JOB_ID)
    assert code == 0
    assert ["status", "running"] in [line.split() for line in output.splitlines()]

    code, output, _ = run("status", JOB_ID, "--json")
    assert (code, json.loads(output)) == (0, job_record("running"))


def test_result_is_printed_or_written(service: RecordedService, run: Run) -> None:
    """A result goes to standard output, or with -o into a file."""
    service.play("GET", JOB, job_record())
    service.play("GET", f"{JOB}/result", {"predictions": [1]})

    assert json.loads(run("result", JOB_ID)[1]) == {"predictions": [1]}
    assert run("result", JOB_ID, "-o", "out.json") == (0, "", "")
    assert json.loads(Path("out.json").read_text()) == {"predictions": [1]}


def test_result_of_a_file_job_needs_a_name(service: RecordedService, run: Run) -> None:
    """A scored file is not poured over the terminal."""
    service.play("GET", JOB, job_record(kind="file"))
    service.play("GET", f"{JOB}/result", b"a,prediction\n1,2\n")

    code, _, errors = run("result", JOB_ID)
    assert (code, "-o FILE" in errors) == (2, True)

    assert run("result", JOB_ID, "-o", "out.csv")[0] == 0
    assert Path("out.csv").read_bytes() == b"a,prediction\n1,2\n"


def test_errors_names_row_column_and_code(service: RecordedService, run: Run) -> None:
    """Each failed row is a line, or a line of JSON."""
    fault = {"row": 3, "line": 5, "column": "bmi", "code": "type_error", "detail": "expected a number, got 'x'"}
    service.play("GET", JOB, job_record("partially_succeeded"))
    service.play("GET", f"{JOB}/errors", json.dumps(fault).encode() + b"\n")

    line = "row 3, line 5, column bmi: expected a number, got 'x' (type_error)\n"
    assert run("errors", JOB_ID) == (0, line, "")
    assert json.loads(run("errors", JOB_ID, "--json")[1]) == fault


def test_cancel_says_what_became_of_the_job(service: RecordedService, run: Run) -> None:
    """A canceled job is named with its status."""
    service.play("GET", JOB, job_record("queued"))
    service.play("POST", f"{JOB}/cancel", job_record("canceled"))
    assert run("cancel", JOB_ID) == (0, f"{JOB_ID} canceled\n", "")


def test_dead_letters_are_listed_put_back_and_dropped(service: RecordedService, run: Run) -> None:
    """A dead letter is shown with its reason; put back it has a new id; dropped it is deleted."""
    error = {"code": "worker_lost", "detail": "it ended its worker three times"}
    service.play("GET", "/v1/dead-letters", {"dead_letters": [job_record("failed", error=error)]})
    service.play("GET", JOB, job_record("failed", error=error))
    service.play("POST", f"{JOB}/retry", Answer(job_record("queued", id="job_new"), 202))
    service.play("DELETE", JOB, Answer(status=204))

    code, output, _ = run("dead-letters", "list")

    assert code == 0
    header, line = (text.split("\t") for text in output.splitlines())
    assert header == ["id", "model", "rows", "finished_at", "code", "detail"]
    assert (line[0], line[2], line[4], line[5]) == (JOB_ID, "1", "worker_lost", error["detail"])
    assert json.loads(run("dead-letters", "list", "--json")[1])[0]["error"] == error
    assert run("dead-letters", "retry", JOB_ID) == (0, "job_new\n", "")
    assert run("dead-letters", "drop", JOB_ID) == (0, f"{JOB_ID} dropped\n", "")
    assert [request.method for request in service.requests[-2:]] == ["GET", "DELETE"]


def test_jobs_are_lines_for_a_pipe(service: RecordedService, run: Run) -> None:
    """Where the output is no terminal, a table is tab-separated lines, as many as asked for."""
    service.play("GET", "/v1/jobs", {"jobs": [job_record(), job_record("failed"), job_record()]})

    code, output, _ = run("jobs", "--limit", "2")

    lines = [line.split("\t") for line in output.splitlines()]
    assert code == 0
    assert lines[0] == ["id", "kind", "status", "model", "rows", "failed", "created_at"]
    assert [line[2] for line in lines[1:]] == ["succeeded", "failed"]
    assert len(json.loads(run("jobs", "--json")[1])) == 3


def test_queues_are_listed_paused_and_resumed(service: RecordedService, run: Run) -> None:
    """Queues show what the service says of them; pause and resume name the model."""
    service.play("GET", "/v1/queues", {"queues": [{"model": "churn", "depth": 2, "paused": False}]})
    service.play("POST", "/v1/queues/churn/pause", {})
    service.play("POST", "/v1/queues/churn/resume", {})

    assert run("queues")[1] == "model\tdepth\tpaused\nchurn\t2\tFalse\n"
    assert run("queues", "pause", "churn") == (0, "churn paused\n", "")
    assert run("queues", "resume", "churn") == (0, "churn resumed\n", "")
    assert json.loads(run("queues", "pause", "churn", "--json")[1]) == {"model": "churn", "paused": True}


def test_every_command_prints_json_if_it_is_asked_to() -> None:
    """What prints for people prints for programs, too."""

    def list_commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        yield name, command
        for below, each in getattr(command, "commands", {}).items():
            yield from list_commands(each, f"{name} {below}")

    lacking = [
        name
        for name, command in list_commands(typer.main.get_command(app), "scorequeue")
        if (not hasattr(command, "commands") or (command.invoke_without_command and command.callback))
        and not any("--json" in parameter.opts for parameter in command.params)
    ]

    assert lacking == []


def test_models_are_listed_and_shown(service: RecordedService, run: Run) -> None:
    """A model's line says what it is; showing it says of each column what it takes."""
    columns = [
        {"name": "a", "type": "double", "nullable": False, "min": 0.5, "max": 20},
        {"name": "b", "type": "string", "nullable": True, "categories": list("vwxyzabcde"), "unseen": "error"},
        {"name": "c", "type": "string", "categories": ["x"], "unseen": "pass"},
        {"name": "d"},
    ]
    signature = {"columns": columns, "task": "regression", "classes": None}
    version = {"name": "churn", "version": 1, "signature": signature, "aliases": ["champion", "next"]}
    model = {"name": "churn", "aliases": {"champion": 1}, "versions": [version]}
    service.play("GET", "/v1/models", {"models": [model]})
    service.play("GET", "/v1/models/churn", model)
    service.play("GET", "/v1/models/churn/versions/1", version)

    assert run("models", "list")[1].splitlines()[1] == "churn\t1\tregression\t4\tchampion\tready"
    shown = run("models", "show", "churn")[1].splitlines()
    assert ["aliases", "champion,", "next"] in [line.split() for line in shown]
    assert shown[-5:] == [
        "column\ttype\tmay_be_missing\tseen_in_training",
        "a\tdouble\tno\t0.5 to 20",
        "b\tstring\tyes\tv, w, x, y, z, a, b, c and 2 more; others are refused",
        "c\tstring\tno\tx",
        "d\t\tno\t",
    ]
    assert json.loads(run("models", "show", "churn:1", "--json")[1]) == version


def test_the_quality_of_a_model_is_two_tables(service: RecordedService, run: Run) -> None:
    """One of its scores and their shift, one of the columns that had unusual values, and of no others."""
    usual = {"name": "a", "missing": 0, "unseen": 0, "out_of_range": 0, "refused": {}}
    unusual = {"name": "b", "missing": 2, "unseen": 0, "out_of_range": 7, "refused": {"type_error": 1, "missing": 2}}
    score = {"name": "prediction", "psi": 0.31, "psi_by_chance": 0.02, "counts": [1, 2]}
    recent = {"rows": 3, "columns": [], "scores": [score, score | {"psi": None, "psi_by_chance": None}]}
    version = {"version": 4, "recent": recent, "total": {"rows": 90, "columns": [usual, unusual], "scores": []}}
    service.play("GET", "/v1/models/churn/quality", {"name": "churn", "versions": [version]})

    lines = run("models", "quality", "churn")[1].splitlines()

    assert lines[1:3] == ["4\t90\t3\tprediction\t0.31\t0.02", "4\t90\t3\tprediction\t-\t-"]
    assert lines[4:] == ["version\tcolumn\tmissing\tunseen\tout_of_range\trefused", "4\tb\t2\t0\t7\t3"]
    assert json.loads(run("models", "quality", "churn", "--json")[1])["name"] == "churn"


def test_a_version_shows_what_was_measured_and_what_runs_it(service: RecordedService, run: Run) -> None:
    """A line for each size of call: rows/s of each backend, and which of them runs calls of that size; and why."""
    measured = [
        {"rows": 1, "estimator": 140.4, "converted": 61000.0},
        {"rows": 4096, "estimator": 50000.0, "converted": 60000.0},
    ]
    backend = {"name": "onnx", "reason": "a graph of its trees", "graph_rows": 128, "measured": measured}
    refused = {"name": "scikit-learn", "reason": "as onnx it is slower", "measured": [*measured[:1]]}
    alone = {"name": "scikit-learn", "reason": "it is not converted", "measured": [{"rows": 1, "estimator": 9.0}]}
    for number, each in enumerate((backend, refused, alone), start=1):
        version = {"created_at": "2026-01-01T00:00:00Z", "name": "churn", "version": number, "backend": each}
        service.play("GET", f"/v1/models/churn/versions/{number}", version)

    lines = run("models", "show", "churn:1")[1].splitlines()
    assert lines[0].split() == ["name", "churn"]
    assert ["backend", "onnx: a graph of its trees"] in [line.split(maxsplit=1) for line in lines]
    assert lines[-3:] == [
        "rows_a_call\tscikit-learn_rows/s\tonnx_rows/s\ttimes\trun_by",
        "1\t140\t61,000\t434.47\tonnx",
        "4096\t50,000\t60,000\t1.20\ttrees",
    ]
    assert run("models", "show", "churn:2")[1].splitlines()[-2:] == [
        "rows_a_call\tscikit-learn_rows/s\tconverted_rows/s\ttimes\trun_by",
        "1\t140\t61,000\t434.47\tscikit-learn",
    ]
    assert run("models", "show", "churn:3")[1].splitlines()[-1] == "1\t9\t-\t-\tscikit-learn"


def test_an_alias_with_shares_and_a_shadow_is_listed_with_both(service: RecordedService, run: Run) -> None:
    """Each version says which share of an alias is its own, if that is not all of it, or that it is its shadow."""
    versions = [{"version": number} for number in (1, 2, 3)]
    shared = {"name": "a", "aliases": {"champion": {"versions": {"1": 0.9, "2": 0.1}}}, "versions": versions}
    shadowed = {"name": "b", "aliases": {"champion": {"versions": {"1": 1.0}, "shadow": 2}}, "versions": versions}
    service.play("GET", "/v1/models", {"models": [shared, shadowed]})

    listed = [line.split("\t")[4] for line in run("models", "list")[1].splitlines()[1:]]

    assert listed == ["champion (90%)", "champion (10%)", "", "champion", "champion (shadow)", ""]


def test_a_wrong_option_of_the_worker_is_told_as_one_of_this_command(run: Run, tmp_path: Path) -> None:
    """Who registers a model has not called the program that does it, and need not know its name."""
    (tmp_path / "m.joblib").write_bytes(b"")

    file = str(tmp_path / "m.joblib")
    code, _, errors = run("models", "register", file, "--name", "m", "--sample", file, "--metric", "auc")

    assert (code, errors) == (2, "scorequeue: --metric: 'auc': expected NAME=VALUE, for example roc_auc=0.91\n")


def test_a_refused_promotion_exits_1_and_says_it_once(service: RecordedService, run: Run) -> None:
    """A version that fails its check is a failure, not a service that is away; the reason is not repeated."""
    reason = "churn:4 is not ready in 1 of 2 worker processes (on a): its file is gone. Nothing was changed."
    fault = {"pointer": "#", "code": "model_not_ready", "detail": reason}
    refusal = problem(503, "model_not_ready", reason, errors=[fault], headers={"Retry-After": "60"})
    service.play("PUT", "/v1/models/churn/aliases/champion", refusal)

    code, _, errors = run("models", "promote", "churn:4")

    assert (code, errors.count("its file is gone")) == (1, 1)


# Scoring


def play_scoring(service: RecordedService, status: str = "succeeded", **fields: object) -> None:
    """Record a file job of ten rows."""
    counts = {"total": 10, "succeeded": 8, "failed": 2, "pending": 0}
    service.play("POST", "/v1/jobs", Answer(job_record("queued", kind="file"), 202))
    service.play("GET", JOB, job_record(status, kind="file", row_counts=counts, **fields))
    service.play("GET", f"{JOB}/result", b"a,prediction\n1,2\n")
    Path("in.csv").write_bytes(b"a\n1\n")


def test_score_writes_the_file_and_tells_of_failed_rows(service: RecordedService, run: Run) -> None:
    """The scored file is written, progress goes to standard error, and failed rows are pointed out."""
    play_scoring(service, "partially_succeeded")

    code, output, errors = run("score", "in.csv", "--model", "churn", "-o", "out.csv", "--delimiter", ";")

    assert code == 0
    assert Path("out.csv").read_bytes() == b"a,prediction\n1,2\n"
    assert output.startswith("10 rows scored by churn:1")
    assert "score: 10 of 10 rows" in errors
    assert f"2 of 10 rows failed; see: scorequeue errors {JOB_ID}" in errors
    assert service.requests[0].target == "/v1/jobs?model=churn&delimiter=%3B"


def test_progress_is_plain_lines_where_nobody_watches(service: RecordedService, run: Run) -> None:
    """In a pipe each line says how far the job is, what failed, how fast, and how long it will take."""
    counts = {"total": 10, "succeeded": 3, "failed": 1, "pending": 6}
    moving = job_record("running", kind="file", row_counts=counts, rows_per_second=2.0, eta_seconds=3.0)
    service.play("GET", JOB, moving)
    play_scoring(service)

    errors = run("score", "in.csv", "-m", "churn", "-o", "out.csv")[2]

    assert "score: 4 of 10 rows, 1 failed, 2 rows/s, ETA 3 s" in errors.splitlines()
    assert all(line.isprintable() for line in errors.splitlines())


def test_dry_run_shows_rows_and_differences(service: RecordedService, run: Run) -> None:
    """The rows go to the output, what does not fit to standard error."""
    row = {"a": 1, "prediction": 2, "error_code": None}
    fault = {"column": "b", "code": "unused_column", "detail": "the model does not use it"}
    service.play("POST", "/v1/jobs", {"model": "churn:1", "preview": [row], "differences": [fault]})
    Path("in.csv").write_bytes(b"a,b\n1,2\n")

    code, output, errors = run("score", "in.csv", "-m", "churn", "--dry-run")

    assert (code, output) == (0, "a\tprediction\terror_code\n1\t2\t\n")
    assert errors == "b: the model does not use it (unused_column)\n"


def test_dry_run_of_a_file_that_does_not_fit_exits_2(service: RecordedService, run: Run) -> None:
    """Without the columns of the model there is nothing to show, and that is wrong use."""
    fault = {"column": "a", "code": "missing_column", "detail": "the file has no such column"}
    service.play("POST", "/v1/jobs", {"model": "churn:1", "preview": None, "differences": [fault]})
    Path("in.csv").write_bytes(b"b\n2\n")

    code, output, errors = run("score", "in.csv", "-m", "churn", "--dry-run")

    assert (code, output) == (2, "")
    assert "a: the file has no such column (missing_column)" in errors


def test_score_speaks_json(service: RecordedService, run: Run) -> None:
    """A program gets the job's record and where the file is."""
    play_scoring(service)
    answer = json.loads(run("score", "in.csv", "-m", "churn", "-o", "out.csv", "--json")[1])
    assert (answer["id"], answer["output"]) == (JOB_ID, "out.csv")


def test_a_failed_job_exits_1(service: RecordedService, run: Run) -> None:
    """When the job fails the reason is one line, and there is no output."""
    play_scoring(service, "failed", error={"code": "model_error", "detail": "predict raised ValueError"})

    code, output, errors = run("score", "in.csv", "-m", "churn", "-o", "out.csv")

    assert (code, output) == (1, "")
    assert errors.splitlines()[-1] == f"scorequeue: job {JOB_ID} failed: model_error: predict raised ValueError"
    assert not Path("out.csv").exists()


def test_score_that_is_not_done_in_time_says_how_to_go_on(service: RecordedService, run: Run) -> None:
    """When the time is over the job is not lost: the command that fetches it later is shown."""
    play_scoring(service, "running")

    code, _, errors = run("score", "in.csv", "-m", "churn", "-o", "out.csv", "--timeout", "1")

    assert code == 1
    assert f"scorequeue result {JOB_ID} --wait 3600 -o out.csv" in errors


# Wrong use


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit", "[[1]]"], "--model"),
        (["submit", "[[1", "-m", "churn"], "ROWS is not JSON"),
        (["submit", "[[NaN]]", "-m", "churn"], "NaN is no JSON value"),
        (["submit", "missing.json", "-m", "churn"], "No such file or directory: 'missing.json'"),
        (["submit", "[[1]]", "-m", "churn", "--priority", "urgent"], "urgent"),
        (["score", "missing.csv", "-m", "churn", "-o", "out.csv"], "missing.csv: No such file"),
        (["score", "in.csv", "-m", "churn"], "name the file to write with -o OUT"),
        (["--url", "localhost", "jobs"], "expected one as http://127.0.0.1:8000"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_use_exits_2_and_says_what_was_expected(run: Run, arguments: list[str], words: str) -> None:
    """A mistake on the command line is explained on standard error."""
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert words in " ".join(errors.replace("│", " ").split())


def test_a_refused_request_exits_2_with_row_and_column(service: RecordedService, run: Run) -> None:
    """What the service refuses is shown with its code, its detail and the first faults."""
    faults = [{"pointer": "/rows/0/1", "detail": "expected a number, got 'x'", "column": "bmi"}]
    service.play("POST", "/v1/jobs", problem(422, "schema_mismatch", "1 fault", errors=faults))

    code, output, errors = run("submit", '[["x"]]', "-m", "churn")

    assert (code, output) == (2, "")
    assert errors == "scorequeue: schema_mismatch: 1 fault\n  row 0, column bmi: expected a number, got 'x'\n"


def test_an_unknown_job_exits_2(service: RecordedService, run: Run) -> None:
    """A job that never was is the caller's mistake."""
    service.play("GET", JOB, problem(404, "unknown_job", f"there is no job {JOB_ID}"))
    assert run("status", JOB_ID) == (2, "", f"scorequeue: unknown_job: there is no job {JOB_ID}\n")


def test_a_service_that_cannot_serve_exits_3(service: RecordedService, run: Run) -> None:
    """A service whose Redis is gone is not reached, whatever answers in its place."""
    service.play("GET", "/v1/jobs", problem(503, "store_unavailable", "Redis is gone", headers={"Retry-After": "0"}))
    code, _, errors = run("jobs")
    assert (code, errors) == (3, "scorequeue: store_unavailable: Redis is gone\n")


def test_nobody_there_exits_3(run: Run) -> None:
    """An address at which nobody listens is named, with what to do about it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        code, output, errors = run("--url", url, "jobs")
    assert (code, output) == (3, "")
    assert url in errors
    assert "scorequeue up" in errors


# Help


def test_help_shows_examples_and_every_command(run: Run) -> None:
    """Help says how to begin, lists the commands, and each command has help of its own."""
    code, output, _ = run("--help")
    commands = ["submit", "status", "result", "errors", "cancel", "score", "jobs", "queues", "models", "up", "demo"]
    assert code == 0
    assert [name for name in [*commands, "train-demo"] if name not in output] == []
    for name in commands:
        assert run(name, "--help")[0] == 0
    assert "scorequeue submit '[[5.1, 3.5], [4.9, 3.0]]' -m iris" in run("submit", "--help")[1]


def test_the_module_is_a_command() -> None:
    """``python -m scorequeue`` is the command line."""
    command = [sys.executable, "-m", "scorequeue", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{scorequeue.__version__}\n"


# The service as a whole


def play_a_service(service: RecordedService, **instead: object) -> None:
    """Play the answers of a service with a model, a queue and a worker; some may be others."""
    answers: dict[str, object] = {
        "/v1/caller": {"tenant": "shop", "key_id": "k1", "scopes": ["jobs:read", "jobs:write"]},
        "/ready": {"status": "ready", "redis": True, "file_store": True, "workers": {"rows": 1, "files": 1}},
        "/v1/models": {"models": [{"name": "churn", "versions": [{"version": 1, "ready": True}]}]},
        "/v1/queues": {"queues": [queue_record()]},
        "/v1/dead-letters": {"dead_letters": []},
    }
    for path, answer in (answers | instead).items():
        service.play("GET", path, answer)


def queue_record(**fields: object) -> dict[str, object]:
    """Make a queue's record as the contract has it."""
    record = {
        "kind": "rows", "model": "churn:1", "depth": 3, "rows": 30, "outstanding_rows": 30, "oldest_age_seconds": 1.5,
        "rows_per_second": 100.0, "paused": False, "workers": 1, "warm_workers": 1,
    }  # fmt: skip
    return {**record, **fields}


def test_login_is_kept_for_the_commands_that_come(
    service: RecordedService, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Address and key of a login that the service knows are used from then on, for that service alone."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.StringIO("sq_secret\n"))
    play_a_service(service)
    code, said, _ = run("login")
    assert (code, said) == (0, f"logged in at {service.url} as shop: jobs:read, jobs:write\n")
    kept = tmp_path / "scorequeue" / "login.json"
    assert kept.stat().st_mode & 0o777 == 0o600

    monkeypatch.delenv("SCOREQUEUE_URL")
    assert run("queues")[0] == 0
    assert service.requests[-1].headers["Authorization"] == "Bearer sq_secret"
    assert run("--url", "http://127.0.0.1:9", "queues")[0] == 3  # and nothing of the key went there

    assert run("login", "--forget") == (0, "forgotten\n", "")
    assert not kept.exists()


def test_login_with_a_key_that_is_not_valid_keeps_nothing(
    service: RecordedService, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The service is asked before anything is written."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    service.play("GET", "/v1/caller", problem(401, "unauthenticated", "Send a valid key."))

    assert run("--api-key", "wrong", "login")[0] == 2

    assert not list(tmp_path.rglob("login*"))


def test_a_damaged_login_says_how_to_mend_it(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is no traceback, and `--forget` removes it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "scorequeue").mkdir()
    (tmp_path / "scorequeue" / "login.json").write_text("{")

    code, _, said = run("queues")

    assert code == 2
    assert "scorequeue login --forget" in said
    assert run("login", "--forget")[0] == 0


def test_top_shows_the_queues_once_where_nobody_watches(service: RecordedService, run: Run) -> None:
    """A line a queue, the fullest first."""
    queues = [queue_record(), queue_record(model="big:1", outstanding_rows=900)]
    service.play("GET", "/v1/queues", {"queues": queues})

    code, said, _ = run("top")

    assert code == 0
    assert [line.split("\t")[0] for line in said.splitlines()] == ["model", "big:1", "churn:1"]
    assert json.loads(run("top", "--json")[1])[0]["model"] == "big:1"


def test_doctor_finds_nothing_wrong_with_a_sound_service(service: RecordedService, run: Run) -> None:
    """A line for each thing that it looked at, and exit code 0."""
    play_a_service(service)

    code, said, _ = run("doctor")

    assert code == 0
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["ok", "service:"], ["ok", "workers:"], ["ok", "key:"], ["ok", "models:"], ["ok", "queues:"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "answer", "says"),
    [
        ("/ready", problem(503, "overloaded", "away"), "it takes no jobs now"),
        ("/ready", {"status": "ready", "workers": {"rows": 0, "files": 2}}, "nobody takes rows"),
        ("/v1/caller", problem(401, "unauthenticated", "Send a valid key."), "Send a valid key."),
        ("/v1/models", {"models": []}, "none is registered"),
        (
            "/v1/models",
            {"models": [{"name": "m", "versions": [{"version": 2, "ready": False, "not_ready_reason": "altered"}]}]},
            "m:2 is not ready: altered",
        ),
        ("/v1/queues", {"queues": [queue_record(paused=True)]}, "churn:1 (rows) is paused"),
        ("/v1/queues", {"queues": [queue_record(workers=0)]}, "3 of churn:1 (rows) wait, and nobody serves it"),
        ("/v1/dead-letters", {"dead_letters": [job_record("failed")]}, "1 job(s) were given up"),
    ],
)  # fmt: skip
def test_doctor_says_what_is_wrong(service: RecordedService, run: Run, path: str, answer: object, says: str) -> None:
    """The finding is named, and the exit code is 1."""
    play_a_service(service, **{path: answer})

    code, said, _ = run("doctor")

    assert code == 1
    assert [line for line in said.splitlines() if line.startswith("problem") and says in line], said


def test_settings_are_printed_with_secrets_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting by the name of its variable; neither keys nor passwords of addresses are shown."""
    monkeypatch.setenv("SCOREQUEUE_API_KEYS", "shop:hush")
    monkeypatch.setenv("SCOREQUEUE_REDIS_URL", "redis://user:hush@db.example:6379/0")

    done = subprocess.run([sys.executable, "-m", "scorequeue", "settings"], capture_output=True, text=True, check=True)

    assert "SCOREQUEUE_API_KEYS=…" in done.stdout
    assert "SCOREQUEUE_REDIS_URL=redis://…@db.example:6379/0" in done.stdout
    assert "SCOREQUEUE_MAX_QUEUE_ROWS=1000000" in done.stdout
    assert "hush" not in done.stdout


def test_a_wrong_setting_is_named_instead(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the start of a service."""
    monkeypatch.setenv("SCOREQUEUE_REDIS_ULR", "x")

    done = subprocess.run([sys.executable, "-m", "scorequeue", "settings"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "did you mean SCOREQUEUE_REDIS_URL" in done.stderr
