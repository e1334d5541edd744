"""Registration from files: every format, what is written down of them, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import yaml
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from skops import io as skops_io

from shared.aliases import point_at
from shared.registry import Registry
from shared.values import Values
from worker import register
from worker.formats import UnreadableModel
from worker.models import ModelNotReady, load_model
from worker.registration import register_file
from worker.samples import SampleMismatch, read_sample
from worker.trust import SIGNATURE_FILE, Distrusted, Trust

COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
IRIS = load_iris()
FRAME = pd.DataFrame(IRIS.data, columns=COLUMNS)
LABELS = IRIS.target_names[IRIS.target].astype(str)
MODEL = LogisticRegression(max_iter=500).fit(FRAME, LABELS)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Give an empty registry."""
    return Registry(tmp_path / "models")


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """Write the training data, with the truth and a column that no model reads."""
    path = tmp_path / "train.csv"
    FRAME.assign(species=LABELS, id=range(len(FRAME))).to_csv(path, index=False)
    return path


def write_joblib(folder: Path) -> Path:
    """Write it as most people do."""
    joblib.dump(MODEL, folder / "iris.joblib", compress=3)
    return folder / "iris.joblib"


def write_pickle(folder: Path) -> Path:
    """Write a plain pickle."""
    (folder / "iris.pkl").write_bytes(pickle.dumps(MODEL))
    return folder / "iris.pkl"


def write_skops(folder: Path) -> Path:
    """Write a skops file."""
    skops_io.dump(MODEL, folder / "iris.skops")
    return folder / "iris.skops"


def write_mlflow(folder: Path, **sklearn: Any) -> Path:
    """Write an MLflow model folder, as `mlflow.sklearn.save_model` lays it out."""
    root = folder / "iris-mlflow"
    root.mkdir()
    (root / "model.pkl").write_bytes(pickle.dumps(MODEL))
    inputs = [{"type": "double", "name": name, "required": True} for name in COLUMNS]
    document = {
        "artifact_path": "model",
        "flavors": {
            "python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl"},
            "sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "code": None} | sklearn,
        },
        "run_id": "c0ffee",
        "signature": {"inputs": json.dumps(inputs), "outputs": '[{"type": "string", "required": true}]'},
    }
    (root / "MLmodel").write_text(yaml.safe_dump(document))
    return root


@pytest.mark.parametrize(
    ("write", "kind"),
    [(write_joblib, "joblib"), (write_pickle, "pickle"), (write_skops, "skops"), (write_mlflow, "pickle")],
)
def test_each_format_is_kept_as_it_is_and_served_as_the_estimator_answers(
    registry: Registry, sample: Path, tmp_path: Path, write: Callable[[Path], Path], kind: str
) -> None:
    """The bytes in the registry are the user's own, and what is loaded of them answers as the model did."""
    path = write(tmp_path)

    manifest = register_file(path, "iris", registry=registry, sample=read_sample(sample), metrics={"accuracy": 0.97})

    kept = registry.version_folder("iris", 1) / manifest.file
    assert kept.read_bytes() == (path / "model.pkl" if path.is_dir() else path).read_bytes()
    assert (manifest.format, manifest.size, manifest.metrics) == (kind, kept.stat().st_size, {"accuracy": 0.97})
    assert manifest.signature.column_names == tuple(COLUMNS)
    assert manifest.signature.classes == ("setosa", "versicolor", "virginica")
    assert registry.resolve("iris").version == 1
    assert {"python", "numpy", "scikit-learn"} <= set(manifest.libraries)
    assert manifest.golden_sample is not None
    assert len(manifest.golden_sample.rows) == 16
    answer = load_model(registry, "iris", 1).predict(Values(IRIS.data))
    assert answer.list_predictions() == MODEL.predict(FRAME).tolist()
    assert answer.list_probabilities() == MODEL.predict_proba(FRAME).tolist()


