"""Data quality through the service: counted by all processes together, shown by the API and in the metrics."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from shared import metrics
from shared.connection import connect
from shared.quality_counts import QualityCounts, name_version
from shared.registry import Registry
from shared.store import JobStore
from shared.values import Values
from tests.api_under_test import IRIS_ROWS, LINE_ROWS, ApiUnderTest, assert_problem
from tests.conftest import WaitUntil
from worker.models import load_model
from worker.quality import QualityCounter
from worker.scoring import score_values


def show_quality(api: ApiUnderTest, name: str, **query: Any) -> dict[str, Any]:
    """Give the quality of a model's first version."""
    response = api.http.get(f"/v1/models/{name}/quality", query_string=query)
    assert response.status_code == 200, response.text
    versions: list[dict[str, Any]] = response.get_json()["versions"]
    assert [version["version"] for version in versions] == [1]
    return versions[0]


def pick_column(quality: dict[str, Any], name: str) -> dict[str, Any]:
    """Give what was counted of a column in all."""
    column: dict[str, Any] = next(column for column in quality["total"]["columns"] if column["name"] == name)
    return column


def test_rows_are_counted_once_whichever_worker_scored_them(api: ApiUnderTest, wait_until: WaitUntil) -> None:
    """Two workers score; the API shows the sum, with the columns' unusual values and the shift of the labels."""
    first, second = api.make_worker(), api.make_worker()
    for worker in (first, second, first):
        api.submit_rows([[5.1, 3.5, 1.4, 0.2], [5.1, 3.5, 99.0, 0.2]])
        worker.score_rows("rows:iris:1")

    wait_until(lambda: show_quality(api, "iris")["total"]["rows"] == 6, 5, "both workers to hand on their counts")

    quality = show_quality(api, "iris")
    assert pick_column(quality, "petal_length") == {
        "name": "petal_length", "missing": 0, "unseen": 0, "out_of_range": 3, "refused": {},
    }  # fmt: skip
    assert pick_column(quality, "sepal_width")["out_of_range"] == 0
    assert quality["training"]["rows"] == 150
    assert quality["training"]["scores"][0]["counts"] == [50, 48, 52]
    labels = quality["recent"]["scores"][0]
    assert labels["name"] == "prediction"
    assert labels["counts"] == [3, 0, 3]
    assert labels["psi"] > 0.25
    assert quality["recent"]["rows"] == 6
    assert quality["total"]["since"].endswith("Z")


def test_a_version_that_scored_nothing_is_shown_with_zeros(api: ApiUnderTest) -> None:
    """An alert needs a 0, not an absence; there is no shift of no rows."""
    quality = show_quality(api, "line", version=1)

    assert quality["total"]["rows"] == quality["recent"]["rows"] == 0
    assert quality["total"]["since"] is None
    assert quality["total"]["scores"][0]["psi"] is None
    text = metrics.render_metrics(lambda: metrics.collect_queues(api.service.store, api.service.registry)).decode()
    assert 'scorequeue_quality_rows_total{model="line",version="1"} 0.0' in text


def test_only_what_is_registered_has_a_quality(api: ApiUnderTest) -> None:
    """An unknown model or version is 404; what is no version is a wrong parameter."""
    assert_problem(api.http.get("/v1/models/nothing/quality"), 404, "unknown_model")
    assert_problem(api.http.get("/v1/models/line/quality?version=7"), 404, "unknown_model")
    for wrong in ("x", "null", "0"):
        assert_problem(api.http.get(f"/v1/models/line/quality?version={wrong}"), 400, "invalid_parameter")


def test_rows_of_files_are_counted_and_so_are_those_that_were_refused(api: ApiUnderTest, wait_until: WaitUntil) -> None:
    """What never reached the model is told by column and code, beside what did."""
    api.submit_file(b"a,b\n1,2\n0.5,0.5\n,1\nx,1\n", model="line")
    api.score()

    wait_until(lambda: show_quality(api, "line")["total"]["rows"] == 2, 5, "the counts")

    column = pick_column(show_quality(api, "line"), "a")
    assert column["refused"] == {"missing_value": 1, "type_error": 1}
    assert pick_column(show_quality(api, "line"), "b")["out_of_range"] == 1
    text = metrics.render_metrics(lambda: metrics.collect_queues(api.service.store, api.service.registry)).decode()
    assert 'scorequeue_refused_values_total{code="type_error",column="a",model="line",version="1"} 1.0' in text
    assert 'scorequeue_out_of_range_values_total{column="b",model="line",version="1"} 1.0' in text
    assert 'scorequeue_quality_recent_rows{model="line",version="1"} 2.0' in text
    assert 'scorequeue_score_psi{model="line",score="prediction",version="1"}' in text


