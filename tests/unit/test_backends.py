"""Backends: one for a version, chosen at registration, whose answers are the estimator's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from shared.registry import Manifest, Registry
from shared.values import Values
from worker import backend_choice
from worker.backend_checks import probe_thresholds
from worker.direct import TreesHead
from worker.models import LoadedModel, ModelNotReady, load_model
from worker.onnx_session import OnnxGraph
from worker.onnx_trees import write_tree_graph
from worker.registration import register_model
from worker.scoring import score_values
from worker.tree_ensembles import read_trees

CANCER = load_breast_cancer()
DISEASES = CANCER.target_names.astype(str)[CANCER.target]
IRIS = load_iris()
SPECIES = IRIS.target_names[IRIS.target]
DIABETES = load_diabetes()
SEED = 3

DIRECT: dict[str, tuple[Any, Any]] = {
    "forest": (RandomForestClassifier(20, random_state=SEED), "cancer"),
    "forest of three classes": (RandomForestClassifier(20, random_state=SEED, n_jobs=-1), "iris"),
    "extremely random trees": (ExtraTreesClassifier(20, random_state=SEED), "iris"),
    "forest of numbers": (RandomForestRegressor(20, random_state=SEED), "diabetes"),
    "tree": (DecisionTreeClassifier(random_state=SEED), "iris"),
    "tree of numbers": (DecisionTreeRegressor(random_state=SEED), "diabetes"),
    "boosting": (GradientBoostingClassifier(n_estimators=20, random_state=SEED), "cancer"),
    "boosting of three classes": (GradientBoostingClassifier(n_estimators=10, random_state=SEED), "iris"),
    "exponential boosting": (GradientBoostingClassifier(loss="exponential", n_estimators=10), "cancer"),
    "boosting from zero": (GradientBoostingClassifier(init="zero", n_estimators=10), "cancer"),
    "boosting of numbers": (GradientBoostingRegressor(loss="huber", n_estimators=20, random_state=SEED), "diabetes"),
    "histogram boosting": (HistGradientBoostingClassifier(max_iter=20), "cancer"),
    "histogram boosting of three classes": (HistGradientBoostingClassifier(max_iter=10), "iris"),
    "histogram boosting of counts": (HistGradientBoostingRegressor(loss="poisson", max_iter=20), "diabetes"),
    "logistic": (make_pipeline(StandardScaler(), LogisticRegression()), "cancer"),
    "logistic of three classes": (make_pipeline(RobustScaler(), LogisticRegression()), "iris"),
    "ridge": (make_pipeline(MinMaxScaler(clip=True), Ridge()), "diabetes"),
    "labels alone": (make_pipeline(MaxAbsScaler(), RidgeClassifier()), "iris"),
    "two labels alone": (make_pipeline(StandardScaler(), LinearSVC(random_state=SEED)), "cancer"),
    "chosen columns": (
        make_pipeline(
            make_column_transformer((StandardScaler(), [0, 2]), ("drop", [1]), remainder="passthrough"),
            SelectKBest(k=5),
            RandomForestClassifier(10, random_state=SEED),
        ),
        "cancer",
    ),
    "gaps filled": (make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), "gaps"),
    "gaps in a forest": (RandomForestClassifier(20, random_state=SEED), "gaps"),
    "gaps in histogram boosting": (HistGradientBoostingClassifier(max_iter=20), "gaps"),
}

WHOLE: dict[str, tuple[Any, Any]] = {
    "naive Bayes": (GaussianNB(), "iris"),
    "linear kernel": (make_pipeline(StandardScaler(), SVC(kernel="linear")), "cancer"),
}


def load_data(name: str) -> tuple[Any, Any]:
    """Give rows and their answers; ``gaps`` are of the cancer data, one value in ten missing."""
    if name == "gaps":
        rows = CANCER.data.copy()
        rows[np.random.default_rng(SEED).random(rows.shape) < 0.1] = np.nan
        return rows, DISEASES
    return {
        "cancer": (CANCER.data, DISEASES),
        "iris": (IRIS.data, SPECIES),
        "diabetes": (DIABETES.data, DIABETES.target),
    }[name]


def register(folder: Path, estimator: Any, sample: Any, *, tries: int = 1) -> tuple[Manifest, LoadedModel]:
    """Register a fitted estimator and load it as a worker does.

    What is the faster is measured, and a machine that is busy at that moment may say otherwise: of several tries the
    first counts in which it is converted.
    """
    registry = Registry(folder)
    for _ in range(tries):
        manifest = register_model(estimator, "m", registry=registry, sample=sample)
        if manifest.backend.name != "scikit-learn":
            break
    return manifest, load_model(registry, "m", manifest.version)


def answer(estimator: Any, rows: Any) -> Any:
    """Call an estimator directly, with one thread: several add up trees in any order."""
    if hasattr(estimator, "n_jobs"):
        estimator.n_jobs = 1
    return estimator.predict_proba(rows) if hasattr(estimator, "predict_proba") else estimator.predict(rows)


@pytest.mark.parametrize("case", DIRECT)
def test_a_known_model_answers_bit_for_bit_in_calls_of_any_size(tmp_path: Path, case: str) -> None:
    """Labels, probabilities and numbers are the estimator's own, whichever way a call is run, and rows alone too."""
    estimator, data = DIRECT[case]
    rows, target = load_data(data)
    estimator = clone(estimator).fit(rows, target)

    manifest, model = register(tmp_path, estimator, rows, tries=5)

    assert manifest.backend.name in ("direct", "onnx"), manifest.backend.reason
    assert manifest.backend.exact
    many = np.tile(rows, (9, 1))
    for part in (rows[:1], rows[5:22], rows, many):
        outcome = model.predict(Values(part))
        expected = answer(estimator, part)
        given = outcome.predictions if outcome.probabilities is None else outcome.probabilities
        np.testing.assert_array_equal(given, expected)
        np.testing.assert_array_equal(outcome.predictions, estimator.predict(part))


