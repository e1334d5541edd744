"""Promotion over HTTP: workers load and check first, then the alias moves; a version that fails changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression
from werkzeug.test import TestResponse

from shared.aliases import Target
from shared.registry import Registry
from tests.api_under_test import ApiUnderTest, assert_problem
from tests.conftest import WaitUntil
from worker.registration import register_model

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


class RaisesAtThrees(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """It cannot answer a row that begins with 3."""

    def fit(self, features: Any, target: Any = None) -> RaisesAtThrees:
        """Note the number of columns."""
        self.n_features_in_ = features.shape[1]
        return self

    def predict(self, features: Any) -> Any:
        """Answer with the first column."""
        if (features[:, 0] == 3).any():
            raise RuntimeError("three")
        return np.asarray(features)[:, 0]


@pytest.fixture
def api(start_api: Callable[..., ApiUnderTest], models: Path) -> ApiUnderTest:
    """Give a front end with quick heartbeats, and ``line:2`` (y = 100a) and ``line:3`` (y = 300a) beside ``line:1``."""
    registry = Registry(models)
    for factor in (100.0, 300.0):
        model = LinearRegression().fit(CORNERS, CORNERS[:, 0] * factor)
        register_model(model, "line", registry=registry, sample=CORNERS, columns=["a", "b"])
    return start_api(lease_seconds=1.5)


def put_alias(api: ApiUnderTest, body: Any, alias: str = "champion", name: str = "line") -> TestResponse:
    """Ask for a promotion."""
    return api.http.put(f"/v1/models/{name}/aliases/{alias}", json=body)


def predict(api: ApiUnderTest, model: str = "line") -> tuple[str, float]:
    """Score one row; give which version answered, and what."""
    job_id = api.submit_rows([[1.0, 0.0]], model)
    named = api.get_job(job_id)["model"]
    score_all(api, named)
    result = api.http.get(f"/v1/jobs/{job_id}/result").get_json()
    assert result["model"] == named
    return named, result["predictions"][0]


def score_all(api: ApiUnderTest, reference: str) -> None:
    """Score what waits for a version."""
    api.workers[0].score_rows(f"rows:{reference}")


def test_a_promoted_version_is_warm_in_every_worker_before_the_alias_moves(api: ApiUnderTest) -> None:
    """The answer says how many processes checked it; the next job meets it, and it was loaded already."""
    api.make_worker()
    api.make_worker()
    assert predict(api) == ("line:1", pytest.approx(3.0))

    response = put_alias(api, {"version": 2})

    assert response.status_code == 200, response.text
    document = response.get_json()
    assert document["checked_by"] == 2
    assert document["aliases"] == {"champion": 2}
    assert [version["warm_processes"] for version in document["versions"]] == [2, 2, 0]
    assert predict(api) == ("line:2", pytest.approx(100.0))


def test_jobs_of_the_old_version_are_finished_by_it(api: ApiUnderTest) -> None:
    """A job is pinned at its submission: what waited when the alias moved is scored by the version that it names."""
    api.make_worker()
    waiting = api.submit_rows([[1.0, 0.0]], "line")

    assert put_alias(api, {"version": 2}).status_code == 200
    later = api.submit_rows([[1.0, 0.0]], "line")
    score_all(api, "line:1")
    score_all(api, "line:2")

    results = [api.http.get(f"/v1/jobs/{job_id}/result").get_json() for job_id in (waiting, later)]
    assert [result["model"] for result in results] == ["line:1", "line:2"]
    assert [result["predictions"][0] for result in results] == [pytest.approx(3.0), pytest.approx(100.0)]
    hashes = [api.service.registry.manifest("line", version).sha256 for version in (1, 2)]
    assert [result["model_sha256"] for result in results] == hashes
    assert [api.get_job(job_id)["model_sha256"] for job_id in (waiting, later)] == hashes


def damage_file(folder: Path) -> None:
    """Change a byte of the model file."""
    content = bytearray((folder / "model.joblib").read_bytes())
    content[-1] ^= 1
    (folder / "model.joblib").write_bytes(content)


def damage_answers(folder: Path) -> None:
    """Let the manifest promise other answers."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["golden_sample"]["predictions"][0] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_file, "not the file whose SHA-256 was registered"),
        (damage_answers, "its prediction for row 0 of the golden sample"),
        (lambda folder: (folder / "model.joblib").unlink(), "cannot be read"),
    ],
    ids=["tampered", "answers", "missing"],
)
def test_a_version_that_fails_changes_nothing_and_says_why(
    api: ApiUnderTest, damage: Callable[[Path], None], reason: str
) -> None:
    """Whoever promoted is told which version, where and why; the old one goes on serving."""
    damage(api.service.registry.version_folder("line", 2))
    api.make_worker()

    problem = assert_problem(put_alias(api, {"version": 2}), 503, "model_not_ready")

    assert "line:2 is not ready in 1 of 1 worker processes (on " in problem["detail"]
    assert reason in problem["detail"]
    assert "Nothing was changed" in problem["detail"]
    assert api.service.registry.aliases("line")["champion"].heaviest == 1
    assert predict(api) == ("line:1", pytest.approx(3.0))


