"""A file by plain Celery: a task for every thousand rows, as JSON both ways.

``celery -A benchmarks.plain_celery_files worker`` scores; ``python -m benchmarks.plain_celery_files IN.csv OUT.csv``
cuts the file, sends the tasks, and writes what comes back.
"""

from __future__ import annotations

import csv
import itertools
import os
import sys
from typing import Any

import joblib
import numpy as np
from celery import Celery, signals

TASK_ROWS = 1000

_SOCKET = os.environ.get("PLAIN_REDIS_SOCKET", "")
app = Celery(
    "plain_files",
    broker=f"redis+socket://{_SOCKET}?virtual_host=0",
    backend=f"redis+socket://{_SOCKET}?virtual_host=1",
)
app.conf.broker_connection_retry_on_startup = True
_model: Any = None


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _load_model(**_: Any) -> None:
    global _model  # one to a process
    _model = joblib.load(os.environ["PLAIN_MODEL"])


@app.task(name="plain.score")  # type: ignore[untyped-decorator]
def score(rows: list[list[float]]) -> list[list[Any]]:
    """Score some rows; return label and probabilities of each."""
    probabilities = _model.predict_proba(np.array(rows))
    labels = _model.classes_.take(probabilities.argmax(axis=1))
    return [[str(label), *row] for label, row in zip(labels, probabilities.tolist(), strict=True)]


def main(source: str, target: str) -> None:
    """Score a file whose first column is an id and whose others are the model's."""
    with open(source, newline="") as incoming, open(target, "w", newline="") as outgoing:
        reader, writer = csv.reader(incoming), csv.writer(outgoing)
        writer.writerow([*next(reader), "prediction", "probability_no", "probability_yes"])
        pending = []
        while records := list(itertools.islice(reader, TASK_ROWS)):
            pending.append((records, score.delay([[float(cell) for cell in record[1:]] for record in records])))
        for records, task in pending:
            writer.writerows([*record, *added] for record, added in zip(records, task.get(timeout=600), strict=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