def make_graph(outputs: int) -> bytes:
    """Make an ONNX graph: a linear classifier with scores, or a linear regressor."""
    inputs = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 4])]
    if outputs == 2:
        node = helper.make_node(
            "LinearClassifier", ["rows"], ["label", "scores"], domain="ai.onnx.ml",
            coefficients=MODEL.coef_.ravel().tolist(), intercepts=MODEL.intercept_.tolist(),
            classlabels_strings=MODEL.classes_.tolist(), post_transform="SOFTMAX",
        )  # fmt: skip
        answers = [
            helper.make_tensor_value_info("label", TensorProto.STRING, [None]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 3]),
        ]
    else:
        node = helper.make_node(
            "LinearRegressor", ["rows"], ["answer"], domain="ai.onnx.ml", coefficients=[1.0, 2.0, 3.0, 4.0]
        )
        answers = [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [None, 1])]
    graph = helper.make_graph([node], "linear", inputs, answers)
    opsets = [helper.make_opsetid("ai.onnx.ml", 1), helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return content


def test_an_onnx_classifier_is_served_with_the_classes_of_its_graph(
    registry: Registry, sample: Path, tmp_path: Path
) -> None:
    """A graph needs no scikit-learn, runs no code of its maker, and answers with labels and probabilities."""
    (tmp_path / "iris.onnx").write_bytes(make_graph(2))

    manifest = register_file(
        tmp_path / "iris.onnx", "iris", registry=registry, sample=read_sample(sample), target=["species", "id"]
    )

    assert (manifest.format, manifest.signature.classes) == ("onnx", ("setosa", "versicolor", "virginica"))
    assert "onnxruntime" in manifest.libraries
    assert "scikit-learn" not in manifest.libraries
    answer = load_model(registry, "iris", 1).predict(Values(IRIS.data))
    assert answer.list_predictions() == MODEL.predict(FRAME).tolist()
    assert np.allclose(answer.probabilities, MODEL.predict_proba(FRAME), rtol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("labels", [["no", "yes", "maybe"], [4, 7, 9]], ids=["texts", "numbers"])
def test_graphs_as_converters_write_them_have_their_classes(
    registry: Registry, tmp_path: Path, kind: Any, labels: list[Any]
) -> None:
    """Whether a node names them, or labels are picked from a table of the graph, as they are in double precision."""
    rows = np.random.default_rng(0).normal(size=(60, 4))
    model = LogisticRegression().fit(rows, np.array(labels)[rows[:, :3].argmax(axis=1)])
    graph = to_onnx(model, rows[:1].astype(kind), options={"zipmap": False})
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())

    manifest = register_file(tmp_path / "m.onnx", "m", registry=registry, sample=pd.DataFrame(rows))

    assert manifest.signature.classes == tuple(sorted(labels))
    outcome = load_model(registry, "m", 1).predict(Values(rows))
    assert outcome.list_predictions() == model.predict(rows).tolist()
    np.testing.assert_allclose(outcome.probabilities, model.predict_proba(rows), rtol=1e-4)


def test_an_onnx_regressor_answers_one_number_a_row(registry: Registry, sample: Path, tmp_path: Path) -> None:
    """A graph with one output is a regressor."""
    (tmp_path / "line.onnx").write_bytes(make_graph(1))

    manifest = register_file(tmp_path / "line.onnx", "line", registry=registry, sample=read_sample(sample)[COLUMNS])

    assert manifest.signature.task == "regression"
    answer = load_model(registry, "line", 1).predict(Values(IRIS.data))
    assert answer.predictions.shape == (150,)
    assert np.allclose(answer.predictions, IRIS.data @ [1, 2, 3, 4], rtol=1e-6)


class Sum(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A type that skops does not know."""

    def fit(self, features: Any, target: Any = None) -> Sum:
        """Note the number of columns."""
        self.n_features_in_ = np.asarray(features).shape[1]
        return self

    def predict(self, features: Any) -> Any:
        """Add up each row."""
        return np.asarray(features).sum(axis=1)


def test_a_skops_file_with_unknown_types_needs_them_named(registry: Registry, tmp_path: Path) -> None:
    """Types are trusted one by one, kept in the manifest, and nothing else in the file is loaded."""
    path = tmp_path / "sum.skops"
    skops_io.dump(Sum().fit(FRAME), path)
    known = f"{Sum.__module__}.Sum"
    with pytest.raises(UnreadableModel, match=f"skops does not trust; if you do: --trust {known}"):
        register_file(path, "sum", registry=registry, sample=FRAME)

    manifest = register_file(path, "sum", registry=registry, sample=FRAME, trusted_types=[known, "os.system"])

    assert manifest.trusted_types == (known,)
    assert (
        load_model(registry, "sum", 1).predict(Values(IRIS.data)).list_predictions() == IRIS.data.sum(axis=1).tolist()
    )
    forget = registry.version_folder("sum", 1) / "manifest.json"
    forget.write_text(json.dumps(json.loads(forget.read_text()) | {"trusted_types": []}))
    with pytest.raises(ModelNotReady, match="cannot be loaded"):
        load_model(Registry(registry.root), "sum", 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.bin", b"x", "the ending says no format"),
        ("model.joblib", b"nonsense", "cannot be loaded as joblib"),
        ("model.pkl", b"", "cannot be loaded as pickle: EOFError"),
        ("model.skops", b"nonsense", "no skops file"),
        ("model.onnx", b"nonsense", "no ONNX file"),
        ("model.pkl", pickle.dumps({"a": 1}), "neither a classifier nor a regressor"),
    ],
)
def test_a_file_that_is_no_model_is_refused(
    registry: Registry, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    """The reason says what was expected, and nothing is written."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ValueError, match=message):
        register_file(tmp_path / name, "m", registry=registry, sample=FRAME)
    assert registry.names() == []


@pytest.mark.parametrize(
    ("mlmodel", "message"),
    [
        (None, "a folder without MLmodel"),
        ("- a\n- b", "expected a mapping"),
        ("a: [", "is not YAML"),
        ("flavors: {spark: {}}", "expected the flavor sklearn or onnx; it has spark"),
        ("flavors: {sklearn: {pickled_model: ../secret.pkl}}", "which is not in the folder"),
        ("flavors: {sklearn: {}}", "which is not in the folder"),
        ("flavors: {sklearn: {pickled_model: model.pkl}}\nsignature: {inputs: '{'}", "signature cannot be read"),
    ],
)
def test_a_folder_that_is_no_mlflow_model_is_refused(
    registry: Registry, tmp_path: Path, mlmodel: str | None, message: str
) -> None:
    """A folder must say which model it is, and hold it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.pkl").write_bytes(pickle.dumps(MODEL))
    (folder / "model.pkl").write_bytes(pickle.dumps(MODEL))
    if mlmodel is not None:
        (folder / "MLmodel").write_text(mlmodel)

    with pytest.raises(UnreadableModel, match=message):
        register_file(folder, "m", registry=registry, sample=FRAME)


def test_columns_are_found_in_the_sample(registry: Registry, tmp_path: Path) -> None:
    """A model without names takes the sample's, less the target; what cannot be told is an error that names them."""
    path = tmp_path / "m.joblib"
    joblib.dump(LogisticRegression(max_iter=500).fit(IRIS.data, LABELS), path)
    frame = FRAME.assign(species=LABELS)
    with pytest.raises(SampleMismatch, match=r"reads 4 columns, without names, and the sample has 5: .*'species'"):
        register_file(path, "m", registry=registry, sample=frame)
    with pytest.raises(SampleMismatch, match="no column 'truth'"):
        register_file(path, "m", registry=registry, sample=frame, target=["truth"])

    manifest = register_file(path, "m", registry=registry, sample=frame, target=["species"])

    assert manifest.signature.column_names == tuple(COLUMNS)
    joblib.dump(MODEL, path)
    with pytest.raises(SampleMismatch, match="the model reads 'petal_width', which the sample lacks"):
        register_file(path, "m", registry=registry, sample=frame.drop(columns="petal_width"))


def test_mlflow_names_the_columns_of_a_model_without_names(registry: Registry, sample: Path, tmp_path: Path) -> None:
    """The signature in MLmodel says which columns of the sample are meant; the run is noted."""
    folder = write_mlflow(tmp_path)
    (folder / "model.pkl").write_bytes(pickle.dumps(RandomForestClassifier(5).fit(IRIS.data, LABELS)))

    manifest = register_file(folder, "iris", registry=registry, sample=read_sample(sample))

    assert manifest.signature.column_names == tuple(COLUMNS)
    assert manifest.origin.mlflow_run == "c0ffee"
    assert manifest.origin.file == "iris-mlflow"


def test_mlflow_says_what_may_be_missing_and_of_which_type(registry: Registry, sample: Path, tmp_path: Path) -> None:
    """An optional input is nullable though the sample has no gap; a sample of another type is refused."""
    folder = write_mlflow(tmp_path)
    model = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=500)).fit(FRAME, LABELS)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    document = yaml.safe_load((folder / "MLmodel").read_text())

    def describe(**changes: Any) -> None:
        inputs = [{"type": "double", "name": name, "required": True} for name in COLUMNS]
        inputs[1].update(changes)
        document["signature"]["inputs"] = json.dumps(inputs)
        (folder / "MLmodel").write_text(yaml.safe_dump(document))

    describe(required=False)
    manifest = register_file(folder, "iris", registry=registry, sample=read_sample(sample))
    describe(type="string")
    with pytest.raises(SampleMismatch, match="'sepal_width' is of type string; in the sample it holds numbers"):
        register_file(folder, "iris", registry=registry, sample=read_sample(sample))

    assert [column.nullable for column in manifest.signature.columns] == [False, True, False, False]