def test_a_version_that_was_mended_is_promoted_without_a_restart(api: ApiUnderTest) -> None:
    """An earlier failure is no answer to a later request."""
    path = api.service.registry.version_folder("line", 2) / "model.joblib"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    api.make_worker()
    assert_problem(put_alias(api, {"version": 2}), 503, "model_not_ready")

    path.write_bytes(content)

    assert put_alias(api, {"version": 2}).status_code == 200


def test_without_a_worker_nothing_is_promoted(api: ApiUnderTest) -> None:
    """Nobody can check the version, so the request is refused, and says so to programs too."""
    problem = assert_problem(put_alias(api, {"version": 2}), 503, "model_not_ready")

    assert "No worker process runs that serves line" in problem["detail"]
    assert problem["errors"][0]["code"] == "no_worker"
    assert predict_reference(api) == "line:1"


def predict_reference(api: ApiUnderTest) -> str:
    """Give the version that the next job would meet."""
    return str(api.service.registry.resolve("line").reference)


def test_workers_that_are_still_loading_are_waited_for_within_a_bound(
    start_api: Callable[..., ApiUnderTest], api: ApiUnderTest
) -> None:
    """A request ends when it must; nothing was changed, and the caller is told to repeat it."""
    hasty = start_api(lease_seconds=30.0, max_wait_seconds=0.3)  # its beats are six seconds apart
    hasty.make_worker()

    problem = assert_problem(put_alias(hasty, {"version": 2}), 503, "model_not_ready")

    assert "have loaded it yet" in problem["detail"]
    assert predict_reference(api) == "line:1"


@pytest.mark.parametrize(
    ("body", "status", "code", "detail"),
    [
        ({}, 400, "invalid_parameter", 'Expected {"version": 3}'),
        ({"version": 1, "versions": {"1": 1.0}}, 400, "invalid_parameter", 'Expected {"version": 3}'),
        ({"version": 0}, 400, "invalid_parameter", ">= 1"),
        ({"version": "2"}, 400, "invalid_parameter", "Expected `int | null`"),
        ({"versions": {"1": 0.5, "2": 0.4}}, 400, "invalid_parameter", "add up to 0.9"),
        ({"versions": {"1": 0.5, "nine": 0.5}}, 400, "invalid_parameter", "Expected `int"),
        ({"versions": {}}, 400, "invalid_parameter", "at least one version"),
        ({"version": 2, "shadow": 2}, 400, "invalid_parameter", "shadow of itself"),
        ({"verison": 2}, 400, "invalid_parameter", "unknown field `verison`"),
        ({"version": 9}, 404, "unknown_model", "no version 9"),
        ({"version": 2, "shadow": 9}, 404, "unknown_model", "no version 9"),
        ([], 400, "invalid_parameter", "Expected `object`"),
    ],
)
def test_a_promotion_that_makes_no_sense_is_refused(
    api: ApiUnderTest, body: Any, status: int, code: str, detail: str
) -> None:
    """Each fault is named, and the alias stays."""
    problem = assert_problem(put_alias(api, body), status, code)

    assert detail in problem["detail"]
    assert predict_reference(api) == "line:1"


