"""``/v2``, the Open Inference Protocol: with Triton's own client on the real server, and what no client would send."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tritonclient.utils import InferenceServerException

from shared.registry import Registry
from shared.settings import Settings
from tests.api_under_test import IRIS_CLASSES, IRIS_ROWS, LINE_ANSWERS, LINE_ROWS, ApiUnderTest, read_id
from tests.conftest import WaitUntil
from tests.front_end import serving
from tests.small_models import IRIS_COLUMNS
from worker.registration import register_model

# One server will do: it is not Redis that is tested here.
pytestmark = pytest.mark.parametrize("redis_url", ["valkey"], indirect=True)

NAMES = ["predictions", "probabilities"]
KINDS = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_}


@pytest.fixture(scope="module")
def inference(
    redis_url: str, registered_models: Any, tmp_path_factory: pytest.TempPathFactory, wait_until: WaitUntil
) -> Iterator[triton.InferenceServerClient]:
    """Give Triton's client of the front end on its real server, behind which a worker scores."""
    folder = tmp_path_factory.mktemp("inference")
    models = Path(shutil.copytree(registered_models, folder / "registered"))
    register_mixed_model(models)
    settings = Settings(redis_url=redis_url, models=models, file_store=str(folder / "files"))
    given = {"MODELS": str(models), "FILE_STORE": settings.file_store}
    scorer = ApiUnderTest(settings, ["iris:1", "line:1", "mixed:1"])
    scorer.service.store.client.flushall()
    with serving(folder, redis_url, given, wait_until) as port, scorer.scoring():
        client = triton.InferenceServerClient(f"127.0.0.1:{port}", connection_timeout=60, network_timeout=60)
        yield client
        client.close()
    scorer.close()


@pytest.fixture
def scoring_api(api: ApiUnderTest) -> Iterator[ApiUnderTest]:
    """Give a front end behind which a worker scores."""
    api.listen()
    with api.scoring():
        yield api


def register_mixed_model(folder: Path) -> None:
    """Register ``mixed:1``, which reads a text, a truth value, a whole number and a number that may be missing."""
    frame = pd.DataFrame(
        {
            "color": ["red", "blue", "red", "blue"] * 5,
            "new": [True, False, False, True] * 5,
            "count": [1, 2, 3, 4] * 5,
            "weight": [0.5, np.nan, 1.5, 2.5] * 5,
        }
    )
    steps = [("one_hot", OneHotEncoder(handle_unknown="ignore"), ["color"])]
    model = make_pipeline(
        ColumnTransformer(steps, remainder="passthrough"), SimpleImputer(), LogisticRegression(max_iter=1000)
    )
    register_model(model.fit(frame, frame["color"] == "red"), "mixed", registry=Registry(folder), sample=frame)