def test_texts_that_look_like_numbers_are_not_taken_for_numbers(registry: Registry, tmp_path: Path) -> None:
    """A CSV sample makes numbers of zip codes, of which the encoder would know none and say nothing."""
    frame = pd.DataFrame({"zip": ["02139", "10115", "75001"] * 5})
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(frame, ["a", "b", "c"] * 5)
    joblib.dump(model, tmp_path / "zip.joblib")
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame.to_parquet(tmp_path / "train.parquet")

    with pytest.raises(
        ValueError, match="'zip' holds numbers in the sample, and the model was fitted on texts, as '02139'"
    ):
        register_file(tmp_path / "zip.joblib", "zip", registry=registry, sample=read_sample(tmp_path / "train.csv"))
    register_file(tmp_path / "zip.joblib", "zip", registry=registry, sample=read_sample(tmp_path / "train.parquet"))


def test_a_sample_that_the_model_cannot_score_says_so(registry: Registry) -> None:
    """The library's own words come behind what they are about."""
    gap = FRAME.copy()
    gap.iloc[3, 1] = np.nan

    with pytest.raises(ValueError, match="the model cannot score the sample: ValueError: "):
        register(MODEL, "iris", gap, models=registry.root)


def test_another_scikit_learn_is_refused_unless_it_is_allowed(registry: Registry, sample: Path, tmp_path: Path) -> None:
    """A model of another minor version is kept only if its registration says so, and then loaded by every worker."""
    folder, frame = write_mlflow(tmp_path, sklearn_version="1.5.2"), read_sample(sample)
    with pytest.raises(ModelNotReady, match=r"made with scikit-learn 1\.5\.2 and this worker has"):
        register_file(folder, "iris", registry=registry, sample=frame)

    manifest = register_file(folder, "iris", registry=registry, sample=frame, other_scikit_learn=True)

    assert manifest.libraries["scikit-learn"] == "1.5.2"
    assert load_model(registry, "iris", 1).manifest.other_scikit_learn