def test_an_alias_or_a_model_that_cannot_be_is_refused(api: ApiUnderTest) -> None:
    """Names are checked before anybody is asked to load anything."""
    assert "is not an alias" in assert_problem(put_alias(api, {"version": 2}, "UP"), 400, "invalid_parameter")["detail"]
    assert_problem(put_alias(api, {"version": 1}, name="nobody"), 404, "unknown_model")
    response = api.http.put("/v1/models/line/aliases/champion", data=b"{", content_type="application/json")
    assert_problem(response, 400, "malformed_json")


def test_a_canary_shares_the_jobs_by_weight_and_each_says_which_it_met(api: ApiUnderTest) -> None:
    """Of many jobs each version gets about its share; the answer is always the one of the version that is named."""
    api.make_worker()

    assert put_alias(api, {"versions": {"1": 0.7, "2": 0.3}}).status_code == 200
    answered = Counter(predict(api) for _ in range(60))

    assert {version for version, _ in answered} == {"line:1", "line:2"}
    assert {round(answer) for version, answer in answered if version == "line:1"} == {3}
    assert {round(answer) for version, answer in answered if version == "line:2"} == {100}
    met = Counter(version for version, _ in answered.elements())
    assert 5 <= met["line:2"] <= 35
    shown = api.http.get("/v1/models/line").get_json()["aliases"]
    assert shown == {"champion": {"versions": {"1": 0.7, "2": 0.3}}}


def test_an_alias_that_moves_in_the_registry_is_warmed_by_the_workers(api: ApiUnderTest, wait_until: WaitUntil) -> None:
    """Also an alias that was moved by hand, or by a command, is loaded before most jobs need it."""
    api.make_worker()
    Registry(api.settings.models).set_alias("line", "next", Target({2: 0.5, 3: 0.5}))

    def count_warm() -> list[int]:
        versions = api.http.get("/v1/models/line").get_json()["versions"]
        return [version["warm_processes"] for version in versions]

    wait_until(lambda: count_warm() == [1, 1, 1], 10, "the workers to load what the alias means")


def test_a_version_that_no_worker_can_load_is_not_ready_and_the_rest_serves(
    api: ApiUnderTest, wait_until: WaitUntil
) -> None:
    """It says why, in its description and as a metric; its jobs are refused at once; all others serve."""
    registry = api.service.registry
    registry.set_alias("line", "champion", 2)
    damage_file(registry.version_folder("line", 2))
    api.make_worker()

    shown = api.http.get("/v1/models/line/versions/2").get_json()
    assert shown["ready"] is False
    assert "SHA-256" in shown["not_ready_reason"]
    problem = assert_problem(api.post_rows([[1.0, 0.0]], "line"), 503, "model_not_ready")
    assert "line:2 is not ready: model.joblib is not the file whose SHA-256" in problem["detail"]
    assert_problem(api.post_file(b"a,b\n1,0\n", "line"), 503, "model_not_ready")
    assert api.list_kept_files() == []
    metrics = api.http.get("/metrics").text
    assert 'scorequeue_model_ready{model="line",version="2"} 0.0' in metrics
    assert 'scorequeue_model_ready{model="line",version="1"} 1.0' in metrics
    assert 'scorequeue_model_warm_processes{model="iris",version="1"} 1.0' in metrics
    assert predict(api, "line:1") == ("line:1", pytest.approx(3.0))


def test_a_broken_manifest_hides_no_other_version(api: ApiUnderTest) -> None:
    """Its version is listed as not ready with the file and the field; its model's others are as they were."""
    (api.service.registry.version_folder("line", 2) / "manifest.json").write_text("{")

    versions = api.http.get("/v1/models/line").get_json()["versions"]

    assert [version["ready"] for version in versions] == [True, False, True]
    assert "line/2/manifest.json: is not JSON" in versions[1]["not_ready_reason"]
    assert api.http.get("/v1/models/line/versions/2").get_json()["ready"] is False
    assert 'scorequeue_model_ready{model="line",version="2"} 0.0' in api.http.get("/metrics").text


def test_rows_of_the_training_data_are_shown_to_nobody(api: ApiUnderTest) -> None:
    """Over HTTP a version says how many golden rows it has, not which."""
    shown = api.http.get("/v1/models/iris/versions/1").get_json()

    assert shown["golden_rows"] == 16
    assert "golden_sample" not in api.http.get("/v1/models").text