@pytest.mark.parametrize("case", WHOLE)
def test_other_models_become_one_graph_within_the_stated_tolerance(tmp_path: Path, case: str) -> None:
    """What skl2onnx converts, and what then agrees, runs in ONNX Runtime; the labels are the estimator's."""
    estimator, data = WHOLE[case]
    rows, target = load_data(data)
    estimator = clone(estimator).fit(rows, target)

    manifest, model = register(tmp_path, estimator, rows, tries=5)

    assert (manifest.backend.name, manifest.backend.tolerance) == ("onnx", 1e-5), manifest.backend.reason
    outcome = model.predict(Values(rows))
    if outcome.probabilities is not None:
        np.testing.assert_allclose(outcome.probabilities, answer(estimator, rows), rtol=1e-5, atol=0)
    np.testing.assert_array_equal(outcome.predictions, estimator.predict(rows))


def test_the_manifest_says_what_was_chosen_measured_and_why(tmp_path: Path) -> None:
    """It has the backend, its reason, its file with a SHA-256, and rows/s of both in calls of 1, 16, 256 and 4096."""
    estimator = RandomForestClassifier(30, random_state=SEED).fit(IRIS.data, SPECIES)

    manifest, _ = register(tmp_path, estimator, IRIS.data)

    backend = manifest.backend
    assert backend.name == "onnx"
    assert "30 tree(s)" in backend.reason
    assert "bit for bit" in backend.reason
    assert backend.checked_rows >= 2_000
    assert [speed.rows for speed in backend.measured] == [1, 16, 256, 4096]
    assert all(speed.estimator > 0 and speed.converted for speed in backend.measured)
    assert backend.measured[0].converted > 10 * backend.measured[0].estimator  # type: ignore[operator]
    assert backend.graph is not None
    assert (tmp_path / "m" / "1" / backend.graph.file).stat().st_size == backend.graph.size


