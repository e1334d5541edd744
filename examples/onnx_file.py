"""A model as an ONNX file, which runs none of its maker's code: from `fit` to answers of the service."""

from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scorequeue import Client
from worker import register

cancer = load_breast_cancer(as_frame=True)
rows = cancer.data.to_numpy()
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, cancer.target_names[cancer.target])
Path("cancer.onnx").write_bytes(to_onnx(model, rows[:1], options={"zipmap": False}).SerializeToString())

version = register("cancer.onnx", "cancer-onnx", cancer.data)
with Client() as client:
    result = client.submit(rows[:3].tolist(), model=version.reference).wait(timeout=60).result()
print(version.reference, result["predictions"], np.round(result["probabilities"], 3).tolist())
