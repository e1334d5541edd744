"""The history: what the clients asked for, what they were told, and what the right answer is.

It must not know how a question travels. Each submission carries its number in the job's metadata, so that a job whose
answer was lost on the way is found again, and one that was made twice too.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.registry import Registry
from worker.models import LoadedModel, load_model

Rows = list[list[float]]
#: What *exact* means (design, decision 15).
RTOL = 1e-6


@dataclass(slots=True)
class Submission:
    """One submission and all that its client was told."""

    serial: int
    kind: str
    model: str
    rows: Rows
    deadline: float | None = None
    #: None while it is unknown whether there is a job.
    job_id: str | None = None
    #: Status of the answer, with the problem's code; ``lost`` if there was none, ``refused`` if nobody listened.
    answer: str = "lost"
    #: Answers to cancel and delete; empty: not asked for.
    cancel: str = ""
    delete: str = ""
    #: How it was found to have ended when it was first seen so, and a digest of its result.
    first_end: str = ""
    first_digest: str = ""
    faults: list[str] = field(default_factory=list)

    @property
    def may_vanish(self) -> bool:
        """Whether its job may be gone."""
        return self.delete != ""


class Answers:
    """The right answers: the models, called directly."""

    def __init__(self, registry: Registry) -> None:
        self.models: dict[str, LoadedModel] = {name: load_model(registry, name, 1) for name in registry.names()}
        for model in self.models.values():
            model.estimator.pause_seconds = 0.0  # the slow one need not be slow here
        # scikit-learn's estimators are only read, but the client threads are many.
        self._lock = threading.Lock()

    def find_fault(self, submission: Submission, result: dict[str, Any]) -> str | None:
        """Compare a result with the model called directly; return what is wrong."""
        model = self.models[submission.model]
        rows = np.array(submission.rows)
        with self._lock:
            predictions = model.estimator.predict(rows)
            probabilities = model.estimator.predict_proba(rows) if model.outputs[0].classes else None
        if result["errors"]:
            return f"rows failed: {result['errors'][:3]}"
        if not _agree(result["predictions"], predictions):
            return f"predictions {result['predictions'][:3]} instead of {predictions[:3].tolist()}"
        if probabilities is not None and not _agree(result["probabilities"], probabilities):
            return f"probabilities {result['probabilities'][:3]} instead of {probabilities[:3].tolist()}"
        return None


class History:
    """All submissions of a run, in memory, and each event as a line of a file.

    Parameters
    ----------
    path : Path
        The file; NDJSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.submissions: list[Submission] = []
        self.codes: Counter[str] = Counter()
        self._file = path.open("w")
        self._lock = threading.Lock()

    def open(self, kind: str, model: str, rows: Rows, deadline: float | None) -> Submission:
        """Enter a submission before it is sent."""
        with self._lock:
            submission = Submission(len(self.submissions), kind, model, rows, deadline)
            self.submissions.append(submission)
        self.note(submission, "submit", kind=kind, model=model, rows=len(rows), deadline=deadline)
        return submission

    def note(self, submission: Submission | None, event: str, **fields: Any) -> None:
        """Write a line about a submission, or about something that was done to the service."""
        serial = None if submission is None else submission.serial
        with self._lock:
            if "answer" in fields:
                self.codes[f"{event} {fields['answer']}"] += 1
            line = {"at": round(time.time(), 3), "serial": serial, "event": event} | fields
            self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def digest(result: bytes) -> str:
    """Shorten a result to what two of them are compared by."""
    return hashlib.blake2b(result, digest_size=12).hexdigest()


def _agree(found: list[Any], expected: npt.NDArray[Any]) -> bool:
    if expected.dtype.kind != "f":
        return bool(found == expected.tolist())
    values = np.array(found, dtype=np.float64)
    return values.shape == expected.shape and bool(np.allclose(values, expected, rtol=RTOL, atol=1e-12))