def test_a_setting_allows_another_scikit_learn(registry: Registry, sample: Path, tmp_path: Path) -> None:
    """After an upgrade of the workers the models of the version before go on serving, if they are told to."""
    register_file(write_joblib(tmp_path), "iris", registry=registry, sample=read_sample(sample))
    path = registry.version_folder("iris", 1) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["libraries"]["scikit-learn"] = "1.7.9"
    path.write_text(json.dumps(manifest))
    reader = Registry(registry.root)
    with pytest.raises(ModelNotReady, match=r"SCOREQUEUE_OTHER_SCIKIT_LEARN=1\.7"):
        load_model(reader, "iris", 1, Trust(scikit_learn=("1.6",)))

    assert load_model(reader, "iris", 1, Trust(scikit_learn=("1.6", "1.7"))).manifest.version == 1


def test_the_origin_says_who_and_from_which_commit(registry: Registry, tmp_path: Path) -> None:
    """A file under git is registered with the commit of its folder, and with whether that tells all."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    path = write_joblib(tmp_path)
    subprocess.run([*git, "add", "iris.joblib"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "model"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    clean = register_file(path, "iris", registry=registry, sample=FRAME).origin
    dirty = register_file(path, "iris", registry=registry, sample=FRAME).origin  # the registry itself is new there

    assert (clean.git_commit, clean.file, clean.git_changes) == (commit, "iris.joblib", False)
    assert clean.user
    assert clean.host
    assert dirty.git_changes


def test_a_metric_that_json_cannot_carry_is_refused(registry: Registry) -> None:
    """A manifest that could not be read back is never written."""
    with pytest.raises(ValueError, match="the metric 'auc' is nan"):
        register(MODEL, "iris", FRAME, models=registry.root, metrics={"auc": float("nan")})
    assert registry.names() == []


def test_from_python_an_estimator_or_a_file_is_registered(registry: Registry, sample: Path, tmp_path: Path) -> None:
    """`worker.register` is the way from a notebook: the first version is champion, the next is not."""
    first = register(MODEL, "iris", FRAME, models=registry.root)
    second = register(write_joblib(tmp_path), "iris", sample, models=registry.root)

    assert (first.version, second.version) == (1, 2)
    assert registry.aliases("iris") == {"champion": point_at(1)}


def double(features: Any) -> Any:
    """Double; a test says that it is of a notebook."""
    return features * 2


def test_a_model_with_code_of_a_notebook_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads where it was made and in no worker, so its registration says what to do, and writes nothing."""
    monkeypatch.setattr(double, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "double", double, raising=False)
    model = make_pipeline(FunctionTransformer(double), LinearRegression()).fit(FRAME, IRIS.target)

    with pytest.raises(ModelNotReady, match=r"needs 'double' of '__main__'.*a module that workers can import"):
        register(model, "notebook", FRAME, models=registry.root)

    assert registry.names() == []
    assert sys.modules["__main__"].double is double


