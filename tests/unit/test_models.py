"""Loading: only what was registered is loaded, and it answers as the estimator itself does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    BaggingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from shared.manifest import Manifest
from shared.registry import Registry
from shared.values import Values
from worker.model_cache import ModelCache
from worker.models import ModelNotReady, load_model
from worker.registration import register_model
from worker.trust import Trust

FEATURES, TARGET = make_classification(n_samples=200, n_features=4, random_state=0)
FEATURES = FEATURES.astype(np.float64)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Give an empty registry."""
    return Registry(tmp_path)


def register(registry: Registry, estimator: Any = None, sample: Any = FEATURES) -> Manifest:
    """Register a fitted estimator, by default a small one, under the name ``m``."""
    estimator = estimator or LogisticRegression().fit(FEATURES, TARGET)
    return register_model(estimator, "m", registry=registry, sample=sample)


class MinimumOfColumns(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor that learns nothing; its subclasses misbehave."""

    def fit(self, features: Any, target: Any) -> MinimumOfColumns:
        """Only note that it was fitted."""
        self.n_features_in_ = features.shape[1]
        return self

    def predict(self, features: Any) -> Any:
        """Answer with the smallest value of each row."""
        return np.asarray(features).min(axis=1)


class FailsAtOneRow(MinimumOfColumns):
    """It cannot answer a single row."""

    def predict(self, features: Any) -> Any:
        """Raise for one row."""
        if len(features) == 1:
            raise RuntimeError("one row")
        return super().predict(features)


class AltersItsRows(MinimumOfColumns):
    """It writes into the rows that it is given."""

    def predict(self, features: Any) -> Any:
        """Double the rows in place."""
        features *= 2
        return super().predict(features)


class AnswersTwice(MinimumOfColumns):
    """It has two answers for a row, one after the other."""

    def predict(self, features: Any) -> Any:
        """Answer with the first two columns."""
        return np.asarray(features)[:, :2].ravel()


class AnswersWithATable(MinimumOfColumns):
    """It was fitted on a target of one column."""

    def predict(self, features: Any) -> Any:
        """Answer with a table."""
        return np.asarray(features)[:, :1]


class RefusesToLoad(MinimumOfColumns):
    """Its pickle raises when it is read."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise ZeroDivisionError


class ForgetsItself(MinimumOfColumns):
    """Read back from its pickle it answers 0."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.forgot_ = True

    def predict(self, features: Any) -> Any:
        """Answer with the smallest value of each row, at first."""
        return super().predict(features) * (0 if hasattr(self, "forgot_") else 1)


@pytest.mark.parametrize(
    ("make", "by_probability"),
    [
        (lambda: RandomForestClassifier(10, random_state=0), True),
        (lambda: make_pipeline(StandardScaler(), LogisticRegression()), True),
        (lambda: SVC(), False),
        (lambda: RidgeClassifier(), False),
        (lambda: VotingClassifier([("a", LogisticRegression()), ("b", RidgeClassifier())]), False),
    ],
    ids=["forest", "pipeline", "svc", "ridge", "voting"],
)
@pytest.mark.parametrize("labels", [["no", "yes"], [0, 1], [1.0, 2.0], [False, True]], ids=str)
def test_a_classifier_answers_as_it_does_directly(
    registry: Registry, make: Callable[[], Any], by_probability: bool, labels: list[Any]
) -> None:
    """Labels of any JSON type and probabilities equal the estimator's own, warnings included: none."""
    estimator = make().fit(FEATURES, np.array(labels)[TARGET])

    manifest = register(registry, estimator)
    model = load_model(registry, "m", 1)
    outcome = model.predict(Values(FEATURES))

    assert manifest.labels_from_probabilities is by_probability
    assert manifest.signature.classes == tuple(labels)
    assert outcome.list_predictions() == estimator.predict(FEATURES).tolist()
    if hasattr(estimator, "predict_proba"):
        assert outcome.list_probabilities() == estimator.predict_proba(FEATURES).tolist()
    else:
        assert outcome.probabilities is None


def test_an_estimator_fitted_on_a_frame_gets_its_names_back(registry: Registry) -> None:
    """A model that knows its columns by name neither warns nor answers differently."""
    frame = pd.DataFrame(FEATURES, columns=["age", "income", "visits", "debt"])
    estimator = RandomForestRegressor(5, random_state=0).fit(frame, FEATURES[:, 0])

    manifest = register(registry, estimator, frame)
    outcome = load_model(registry, "m", 1).predict(Values(FEATURES))

    assert manifest.signature.column_names == ("age", "income", "visits", "debt")
    assert outcome.list_predictions() == estimator.predict(frame).tolist()


def test_the_signature_is_taken_from_the_sample(registry: Registry) -> None:
    """Names, ranges and whether values may be missing come from the sample."""
    sample = np.array([[1.0, 5.0], [3.0, np.nan]])
    estimator = MinimumOfColumns().fit(sample, None)

    manifest = register_model(estimator, "m", registry=registry, sample=sample, columns=["a", "b"])

    first, second = manifest.signature.columns
    assert (first.name, first.nullable, first.min, first.max) == ("a", False, 1.0, 3.0)
    assert (second.name, second.nullable, second.min, second.max) == ("b", True, 5.0, 5.0)


def test_the_first_version_is_champion_and_later_ones_are_not(registry: Registry) -> None:
    """Registering again adds a version and moves no alias."""
    register(registry)
    assert register(registry).version == 2

    assert registry.resolve("m").version == 1


@pytest.mark.parametrize(
    ("estimator", "sample", "message"),
    [
        (MinimumOfColumns().fit(FEATURES, None), FEATURES[:0], "must have rows"),
        (MinimumOfColumns().fit(FEATURES, None), FEATURES[:, :2], "fitted on 4 columns; the sample has 2"),
        (MinimumOfColumns().fit(FEATURES, None), FEATURES.astype("M8[s]"), "numbers, truth values or texts"),
        (StandardScaler().fit(FEATURES), FEATURES, "neither a classifier nor a regressor"),
        (AnswersTwice().fit(FEATURES, None), FEATURES, "one answer a row"),
        (AnswersWithATable().fit(FEATURES, None), FEATURES, r"a flat target, y.ravel\(\)"),
        (AltersItsRows().fit(FEATURES, None), FEATURES.copy(), "alters the rows"),
    ],
    ids=["empty", "columns", "times", "task", "twice", "table", "alters"],
)
def test_what_cannot_be_served_is_not_registered(registry: Registry, estimator: Any, sample: Any, message: str) -> None:
    """An estimator or a sample that does not fit is refused with the reason, and nothing is written."""
    with pytest.raises(ValueError, match=message):
        register(registry, estimator, sample)
    assert registry.names() == []


def flip_a_byte(path: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    """Drop the second half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_byte, "SHA-256"),
        (cut_off, "bytes; its manifest says"),
        (Path.unlink, "cannot be read"),
        (lambda path: joblib.dump("another object", path), "bytes; its manifest says"),
    ],
    ids=["tampered", "truncated", "missing", "replaced"],
)
def test_a_damaged_file_is_not_loaded(registry: Registry, damage: Callable[[Path], None], reason: str) -> None:
    """A model file that is not the registered one makes its version not ready; another one still loads."""
    register(registry)
    register(registry)
    damage(registry.version_folder("m", 1) / "model.joblib")

    with pytest.raises(ModelNotReady, match=reason) as caught:
        load_model(registry, "m", 1)

    assert caught.value.code == "model_not_ready"
    assert caught.value.reference == "m:1"
    assert str(registry.root) not in caught.value.detail
    assert load_model(registry, "m", 2).manifest.version == 2


def rewrite_manifest(registry: Registry, change: Callable[[dict[str, Any]], Any]) -> Registry:
    """Change the stored manifest of ``m:1`` and give a registry that has not read the old one."""
    path = registry.version_folder("m", 1) / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    return Registry(registry.root)


@pytest.mark.parametrize("version", ["1.2.3", "2.9.1", "unknown", ""])
def test_another_scikit_learn_is_refused(registry: Registry, version: str) -> None:
    """A model of another minor version of scikit-learn is not loaded, and the message names both."""
    register(registry)
    changed = rewrite_manifest(registry, lambda m: m["libraries"].update({"scikit-learn": version}))

    with pytest.raises(ModelNotReady, match=f"made with scikit-learn {version or 'unknown'} and this worker has"):
        load_model(changed, "m", 1)


def test_another_patch_of_scikit_learn_is_accepted(registry: Registry) -> None:
    """A patch release does not make a model unusable."""
    version = register(registry).libraries["scikit-learn"].rpartition(".")[0] + ".99"
    changed = rewrite_manifest(registry, lambda m: m["libraries"].update({"scikit-learn": version}))

    assert load_model(changed, "m", 1).manifest.libraries["scikit-learn"] == version


def test_classes_that_differ_from_the_manifest_are_refused(registry: Registry) -> None:
    """A manifest that names other classes would give wrong labels, so the version is not ready."""
    register(registry)
    changed = rewrite_manifest(registry, lambda m: m["signature"].update(classes=[1, 0]))

    with pytest.raises(ModelNotReady, match="its classes are"):
        load_model(changed, "m", 1)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (FailsAtOneRow(), r"first call, on 1 row\(s\), failed \(RuntimeError\)"),
        (RefusesToLoad(), "cannot be loaded"),
        (ForgetsItself(), r"prediction for row 0 of the golden sample is -?0\.0; .* was registered \(16 of 16 rows"),
    ],
    ids=["warm-up", "unpickling", "answers"],
)
def test_a_model_that_no_worker_could_serve_is_not_registered(registry: Registry, estimator: Any, reason: str) -> None:
    """Registration loads what it is about to keep, as a worker will, and refuses what fails; nothing is written."""
    with pytest.raises(ModelNotReady, match=reason):
        register(registry, estimator.fit(FEATURES, None))
    assert registry.names() == []


def test_a_model_that_answers_otherwise_than_registered_is_not_ready(registry: Registry) -> None:
    """Each load asks the golden sample again; another answer makes the version not ready, and says which row."""
    register(registry)

    def alter(manifest: dict[str, Any]) -> None:
        manifest["golden_sample"]["probabilities"][3][0] += 1e-4

    with pytest.raises(ModelNotReady, match="its probabilities for row 3 of the golden sample"):
        load_model(rewrite_manifest(registry, alter), "m", 1)


def test_a_manifest_of_before_golden_samples_still_loads(registry: Registry) -> None:
    """A version without a golden sample is loaded and warmed as it was."""
    register(registry)
    changed = rewrite_manifest(registry, lambda manifest: manifest.pop("golden_sample"))

    assert load_model(changed, "m", 1).manifest.golden_sample is None


@pytest.mark.parametrize("reference", [("m", 2), ("other", 1)])
def test_a_version_that_is_not_there_is_not_ready(registry: Registry, reference: tuple[str, int]) -> None:
    """A worker asked for a version that its registry lacks says so."""
    register(registry)

    with pytest.raises(ModelNotReady, match=r"has no version 2|no model 'other'"):
        load_model(registry, *reference)


def test_every_nested_estimator_runs_in_one_thread(registry: Registry) -> None:
    """However it was set, `n_jobs` is 1 on the loaded estimator and on the fitted copies inside it."""
    forest = RandomForestClassifier(3, n_jobs=2, random_state=0)
    voting = VotingClassifier([("forest", forest), ("bag", BaggingClassifier(forest, 2))])
    register(registry, make_pipeline(StandardScaler(), voting).fit(FEATURES, TARGET))

    loaded = load_model(registry, "m", 1).estimator[-1]

    assert loaded.n_jobs == 1
    assert [inner.n_jobs for inner in loaded.estimators_] == [1, 1]
    assert [inner.n_jobs for inner in loaded.estimators_[1].estimators_] == [1, 1]


def test_a_cache_loads_each_version_once(registry: Registry) -> None:
    """The second time, a model comes from memory, even if its file is gone."""
    register(registry)
    cache = ModelCache(registry, Trust())
    first = cache.get("m", 1)
    (registry.version_folder("m", 1) / "model.joblib").unlink()

    assert cache.get("m", 1) is first
    assert first.load_seconds > 0


def test_a_cache_tries_again_after_a_failure(registry: Registry) -> None:
    """A repaired version becomes usable without a restart."""
    register(registry)
    path = registry.version_folder("m", 1) / "model.joblib"
    content = path.read_bytes()
    path.write_bytes(b"")
    cache = ModelCache(registry, Trust())
    with pytest.raises(ModelNotReady):
        cache.get("m", 1)

    path.write_bytes(content)

    assert cache.get("m", 1).manifest.version == 1


class Undecided(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that gives its second class already at a probability of 0.4."""

    def fit(self, features: Any, target: Any) -> Undecided:
        """Note the classes."""
        self.classes_ = np.unique(target)
        return self

    def predict_proba(self, features: Any) -> Any:
        """Squash the first column."""
        second = 1 / (1 + np.exp(-np.asarray(features)[:, 0]))
        return np.column_stack([1 - second, second])

    def predict(self, features: Any) -> Any:
        """Decide at 0.4."""
        return self.classes_[(self.predict_proba(features)[:, 1] > 0.4).astype(int)]


def test_a_classifier_with_its_own_threshold_keeps_it(registry: Registry) -> None:
    """Labels that are not the most probable class are served as the estimator gives them."""
    estimator = Undecided().fit(FEATURES, TARGET)

    manifest = register(registry, estimator)

    assert manifest.labels_from_probabilities is False
    outcome = load_model(registry, "m", 1).predict(Values(FEATURES))
    assert outcome.list_predictions() == estimator.predict(FEATURES).tolist()
