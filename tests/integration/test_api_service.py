"""The service's own pages: health, readiness, metrics, queues, models; and what every answer has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api_under_test import IRIS_CLASSES, IRIS_ROWS, LINE_ROWS, ApiUnderTest, assert_problem
from tests.small_models import IRIS_COLUMNS

NOWHERE = "redis://127.0.0.1:1/0"


def read_metrics(api: ApiUnderTest) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Scrape: samples by name, then by labels."""
    response = api.http.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            assert labels not in found.setdefault(sample.name, {}), f"{sample.name} {sample.labels} stands twice"
            found[sample.name][labels] = sample.value
    return found


def pick(samples: dict[frozenset[tuple[str, str]], float], **labels: str) -> float:
    """Give the one sample that has these labels among its own."""
    (value,) = [value for key, value in samples.items() if set(labels.items()) <= key]
    return value


def test_health_depends_on_nothing(start_api: Callable[..., ApiUnderTest]) -> None:
    """Without Redis and without any model the process still says that it lives."""
    api = start_api(redis_url=NOWHERE, models=Path("nowhere"))
    response = api.http.get("/health")
    assert (response.status_code, response.get_json()) == (200, {"status": "alive"})


def test_ready_tells_of_workers_without_asking_for_any(api: ApiUnderTest) -> None:
    """No worker is no reason not to take jobs; those that are warm are counted by queue."""
    response = api.http.get("/ready")
    assert response.status_code == 200
    assert response.get_json() == {
        "status": "ready", "redis": True, "file_store": True, "workers": {"rows": 0, "files": 0}
    }  # fmt: skip

    api.make_worker()
    api.make_worker()
    assert api.http.get("/ready").get_json()["workers"] == {"rows": 2, "files": 2}


def test_ready_names_what_is_missing(start_api: Callable[..., ApiUnderTest], tmp_path: Path) -> None:
    """With Redis away, or a file store that cannot be written, it is a 503 that says so."""
    response = start_api(redis_url=NOWHERE).http.get("/ready")
    assert response.status_code == 503
    assert response.get_json()["redis"] is False
    assert (response.get_json()["status"], response.get_json()["missing"]) == ("not_ready", ["redis"])

    (tmp_path / "a file").write_bytes(b"")
    response = start_api(file_store=str(tmp_path / "a file")).http.get("/ready")
    assert response.status_code == 503
    assert (response.get_json()["file_store"], response.get_json()["missing"]) == (False, ["file_store"])


def test_metrics_of_an_unused_queue_are_zero_not_absent(api: ApiUnderTest) -> None:
    """Before the first job every registered version has its depth, rows, age and finished jobs at 0."""
    metrics = read_metrics(api)

    for model in ("iris", "line"):
        for priority in ("high", "normal", "low"):
            labels = {"model": model, "version": "1", "priority": priority, "kind": "rows"}
            for name in ("queue_depth", "queue_rows", "queue_oldest_age_seconds"):
                assert pick(metrics[f"scorequeue_{name}"], **labels) == 0
        labels = {"model": model, "version": "1", "kind": "rows"}
        assert pick(metrics["scorequeue_outstanding_rows"], **labels) == 0
        assert pick(metrics["scorequeue_jobs_submitted_total"], **labels) == 0
        assert pick(metrics["scorequeue_jobs_finished_total"], **labels, status="succeeded") == 0
        assert pick(metrics["scorequeue_model_info"], model=model, version="1", format="joblib") == 1
    assert pick(metrics["scorequeue_redis_up"]) == 1
    assert pick(metrics["scorequeue_workers"], queue="rows") == 0


def test_metrics_count_what_happened(api: ApiUnderTest) -> None:
    """Depth and rows follow the queue, counters the jobs, and HTTP answers are counted by route."""
    before = read_metrics(api)
    canceled = api.submit_rows(priority="high")
    for _ in range(2):
        api.submit_rows()
    api.submit_rows(LINE_ROWS[:1], "line")
    api.http.post(f"/v1/jobs/{canceled}/cancel")
    rows = {"model": "iris", "version": "1", "kind": "rows"}

    waiting = read_metrics(api)
    assert pick(waiting["scorequeue_queue_depth"], **rows, priority="normal") == 2
    assert pick(waiting["scorequeue_queue_rows"], **rows, priority="normal") == 6
    assert pick(waiting["scorequeue_queue_depth"], **rows, priority="high") == 0
    assert pick(waiting["scorequeue_outstanding_rows"], **rows) == 6
    assert pick(waiting["scorequeue_queue_oldest_age_seconds"], **rows, priority="normal") >= 0
    assert pick(waiting["scorequeue_jobs_submitted_total"], **rows) == 3

    api.score()
    done = read_metrics(api)
    assert pick(done["scorequeue_queue_depth"], **rows, priority="normal") == 0
    assert pick(done["scorequeue_outstanding_rows"], **rows) == 0
    assert pick(done["scorequeue_jobs_finished_total"], **rows, status="succeeded") == 2
    assert pick(done["scorequeue_jobs_finished_total"], **rows, status="canceled") == 1
    assert pick(done["scorequeue_workers"], queue="rows") == 1
    assert pick(done["scorequeue_model_ready"], model="iris", version="1") == 1

    route = {"method": "POST", "route": "/v1/jobs", "code": "202"}
    for name in ("scorequeue_http_requests_total", "scorequeue_http_request_duration_seconds_count"):
        earlier = sum(value for key, value in before.get(name, {}).items() if set(route.items()) <= key)
        assert pick(done[name], **route) - earlier == 4