class OwnForest(RandomForestClassifier):
    """A forest that answers in its own way."""

    def predict_proba(self, rows: Any) -> Any:
        """Answer with the opposite."""
        return super().predict_proba(rows)[:, ::-1]


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (OwnForest(5), "OwnForest is not known"),
        (GradientBoostingClassifier(init=LogisticRegression(max_iter=9999), n_estimators=3), "LogisticRegression"),
        (HistGradientBoostingClassifier(categorical_features=[0], max_iter=3), "sets of categories"),
        (BaggingClassifier(n_estimators=3), "BaggingClassifier is not known; ONNX Runtime"),
    ],
    ids=["subclass", "start", "categories", "kind"],
)
def test_what_is_not_converted_is_run_by_scikit_learn(tmp_path: Path, estimator: Any, reason: str) -> None:
    """The manifest says why, and what scikit-learn does in calls of each size."""
    rows = IRIS.data[50:].round()
    estimator.fit(rows, SPECIES[50:])

    manifest, model = register(tmp_path, estimator, rows)

    assert manifest.backend.name == "scikit-learn"
    assert reason in manifest.backend.reason
    assert manifest.backend.graph is None
    assert [speed.converted for speed in manifest.backend.measured] == [None] * 4
    assert model.predict(Values(rows)).list_predictions() == estimator.predict(rows).tolist()


def test_a_slower_conversion_is_not_taken(tmp_path: Path) -> None:
    """A graph that agrees and is slower in calls of some size is left, and the manifest says at which."""
    rows = StandardScaler().fit_transform(DIABETES.data)
    estimator = GaussianProcessRegressor().fit(rows, DIABETES.target)

    manifest, _ = register(tmp_path, estimator, rows)

    assert manifest.backend.name == "scikit-learn"
    assert "times as fast, in calls of" in manifest.backend.reason
    assert all(speed.converted for speed in manifest.backend.measured)


