"""A file with rows that end or hang their worker, in the whole service: these rows fail, and no other."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scorequeue import Client
from tests import toxic_model
from tests.live_service import UP, LiveService

pytestmark = pytest.mark.timeout(400)

ROWS = 20_000
GUILTY = {5: toxic_model.EXITS, 6: toxic_model.CRASHES, 15_000: toxic_model.EXITS}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """Start a service with the toxic model."""
    folder = tmp_path_factory.mktemp("poisoned-file")
    toxic_model.register_toxic_model(folder / "models")
    live = LiveService(folder, {"SCOREQUEUE_CHUNK_ROWS": "8000"})
    live.start([*UP, "--port", str(live.port), "--data", str(live.data), "--workers", "2"])
    yield live
    assert live.stop() == []


def test_only_the_rows_that_kill_fail(service: LiveService, tmp_path: Path) -> None:
    """Three deadly rows among 20,000 fail as worker_lost, by name; all others have the model's answer."""
    lines = [f"{GUILTY.get(row, row % 500)},0.5" for row in range(ROWS)]
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("\n".join(["a,b", *lines, ""]))

    with Client(f"http://127.0.0.1:{service.port}") as client:
        job = client.score_file(source, target, model="toxic", timeout=300)
        errors = list(job.errors())

    assert job.row_counts == {"total": ROWS, "succeeded": ROWS - 3, "failed": 3, "pending": 0}, json.dumps(job.record)
    assert [(error["row"] - 1, error["code"]) for error in errors] == [(row, "worker_lost") for row in GUILTY]
    scored = list(csv.DictReader(io.StringIO(target.read_text())))
    assert len(scored) == ROWS
    for row, record in enumerate(scored):
        if row in GUILTY:
            assert (record["prediction"], record["error_code"]) == ("", "worker_lost")
        else:
            assert (float(record["prediction"]), record["error_code"]) == (row % 500 + 0.5, "")