def test_metrics_have_no_label_from_a_request(api: ApiUnderTest) -> None:
    """A stranger's path, model or method makes no label of its own."""
    api.http.get("/nowhere/at-all")
    api.http.open("/v1/jobs", method="BREW")
    api.post_rows(IRIS_ROWS, "invented")
    job_id = api.submit_rows()
    api.get_job(job_id)

    text = api.http.get("/metrics").text

    for stranger in ("at-all", "invented", job_id, "BREW"):
        assert stranger not in text
    assert 'route="/v1/jobs/<job_id>"' in text


def test_metrics_without_redis_say_that_it_is_down(start_api: Callable[..., ApiUnderTest]) -> None:
    """The scrape still succeeds, with redis_up at 0 and this process's own counters."""
    metrics = read_metrics(start_api(redis_url=NOWHERE))
    assert pick(metrics["scorequeue_redis_up"]) == 0
    assert "scorequeue_queue_depth" not in metrics


def test_refused_requests_are_counted_by_reason(start_api: Callable[..., ApiUnderTest]) -> None:
    """What is turned away for size or load appears in the metrics under its code."""
    api = start_api(max_body_bytes=10)
    name, reason = "scorequeue_rejected_requests_total", frozenset({("reason", "payload_too_large")})
    before = read_metrics(api).get(name, {}).get(reason, 0)
    assert_problem(api.post_rows(IRIS_ROWS), 413, "payload_too_large")
    assert read_metrics(api)[name][reason] == before + 1


def test_queues_are_shown(api: ApiUnderTest) -> None:
    """Depth, rows, age and pause state of each queue that was used."""
    assert api.http.get("/v1/queues").get_json() == {"queues": [], "workers": 0}
    api.submit_rows()
    api.submit_rows(priority="low")
    api.submit_file(b"a,b\n1,2\n3,4\n", "line")
    api.make_worker()

    document = api.http.get("/v1/queues").get_json()

    assert document["workers"] == 1
    files, rows = sorted(document["queues"], key=lambda queue: str(queue["kind"]))
    assert (rows["kind"], rows["model"], rows["depth"], rows["rows"]) == ("rows", "iris:1", 2, 6)
    assert rows["depth_by_priority"] == {"high": 0, "normal": 1, "low": 1, "trial": 0}
    assert (files["kind"], files["model"], files["depth"], files["rows"]) == ("files", "line:1", 1, 2)
    for queue in (files, rows):
        assert queue["paused"] is False
        assert queue["oldest_age_seconds"] >= 0
        assert queue["outstanding_rows"] == queue["rows"]


def test_paused_queue_is_not_claimed(api: ApiUnderTest) -> None:
    """While a queue is paused it says so and its jobs wait; then they are scored."""
    job_id = api.submit_rows()
    api.service.store.pause("rows:iris:1", paused=True)
    api.score()
    assert api.get_job(job_id)["status"] == "queued"
    assert api.http.get("/v1/queues").get_json()["queues"][0]["paused"] is True

    api.service.store.pause("rows:iris:1", paused=False)
    api.score()
    assert api.get_job(job_id)["status"] == "succeeded"


def test_models_are_described(api: ApiUnderTest) -> None:
    """List, model and version show signature, evidence, aliases and where they are warm."""
    models = api.http.get("/v1/models").get_json()["models"]
    assert [model["name"] for model in models] == ["iris", "line"]
    iris = api.http.get("/v1/models/iris").get_json()
    assert iris == models[0]
    assert iris["aliases"] == {"champion": 1}

    version = api.http.get("/v1/models/iris/versions/1").get_json()
    assert iris["versions"] == [version]
    assert [column["name"] for column in version["signature"]["columns"]] == IRIS_COLUMNS
    assert (version["signature"]["task"], version["signature"]["classes"]) == ("classification", IRIS_CLASSES)
    assert len(version["sha256"]) == 64
    assert (version["format"], version["warm_processes"]) == ("joblib", 0)
    assert version["aliases"] == ["champion"]

    api.make_worker()
    assert api.http.get("/v1/models/line/versions/1").get_json()["warm_processes"] == 1


@pytest.mark.parametrize("path", ["nothing", "iris/versions/2", "nothing/versions/1", "IRIS", "%2e%2e"])
def test_unknown_model_page_is_a_404(api: ApiUnderTest, path: str) -> None:
    """A model or version that is not there is unknown_model."""
    assert_problem(api.http.get(f"/v1/models/{path}"), 404, "unknown_model")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/models/iris/versions/one", 404, "not_found"),
        ("GET", "/v1/models/iris/versions/99999999999999999999", 404, "unknown_model"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
def test_flasks_own_errors_are_problems_too(api: ApiUnderTest, method: str, path: str, status: int, code: str) -> None:
    """A wrong address or method is answered like every other error; a wrong method with what is allowed."""
    response = api.http.open(path, method=method)
    assert_problem(response, status, code)
    assert bool(response.headers.get("Allow")) == (status == 405)


@pytest.mark.parametrize("given", ["abc-123._X", "a" * 100])
def test_request_id_is_kept(api: ApiUnderTest, given: str) -> None:
    """A caller's own request id comes back, on errors as well."""
    for path in ("/health", "/nowhere"):
        assert api.http.get(path, headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a" * 101, "with space", "é", "<script>"])
def test_request_id_is_made_when_none_can_be_kept(api: ApiUnderTest, given: str) -> None:
    """Without an id, or with one that is not harmless, a new one is made for each request."""
    ids = {api.http.get("/health", headers={"X-Request-Id": given}).headers["X-Request-Id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(len(made) == 16 for made in ids)
