"""The Python client and the command line against the real service, as their users would use them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scorequeue import Client, JobFailed, RequestRefused
from scorequeue.demo_checks import Answer, Differences, compare_answers, compare_files, list_answers

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that a job may take on a busy machine.
PATIENCE = 60
CLASSIFIER, REGRESSOR = "breast-cancer", "diabetes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder for the data sets of the demo models."""
    return tmp_path_factory.mktemp("client")


@pytest.fixture(scope="module")
def client(service: Any) -> Client:
    """Make a client of the real service."""
    return Client(service.url)


@pytest.fixture(scope="module")
def data(folder: Path) -> dict[str, Path]:
    """Write the data sets as CSV."""
    paths = {name: folder / f"{name}.csv" for name in (CLASSIFIER, REGRESSOR)}
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda name: run_worker("demo-csv", name, paths[name]), paths))
    return paths


@pytest.fixture(scope="module")
def direct(service: Any, folder: Path, data: dict[str, Path]) -> dict[str, list[Answer]]:
    """Call the models directly on their data sets."""

    def predict(name: str) -> list[Answer]:
        answers = folder / f"{name}.json"
        run_worker("predict", "--models", service.models, name, data[name], answers)
        return list_answers(json.loads(answers.read_bytes()))

    with ThreadPoolExecutor() as threads:
        return dict(zip(data, threads.map(predict, data), strict=True))


def run_worker(*arguments: str | Path) -> None:
    """Run a command that has scikit-learn."""
    command = [sys.executable, "-m", "worker", *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)


