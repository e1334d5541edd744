"""Pipelines that read texts and categories run without a frame, and answer as they do with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from shared.registry import Registry
from shared.signature import Column
from tests.penguins import NUMBERS, TEXTS, load_features, make_mixed
from worker.category_steps import CategoryTables
from worker.frames import read_frame
from worker.models import LoadedModel, load_model
from worker.registration import register_model
from worker.scoring import score_values
from worker.tree_ensembles import NotConvertible, OutOfDomain

FEATURES, SPECIES = load_features()
FILLED = FEATURES.fillna({"sex": "unknown"}).dropna()
SPECIES_FILLED = SPECIES[FILLED.index]
CATEGORIES = FILLED.astype(dict.fromkeys(TEXTS, "category"))

ENCODERS: dict[str, Any] = {
    "one column a category": OneHotEncoder(handle_unknown="ignore"),
    "without the first": OneHotEncoder(drop="first"),
    "rare ones together": OneHotEncoder(min_frequency=60, handle_unknown="infrequent_if_exist"),
    "dense": OneHotEncoder(sparse_output=False, handle_unknown="ignore"),
    "numbers": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "means of the target": TargetEncoder(),
    "filled, then encoded": make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()),
    "filled with a text": make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(), StandardScaler(with_mean=False)
    ),
}


def register(folder: Path, estimator: Any, sample: pd.DataFrame) -> LoadedModel:
    """Register a model until it is found to be faster converted, which a busy machine may hide, and load it."""
    registry = Registry(folder)
    for _ in range(5):
        manifest = register_model(estimator, "m", registry=registry, sample=sample)
        if manifest.backend.name != "scikit-learn":
            break
    return load_model(registry, "m", manifest.version)


def assert_answers(model: LoadedModel, frame: pd.DataFrame) -> None:
    """Assert that all rows, and each of some alone, are answered with the estimator's own bits."""
    values = read_frame(frame, model.manifest.signature.columns)
    expected = model.estimator.predict_proba(frame)

    np.testing.assert_array_equal(model.predict(values).probabilities, expected)
    for row in range(0, len(frame), 50):
        alone = model.estimator.predict_proba(frame.iloc[row : row + 1])
        np.testing.assert_array_equal(model.predict(values[row : row + 1]).probabilities, alone)


@pytest.mark.parametrize("frame", [FILLED, CATEGORIES], ids=["texts", "categories"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_pipeline_with_an_encoder_is_run_without_frames(tmp_path: Path, encoder: str, frame: pd.DataFrame) -> None:
    """Its answers are the same bits, whatever the encoder and its settings, of known values and of others."""
    columns = make_column_transformer((ENCODERS[encoder], TEXTS), remainder=StandardScaler())
    estimator = make_pipeline(columns, RandomForestClassifier(20, random_state=0)).fit(frame, SPECIES_FILLED)

    model = register(tmp_path, estimator, frame)

    assert model.manifest.backend.name in ("direct", "onnx"), model.manifest.backend.reason
    assert model.manifest.backend.exact
    assert_answers(model, frame)
    unseen = {column.name: column.unseen for column in model.manifest.signature.columns}["island"]
    if unseen == "pass":
        assert_answers(model, frame.head(60).astype({"island": "str"}).assign(island=["Dream", "Atlantis"] * 30))


def test_missing_values_reach_the_imputers(tmp_path: Path) -> None:
    """A pipeline of imputers answers rows with missing texts and numbers as it does itself."""
    model = register(tmp_path, make_mixed(LogisticRegression(max_iter=1_000)).fit(FEATURES, SPECIES), FEATURES)

    assert model.manifest.backend.name == "direct", model.manifest.backend.reason
    assert FEATURES[[*NUMBERS, "sex"]].isna().any(axis=None)
    assert_answers(model, FEATURES)


def test_a_pipeline_of_texts_alone_is_run_without_frames(tmp_path: Path) -> None:
    """An encoder may be the first step itself."""
    texts = FILLED[TEXTS]
    estimator = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(texts, SPECIES_FILLED)

    model = register(tmp_path, estimator, texts)

    assert model.manifest.backend.name == "direct", model.manifest.backend.reason
    values = read_frame(texts, model.manifest.signature.columns)
    np.testing.assert_allclose(model.predict(values).probabilities, estimator.predict_proba(texts), rtol=1e-12)


def test_a_row_that_the_encoder_refuses_fails_alone(tmp_path: Path) -> None:
    """A value that is no category goes to the encoder itself, which raises; its neighbours are answered."""
    columns = make_column_transformer((OneHotEncoder(), TEXTS), remainder="passthrough")
    estimator = make_pipeline(columns, RandomForestClassifier(5, random_state=0)).fit(FILLED, SPECIES_FILLED)
    model = register(tmp_path, estimator, FILLED)
    three = FILLED.head(3).assign(island=["Dream", "Atlantis", "Biscoe"])

    outcome = score_values(model, read_frame(three, model.manifest.signature.columns), 512)

    assert list(outcome.errors) == [1]
    assert outcome.probabilities is not None
    np.testing.assert_array_equal(outcome.probabilities[[0, 2]], estimator.predict_proba(three.iloc[[0, 2]]))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (make_column_transformer((OneHotEncoder(), ["island", "year"]), remainder="drop"), "not all categories"),
        (make_column_transformer((OneHotEncoder(max_categories=2), ["sex"]), (PCA(2), NUMBERS)), "PCA is not known"),
    ],
    ids=["a number among them", "unknown step"],
)
def test_what_is_not_converted_says_why(tmp_path: Path, columns: Any, reason: str) -> None:
    """Such a pipeline is run by scikit-learn, on frames."""
    target = SPECIES_FILLED.astype("category").cat.codes
    estimator = make_pipeline(columns, Ridge()).fit(FILLED, target)

    manifest = register_model(estimator, "m", registry=Registry(tmp_path), sample=FILLED)

    assert manifest.backend.name == "scikit-learn"
    assert reason in manifest.backend.reason


def test_steps_that_mix_columns_have_no_tables() -> None:
    """What follows from two columns together cannot be looked up for each."""
    frame = pd.DataFrame({"a": ["x", "y", "x", "y"], "b": ["u", "v", "u", "u"]})
    columns = [
        Column("a", "string", categories=("x", "y"), dtype="str"),
        Column("b", "string", categories=("u", "v"), dtype="str"),
    ]
    encoder = OneHotEncoder(sparse_output=False).fit(frame)

    with pytest.raises(NotConvertible, match="PCA mixes columns"):
        CategoryTables([encoder, PCA(2).fit(encoder.transform(frame))], columns)
    tables = CategoryTables([encoder], columns)
    np.testing.assert_array_equal(tables(np.array([[1.0, 1.0]])), encoder.transform(frame.iloc[[1]]))
    for strange in (np.nan, 2.0):
        with pytest.raises(OutOfDomain):
            tables(np.array([[strange, 0.0]]))
