"""File jobs: take a chunk, read its bytes, score them, write a part, enter it in the ledger."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np
import structlog

from shared import metrics, tracing
from shared.blobs import AlteredBlob
from shared.claims import Claim, LedgerEntry
from shared.filestore import FileStore, earlier_parts
from shared.jobs import Document, Job, Status, parse_queue
from shared.logs import get_logger
from shared.references import BrokenManifest, UnknownModel
from shared.registry import Registry
from shared.settings import Settings
from shared.store import JobStore
from shared.values import Values
from shared.wakeups import WakeupPublisher
from worker.chunks import ChunkMismatch, DamagedFile, Earlier, ScoredChunk
from worker.isolation import CALL_ROWS, IsolationFailed, score_isolated
from worker.lease import Lease
from worker.models import LoadedModel, ModelNotReady
from worker.open_files import OpenFiles
from worker.quality import QualityCounter
from worker.rows import is_warm_elsewhere
from worker.scoring import Outcome, RowError, score_values
from worker.shadow import Scored
from worker.trust import Trust

#: After this long a task gives way to other queues; a chunk takes about half a second.
TURN_SECONDS = 1.0
#: A chunk whose worker was lost this often, although its rows met the model in isolation, is not tried again.
MAX_STRIKES = 3
#: A chunk is tried so often while the file store does not do its part: some minutes, or half of one if it is full,
#: for which nobody need wait so long.
STORE_ATTEMPTS = 100
FULL_ATTEMPTS = 10

logger = get_logger(__name__)


class ChunkScorer:
    """Scores the chunks of file jobs, one at a time.

    Parameters
    ----------
    store : JobStore
    files : FileStore
    registry : Registry
    load_model : callable
        Name and version to a warmed model; raises `ModelNotReady`.
    quality : QualityCounter
    lease : Lease
    publisher : WakeupPublisher
    settings : Settings
    """

    def __init__(
        self,
        store: JobStore,
        files: FileStore,
        registry: Registry,
        load_model: Callable[[str, int], LoadedModel],
        quality: QualityCounter,
        lease: Lease,
        publisher: WakeupPublisher,
        settings: Settings,
    ) -> None:
        self._store = store
        self._files = files
        self._registry = registry
        self._load_model = load_model
        self._quality = quality
        self._lease = lease
        self._publisher = publisher
        self._settings = settings
        self._open_files = OpenFiles(files)

    def run(self, queue: str) -> str:
        """Score chunks until none waits or the turn is over.

        Returns
        -------
        str
            What was done, for people.
        """
        chunks = rows = 0
        _, name, version = parse_queue(queue)
        first = True
        if self._is_better_left(name, version):
            return f"model={name}:{version} chunks=0 rows=0"
        until = time.monotonic() + TURN_SECONDS
        while True:
            with self._lease.guard():
                claim = self._claim(queue, clear_wakeup=first)
                first = False
                if claim is None:
                    break
                self._score_or_fail(queue, name, version, claim)
            chunks += 1
            rows += claim.rows
            if time.monotonic() > until:
                if where := self._store.mark_wakeup(queue):
                    self._publisher.publish(queue, where)
                break
        return f"model={name}:{version} chunks={chunks} rows={rows}"

    def stop(self) -> None:
        """Close the files that are open."""
        self._open_files.close()

    def _is_better_left(self, name: str, version: int) -> bool:
        """Tell whether the model cannot be loaded here, where every row would fail, and another process has it."""
        try:
            self._load_model(name, version)
        except ModelNotReady as error:
            return is_warm_elsewhere(self._store, error.reference)
        return False

    def _claim(self, queue: str, *, clear_wakeup: bool) -> Claim | None:
        claimed = self._store.claim(
            queue,
            self._lease.owner,
            lease_seconds=self._settings.lease_seconds,
            max_rows=1,
            max_bytes=1,
            max_chunks=1,
            clear_wakeup=clear_wakeup,
        )
        if claimed.wakeup:
            self._publisher.publish(queue, claimed.wakeup)
        return claimed.units[0] if claimed.units else None

    def _score_or_fail(self, queue: str, name: str, version: int, claim: Claim) -> None:
        """Score a chunk; end its job if that can never be done, whoever tries, or was tried long enough."""
        structlog.contextvars.clear_contextvars()
        try:
            self._score(queue, name, version, claim)
        except AlteredBlob:
            self._fail(claim, "malformed_file", "The file was altered after the job was submitted.")
        except DamagedFile as error:
            self._fail(claim, "malformed_file", f"The file cannot be scored: {error}.")
        except (FileNotFoundError, ChunkMismatch, UnknownModel, BrokenManifest) as error:
            logger.info("a chunk cannot be scored", job=claim.id, chunk=claim.chunk, error=error)
            self._fail(claim, "internal_error", "The input or the model of this job is gone or altered.")
        except IsolationFailed:
            raise  # of this machine, not of the store
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if claim.attempt < (FULL_ATTEMPTS if full else STORE_ATTEMPTS):
                logger.error(
                    "the file store failed; the chunk is tried again",
                    job=claim.id, chunk=claim.chunk, attempt=claim.attempt, error=error,
                )  # fmt: skip
                raise
            how = "is full" if full else "did not answer"
            self._fail(
                claim,
                "storage_full" if full else "store_unavailable",
                f"The file store {how} for {claim.attempt} attempts. What was scored is kept: retry scores the rest.",
            )

    def _fail(self, claim: Claim, code: str, detail: str) -> None:
        if self._store.fail(claim.id, code, detail):
            logger.error("a file job is given up", job=claim.id, chunk=claim.chunk, code=code, detail=detail)
        else:
            logger.info("the job of a chunk was deleted while it was scored", job=claim.id, chunk=claim.chunk)

    def _score(self, queue: str, name: str, version: int, claim: Claim) -> None:
        job = self._store.read_job(claim.id)
        if job is None or claim.chunk is None:
            return  # deleted since; nothing is left to commit to
        structlog.contextvars.bind_contextvars(request_id=job.document.request_id)
        if job.document.traceparent:
            structlog.contextvars.bind_contextvars(trace_id=tracing.find_trace_id(job.document.traceparent))
        began = time.perf_counter()
        watched = _WatchedPredictor(self._choose_predictor(name, version, claim))
        scored = self._score_chunk(claim, job.document, watched)
        entry = self._write_parts(claim, scored)
        stored, wake = self._store.commit_chunk(
            self._lease.owner,
            claim,
            entry,
            chunks_offered=self._settings.chunks_offered,
            problem=_describe_stop(job, scored),
            # In isolation it is slow for other reasons than the model.
            speed=0.0 if claim.stream == "trial" else claim.rows / (time.perf_counter() - began),
        )
        if wake:
            self._publisher.publish(queue, wake)
        labels = (name, str(version))
        seconds = time.perf_counter() - began
        metrics.PREDICT_SECONDS.labels(*labels, "chunk").observe(seconds)
        if tracer := tracing.find_tracer():
            attributes: dict[str, str | int] = {"model": f"{name}:{version}", "rows": claim.rows, "jobs": 1}
            tracing.record_micro_batch(tracer, seconds, [job.document.traceparent], attributes)
        metrics.ROWS.labels(*labels, "succeeded", "").inc(scored.succeeded)
        faults = _count_faults(scored)
        for (_, code), count in faults.items():
            metrics.ROWS.labels(*labels, "failed", code).inc(count)
        if stored:
            self._count_quality(name, version, watched, faults)
        else:
            metrics.STALE_COMMITS.labels(*labels).inc()
            logger.warning("a chunk was no longer ours; its result was refused", job=claim.id, chunk=claim.chunk)
            self._remove_left_part(claim)

    def _count_quality(
        self, name: str, version: int, watched: _WatchedPredictor, faults: Counter[tuple[str | None, str]]
    ) -> None:
        manifest = self._registry.manifest(name, version)
        if watched.seen is not None and watched.seen.outcome.calls:
            self._quality.count(manifest, *watched.seen)
        self._quality.count_refused(manifest, faults)

    def _remove_left_part(self, claim: Claim) -> None:
        """Remove what was written for a job that was deleted or canceled meanwhile: its cleaning may be over."""
        job = self._store.read_job(claim.id)
        if job is None:
            self._files.remove(claim.id)
        elif job.status == Status.CANCELED:
            self._files.remove_results(claim.id)

    def _choose_predictor(self, name: str, version: int, claim: Claim) -> Callable[[Values], Outcome]:
        if claim.strikes >= MAX_STRIKES:
            return lambda values: _fail_rows(
                values, "worker_lost", f"scoring this row's chunk ended its worker {MAX_STRIKES} times"
            )
        try:
            model = self._load_model(name, version)
        except ModelNotReady as error:
            detail = error.detail
            return lambda values: _fail_rows(values, "model_error", detail)
        if claim.stream == "trial":  # its worker was lost: perhaps by one of its rows, and then only that row may fail
            budget, trust = self._settings.task_seconds / 2, Trust.from_settings(self._settings)
            return lambda values: score_isolated(
                self._registry, name, version, values, trust=trust, budget_seconds=budget
            )
        patience = self._settings.task_seconds / 4
        return lambda values: score_values(model, values, CALL_ROWS, patience_seconds=patience)

    def _score_chunk(self, claim: Claim, document: Document, predict: Callable[[Values], Outcome]) -> ScoredChunk:
        assert claim.chunk is not None
        file = self._open_files.get(claim.id)
        signature = self._registry.manifest(document.model, document.version).signature
        earlier = None
        if claim.chunk in document.merged_chunks:
            earlier = self._read_earlier(claim, file.plan.chunks[claim.chunk].first_row)
        return file.score_chunk(claim.chunk, document, signature, predict, earlier)

    def _read_earlier(self, claim: Claim, first_row: int) -> Earlier:
        part, errors = earlier_parts(claim.chunk or 0)
        data, lines = (b"".join(self._files.read_part(claim.id, name)) for name in (part, errors))
        return Earlier(data, [msgspec.json.decode(line)["row"] - 1 - first_row for line in lines.splitlines()])

    def _write_parts(self, claim: Claim, scored: ScoredChunk) -> LedgerEntry:
        # Named by attempt: a process that lost its claim never writes into the part of the one that has it.
        name = f"{claim.chunk:07d}-{claim.attempt}"
        self._files.write_part(claim.id, name, scored.data)
        if scored.errors:
            self._files.write_part(claim.id, f"{name}.errors", scored.errors)
        return LedgerEntry(
            name, len(scored.data), scored.succeeded, scored.failed, f"{name}.errors" if scored.errors else ""
        )


class _WatchedPredictor:
    """Remembers the rows that it scores, and their answers."""

    def __init__(self, predict: Callable[[Values], Outcome]) -> None:
        self._predict = predict
        self.seen: Scored | None = None

    def __call__(self, values: Values) -> Outcome:
        outcome = self._predict(values)
        self.seen = Scored(values, outcome)
        return outcome


def _fail_rows(values: Values, code: str, detail: str) -> Outcome:
    error = RowError(code, detail)
    return Outcome(np.zeros(len(values)), errors=dict.fromkeys(range(len(values)), error), calls=0)


def _describe_stop(job: Job, scored: ScoredChunk) -> bytes:
    """Return the problem of a job that stops because too many of its rows have failed; empty if it never does."""
    limit = job.document.max_failed_rows
    if limit is None or not scored.errors:
        return b""
    fault = msgspec.json.decode(scored.errors.partition(b"\n")[0])
    why = (
        "on_row_error=fail" if limit == 0 else f"more than {limit} of {job.rows} rows failed, as error_threshold has it"
    )
    code = fault["code"] if fault["code"] in ("model_error", "worker_lost") else "schema_mismatch"
    return msgspec.json.encode(
        {
            "code": code,
            "detail": f"{fault['detail']}. The job stopped here ({why}); /errors lists what was found.",
            "errors": [{"column": fault["column"], "code": fault["code"], "detail": fault["detail"]}],
        }
    )


def _count_faults(scored: ScoredChunk) -> Counter[tuple[str | None, str]]:
    """Count the rows that failed, by column and code."""
    faults = map(msgspec.json.decode, scored.errors.splitlines())
    return Counter((fault["column"], fault["code"]) for fault in faults)