def test_a_graph_that_adds_up_other_bits_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last bit in one leaf of one tree is found, and the version is run by scikit-learn."""

    def write_another(ensemble: Any, columns: int) -> bytes:
        value = ensemble.nodes.value.copy()
        leaves = np.flatnonzero(ensemble.nodes.left < 0)
        value[leaves] = np.nextafter(value[leaves], np.inf)
        nodes = type(ensemble.nodes)(**{**vars(ensemble.nodes), "value": value})
        return write_tree_graph(type(ensemble)(**{**vars(ensemble), "nodes": nodes}), columns)

    monkeypatch.setattr(backend_choice, "write_tree_graph", write_another)
    estimator = RandomForestRegressor(10, random_state=SEED).fit(DIABETES.data, DIABETES.target)

    manifest, _ = register(tmp_path, estimator, DIABETES.data)

    assert manifest.backend.name == "scikit-learn"
    assert "other bits" in manifest.backend.reason


def tamper(path: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"), [(tamper, "SHA-256"), (Path.unlink, "cannot be read")], ids=["tampered", "missing"]
)
def test_a_damaged_graph_is_not_run(tmp_path: Path, damage: Callable[[Path], object], reason: str) -> None:
    """A version whose graph is not the one that was registered is not ready, and says so."""
    estimator = RandomForestClassifier(10, random_state=SEED).fit(IRIS.data, SPECIES)
    manifest, _ = register(tmp_path, estimator, IRIS.data)
    assert manifest.backend.graph is not None

    damage(tmp_path / "m" / "1" / manifest.backend.graph.file)

    with pytest.raises(ModelNotReady, match=rf"{manifest.backend.graph.file}.*{reason}"):
        load_model(Registry(tmp_path), "m", 1)


def test_a_graph_that_cannot_be_run_here_is_not_ready(tmp_path: Path) -> None:
    """A manifest that promises what this process cannot run is refused with the reason."""
    estimator = RandomForestClassifier(10, random_state=SEED).fit(IRIS.data, SPECIES)
    manifest, _ = register(tmp_path, estimator, IRIS.data)

    with pytest.raises(ModelNotReady, match="it cannot be run as onnx"):
        LoadedModel(manifest, estimator, b"no graph")


@pytest.mark.parametrize("case", ["forest", "gaps in a forest", "logistic"])
def test_a_row_that_the_estimator_refuses_is_refused(tmp_path: Path, case: str) -> None:
    """A number too large for it fails its own row, as it would without a backend; its neighbours are answered."""
    estimator, data = DIRECT[case]
    rows, target = load_data(data)
    estimator = clone(estimator).fit(rows, target)
    _, model = register(tmp_path, estimator, rows)
    three = rows[:3].copy()
    three[1, 0] = np.inf if case == "logistic" else 1e39

    with np.errstate(over="ignore"):
        with pytest.raises(ValueError, match="infinity"):
            answer(estimator, three)
        outcome = score_values(model, Values(three), 512)

    assert list(outcome.errors) == [1]
    assert outcome.probabilities is not None
    np.testing.assert_array_equal(outcome.probabilities[[0, 2]], answer(estimator, three[[0, 2]]))


def test_an_estimator_with_extreme_scores_still_answers(tmp_path: Path) -> None:
    """Where a score overflows, the estimator's own answer is given."""
    estimator = LogisticRegression().fit([[0.0], [1e-3]], [0, 1])
    estimator.coef_ = np.array([[1e300]])
    _, model = register(tmp_path, estimator, np.array([[0.0], [1e-3]]))

    with np.errstate(over="ignore"):
        outcome = model.predict(Values(np.array([[1e30]])))
        assert outcome.list_probabilities() == estimator.predict_proba([[1e30]]).tolist() == [[0.0, 1.0]]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    kind=st.sampled_from(["cancer", "iris", "diabetes", "constant"]),
    boosted=st.booleans(),
    depth=st.integers(1, 6),
)
def test_a_graph_and_its_trees_add_up_to_the_same_bits(seed: int, kind: str, boosted: bool, depth: int) -> None:
    """On rows that lie on thresholds and a rounding error beside them, in forests and boosted trees of any form."""
    rows, target = load_data("diabetes" if kind == "constant" else kind)
    target = np.zeros(len(rows)) if kind == "constant" else target
    chosen = np.random.default_rng(seed).permutation(len(rows))[:120]
    numbers = target.dtype.kind == "f"
    model = {
        (True, True): HistGradientBoostingRegressor(max_iter=8, max_depth=depth, random_state=seed),
        (True, False): HistGradientBoostingClassifier(max_iter=8, max_depth=depth, random_state=seed),
        (False, True): RandomForestRegressor(8, max_depth=depth, random_state=seed),
        (False, False): RandomForestClassifier(8, max_depth=depth, random_state=seed),
    }[boosted, numbers].fit(rows[chosen], target[chosen])
    ensemble = read_trees(model)
    graph = OnnxGraph(write_tree_graph(ensemble, rows.shape[1]))
    head = TreesHead(ensemble, graph, None, allow_missing=True)

    probes = head.round_rows(probe_thresholds(ensemble, rows)).copy()
    probes[::7, seed % rows.shape[1]] = np.nan

    by_graph, by_trees = head.add_in_graph(probes), head.add_in_trees(probes)
    assert by_graph.tobytes() == np.ascontiguousarray(by_trees).tobytes()
    if not np.isnan(probes).any(axis=1).all():
        whole = probes[~np.isnan(probes).any(axis=1)].astype(np.float64)
        np.testing.assert_array_equal(head.answer(whole), answer(model, whole))


def test_a_graph_brings_no_threads(tmp_path: Path) -> None:
    """N workers on N cores do not fight: a session computes in its caller's thread alone."""
    estimator = RandomForestClassifier(20, random_state=SEED).fit(IRIS.data, SPECIES)
    content = write_tree_graph(read_trees(estimator), IRIS.data.shape[1])
    before = len(os.listdir("/proc/self/task"))

    graph = OnnxGraph(content)
    graph.run(np.tile(IRIS.data, (100, 1)))

    assert len(os.listdir("/proc/self/task")) == before


def test_an_older_manifest_is_run_by_scikit_learn(tmp_path: Path) -> None:
    """A version that was registered without a backend is served as before."""
    estimator = LinearRegression().fit(DIABETES.data, DIABETES.target)
    manifest, _ = register(tmp_path, estimator, DIABETES.data)
    path = tmp_path / "m" / "1" / "manifest.json"
    document = msgspec.json.decode(path.read_bytes())
    del document["backend"]
    path.write_bytes(msgspec.json.encode(document))

    model = load_model(Registry(tmp_path), "m", manifest.version)

    assert model.manifest.backend.name == "scikit-learn"
    assert model.predict(Values(DIABETES.data)).list_predictions() == estimator.predict(DIABETES.data).tolist()
