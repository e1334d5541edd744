"""Models as people bring them, on a real table of mixed types: each answers over HTTP as it does when it is called."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from shared.manifest import Manifest
from shared.registry import Registry
from tests.api_under_test import ApiUnderTest, assert_problem, read_id
from tests.forms import list_records, write_csv, write_json_lists, write_ndjson, write_parquet
from tests.penguins import NUMBERS, TEXTS, load_features, make_mixed
from worker.registration import register_model

FEATURES, SPECIES = load_features()
#: The species as the numbers that XGBoost wants.
NUMBERED = SPECIES.astype("category").cat.codes.to_numpy()
#: As LightGBM, XGBoost and HistGradientBoosting take texts.
CATEGORIES = FEATURES.astype(dict.fromkeys(TEXTS, "category"))
MASS = FEATURES["body_mass_g"].fillna(4_000.0)

#: Those of which all is known, with their sex and species.
KNOWN = FEATURES.assign(species=SPECIES).dropna()
LABELS = np.column_stack([KNOWN["species"] == "Adelie", KNOWN["sex"] == "female"]).astype(int)

WRITERS = {
    "text/csv": write_csv,
    "application/x-ndjson": write_ndjson,
    "application/vnd.apache.parquet": write_parquet,
}

StartApi = Callable[..., ApiUnderTest]


class Case(NamedTuple):
    """A fitted model, and the table that it is asked for."""

    estimator: Any
    frame: pd.DataFrame


def fit_gradient_boosting() -> Case:
    """Fit scikit-learn's own boosting on categories."""
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0, categorical_features="from_dtype")
    return Case(model.fit(CATEGORIES, SPECIES), CATEGORIES)


def fit_lightgbm(frame: pd.DataFrame, target: Any, kind: Any) -> Case:
    """Fit one of LightGBM's."""
    return Case(kind(n_estimators=10, min_child_samples=5, n_jobs=1, verbose=-1).fit(frame, target), frame)


def fit_xgboost(frame: pd.DataFrame, target: Any, kind: Any) -> Case:
    """Fit one of XGBoost's."""
    return Case(kind(n_estimators=10, max_depth=4, n_jobs=1, enable_categorical=True).fit(frame, target), frame)


def fit_mixed(estimator: Any, target: Any = SPECIES) -> Case:
    """Fit a pipeline of imputers, a scaler and an encoder that ends in an estimator."""
    return Case(make_mixed(estimator).fit(FEATURES, target), FEATURES)


def fit_numbers(estimator: Any, target: Any) -> Case:
    """Fit an estimator on the four numbers alone."""
    return Case(estimator.fit(KNOWN[NUMBERS], target), KNOWN[NUMBERS])


CASES: dict[str, Callable[[], Case]] = {
    "logistic regression": lambda: fit_mixed(LogisticRegression(max_iter=1_000)),
    "forest": lambda: fit_mixed(RandomForestClassifier(20, random_state=0)),
    "boosting on categories": fit_gradient_boosting,
    "SVC": lambda: fit_mixed(SVC()),
    "LinearSVC": lambda: fit_mixed(LinearSVC()),
    "RidgeClassifier of truth values": lambda: fit_mixed(RidgeClassifier(), SPECIES == "Adelie"),
    "linear regression": lambda: fit_mixed(LinearRegression(), MASS),
    "forest regression": lambda: fit_mixed(RandomForestRegressor(20, random_state=0), MASS),
    "LightGBM on categories": lambda: fit_lightgbm(CATEGORIES, SPECIES, lightgbm.LGBMClassifier),
    "LightGBM regression": lambda: fit_lightgbm(FEATURES[NUMBERS], MASS, lightgbm.LGBMRegressor),
    "LightGBM in a pipeline": lambda: fit_mixed(lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1)),
    "XGBoost on categories": lambda: fit_xgboost(CATEGORIES, NUMBERED, xgboost.XGBClassifier),
    "XGBoost regression": lambda: fit_xgboost(FEATURES[NUMBERS], MASS, xgboost.XGBRegressor),
    "SVC on numbers": lambda: Case(SVC().fit(KNOWN[NUMBERS], KNOWN["species"]), KNOWN[NUMBERS]),
    "forest of two outputs": lambda: fit_numbers(RandomForestClassifier(10, random_state=0), KNOWN[["species", "sex"]]),
    "regression of two outputs": lambda: fit_mixed(LinearRegression(), FEATURES[NUMBERS[:2]].fillna(0.0)),
    "two classifiers": lambda: fit_numbers(MultiOutputClassifier(RidgeClassifier()), KNOWN[["species", "sex"]]),
    "neighbours of labels that are there or not": lambda: fit_numbers(KNeighborsClassifier(), LABELS),
    "one against the rest": lambda: fit_numbers(OneVsRestClassifier(LogisticRegression(max_iter=5_000)), LABELS),
    "XGBoost in a pipeline": lambda: fit_mixed(xgboost.XGBClassifier(n_estimators=10, n_jobs=1), NUMBERED),
}