def run_scorequeue(service: Any, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    command = [sys.executable, "-m", "scorequeue", *map(str, arguments)]
    environment = {**os.environ, "SCOREQUEUE_URL": service.url}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def read_features(client: Client, name: str, path: Path, count: int) -> list[list[float]]:
    """Read the first rows of a data set in the model's order."""
    names = [column["name"] for column in client.model_version(name)["signature"]["columns"]]
    with open(path, newline="") as file:
        return [[float(row[column]) for column in names] for row in islice(csv.DictReader(file), count)]


@pytest.mark.parametrize("name", [CLASSIFIER, REGRESSOR])
def test_rows_are_scored_as_the_model_scores_them(
    client: Client, data: dict[str, Path], direct: dict[str, list[Answer]], name: str
) -> None:
    """A job that is submitted, waited for and fetched has the model's own answers, with their evidence."""
    job = client.submit(read_features(client, name, data[name], 50), model=name)

    result = job.wait(PATIENCE).result()

    differences = Differences()
    compare_answers(list_answers(result), direct[name], differences, "row")
    assert (differences.compared, differences.shown) == (50, [])
    assert job.status == "succeeded"
    assert job.model == result["model"] == f"{name}:1"
    assert result["model_sha256"] == client.model_version(name)["sha256"]


def test_a_file_is_scored_byte_for_byte(
    client: Client, data: dict[str, Path], direct: dict[str, list[Answer]], tmp_path: Path
) -> None:
    """Every line of a scored file begins with its input and ends with the model's own answer."""
    seen: list[str] = []
    scored = tmp_path / "scored.csv"

    job = client.score_file(data[CLASSIFIER], scored, CLASSIFIER, lambda progress: seen.append(progress.step))

    differences = Differences()
    compare_files(data[CLASSIFIER], scored, direct[CLASSIFIER], differences)
    assert (differences.compared, differences.shown) == (569, [])
    assert job.row_counts == {"total": 569, "succeeded": 569, "failed": 0, "pending": 0}
    assert list(dict.fromkeys(seen)) == ["upload", "score", "download"]


def test_a_frame_comes_back_with_scores_and_its_index(
    client: Client, data: dict[str, Path], direct: dict[str, list[Answer]]
) -> None:
    """A frame keeps columns and index; a row with a missing value has an error, the others the model's answers."""
    frame = pd.read_csv(data[CLASSIFIER]).set_index("id").sample(frac=1, random_state=1)
    frame.loc[7, "mean area"] = float("nan")

    scored = client.score(frame, model=CLASSIFIER)

    pd.testing.assert_frame_equal(scored[frame.columns], frame)
    failed = scored[scored["error_code"].notna()]
    assert failed.index.tolist() == [7]
    assert failed["error_code"].tolist() == ["missing_value"]
    good = scored.drop(index=7)
    expected = [direct[CLASSIFIER][number - 1] for number in good.index]
    got = good[["prediction", "probability_benign", "probability_malignant"]].itertuples(index=False)
    differences = Differences()
    compare_answers((Answer(row[0], row[1:]) for row in got), expected, differences, "row")
    assert (differences.compared, differences.shown) == (568, [])


def test_rows_that_do_not_fit_are_refused_with_row_and_column(client: Client, data: dict[str, Path]) -> None:
    """A text where a number is due refuses the job, and the error names row and column."""
    rows: list[list[Any]] = [*read_features(client, CLASSIFIER, data[CLASSIFIER], 2)]
    rows[1][3] = "big"

    with pytest.raises(RequestRefused) as caught:
        client.submit(rows, model=CLASSIFIER)

    assert (caught.value.status, caught.value.code) == (422, "schema_mismatch")
    assert "row 1, column mean area" in str(caught.value)


def test_an_unknown_model_refuses_a_large_upload(client: Client, folder: Path) -> None:
    """The reason of a refusal arrives also when the service does not read the upload to its end."""
    large = folder / "large.csv"
    large.write_bytes(b"a,b\n" + b"1.0,2.0\n" * 4_000_000)

    with pytest.raises(RequestRefused) as caught:
        client.submit_file(large, "no-such-model")

    assert caught.value.code == "unknown_model"


def test_a_file_without_the_columns_is_refused(client: Client, tmp_path: Path) -> None:
    """A CSV that lacks the model's columns is refused, each column named, and no output is left."""
    (tmp_path / "in.csv").write_bytes(b"a,b\n1,2\n")

    with pytest.raises((RequestRefused, JobFailed), match="mean radius"):
        client.score_file(tmp_path / "in.csv", tmp_path / "out.csv", CLASSIFIER)

    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_jobs_are_listed_over_pages(client: Client, data: dict[str, Path]) -> None:
    """The newest jobs come first, however small the pages are."""
    rows = read_features(client, REGRESSOR, data[REGRESSOR], 1)
    submitted = [client.submit(rows, model=REGRESSOR).wait(PATIENCE).id for _ in range(5)]

    listed = [job.id for job in islice(client.jobs(kind="rows", model=REGRESSOR, page_size=2), 5)]

    assert listed == submitted[::-1]


def test_a_deleted_job_is_gone(client: Client, data: dict[str, Path]) -> None:
    """After a deletion the job is gone, which is not the same as never having been."""
    job = client.submit(read_features(client, REGRESSOR, data[REGRESSOR], 1), model=REGRESSOR).wait(PATIENCE)

    job.delete()

    with pytest.raises(RequestRefused) as caught:
        job.refresh()
    assert (caught.value.status, caught.value.code) == (410, "job_gone")
    with pytest.raises(RequestRefused, match="unknown_job"):
        client.job("job_0000000000000000000000000000000000")


# The command line


def test_submit_status_result_on_the_command_line(
    service: Any, client: Client, data: dict[str, Path], direct: dict[str, list[Answer]]
) -> None:
    """What `submit` prints is what `status` and `result` take."""
    rows = json.dumps(read_features(client, CLASSIFIER, data[CLASSIFIER], 1))

    submitted = run_scorequeue(service, "submit", rows, "--model", CLASSIFIER)
    assert submitted.returncode == 0, submitted.stderr
    job_id = submitted.stdout.strip()
    result = run_scorequeue(service, "result", job_id, "--wait", str(PATIENCE))
    status = run_scorequeue(service, "status", job_id, "--json")

    assert json.loads(result.stdout)["predictions"] == [direct[CLASSIFIER][0].prediction]
    assert json.loads(status.stdout)["status"] == "succeeded"
    assert job_id in run_scorequeue(service, "jobs", "--limit", "100").stdout


def test_score_on_the_command_line(service: Any, data: dict[str, Path], tmp_path: Path) -> None:
    """`score` writes the scored file, says how many rows there were, and exits 0."""
    scored = tmp_path / "scored.csv"

    done = run_scorequeue(service, "score", data[CLASSIFIER], "--model", CLASSIFIER, "-o", scored)

    assert (done.returncode, scored.read_bytes().count(b"\n")) == (0, 570)
    assert done.stdout.startswith(f"569 rows scored by {CLASSIFIER}:1")


@pytest.mark.parametrize("name", ["scored.csv", "scored.parquet", "scored.ndjson"])
def test_file_goes_from_one_format_to_another_on_the_command_line(
    service: Any, data: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """A file that was scored as CSV and fetched as another format is scored again from there: the answers are equal."""
    source = pd.read_csv(data[CLASSIFIER])
    first, again = tmp_path / name, tmp_path / "again.csv"
    run_scorequeue(service, "score", data[CLASSIFIER], "-m", CLASSIFIER, "-o", first)

    done = run_scorequeue(service, "score", first, "-m", CLASSIFIER, "-o", again, "--column-prefix", "new_")

    assert done.returncode == 0, done.stderr
    found = pd.read_csv(again)
    assert (found["prediction"] == found["new_prediction"]).all()
    assert (found["probability_benign"] == found["new_probability_benign"]).all()
    assert (found["mean radius"] == source["mean radius"]).all()


def test_dry_run_on_the_command_line(service: Any, data: dict[str, Path]) -> None:
    """The first hundred rows are shown scored, and the columns that the model does not use are named."""
    done = run_scorequeue(service, "score", data[CLASSIFIER], "-m", CLASSIFIER, "--dry-run")

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 101
    assert "diagnosis: the model does not use it" in done.stderr


def test_lists_on_the_command_line(service: Any) -> None:
    """Models and queues are shown, for people and for programs."""
    assert f"{CLASSIFIER}\t1\tclassification\t30\tchampion" in run_scorequeue(service, "models", "list").stdout
    assert "mean radius" in run_scorequeue(service, "models", "show", CLASSIFIER).stdout
    assert isinstance(json.loads(run_scorequeue(service, "queues", "--json").stdout), list)


def test_an_unknown_model_exits_2_on_the_command_line(service: Any) -> None:
    """A wrong name is one clear line that says which names there are."""
    done = run_scorequeue(service, "submit", "[[1]]", "--model", "breast-canser")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("scorequeue: unknown_model")
    assert CLASSIFIER in done.stderr


def test_failed_rows_are_mended_from_the_command_line(service: Any, data: dict[str, Path], tmp_path: Path) -> None:
    """A file with two broken rows is scored; the corrected one, sent with retry, completes it; fail stops at once."""
    good = data[CLASSIFIER]
    lines = good.read_text().splitlines(keepends=True)
    broken = [line if row not in (3, 400) else line.replace(".", "?") for row, line in enumerate(lines)]
    bad = tmp_path / "bad.csv"
    bad.write_text("".join(broken))
    first, whole, mended = tmp_path / "first.csv", tmp_path / "whole.csv", tmp_path / "mended.csv"

    scored = run_scorequeue(service, "score", bad, "-m", CLASSIFIER, "-o", first, "--json")
    job_id = json.loads(scored.stdout)["id"]
    errors = run_scorequeue(service, "errors", job_id, "--json")
    retried = run_scorequeue(service, "retry", job_id, "--input", good, "-o", mended, "--json")
    assert retried.returncode == 0, retried.stderr
    run_scorequeue(service, "score", good, "-m", CLASSIFIER, "-o", whole)
    again = run_scorequeue(service, "retry", json.loads(retried.stdout)["id"])
    stopped = run_scorequeue(service, "score", bad, "-m", CLASSIFIER, "-o", first, "--on-row-error", "fail")

    assert [json.loads(line)["row"] for line in errors.stdout.splitlines()] == [3, 400]
    assert json.loads(retried.stdout)["retry_of"] == job_id
    assert mended.read_bytes() == whole.read_bytes()
    assert (again.returncode, stopped.returncode) == (2, 1)
    assert "nothing to retry" in again.stderr
    assert "row 3" in stopped.stderr