def test_a_shadow_scores_the_same_rows_and_nobody_sees_it(api: ApiUnderTest) -> None:
    """The job's answer is the champion's; that the shadow's differs is counted, after the job has ended."""
    api.make_worker()
    labels = {"model": "line", "version": "1", "shadow": "2", "outcome": "disagreed"}
    before = REGISTRY.get_sample_value("scorequeue_shadow_rows_total", labels) or 0

    response = put_alias(api, {"version": 1, "shadow": 2})
    assert response.get_json()["aliases"] == {"champion": {"versions": {"1": 1.0}, "shadow": 2}}
    assert predict(api) == ("line:1", pytest.approx(3.0))

    assert (REGISTRY.get_sample_value("scorequeue_shadow_rows_total", labels) or 0) - before == 1
    assert [version["warm_processes"] for version in response.get_json()["versions"]] == [1, 1, 0]


def test_a_shadow_that_raises_fails_nothing(api: ApiUnderTest, models: Path) -> None:
    """Whatever a shadow does to a row, the job has its answer."""
    register_model(RaisesAtThrees().fit(CORNERS), "line", registry=Registry(models), sample=CORNERS, columns=["a", "b"])
    api.make_worker()
    assert put_alias(api, {"version": 1, "shadow": 4}).status_code == 200
    labels = {"model": "line", "version": "1", "shadow": "4", "outcome": "failed"}
    before = REGISTRY.get_sample_value("scorequeue_shadow_rows_total", labels) or 0

    job_id = api.submit_rows([[3.0, 0.0], [1.0, 0.0]], "line")
    score_all(api, "line:1")

    assert api.get_job(job_id)["status"] == "succeeded"
    assert (REGISTRY.get_sample_value("scorequeue_shadow_rows_total", labels) or 0) - before == 1


def test_a_process_that_cannot_load_a_version_leaves_it_to_those_that_can(
    start_api: Callable[..., ApiUnderTest], api: ApiUnderTest
) -> None:
    """While workers are upgraded one by one, an odd one neither takes nor fails the jobs that the others can score."""
    path = api.service.registry.version_folder("line", 2) / "model.joblib"
    content = path.read_bytes()
    api.make_worker()
    assert put_alias(api, {"version": 2}).status_code == 200
    path.write_bytes(content[:-1])
    odd = start_api(lease_seconds=0.5).make_worker()
    job_id, file_id = api.submit_rows([[1.0, 0.0]], "line"), api.submit_file(b"a,b\n1,0\n", "line")

    assert "jobs=0" in odd.score_rows("rows:line:2")
    assert "chunks=0" in odd.score_chunks("files:line:2")
    assert [api.get_job(each)["status"] for each in (job_id, file_id)] == ["queued", "queued"]

    api.workers[0].score_rows("rows:line:2")
    api.workers[0].score_chunks("files:line:2")
    assert [api.get_job(each)["status"] for each in (job_id, file_id)] == ["succeeded", "succeeded"]


def test_the_queues_say_who_serves_them(api: ApiUnderTest) -> None:
    """For each queue: the processes that take from it, and those that have its version warm."""
    api.make_worker()
    api.submit_rows([[1.0, 0.0]], "line")
    api.submit_rows([[1.0, 0.0]], "line:2")

    queues = {queue["model"]: queue for queue in api.http.get("/v1/queues").get_json()["queues"]}

    assert (queues["line:1"]["workers"], queues["line:1"]["warm_workers"]) == (1, 1)
    assert (queues["line:2"]["workers"], queues["line:2"]["warm_workers"]) == (1, 0)


def test_pausing_an_alias_pauses_every_version_that_it_means(api: ApiUnderTest) -> None:
    """Not one that was drawn by chance."""
    api.make_worker()
    assert put_alias(api, {"versions": {"1": 0.5, "3": 0.5}}).status_code == 200

    paused = api.http.post("/v1/queues/line@champion/pause").get_json()["queues"]

    assert {queue["model"] for queue in paused if queue["paused"]} == {"line:1", "line:3"}