class Served(NamedTuple):
    """A model behind the API, and what it answers when it is called."""

    api: ApiUnderTest
    case: Case
    manifest: Manifest

    @property
    def labels(self) -> list[Any]:
        """What it predicts for the table."""
        labels: list[Any] = self.case.estimator.predict(self.case.frame).tolist()
        return labels

    @property
    def probabilities(self) -> list[list[float]] | None:
        """Its probabilities for the table, of all outputs in a row; None if it gives none."""
        if not hasattr(self.case.estimator, "predict_proba"):
            return None
        given = self.case.estimator.predict_proba(self.case.frame)
        if isinstance(given, list):
            return [[*chain.from_iterable(row)] for row in zip(*(part.tolist() for part in given), strict=True)]
        if len(self.manifest.signature.answers) == 1:
            return given.tolist()
        return [[*chain.from_iterable((1 - second, second) for second in row)] for row in given]

    def assert_same(self, found: Any, expected: Any) -> None:
        """Assert that numbers are equal, within the backend's tolerance.

        Sums over a frame and over an array, which lies otherwise in memory, differ in their last bits.
        """
        tolerance = max(1e-12, self.manifest.backend.tolerance)
        np.testing.assert_allclose(np.array(found, float), np.array(expected, float), rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Case, Manifest, Path]]:
    """Return a function that fits and registers a model, once for all tests."""

    @functools.cache
    def register(name: str) -> tuple[Case, Manifest, Path]:
        case, folder = CASES[name](), tmp_path_factory.mktemp("registry")
        manifest = register_model(case.estimator, "penguins", registry=Registry(folder), sample=case.frame)
        return case, manifest, folder

    return register


@pytest.fixture(params=CASES)
def served(request: pytest.FixtureRequest, registered: Any, start_api: StartApi) -> Served:
    """Serve a model."""
    case, manifest, folder = registered(request.param)
    return Served(start_api(["penguins:1"], models=folder), case, manifest)


def test_rows_are_answered_as_the_model_answers_the_table(served: Served) -> None:
    """Rows by name or by position, all or one at a time, missing values among them, give what the table gives."""
    by_position, by_name = json.loads(write_json_lists(served.case.frame)), list_records(served.case.frame)
    jobs = [served.api.submit_rows(rows, model="penguins") for rows in (by_position, by_name)]
    single = {place: served.api.submit_rows([by_name[place]], model="penguins") for place in (0, 3, 8)}

    served.api.score()

    for job in jobs:
        result = fetch_json(served.api, job)
        if served.manifest.signature.task == "classification":
            assert result["predictions"] == served.labels
        else:
            served.assert_same(result["predictions"], served.labels)
        assert ("probabilities" in result) == (served.probabilities is not None)
        if served.probabilities is not None:
            served.assert_same([flatten(row) for row in result["probabilities"]], served.probabilities)
    for place, job in single.items():
        # scikit-learn's own sums over one row and over many may differ in their last bits.
        assert fetch_json(served.api, job)["predictions"][0] == approximate(served.labels[place])


def test_files_are_answered_as_the_model_answers_the_table(served: Served) -> None:
    """Each record of a file of any format comes back with what the model gives for it."""
    bodies = {kind: write(served.case.frame) for kind, write in WRITERS.items()}
    jobs = {
        kind: read_id(
            served.api.http.post("/v1/jobs", query_string={"model": "penguins"}, data=body, content_type=kind)
        )
        for kind, body in bodies.items()
    }
    served.api.score()

    outputs = served.manifest.signature.answers
    labels = np.array(served.labels, dtype=object).reshape(len(served.case.frame), -1)
    probabilities = [name for output in outputs for name in output.probability_columns]
    assert bool(probabilities) == (served.probabilities is not None)
    for kind, job in jobs.items():
        found = read_scored(served.api, job, kind)
        added = [output.prediction_column for output in outputs] + probabilities + ["error_code", "error_message"]
        assert found.columns.tolist() == [*served.case.frame.columns, *added]
        assert found["error_code"].isna().all()
        for output, column in zip(outputs, labels.T, strict=True):
            if output.classes:
                assert found[output.prediction_column].map(str).tolist() == [str(label) for label in column]
            else:
                served.assert_same(found[output.prediction_column], column)
        if probabilities:
            served.assert_same(found[probabilities], served.probabilities)


def test_a_multi_output_model_speaks_the_open_inference_protocol(registered: Any, start_api: StartApi) -> None:
    """Predictions are a tensor of rows and outputs, probabilities one of rows and all classes."""
    case, manifest, folder = registered("forest of two outputs")
    api = start_api(["penguins:1"], models=folder)
    described = api.http.get("/v2/models/penguins").get_json()["outputs"]
    rows = case.frame[NUMBERS].dropna().head(3)

    with api.scoring():
        answer = api.http.post(
            "/v2/models/penguins/infer",
            json={
                "inputs": [
                    {"name": name, "shape": [3], "datatype": "FP64", "data": rows[name].tolist()} for name in NUMBERS
                ]
            },
        )

    assert [(output["datatype"], output["shape"]) for output in described] == [("BYTES", [-1, 2]), ("FP64", [-1, 5])]
    predictions, probabilities = answer.get_json()["outputs"]
    assert predictions["shape"] == [3, 2]
    assert predictions["data"] == case.estimator.predict(rows).ravel().tolist()
    assert probabilities["data"] == np.hstack(case.estimator.predict_proba(rows)).ravel().tolist()
    assert manifest.backend.name == "scikit-learn"


