"""Demo models: real data, honest metrics, and answers equal to the estimator's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import joblib
import numpy as np
import pytest

from shared.registry import Registry
from shared.values import Values
from worker.__main__ import main
from worker.demo_models import DEMO_MODELS, train_demo_models, write_demo_csv
from worker.models import load_model
from worker.scoring import score_values


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Give a registry with the demo models."""
    registry = Registry(tmp_path_factory.mktemp("models"))
    assert [demo.created for demo in train_demo_models(registry)] == [True, True]
    return registry


def test_training_again_changes_nothing(registry: Registry) -> None:
    """What is registered already is left alone."""
    before = [manifest.sha256 for manifest in registry.all_versions()]

    again = list(train_demo_models(registry))

    assert [demo.created for demo in again] == [False, False]
    assert "is there already" in again[0].describe()
    assert [manifest.sha256 for manifest in registry.all_versions()] == before


def test_a_missing_champion_is_set_again(tmp_path: Path, registry: Registry) -> None:
    """A run that was stopped between version and alias is repaired by the next."""
    (registry.root / "diabetes" / "aliases.json").unlink()

    list(train_demo_models(registry))

    assert registry.resolve("diabetes").version == 1


@pytest.mark.parametrize(
    ("name", "task", "columns", "classes", "metrics"),
    [
        ("breast-cancer", "classification", 30, ("benign", "malignant"), {"accuracy": 0.9, "roc_auc": 0.95}),
        ("diabetes", "regression", 10, None, {"r2": 0.4, "mae": 20.0}),
    ],
)
def test_the_manifest_describes_the_model(
    registry: Registry,
    name: str,
    task: str,
    columns: int,
    classes: tuple[str, ...] | None,
    metrics: dict[str, float],
) -> None:
    """Task, columns with ranges, classes and metrics of the held-out rows stand in the manifest."""
    manifest = registry.resolve(name)

    assert (manifest.version, manifest.signature.task) == (1, task)
    assert len(manifest.signature.columns) == columns
    assert all(column.min is not None for column in manifest.signature.columns)
    assert manifest.signature.classes == classes
    assert set(manifest.metrics) == set(metrics)
    assert all(manifest.metrics[key] >= least for key, least in metrics.items())
    assert manifest.training["held_out_rows"]
    assert set(manifest.libraries) == {"python", "scikit-learn", "numpy", "joblib"}


@pytest.mark.parametrize("name", sorted(DEMO_MODELS))
@pytest.mark.parametrize("limit", [1, 64, 10_000])
def test_answers_equal_the_estimator_called_directly(registry: Registry, name: str, limit: int) -> None:
    """Whatever the micro-batch, each row gets what the estimator gives for the whole matrix."""
    features = DEMO_MODELS[name].load_data().features[:150]
    estimator = joblib.load(registry.version_folder(name, 1) / "model.joblib")

    outcome = score_values(load_model(registry, name, 1), Values(features), limit)

    assert outcome.errors == {}
    np.testing.assert_array_equal(outcome.predictions, estimator.predict(features))
    if outcome.probabilities is not None:
        np.testing.assert_allclose(outcome.probabilities, estimator.predict_proba(features), rtol=1e-12)


@pytest.mark.parametrize("name", sorted(DEMO_MODELS))
def test_the_csv_reads_back_as_the_same_numbers(tmp_path: Path, name: str) -> None:
    """The exported rows have ids that count on, the exact features, and the true answer."""
    data = DEMO_MODELS[name].load_data()
    path = tmp_path / "rows.csv"

    written = write_demo_csv(path, name, repeat=2)

    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == written == 2 * len(data.features)
    assert [row["id"] for row in rows] == [str(number) for number in range(1, written + 1)]
    assert [[float(row[c]) for c in data.column_names] for row in rows[: len(data.features)]] == (
        data.features.tolist()
    )
    assert rows[-1][data.target_name] == str(data.target[-1])


def test_the_commands_work_together(tmp_path: Path, registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    """A CSV of the demo data is scored directly, and the answers are the estimator's."""
    table, answers = tmp_path / "rows.csv", tmp_path / "answers.json"
    models = ["--models", str(registry.root)]

    assert main(["demo-csv", "breast-cancer", str(table)]) == 0
    assert main(["predict", *models, "breast-cancer", str(table), str(answers)]) == 0
    capsys.readouterr()
    assert main(["train-demo", *models, "--json"]) == 0

    trained = json.loads(capsys.readouterr().out)
    assert [(demo["reference"], demo["created"]) for demo in trained] == [
        ("breast-cancer:1", False),
        ("diabetes:1", False),
    ]
    answer = json.loads(answers.read_text())
    estimator = joblib.load(registry.version_folder("breast-cancer", 1) / "model.joblib")
    features = DEMO_MODELS["breast-cancer"].load_data().features
    assert answer["classes"] == ["benign", "malignant"]
    assert answer["predictions"] == estimator.predict(features).tolist()
    assert answer["probabilities"] == estimator.predict_proba(features).tolist()


def test_a_command_that_fails_says_why_in_one_line(
    tmp_path: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown model or a missing file ends with 1 and a sentence, not with a traceback."""
    models = ["--models", str(registry.root)]

    assert main(["predict", *models, "diabtes", "in.csv", str(tmp_path / "out.json")]) == 1
    assert "did you mean 'diabetes'" in capsys.readouterr().err
    assert main(["predict", *models, "diabetes", str(tmp_path / "none.csv"), str(tmp_path / "out.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