def make_input(name: str, values: Any, datatype: str, *, binary: bool) -> triton.InferInput:
    """Give an input of Triton's client."""
    array = np.array(values, dtype=KINDS[datatype]) if datatype in KINDS else np.array(values, dtype=np.object_)
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def test_a_client_finds_server_and_models(inference: triton.InferenceServerClient) -> None:
    """Health, readiness and metadata of server and model, with and without a version, are as Triton's client asks."""
    assert inference.is_server_live()
    assert inference.is_server_ready()
    assert inference.is_model_ready("iris")
    assert inference.is_model_ready("iris", "1")
    assert not inference.is_model_ready("none")
    assert not inference.is_model_ready("iris", "7")
    assert inference.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = inference.get_model_metadata("iris", "1")
    assert metadata["name"] == "iris"
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": name, "datatype": "FP64", "shape": [-1, 1]} for name in IRIS_COLUMNS]
    assert [output["name"] for output in metadata["outputs"]] == NAMES
    assert metadata["outputs"][0]["datatype"] == "BYTES"
    assert metadata["outputs"][1]["shape"] == [-1, 3]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_one_tensor_of_all_columns(inference: triton.InferenceServerClient, datatype: str, binary: bool) -> None:
    """Rows as one tensor of any name: labels and probabilities come back, in JSON and in binary."""
    rows = [make_input("anything", IRIS_ROWS, datatype, binary=binary)]
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in NAMES]

    result = inference.infer("iris", rows, outputs=wanted, request_id="mine")

    labels = [label.decode() if binary else label for label in result.as_numpy("predictions")]
    assert labels == IRIS_CLASSES
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (3, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.argmax(probabilities, axis=1).tolist() == [0, 1, 2]
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("mine", "iris", "1")
    assert response["parameters"]["micro_batch_rows"] >= 3


@pytest.mark.parametrize("binary", [True, False])
def test_one_tensor_a_column(inference: triton.InferenceServerClient, binary: bool) -> None:
    """Columns as tensors by name, in any order, of one or two dimensions and of several datatypes."""
    inputs = [
        make_input("b", [[0], [2], [1]], "INT64", binary=binary),
        make_input("a", [0.0, 1.0, -3.0], "FP32", binary=not binary),
    ]

    result = inference.infer("line", inputs, model_version="1")

    assert result.as_numpy("predictions") == pytest.approx([1.0, 9.0, -2.0])
    assert result.as_numpy("probabilities") is None


@pytest.mark.parametrize("binary", [True, False])
def test_texts_and_truth_values(inference: triton.InferenceServerClient, binary: bool) -> None:
    """Columns of a text, a truth value, a whole number and a missing number arrive as what they are; labels too."""
    described = {one["name"]: one["datatype"] for one in inference.get_model_metadata("mixed")["inputs"]}
    assert described == {"color": "BYTES", "new": "BOOL", "count": "INT64", "weight": "FP64"}
    inputs = [
        make_input("color", ["red", "blue", "grün"], "BYTES", binary=binary),
        make_input("new", [True, False, True], "BOOL", binary=binary),
        make_input("count", [1, 2, 3], "INT64", binary=binary),
        make_input("weight", [0.5, np.nan, 1.5], "FP64", binary=binary),
    ]

    predictions = inference.infer("mixed", inputs).as_numpy("predictions")

    assert predictions.dtype == np.bool_
    assert predictions[:2].tolist() == [True, False]


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_bodies_may_be_packed(inference: triton.InferenceServerClient, packing: str) -> None:
    """Triton's client may compress what it sends, and ask for a compressed answer."""
    rows = LINE_ROWS * 700
    wanted = [triton.InferRequestedOutput("predictions", binary_data=False)]

    result = inference.infer(
        "line",
        [make_input("rows", rows, "FP64", binary=True)],
        outputs=wanted,
        request_compression_algorithm=packing,
        response_compression_algorithm=packing,
    )

    np.testing.assert_allclose(result.as_numpy("predictions"), LINE_ANSWERS * 700, atol=1e-9)


def test_a_client_is_told_what_was_wrong(inference: triton.InferenceServerClient) -> None:
    """An error arrives in Triton's exception, with the status and a text that names input, shape and row."""
    refused: list[tuple[str, list[triton.InferInput], str, str]] = [
        ("none", [make_input("x", LINE_ROWS, "FP64", binary=True)], "404", "no model 'none'"),
        ("line", [make_input("x", IRIS_ROWS, "FP64", binary=True)], "422", "expected [rows, 2]"),
        ("line", [make_input("a", [1.0], "FP64", binary=True)], "422", "Not among the inputs: b"),
        ("line", [make_input("x", [["1", "2"]], "BYTES", binary=True)], "422", "expected a number"),
        ("line", [make_input("x", [[1.0, np.nan]], "FP64", binary=True)], "422", "#/inputs/0/1 (column b)"),
        ("line", [make_input("x", [[1.0, np.inf]], "FP64", binary=False)], "422", "finite"),
    ]
    for model, inputs, status, says in refused:
        with pytest.raises(InferenceServerException) as caught:
            inference.infer(model, inputs)
        assert caught.value.status() == status
        assert says in caught.value.message()
    rows = [make_input("x", LINE_ROWS, "FP64", binary=True)]
    with pytest.raises(InferenceServerException, match="No output 'none'"):
        inference.infer("line", rows, outputs=[triton.InferRequestedOutput("none")])


def infer(api: ApiUnderTest, document: Any, **members: Any) -> Any:
    """Ask in JSON."""
    return api.http.post("/v2/models/line/infer", json=document, **members)


def make_tensor(**members: Any) -> dict[str, Any]:
    """Give a request with one tensor."""
    return {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]} | members]}