def test_a_model_without_probabilities_speaks_the_open_inference_protocol(registered: Any, start_api: StartApi) -> None:
    """It has one output, its labels, and an answer without the other."""
    case, _, folder = registered("SVC on numbers")
    api = start_api(["penguins:1"], models=folder)
    rows = case.frame.head(2)

    with api.scoring():
        answer = api.http.post(
            "/v2/models/penguins/infer",
            json={"inputs": [{"name": "rows", "shape": [2, 4], "datatype": "FP64", "data": rows.to_numpy().tolist()}]},
        )

    assert [output["name"] for output in api.http.get("/v2/models/penguins").get_json()["outputs"]] == ["predictions"]
    [output] = answer.get_json()["outputs"]
    assert output["data"] == case.estimator.predict(rows).tolist()


def test_outputs_have_the_names_that_registration_was_told(start_api: StartApi, tmp_path: Path) -> None:
    """Columns of files and members of results carry them."""
    names = ["flipper", "mass"]
    model = LinearRegression().fit(KNOWN[["bill_length_mm", "bill_depth_mm"]], KNOWN[NUMBERS[2:]])
    frame = KNOWN[["bill_length_mm", "bill_depth_mm"]].head(5)
    register_model(model, "body", registry=Registry(tmp_path), sample=frame, outputs=names)
    api = start_api(["body:1"], models=tmp_path)
    rows, file = api.submit_rows(list_records(frame), model="body"), api.submit_file(write_csv(frame), "body")
    api.score()

    result = fetch_json(api, rows)
    assert result["outputs"] == names
    assert result["predictions"] == [approximate(row) for row in model.predict(frame).tolist()]
    assert read_scored(api, file, "text/csv").columns.tolist()[2:4] == ["prediction_flipper", "prediction_mass"]
    quality = api.http.get("/v1/models/body/quality").get_json()["versions"][0]
    assert [score["name"] for score in quality["training"]["scores"]] == ["prediction_flipper", "prediction_mass"]


def test_a_category_that_was_never_seen_is_refused_or_passes_as_the_pipeline_is_set(
    start_api: StartApi, tmp_path: Path
) -> None:
    """An encoder that ignores what it does not know lets it pass; one that raises makes it an error."""
    registry = Registry(tmp_path / "models")
    lenient = fit_mixed(LogisticRegression(max_iter=1_000)).estimator
    strict = make_mixed(LogisticRegression(max_iter=1_000))
    strict.set_params(columntransformer__texts__onehotencoder__handle_unknown="error").fit(FEATURES, SPECIES)
    register_model(lenient, "lenient", registry=registry, sample=FEATURES)
    register_model(strict, "strict", registry=registry, sample=FEATURES)
    api = start_api(["lenient:1", "strict:1"], models=tmp_path / "models")
    strange = FEATURES.head(2).assign(island=["Torgersen", "Atlantis"])

    passing = api.submit_rows(list_records(strange), model="lenient")
    refused = api.post_rows(list_records(strange), "strict")
    file = api.submit_file(write_csv(strange), "strict")
    api.score()

    assert fetch_json(api, passing)["predictions"] == lenient.predict(strange).tolist()
    [fault] = assert_problem(refused, 422, "schema_mismatch")["errors"]
    assert (fault["pointer"], fault["code"]) == ("#/rows/1/island", "unseen_category")
    scored = read_scored(api, file, "text/csv")
    assert scored["error_code"].fillna("").tolist() == ["", "unseen_category"]


def flatten(row: list[Any]) -> list[float]:
    """Put the probabilities of several outputs in a row."""
    return [*chain.from_iterable(row)] if isinstance(row[0], list) else row


def approximate(value: Any) -> Any:
    """Let numbers differ in their last bits."""
    if isinstance(value, list):
        return [approximate(each) for each in value]
    return pytest.approx(value) if isinstance(value, float) else value


def fetch_json(api: ApiUnderTest, job: str) -> dict[str, Any]:
    """Give the result of a job of rows."""
    response = api.http.get(f"/v1/jobs/{job}/result")
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.get_json()
    return result


def read_scored(api: ApiUnderTest, job: str, kind: str) -> pd.DataFrame:
    """Give a scored file as a table."""
    response = api.http.get(f"/v1/jobs/{job}/result", headers={"Accept": kind})
    assert (response.status_code, response.mimetype) == (200, kind), response.text
    if kind == "text/csv":
        return pd.read_csv(io.BytesIO(response.data))
    if kind == "application/x-ndjson":
        return pd.DataFrame([json.loads(line) for line in response.data.splitlines()])
    return pd.read_parquet(io.BytesIO(response.data))