def test_a_worker_that_ends_hands_on_what_it_counted(api: ApiUnderTest) -> None:
    """No second is waited for at an orderly end."""
    worker = api.make_worker()
    api.submit_rows(LINE_ROWS, model="line")
    worker.score_rows("rows:line:1")

    worker.stop()

    assert show_quality(api, "line")["total"]["rows"] == 3


class HeldCounts(QualityCounts):
    """Counts in the real Redis that are added only when they may be."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.entered, self.released = threading.Event(), threading.Event()

    def add(self, version: str, counts: Mapping[str, int]) -> None:
        """Wait, then add."""
        self.entered.set()
        assert self.released.wait(30)
        super().add(version, counts)


def test_an_orderly_end_waits_for_counts_on_their_way(client: redis.Redis, models: Path) -> None:
    """What the thread has taken and not yet handed on is not left behind when the process stops."""
    manifest, rows = Registry(models).manifest("line", 1), Values(np.array(LINE_ROWS))
    store = HeldCounts(client)
    counter = QualityCounter(store)
    counter.start()
    counter.count(manifest, rows, score_values(load_model(Registry(models), "line", 1), rows, 10))
    assert store.entered.wait(30)
    release = threading.Timer(0.2, store.released.set)
    release.start()

    counter.stop()
    total, _ = QualityCounts(client).read([name_version(manifest)])[0]
    release.join()

    assert total.rows == 3


def test_rows_whose_commit_was_refused_are_left_to_whoever_scores_them(
    api: ApiUnderTest, store: JobStore, wait_until: WaitUntil
) -> None:
    """A worker that lost one of its claims counts the others alone."""
    worker = api.make_worker()
    lost, kept = api.submit_rows(IRIS_ROWS), api.submit_rows([IRIS_ROWS[0]])
    model = worker.load_model("iris", 1)
    predict = model.predict

    def predict_and_lose(matrix: Any) -> Any:
        store.remove(lost)
        return predict(matrix)

    model.predict = predict_and_lose  # type: ignore[method-assign]
    worker.score_rows("rows:iris:1")
    worker.stop()

    assert api.get_job(kept)["status"] == "succeeded"
    assert show_quality(api, "iris")["total"]["rows"] == 1


def test_counts_survive_an_outage_of_redis(redis_url: str, client: redis.Redis, models: Path, tmp_path: Path) -> None:
    """What Redis does not take is kept, and added when it is back."""
    manifest = Registry(models).manifest("line", 1)
    model = load_model(Registry(models), "line", 1)
    away = connect(f"unix://{tmp_path}/no.sock")
    counter = QualityCounter(QualityCounts(away))
    rows = np.array(LINE_ROWS)

    counter.count(manifest, Values(rows), score_values(model, Values(rows), 10))
    counter.flush()
    (tmp_path / "no.sock").symlink_to(redis_url.removeprefix("unix://").partition("?")[0])
    counter.count(manifest, Values(rows), score_values(model, Values(rows), 10))
    counter.flush()
    counter.flush()

    total, recent = QualityCounts(client).read([name_version(manifest)])[0]
    assert total.rows == recent.rows == 6
    assert total.outside(0) == 2
    away.close()


def test_counts_end_some_time_after_the_last_row(client: redis.Redis) -> None:
    """The keys have an end: versions come and go."""
    store = QualityCounts(client)

    store.add("churn:1:abc", {"rows": 5, "m:0": 1})

    ends = {key.decode().count(":"): client.ttl(key) for key in client.scan_iter("sq:quality:*")}
    assert ends[4] == pytest.approx(90 * 24 * 3600, abs=5)
    assert ends[5] == pytest.approx(3 * 3600, abs=5)


def test_what_is_recent_is_of_this_hour_and_the_one_before(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older rows count in all, and no more for what the scores are like now."""
    store, hour = QualityCounts(client), 3600.0
    for start, rows in ((1000 * hour, 100), (1001 * hour, 10), (1002 * hour + 5, 1)):
        monkeypatch.setattr("time.time", lambda start=start: start)
        store.add("churn:1:abc", {"rows": rows})

    total, recent = store.read(["churn:1:abc"])[0]

    assert total.rows == 111
    assert recent.rows == 11
    assert total.since == 1000 * hour
    assert recent.since == 1001 * hour