@pytest.mark.parametrize(
    ("document", "status", "says"),
    [
        ([], 400, "Expected `object`"),
        ({}, 400, "inputs"),
        ({"inputs": []}, 400, "length >= 1"),
        (make_tensor(datatype="FP128"), 400, "datatype"),
        (make_tensor(shape=[-1, 2]), 400, ">= 0"),
        (make_tensor(shape=[2, 2]), 400, "means 4 elements, and it has 2"),
        (make_tensor(shape=[2**31 - 1, 0], data=[]), 422, "expected [rows, 2]"),
        (make_tensor(shape=[0, 2], data=[]), 422, "at least one row"),
        (make_tensor(shape=[1] * 9), 400, "length <= 8"),
        (make_tensor(data=["1", "2"]), 400, "not all of its elements are FP64"),
        (make_tensor(data=[True, 2]), 400, "not all of its elements are FP64"),
        (make_tensor(datatype="INT64", data=[1.5, 2]), 400, "not all of its elements are INT64"),
        (make_tensor(datatype="INT8", data=[1, 200]), 400, "not all of its elements are INT8"),
        (make_tensor(datatype="FP32", data=[1, 10**300]), 422, "finite"),
        (make_tensor(datatype="BOOL", data=[True, False]), 422, "expected a number"),
        (make_tensor(data=[None, 2]), 422, "#/inputs/0/0 (column a)"),
        (make_tensor(parameters={"binary_data_size": 16}), 400, "at most the 0"),
        (make_tensor(parameters={"shared_memory_region": "x"}, data=None), 400, "data"),
        ({"inputs": make_tensor(name="a", shape=[2])["inputs"] * 2}, 422, "twice"),
        ({"inputs": [*make_tensor(name="a", shape=[2])["inputs"], *make_tensor(name="b")["inputs"]]}, 422, "[rows, 1]"),
        (make_tensor() | {"outputs": [{"name": "probabilities"}]}, 400, "there is predictions"),
        (make_tensor() | {"outputs": [{"name": "predictions", "parameters": {"classification": 2}}]}, 400, "classific"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(api: ApiUnderTest, document: Any, status: int, says: str) -> None:
    """Each fault of a request has its status and says what was expected."""
    response = infer(api, document)

    assert response.status_code == status, response.text
    assert says in response.get_json()["error"]


def test_errors_have_the_protocols_form_everywhere(api: ApiUnderTest) -> None:
    """What is not there, not allowed, not JSON, too large or of another type is ``{"error": ...}`` under ``/v2``."""
    refused = [
        (api.http.get("/v2/nothing"), 404),
        (api.http.get("/v2/models/iris/versions/x"), 404),
        (api.http.get("/v2/models/iris@champion/versions/1"), 404),
        (api.http.delete("/v2/models/iris"), 405),
        (infer(api, None, data=b"{", content_type="application/json"), 400),
        (infer(api, None, data=b"x" * 100, content_type="text/csv"), 415),
        (infer(api, None, data=b"x", headers={"Content-Encoding": "br"}), 415),
        (infer(api, make_tensor(shape=[10001, 2], data=[1.0] * 20002)), 413),
    ]
    for response, status in refused:
        assert response.status_code == status, response.text
        assert response.mimetype == "application/json"
        assert set(response.get_json()) == {"error"}
    assert "Allow" in refused[3][0].headers


def test_binary_that_does_not_add_up_is_refused(api: ApiUnderTest) -> None:
    """Lengths that do not fit the body, the shape or the texts in it are refused, each with its reason."""

    def send(length: object, tensor: dict[str, Any], binary: bytes) -> str:
        text = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64"} | tensor]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(text) if length is None else length)}
        response = api.http.post("/v2/models/line/infer", data=text + binary, headers=headers)
        assert response.status_code == 400, response.text
        return str(response.get_json()["error"])

    def size(count: object) -> dict[str, Any]:
        return {"parameters": {"binary_data_size": count}}

    row = struct.pack("<2d", 1, 2)
    assert "at most the" in send(10**6, size(16), row)
    assert "at most the" in send("-1", size(16), row)
    assert "at most the" in send("²", size(16), row)
    assert "whole number of bytes" in send(None, size(17), row)
    assert "whole number of bytes" in send(None, size(-1), row)
    assert "whole number of bytes" in send(None, size(1.5), row)
    assert "belong to no input" in send(None, size(8), row)
    assert "no whole number of FP64" in send(None, size(15), row[:15])
    assert "means 2 elements, and it has 1" in send(None, size(8), row[:8])
    assert "either data" in send(None, size(16) | {"data": [1, 2]}, row)
    assert "either data" in send(None, {}, b"")
    texts = {"datatype": "BYTES"}
    assert "longer than the bytes" in send(None, size(4) | texts, struct.pack("<I", 5))
    assert "longer than the bytes" in send(None, size(3) | texts, b"\x00" * 3)
    assert "not UTF-8" in send(None, size(5) | texts, struct.pack("<I", 1) + b"\xff")


def test_a_caller_may_prefer_a_job(scoring_api: ApiUnderTest) -> None:
    """``Prefer: respond-async`` gives a job, whose result is there later; with ``wait`` only if it takes longer."""
    document = make_tensor()

    taken = infer(scoring_api, document, headers={"Prefer": "respond-async"})
    waited = infer(scoring_api, document, headers={"Prefer": "respond-async, wait=30"})

    job_id = read_id(taken)
    assert taken.headers["Preference-Applied"] == "respond-async"
    ended = scoring_api.http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=30"}).get_json()
    assert ended["status"] == "succeeded"
    assert scoring_api.http.get(f"/v1/jobs/{job_id}/result").get_json()["predictions"] == pytest.approx([9.0])
    assert waited.status_code == 200
    assert waited.get_json()["outputs"][0]["data"] == pytest.approx([9.0])


def test_a_repeated_request_is_one_job(scoring_api: ApiUnderTest) -> None:
    """The same ``Idempotency-Key`` twice makes one job; with other tensors it is refused."""
    headers = {"Idempotency-Key": "once"}

    answers = [infer(scoring_api, make_tensor(), headers=headers) for _ in range(2)]
    other = infer(scoring_api, make_tensor(data=[3, 4]), headers=headers)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert len(scoring_api.http.get("/v1/jobs").get_json()["jobs"]) == 1
    assert other.status_code == 422


def test_readiness_tells_what_is_missing(api: ApiUnderTest, tmp_path: Any) -> None:
    """Without the file store the server is alive and not ready."""
    broken = ApiUnderTest(Settings(redis_url=api.settings.redis_url, file_store=__file__, models=api.settings.models))

    assert broken.http.get("/v2/health/live").get_json() == {"live": True}
    response = broken.http.get("/v2/health/ready")
    assert response.status_code == 503
    assert response.get_json() == {"ready": False, "error": "Not there: file_store."}
    broken.close()
