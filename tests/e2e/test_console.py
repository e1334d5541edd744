"""The console in a real browser, on the whole service: watch, score, fetch, pause."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from scorequeue import Client
from tests.browser import PATIENCE_MS, open_browser
from tests.e2e.conftest import RunningService

expect.set_options(timeout=PATIENCE_MS)
DIABETES_ROW = [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a small file with the columns of ``breast-cancer``, and one row that cannot be scored."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    path = tmp_path_factory.mktemp("console") / "patients.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *data.feature_names])
        writer.writerows([index, *row] for index, row in enumerate(data.data[:50]))
        writer.writerow([50, "<b>large</b>", *data.data[50][1:]])
    return path


def test_console_scores_a_row_and_a_file_and_shows_what_became_of_them(
    service: RunningService, patients: Path, tmp_path: Path
) -> None:
    """A user scores a row with the form of a model, uploads a file, watches it end, and downloads what it left."""
    with open_browser(service.url) as visitor:
        page = visitor.open()
        expect(page.locator("#state")).to_have_text("ready")
        page.get_by_role("link", name="diabetes:1").first.click()
        for index, value in enumerate(DIABETES_ROW[:-1]):
            page.locator(f"#field-{index}").fill(str(value))
        page.get_by_role("button", name="Score the row").click()
        expect(page.locator("#fault-9")).to_contain_text("number")
        expect(page.get_by_label("s6")).to_be_focused()
        page.get_by_label("s6").fill(str(DIABETES_ROW[-1]))
        page.get_by_role("button", name="Score the row").click()
        expect(page.locator("#prediction")).to_have_text(re.compile(r"^195\.\d+$"))

        page.goto(f"{service.url}/#/models/breast-cancer")
        page.locator("#file").set_input_files(patients)
        page.get_by_role("button", name="Score the file").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^Job job_"))
        expect(page.locator("#status")).to_have_text("partially succeeded")
        failure = page.get_by_role("table", name="Failed rows").get_by_role("row").nth(1)
        expect(failure).to_contain_text("<b>large</b>")
        with page.expect_download() as loading:
            page.get_by_role("button", name="Result, CSV").click()
        loading.value.save_as(tmp_path / "scored.csv")

    with (tmp_path / "scored.csv").open(newline="") as file:
        scored = list(csv.DictReader(file))
    assert [row["id"] for row in scored] == [str(index) for index in range(51)]
    assert {row["prediction"] for row in scored[:50]} == {"benign", "malignant"}
    assert scored[50]["error_code"] == "type_error"


def test_console_pauses_a_queue_and_shows_jobs_live(service: RunningService) -> None:
    """What waits in a paused queue is shown, and a job's page tells its end without being loaded anew."""
    narrow = {"width": 360, "height": 740}
    with open_browser(service.url, viewport=narrow, color_scheme="dark") as visitor, Client(service.url) as client:
        client.submit([DIABETES_ROW], model="diabetes").wait(timeout=60)
        page = visitor.open()
        try:
            page.get_by_role("button", name="Pause diabetes:1").click()
            expect(page.get_by_role("row", name="diabetes:1").first).to_contain_text("paused")
            job = client.submit([DIABETES_ROW], model="diabetes", metadata={"from": "<img src=x>"})
            page.locator(f'a[href="#/jobs/{job.id}"]').click()
            expect(page.locator("#status")).to_contain_text("queued · place 1 in the queue")
            expect(page.locator(".facts")).to_contain_text('{"from":"<img src=x>"}')
            assert page.evaluate("document.documentElement.scrollWidth") == narrow["width"]
        finally:
            client.resume_queue("diabetes:1")
        expect(page.locator("#status")).to_have_text("succeeded")
        expect(page.get_by_role("table", name="Predictions")).to_contain_text("195.")
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete").click()
        expect(page.locator("#said")).to_contain_text("The job is gone.")
        page.get_by_role("link", name="Overview").click()
        assert page.evaluate("document.documentElement.scrollWidth") == narrow["width"]
