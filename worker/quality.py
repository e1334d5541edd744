"""Counting of data quality: the values that reach a model, and its scores, counted here and added up in Redis.

It must cost next to nothing beside the model: a few passes over the matrix, and one call of Redis a second.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import redis

from shared.logs import get_logger
from shared.manifest import Description, Manifest
from shared.quality import QualityReference, ScoreBins
from shared.quality_counts import QualityCounts, name_version
from shared.signature import Column, Output
from shared.values import Matrix, Values
from worker.scoring import Outcome, Piece, RowError, find_likeliest, join_pieces

#: Cells that are looked at together: with their bounds and flags they stay in the processor's cache.
_BLOCK_CELLS = 1 << 15
#: Bins of a score that is a number, if so many different ones are in the sample.
_BINS = 10
#: Seconds for which counts are gathered before they go to Redis.
_GATHERED_SECONDS = 1.0
_IDLE_SECONDS = 60.0
#: At an orderly end, for what the thread has taken and not yet handed on.
_END_SECONDS = 10.0
#: Classes up to which the distribution of labels is kept.
MOST_CLASSES = 100

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

logger = get_logger(__name__)


class Score(NamedTuple):
    """What a distribution is of: numbers, or places of labels among so many classes."""

    values: npt.NDArray[Any]
    classes: int | None


class QualityTally:
    """What was counted of one version since its counts were last taken.

    Parameters
    ----------
    manifest : Manifest
        Of the version; its reference has the bins into which scores are counted.
    """

    def __init__(self, manifest: Manifest) -> None:
        columns, scores = manifest.signature.columns, () if manifest.quality is None else manifest.quality.scores
        self._manifest = manifest
        self._edges = [score.edges for score in scores]
        # As long as a block: numpy compares arrays of one shape several times as fast as a row with each of many.
        self._block_rows = max(1, _BLOCK_CELLS // len(columns))
        self._lower, self._upper = (np.tile(bounds, (self._block_rows, 1)) for bounds in find_bounds(columns))
        self._numbers = {"o": np.zeros(len(columns), np.int64), "m": np.zeros(len(columns), np.int64)}
        self._numbers |= {f"s:{place}": np.zeros(len(score.counts), np.int64) for place, score in enumerate(scores)}
        self._others: Counter[str] = Counter()

    def count(self, matrix: Matrix, outcome: Outcome) -> None:
        """Count rows that reached the model, and the scores of those that it answered.

        Parameters
        ----------
        matrix : ndarray of float64, shape (n_rows, n_columns)
        outcome : Outcome
            Row i answers row i of the matrix.
        """
        self._others["rows"] += len(matrix)
        for start in range(0, len(matrix), self._block_rows):
            self._count_values(matrix[start : start + self._block_rows])
        answered = outcome.take(_find_answered(outcome)) if outcome.errors else outcome
        if not self._edges or not len(answered):
            return
        for place, (score, _) in enumerate(list_scores(self._manifest, answered).values()):
            self._numbers[f"s:{place}"] += count_bins(score, self._edges[place])

    def count_refused(self, refused: Mapping[tuple[int, str], int]) -> None:
        """Count rows that did not reach the model, by the place of a column and the code of its fault."""
        self._others.update({f"r:{column}:{code}": count for (column, code), count in refused.items()})

    def take_counts(self) -> Counter[str]:
        """Return what was counted, by field of `shared.quality_counts`, and begin anew."""
        counts, self._others = self._others, Counter()
        for name, numbers in self._numbers.items():
            counts.update({f"{name}:{place}": int(numbers[place]) for place in np.flatnonzero(numbers)})
            numbers.fill(0)
        return counts

    def _count_values(self, matrix: Matrix) -> None:
        rows = len(matrix)
        inside = matrix >= self._lower[:rows]  # false for NaN
        inside &= matrix <= self._upper[:rows]
        cells = np.flatnonzero(np.logical_not(inside, out=inside))
        if not cells.size:
            return
        missing, columns = np.isnan(matrix.take(cells)), cells % matrix.shape[1]
        for name, places in (("m", columns[missing]), ("o", columns[~missing])):
            self._numbers[name] += np.bincount(places, minlength=matrix.shape[1])


class _Gathering:
    """Small micro-batches of a version until they are worth a look: a hundred rows cost little more than one."""

    def __init__(self, tally: QualityTally) -> None:
        self.tally = tally
        self._matrices: list[Matrix] = []
        self._pieces: list[Piece] = []
        self._errors: dict[int, RowError] = {}
        self._rows = 0

    def add(self, matrix: Matrix, outcome: Outcome) -> None:
        self._matrices.append(matrix)
        self._errors.update({self._rows + row: error for row, error in outcome.errors.items()})
        if len(outcome.errors) < len(outcome):  # of other kinds of values where nothing was answered
            self._pieces.append(Piece(self._rows, self._rows + len(outcome), outcome))
        self._rows += len(matrix)
        if self._rows * matrix.shape[1] >= _BLOCK_CELLS:
            self.count()

    def count(self) -> None:
        if not self._rows:
            return
        whole = replace(join_pieces(self._pieces, self._rows), errors=self._errors)
        self.tally.count(np.concatenate(self._matrices) if len(self._matrices) > 1 else self._matrices[0], whole)
        self._matrices, self._pieces, self._errors, self._rows = [], [], {}, 0


class QualityCounter:
    """Gathers the counts of a process, and adds them to those of all others once a second.

    Parameters
    ----------
    store : QualityCounts
        With a connection of its own: it is used from a thread.
    """

    def __init__(self, store: QualityCounts) -> None:
        self._store = store
        self._tallies: dict[str, _Gathering] = {}
        #: What Redis did not take yet.
        self._left: dict[str, Counter[str]] = {}
        self._lock = threading.Lock()
        self._counted = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="quality", daemon=True)

    def start(self) -> None:
        """Hand counts on from a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Hand on what is left, also what the thread has taken: its connection may be closed after this."""
        self._stop.set()
        self._counted.set()
        if self._thread.is_alive():
            self._thread.join(_END_SECONDS)
        self.flush()

    def count(self, manifest: Manifest, values: Values, outcome: Outcome) -> None:
        """Count scored rows of a version; see `QualityTally.count`."""
        with self._lock:
            self._get(manifest).add(values.matrix, outcome)
        self._counted.set()

    def count_refused(self, manifest: Manifest, faults: Mapping[tuple[str | None, str], int]) -> None:
        """Count rows that did not reach the model, by the name of a column and the code of its fault."""
        places = {name: place for place, name in enumerate(manifest.signature.column_names)}
        refused = {(places[name], code): count for (name, code), count in faults.items() if name in places}
        if refused:
            with self._lock:
                self._get(manifest).tally.count_refused(refused)
            self._counted.set()

    def flush(self) -> None:
        """Add what was gathered to the counts in Redis; what it does not take now it is given later."""
        with self._lock:
            gathered, self._left = self._left, {}
            for version, gathering in self._tallies.items():
                gathering.count()
                gathered.setdefault(version, Counter()).update(gathering.tally.take_counts())
        for version, counts in gathered.items():
            if not counts:
                continue
            try:
                self._store.add(version, counts)
            except redis.RedisError as error:
                logger.warning("counts of data quality are not stored yet", version=version, error=str(error))
                with self._lock:
                    self._left.setdefault(version, Counter()).update(counts)
                self._counted.set()

    def _get(self, manifest: Manifest) -> _Gathering:
        version = name_version(manifest)
        if version not in self._tallies:
            self._tallies[version] = _Gathering(QualityTally(manifest))
        return self._tallies[version]

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._counted.wait(_IDLE_SECONDS):
                continue
            self._counted.clear()
            self._stop.wait(_GATHERED_SECONDS)
            self.flush()


def make_reference(description: Description, matrix: Matrix, outcome: Outcome) -> QualityReference:
    """Count rows of a training sample, and divide their scores into bins.

    Parameters
    ----------
    description : Description
        Of the version.
    matrix : ndarray of float64, shape (n_rows, n_columns)
    outcome : Outcome
        Row i answers row i of the matrix.
    """
    answered = outcome.take(_find_answered(outcome))
    scores = []
    for name, (score, classes) in list_scores(description, answered).items():
        if classes is None:
            score = score[np.isfinite(score)]  # others are errors of their rows, and have no bin
            edges = _place_edges(score)
        else:
            edges = [place + 0.5 for place in range(classes - 1)]  # between the places of the classes
        scores.append(ScoreBins(name, tuple(edges), tuple(count_bins(score, edges).tolist())))
    missing = np.count_nonzero(np.isnan(matrix), axis=0)
    return QualityReference(len(matrix), tuple(missing.tolist()), tuple(scores))


def list_scores(description: Description, answered: Outcome) -> dict[str, Score]:
    """Return what the distributions are of, by name.

    Of a number the prediction; of two classes the probability of the second; else the label. Of several outputs the
    predictions of each.
    """
    outputs = description.signature.answers
    if len(outputs) > 1:
        columns = zip(outputs, answered.predictions.T, strict=True)
        scores = {output.prediction_column: _read_predictions(output, column) for output, column in columns}
        return {name: score for name, score in scores.items() if score is not None}
    [output] = outputs
    probabilities = answered.probabilities if description.labels_from_probabilities else None
    classes = output.classes
    if classes is None or probabilities is None or len(classes) > MOST_CLASSES:
        score = _read_predictions(output, answered.predictions)
        return {} if score is None else {output.prediction_column: score}
    if len(classes) == 2:
        return {f"probability_{classes[1]}": Score(probabilities[:, 1], None)}
    return {output.prediction_column: Score(find_likeliest(probabilities), len(classes))}


def _read_predictions(output: Output, predictions: npt.NDArray[Any]) -> Score | None:
    """Return numbers, or the places of labels among their classes; None if there are too many."""
    if output.classes is None:
        return Score(predictions, None)
    if len(output.classes) > MOST_CLASSES:
        return None
    places = {label: place for place, label in enumerate(output.classes)}
    return Score(np.array([places[label] for label in predictions.tolist()], np.int64), len(places))


def count_bins(score: npt.NDArray[Any], edges: Sequence[float]) -> Places:
    """Count how many scores lie in each bin; see `ScoreBins`."""
    if len(edges) > _BINS:  # of many classes
        counts: Places = np.bincount(np.searchsorted(edges, score), minlength=len(edges) + 1)
        return counts
    # Some passes over the scores take a fourth of the time that a search for each does.
    score = np.ascontiguousarray(score)
    above = [len(score), *(np.count_nonzero(score > edge) for edge in edges), 0]
    inside: Places = np.array(above[:-1]) - np.array(above[1:])
    return inside


def find_bounds(columns: Sequence[Column]) -> tuple[Numbers, Numbers]:
    """Return the least and the greatest value that training knew of each column; of a text or category, its codes."""
    lower, upper = zip(*map(_find_bounds, columns), strict=True)
    return np.array(lower), np.array(upper)


def _find_bounds(column: Column) -> tuple[float, float]:
    if column.categories:  # what is none of them has a higher code, see `shared.values`
        return 0.0, len(column.categories) - 1.0
    if column.min is None or column.max is None:
        return -math.inf, math.inf
    return column.min, column.max


def _find_answered(outcome: Outcome) -> Places:
    answered = np.ones(len(outcome), dtype=bool)
    answered[list(outcome.errors)] = False
    return np.flatnonzero(answered)


def _place_edges(scores: Numbers) -> list[float]:
    """Divide scores into tenths, by edges that lie between two of them: a rounding error must not change a bin."""
    values, counts = np.unique(scores, return_counts=True)
    wanted = len(scores) * np.arange(1, _BINS) / _BINS
    # The last value of each tenth; after the greatest of all there is no edge.
    places = np.unique(np.searchsorted(np.cumsum(counts), wanted))
    places = places[places < len(values) - 1]
    edges: list[float] = (values[places] / 2 + values[places + 1] / 2).tolist()
    return edges
