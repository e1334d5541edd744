"""Rows jobs: claim what waits, put it into one array, call the model once, commit each job's own result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from shared import metrics, tracing
from shared.claims import Claim, Claimed, RowsOutcome
from shared.codec import NewerPayload, UnknownPayload, decode_values
from shared.filestore import REFERENCE, FileStore
from shared.fleet import Fleet
from shared.jobs import Status, parse_queue
from shared.logs import get_logger
from shared.settings import Settings
from shared.store import JobStore
from shared.values import Values, join_values
from shared.wakeups import WakeupPublisher
from worker.lease import Lease
from worker.models import LoadedModel, ModelNotReady
from worker.outputs import split_probabilities
from worker.quality import QualityCounter
from worker.scoring import Outcome, score_values
from worker.shadow import MOST_ROWS, Scored, ShadowScorer

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

#: After this long a task gives way to the other queues, with a wake-up if work is left.
TURN_SECONDS = 0.1

logger = get_logger(__name__)


class RowsScorer:
    """Scores the rows jobs of one queue at a time.

    Parameters
    ----------
    store : JobStore
    files : FileStore
    load_model : callable
        Name and version to a warmed model; raises `ModelNotReady`.
    shadows : ShadowScorer
    quality : QualityCounter
    lease : Lease
    publisher : WakeupPublisher
    settings : Settings
    """

    def __init__(
        self,
        store: JobStore,
        files: FileStore,
        load_model: Callable[[str, int], LoadedModel],
        shadows: ShadowScorer,
        quality: QualityCounter,
        lease: Lease,
        publisher: WakeupPublisher,
        settings: Settings,
    ) -> None:
        self._store = store
        self._files = files
        self._load_model = load_model
        self._shadows = shadows
        self._quality = quality
        self._lease = lease
        self._publisher = publisher
        self._settings = settings

    def run(self, queue: str) -> str:
        """Score until the queue is empty or the turn is over.

        Returns
        -------
        str
            What was done, for people.
        """
        jobs = rows = calls = 0
        _, name, version = parse_queue(queue)
        first, is_idle = True, False
        shadow = self._shadows.find_shadow(name, version)
        kept: list[Scored] = []
        until = time.monotonic() + TURN_SECONDS
        while True:
            model = self._load(name, version)
            if isinstance(model, ModelNotReady) and is_warm_elsewhere(self._store, model.reference):
                break  # they will claim it; here it could only fail
            with self._lease.guard():
                claimed, claim_seconds = self._claim(queue, model, clear_wakeup=first)
                first = False
                if not claimed.units:
                    is_idle = True
                    break
                made, newer, scored = self._score(name, version, model, claimed, claim_seconds)
                if newer:
                    self._store.hand_back(queue, self._lease.owner, newer)
            if shadow is not None and scored is not None:
                kept.append(scored)
                while len(kept) > 1 and sum(len(batch.values) for batch in kept) > MOST_ROWS:
                    self._shadows.score(name, version, shadow, [kept.pop(0)], is_idle=False)
            calls += made
            jobs += len(claimed.units) - len(newer)
            rows += sum(unit.rows for unit in claimed.units) - sum(unit.rows for unit in newer)
            if newer:  # claimed again at once they would come back at once; the sweep's wake-up may find their worker
                logger.warning(
                    "jobs of a newer release wait for a newer worker; update this one", queue=queue, jobs=len(newer)
                )
                break
            if time.monotonic() > until:
                if where := self._store.mark_wakeup(queue):
                    self._publisher.publish(queue, where)
                break
        if shadow is not None and kept:
            self._shadows.score(name, version, shadow, kept, is_idle=is_idle)
        return f"model={name}:{version} jobs={jobs} rows={rows} model_calls={calls}"

    def _load(self, name: str, version: int) -> LoadedModel | ModelNotReady:
        try:
            return self._load_model(name, version)
        except ModelNotReady as error:
            return error

    def _claim(self, queue: str, model: LoadedModel | ModelNotReady, *, clear_wakeup: bool) -> tuple[Claimed, float]:
        began = time.perf_counter()
        claimed = self._store.claim(
            queue,
            self._lease.owner,
            lease_seconds=self._settings.lease_seconds,
            max_rows=self._batch_rows(model),
            max_bytes=self._settings.batch_bytes,
            clear_wakeup=clear_wakeup,
        )
        # More waits than fits: another process can start on it before this one begins to compute.
        if claimed.wakeup:
            self._publisher.publish(queue, claimed.wakeup)
        return claimed, time.perf_counter() - began

    def _batch_rows(self, model: LoadedModel | ModelNotReady) -> int:
        limit = None if isinstance(model, ModelNotReady) else model.manifest.max_batch_rows
        return limit or self._settings.batch_rows

    def _score(
        self,
        name: str,
        version: int,
        model: LoadedModel | ModelNotReady,
        claimed: Claimed,
        claim_seconds: float,
    ) -> tuple[int, list[Claim], Scored | None]:
        """Score one claim and commit it; return the model calls, what only a newer release can read, and the rows."""
        if isinstance(model, ModelNotReady):
            self._refuse(claimed.units, "model_not_ready", model.detail)
            return 0, [], None
        stages = {"claim": claim_seconds}
        began = time.perf_counter()
        signature = model.manifest.signature
        units, parts, newer = self._decode(claimed.units, len(signature.columns))
        if not units:
            return 0, newer, None
        values = join_values(parts, signature)
        stages["decode"] = time.perf_counter() - began

        max_rows = self._batch_rows(model)
        outcome = score_values(model, values, max_rows, patience_seconds=self._settings.task_seconds / 4)
        stages["predict"] = outcome.predict_seconds

        began = time.perf_counter()
        split = _split_outcome(units, outcome, model, claimed.now, min(len(values), max_rows))
        ends = [self._keep_result(end) for end in split]
        stages["encode"] = time.perf_counter() - began
        began = time.perf_counter()
        stored = self._store.commit_rows(self._lease.owner, ends)
        for end in (end for end, is_stored in zip(ends, stored, strict=True) if not is_stored):
            self._drop_result(end)
        stages["commit"] = time.perf_counter() - began
        _count(name, version, claimed, units, outcome, stages, max_rows, stored)
        self._count_quality(model, values, outcome, units, stored)
        if tracer := tracing.find_tracer():
            self._trace(tracer, units, outcome, f"{name}:{version}", sum(stages.values()))
        return outcome.calls, newer, Scored(values, outcome)

    def _trace(self, tracer: Tracer, units: list[Claim], outcome: Outcome, model: str, seconds: float) -> None:
        # Claims do not say it, so as to stay small; only where spans are recorded the jobs are looked up for it.
        jobs = self._store.read_jobs([unit.id for unit in units])
        traceparents = [job.document.traceparent for job in jobs if job is not None]
        attributes: dict[str, str | int] = {"model": model, "rows": len(outcome), "jobs": len(units)}
        tracing.record_micro_batch(tracer, seconds, traceparents, attributes)

    def _decode(self, units: list[Claim], columns: int) -> tuple[list[Claim], list[Values], list[Claim]]:
        """Decode the payloads; jobs with a broken one fail alone, those of a newer release are the third list."""
        readable: list[Claim] = []
        newer: list[Claim] = []
        parts: list[Values] = []
        for unit in units:
            try:
                values = decode_values(self._files.fetch(unit.id, unit.payload))
                if values.matrix.shape != (unit.rows, columns):
                    raise UnknownPayload(f"{values.matrix.shape} instead of {(unit.rows, columns)}")
            except FileNotFoundError:
                self._refuse([unit], "internal_error", "The rows of this job are gone.")  # it was deleted, surely
            except NewerPayload:
                newer.append(unit)
            except UnknownPayload as error:
                job = self._store.read_job(unit.id)
                logger.error(
                    "a payload cannot be read",
                    job=unit.id,
                    request_id=job and job.document.request_id,
                    trace_id=job and tracing.find_trace_id(job.document.traceparent),
                    reason=str(error),
                )
                self._refuse([unit], "internal_error", "The rows of this job could not be read by this release.")
            else:
                readable.append(unit)
                parts.append(values)
        return readable, parts, newer

    def _count_quality(
        self, model: LoadedModel, values: Values, outcome: Outcome, units: list[Claim], stored: list[bool]
    ) -> None:
        """Count values and scores of what was stored: whoever scores the others counts them."""
        if all(stored):
            self._quality.count(model.manifest, values, outcome)
            return
        start = 0
        for unit, is_stored in zip(units, stored, strict=True):
            stop = start + unit.rows
            if is_stored:
                self._quality.count(model.manifest, values[start:stop], outcome.slice(start, stop))
            start = stop

    def _keep_result(self, end: RowsOutcome) -> RowsOutcome:
        """Put a large result into the file store, before the commit that refers to it."""
        if len(end.result) <= self._settings.inline_bytes:
            return end
        # Named by attempt: a process that lost its claim never writes over the result of the one that has it.
        reference = self._files.write_blob(end.id, f"result-{end.attempt}", end.result)
        return msgspec.structs.replace(end, result=reference)

    def _drop_result(self, end: RowsOutcome) -> None:
        """Remove a large result that was refused; with its folder, if its job was deleted meanwhile."""
        if end.result.startswith(REFERENCE):
            self._files.remove_blob(end.id, end.result)
            if self._store.read_job(end.id) is None:
                self._files.remove(end.id)

    def _refuse(self, units: list[Claim], code: str, detail: str) -> None:
        problem = msgspec.json.encode({"code": code, "detail": detail})
        self._store.commit_rows(
            self._lease.owner,
            [RowsOutcome(unit.id, unit.attempt, Status.FAILED, 0, unit.rows, problem=problem) for unit in units],
        )


def is_warm_elsewhere(store: JobStore, reference: str) -> bool:
    """Tell whether a live process has a version that could not be loaded here."""
    return bool(Fleet(store.list_workers().values()).warm[reference])


def _split_outcome(
    units: list[Claim], outcome: Outcome, model: LoadedModel, claimed_at: int, batch_rows: int
) -> Iterator[RowsOutcome]:
    """Yield each job's end: its own rows, and the evidence of how they were scored."""
    start = 0
    for unit in units:
        own = outcome.slice(start, start + unit.rows)
        start += unit.rows
        failed = len(own.errors)
        if failed == unit.rows:
            problem = {
                "code": "model_error",
                "detail": next(iter(own.errors.values())).detail,
                "errors": [
                    {"pointer": f"#/rows/{row}", "code": error.code, "detail": error.detail}
                    for row, error in list(own.errors.items())[:100]
                ],
            }
            yield RowsOutcome(unit.id, unit.attempt, Status.FAILED, 0, failed, problem=msgspec.json.encode(problem))
            continue
        status = Status.PARTIALLY_SUCCEEDED if failed else Status.SUCCEEDED
        result = _describe_result(own, model, (claimed_at - unit.created) / 1000, batch_rows)
        yield RowsOutcome(unit.id, unit.attempt, status, unit.rows - failed, failed, msgspec.json.encode(result))