def test_a_model_whose_library_is_not_here_says_which(registry: Registry, sample: Path, tmp_path: Path) -> None:
    """Whoever is on call must know what to install."""
    module = double.__module__.encode()
    elsewhere = (b"away." + b"x" * len(module))[: len(module)]  # as long: a pickle says how long its texts are
    (tmp_path / "away.pkl").write_bytes(pickle.dumps(double).replace(module, elsewhere))

    with pytest.raises(UnreadableModel, match="it needs the module 'away', which is not here"):
        register_file(tmp_path / "away.pkl", "away", registry=registry, sample=read_sample(sample))


def test_a_file_of_an_older_scikit_learn_that_cannot_be_read_says_so(
    registry: Registry, sample: Path, tmp_path: Path
) -> None:
    """The reason is the other version, not the name of something inside scikit-learn that has moved since."""

    class Moved:
        def __reduce__(self) -> Any:
            return getattr, ({"_sklearn_version": "1.5.2"}, "moved")

    (tmp_path / "old.pkl").write_bytes(pickle.dumps(Moved()))

    with pytest.raises(UnreadableModel, match=r"made with scikit-learn 1\.5\.2 and this worker has"):
        register_file(tmp_path / "old.pkl", "old", registry=registry, sample=read_sample(sample))


def test_a_parquet_sample_is_a_csv_sample(tmp_path: Path, sample: Path) -> None:
    """Either form of the sample gives the same frame."""
    read_sample(sample).to_parquet(tmp_path / "train.parquet")

    pd.testing.assert_frame_equal(read_sample(tmp_path / "train.parquet"), read_sample(sample))


