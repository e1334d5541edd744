"""The reference: what many write first. A Flask endpoint, one Celery task a job, Celery's result backend.

It gets the same model, the same kind of Redis with the same durability, the same server and as many processes.
``granian --interface wsgi benchmarks.plain_celery:flask_app`` and ``celery -A benchmarks.plain_celery worker`` run it.
"""

from __future__ import annotations

import os
from typing import Any

import joblib
import numpy as np
from celery import Celery, signals
from flask import Flask, jsonify, request

_SOCKET = os.environ.get("PLAIN_REDIS_SOCKET", "")
app = Celery(
    "plain",
    broker=f"redis+socket://{_SOCKET}?virtual_host=0",
    backend=f"redis+socket://{_SOCKET}?virtual_host=1",
)
app.conf.broker_connection_retry_on_startup = True
flask_app = Flask(__name__)
_model: Any = None


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _load_model(**_: Any) -> None:
    global _model  # one to a process
    _model = joblib.load(os.environ["PLAIN_MODEL"])
    _model.predict_proba(np.zeros((1, _model.n_features_in_)))


@app.task  # type: ignore[untyped-decorator]
def score(features: list[float]) -> dict[str, Any]:
    """Score one row."""
    probabilities = _model.predict_proba(np.array([features]))[0]
    return {"prediction": str(_model.classes_[probabilities.argmax()]), "probabilities": probabilities.tolist()}


@flask_app.get("/health")
def show_health() -> Any:
    """Answer that it is there."""
    return jsonify(status="ok")


@flask_app.post("/jobs")
def submit() -> Any:
    """Take a job."""
    return jsonify(id=score.delay(request.get_json()["features"]).id), 202


@flask_app.post("/jobs/wait")
def submit_and_wait() -> Any:
    """Take a job and answer with its result."""
    return jsonify(score.delay(request.get_json()["features"]).get(timeout=30))