def _describe_result(own: Outcome, model: LoadedModel, queue_seconds: float, batch_rows: int) -> dict[str, Any]:
    manifest = model.manifest
    outputs = manifest.signature.answers
    result: dict[str, Any] = {"predictions": own.list_predictions()}
    if len(outputs) > 1:
        result["outputs"] = [output.name for output in outputs]
    if manifest.signature.task == "classification":
        several = [output.classes for output in outputs]
        result["classes"] = several[0] if len(outputs) == 1 else several
        if probabilities := own.list_probabilities():
            result["probabilities"] = (
                probabilities
                if len(outputs) == 1
                else [None if row is None else split_probabilities(row, outputs) for row in probabilities]
            )
    result["errors"] = [
        {"row": row, "code": error.code, "detail": error.detail} for row, error in sorted(own.errors.items())
    ]
    result["model"] = manifest.reference
    result["model_sha256"] = manifest.sha256
    result["micro_batch_rows"] = batch_rows
    result["queue_seconds"] = round(max(0.0, queue_seconds), 4)
    result["predict_seconds"] = round(own.predict_seconds, 6)
    return result


def _count(
    name: str,
    version: int,
    claimed: Claimed,
    units: list[Claim],
    outcome: Outcome,
    stages: dict[str, float],
    max_rows: int,
    stored: list[bool],
) -> None:
    labels = (name, str(version))
    rows = len(outcome)
    reason = "trial" if units[0].stream == "trial" else "full" if rows >= max_rows else "drained"
    metrics.BATCHES.labels(*labels, reason).inc(outcome.calls)
    metrics.BATCH_ROWS.labels(*labels).observe(rows)
    metrics.BATCH_JOBS.labels(*labels).observe(len(units))
    metrics.BISECTIONS.labels(*labels).inc(outcome.bisections)
    for stage, seconds in stages.items():
        metrics.PREDICT_SECONDS.labels(*labels, stage).observe(seconds)
    waited, lasted = metrics.QUEUE_SECONDS.labels(*labels), metrics.JOB_SECONDS.labels(*labels)
    spent = sum(stages.values())
    for unit in units:
        queued = max(0.0, (claimed.now - unit.created) / 1000)
        waited.observe(queued)
        lasted.observe(queued + spent)
    count_rows(labels, rows, outcome.errors)
    metrics.STALE_COMMITS.labels(*labels).inc(stored.count(False))


def count_rows(labels: tuple[str, str], rows: int, errors: dict[int, Any]) -> None:
    """Count the rows of a micro-batch by outcome and code."""
    metrics.ROWS.labels(*labels, "succeeded", "").inc(rows - len(errors))
    for error in errors.values():
        metrics.ROWS.labels(*labels, "failed", error.code).inc()