@pytest.mark.parametrize(("name", "content"), [("a.csv", b""), ("a.csv", b"a,b\n"), ("a.parquet", b"no parquet")])
def test_a_sample_without_rows_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """A sample that is empty, or none, is an error that names the file."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SampleMismatch, match=name):
        read_sample(tmp_path / name)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make two pairs of keys."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("keys")
    made = {}
    for name in ("ours", "theirs"):
        key = ec.generate_private_key(ec.SECP256R1())
        made[name], made[f"{name}.pub"] = folder / f"{name}.pem", folder / f"{name}.pub.pem"
        made[name].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        made[f"{name}.pub"].write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return made


def test_with_a_signing_key_only_signed_versions_are_loaded(
    registry: Registry, sample: Path, tmp_path: Path, keys: dict[str, Path]
) -> None:
    """Unsigned, signed by another, or changed since: each is refused with its reason; the signed one is served."""
    frame, path = read_sample(sample), write_joblib(tmp_path)
    trust = Trust(signing_key=str(keys["ours.pub"]))
    register_file(path, "iris", registry=registry, sample=frame)
    register_file(path, "iris", registry=registry, sample=frame, sign_with=keys["theirs"])
    register_file(path, "iris", registry=registry, sample=frame, sign_with=keys["ours"])
    register_file(path, "iris", registry=registry, sample=frame, sign_with=keys["ours"])
    altered = registry.version_folder("iris", 4) / "manifest.json"
    altered.write_text(altered.read_text() + "\n")

    with pytest.raises(ModelNotReady, match=rf"it is not signed \({SIGNATURE_FILE} is missing\)"):
        load_model(registry, "iris", 1, trust)
    for version in (2, 4):
        with pytest.raises(ModelNotReady, match=r"its signature is not one of the key ours\.pub\.pem"):
            load_model(registry, "iris", version, trust)
    assert (
        load_model(registry, "iris", 3, trust).predict(Values(IRIS.data)).list_predictions()
        == MODEL.predict(FRAME).tolist()
    )


def test_a_key_that_cannot_sign_leaves_nothing_behind(registry: Registry, sample: Path, tmp_path: Path) -> None:
    """A version is there with its signature or not at all, so that no unsigned one becomes champion by mistake."""
    (tmp_path / "bad.pem").write_text("no key")

    with pytest.raises(Distrusted, match=r"bad\.pem cannot sign"):
        register_file(
            write_joblib(tmp_path),
            "iris",
            registry=registry,
            sample=read_sample(sample),
            sign_with=tmp_path / "bad.pem",
        )
    with pytest.raises(OSError, match="absent"):
        register_file(
            write_joblib(tmp_path), "iris", registry=registry, sample=read_sample(sample), sign_with=tmp_path / "absent"
        )

    assert registry.names() == []


def test_a_manifest_that_was_read_before_it_was_altered_and_signed_is_not_trusted(
    registry: Registry, sample: Path, tmp_path: Path, keys: dict[str, Path]
) -> None:
    """What vouches for a model in memory is what was signed, not what stood there at another time."""
    register_file(write_joblib(tmp_path), "iris", registry=registry, sample=read_sample(sample), sign_with=keys["ours"])
    path = registry.version_folder("iris", 1) / "manifest.json"
    signed, status = path.read_bytes(), path.stat()
    path.write_bytes(signed.replace(b'"max_batch_rows": null', b'"max_batch_rows": 1000'))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    reader = Registry(registry.root)
    assert reader.manifest("iris", 1).max_batch_rows == 1000
    path.write_bytes(signed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(ModelNotReady, match=r"manifest\.json was changed after it was first read"):
        load_model(reader, "iris", 1, Trust(signing_key=str(keys["ours.pub"])))
