"""Every metric: its name, labels and meaning, and how the processes of a host are put together.

Two sorts. What a process counts itself (HTTP requests, micro-batches) is summed over the processes of the host
through prometheus_client's multiprocess folder (``PROMETHEUS_MULTIPROC_DIR``). What Redis knows (queues, jobs) is
read at the scrape and is the same in every API process: aggregate it with ``max``, never with ``sum``.
Labels come from the registry and from fixed lists, never from a request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import redis
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY

from shared.fleet import Fleet
from shared.jobs import STREAMS, Status, parse_queue
from shared.quality_counts import QualityCounts
from shared.quality_metrics import collect_quality
from shared.registry import Registry
from shared.store import JobStore, QueueState
from shared.wakeups import CELERY_QUEUES
from shared.webhooks import DeliveryStore

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_SIZES = tuple(2**power for power in range(17))
_MODEL = ("model", "version")

HTTP_REQUESTS = Counter("scorequeue_http_requests", "Answers given, by route.", ("method", "route", "code"))
HTTP_SECONDS = Histogram(
    "scorequeue_http_request_duration_seconds",
    "Time from a request's arrival to its answer.",
    ("method", "route", "code"),
    buckets=_WAITS,
)
REJECTED = Counter("scorequeue_rejected_requests", "Requests refused, by problem code.", ("reason",))

QUEUE_SECONDS = Histogram(
    "scorequeue_job_queue_seconds",
    "From submission to the claim that scored the job.",
    _MODEL,
    buckets=_WAITS,
)
JOB_SECONDS = Histogram(
    "scorequeue_job_duration_seconds",
    "From submission to the stored result of a rows job.",
    _MODEL,
    buckets=_WAITS,
)
BATCH_ROWS = Histogram("scorequeue_micro_batch_rows", "Rows of a micro-batch.", _MODEL, buckets=_SIZES)
BATCH_JOBS = Histogram("scorequeue_micro_batch_jobs", "Jobs of a micro-batch.", _MODEL, buckets=_SIZES)
BATCHES = Counter(
    "scorequeue_micro_batches",
    "Model calls for rows jobs, by why the batch was not larger: full, drained (nothing more waited) or trial.",
    (*_MODEL, "reason"),
)
PREDICT_SECONDS = Histogram(
    "scorequeue_predict_seconds",
    "Stages of scoring a micro-batch or a chunk: claim, decode, predict, encode, commit.",
    (*_MODEL, "stage"),
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ROWS = Counter("scorequeue_rows", "Rows scored, by outcome and row code.", (*_MODEL, "outcome", "code"))
BISECTIONS = Counter("scorequeue_bisections", "Model calls that raised and were halved.", _MODEL)
STALE_COMMITS = Counter("scorequeue_refused_commits", "Results refused: the claim was no longer held.", _MODEL)
LOAD_SECONDS = Histogram(
    "scorequeue_model_load_seconds",
    "Reading, checking, loading and warming a model in one process.",
    _MODEL,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)


SHADOW_ROWS = Counter(
    "scorequeue_shadow_rows",
    "Rows that a shadow met, by outcome: agreed, disagreed, failed (in either), skipped (no time, or it is not warm).",
    (*_MODEL, "shadow", "outcome"),
)
SHADOW_DIFFERENCE = Histogram(
    "scorequeue_shadow_difference",
    "Mean difference of a shadow's answers in a micro-batch: of probabilities, or relative of numbers.",
    (*_MODEL, "shadow"),
    buckets=(0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
)
EVICTIONS = Counter(
    "scorequeue_model_evictions",
    "Models that a process let go: for want of memory, or long unused and without an alias.",
    _MODEL,
)


def render_metrics(redis_side: Callable[[], Iterable[Metric]] | None = None) -> bytes:
    """Render all metrics of this host in Prometheus's text format.

    Parameters
    ----------
    redis_side : callable, optional
        Collects what Redis knows; only the API's processes serve it.
    """
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        text = generate_latest(registry)
    else:
        text = generate_latest(REGISTRY)
    if redis_side is not None:
        side = CollectorRegistry()
        side.register(_Side(redis_side))
        text += generate_latest(side)
    return text


class _Side:
    """A collector in prometheus_client's sense around a function."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect


def collect_queues(store: JobStore, models: Registry) -> list[Metric]:
    """Read from Redis what every API process reports alike; when Redis is away, only that it is."""
    up = GaugeMetricFamily("scorequeue_redis_up", "Whether Redis answered this scrape.")
    info = GaugeMetricFamily(
        "scorequeue_model_info", "Registered model versions.", labels=[*_MODEL, "sha256", "format"]
    )
    for manifest in models.all_versions():
        info.add_metric([manifest.name, str(manifest.version), manifest.sha256, manifest.format], 1)
    try:
        states = [store.read_queue(queue) for queue in store.list_queues()]
        workers = store.list_workers()
        ages = store.read_heartbeat_ages()
        told = DeliveryStore(store.client).read_counts()
        quality = collect_quality(QualityCounts(store.client), models.all_versions())
    except redis.RedisError:
        up.add_metric([], 0)
        return [up, info]
    up.add_metric([], 1)
    return [
        up,
        info,
        *_describe_queues(_with_empty(states, models)),
        *_describe_workers(workers, ages),
        _describe_webhooks(told),
        *_describe_readiness(models, Fleet(workers.values())),
        *quality,
    ]


def _with_empty(states: list[QueueState], models: Registry) -> list[QueueState]:
    """Add the queues that were never used: an alert needs a 0, not an absence."""
    known = {state.queue for state in states}
    for name in models.names():
        for version in models.versions(name):
            for kind in CELERY_QUEUES:
                queue = f"{kind}:{name}:{version}"
                if queue not in known:
                    states.append(QueueState(queue, {}, dict.fromkeys(STREAMS, 0)))
    return states


def _describe_queues(states: list[QueueState]) -> list[Metric]:
    labels = ["kind", *_MODEL]
    depth = GaugeMetricFamily("scorequeue_queue_depth", "Jobs or chunks that wait.", labels=[*labels, "priority"])
    rows = GaugeMetricFamily("scorequeue_queue_rows", "Rows that wait.", labels=[*labels, "priority"])
    age = GaugeMetricFamily(
        "scorequeue_queue_oldest_age_seconds", "Age of what waits longest.", labels=[*labels, "priority"]
    )
    outstanding = GaugeMetricFamily(
        "scorequeue_outstanding_rows", "Rows that wait or are being scored: scale by this.", labels=labels
    )
    submitted = CounterMetricFamily("scorequeue_jobs_submitted", "Jobs accepted.", labels=labels)
    finished = CounterMetricFamily("scorequeue_jobs_finished", "Jobs ended.", labels=[*labels, "status"])
    redelivered = CounterMetricFamily(
        "scorequeue_redeliveries", "Claims taken back from lost processes.", labels=labels
    )
    dead = CounterMetricFamily("scorequeue_dead_letters", "Jobs given up after three strikes.", labels=labels)
    strikes = CounterMetricFamily("scorequeue_strikes", "Attempts, alone, that ended their process.", labels=labels)
    for state in states:
        kind, model, version = parse_queue(state.queue)
        values = [kind, model, str(version)]
        for name in STREAMS:
            depth.add_metric([*values, name], state.count(f"units:{name}"))
            rows.add_metric([*values, name], state.count(f"rows:{name}"))
            age.add_metric([*values, name], state.ages_ms.get(name, 0) / 1000)
        outstanding.add_metric(values, state.outstanding_rows)
        submitted.add_metric(values, state.count("submitted"))
        for status in Status:
            if status.is_terminal:
                finished.add_metric([*values, status.value], state.count(f"finished:{status.value}"))
        redelivered.add_metric(values, state.count("redelivered"))
        dead.add_metric(values, state.count("dead_letters"))
        strikes.add_metric(values, state.count("strikes"))
    return [depth, rows, age, outstanding, submitted, finished, redelivered, dead, strikes]


def _describe_workers(workers: dict[str, dict[str, object]], ages: dict[str, float]) -> list[Metric]:
    count = GaugeMetricFamily("scorequeue_workers", "Warmed worker processes.", labels=["queue"])
    age = GaugeMetricFamily(
        "scorequeue_worker_heartbeat_age_seconds", "Age of the oldest live heartbeat.", labels=["queue"]
    )
    for queue in CELERY_QUEUES:
        owners = [owner for owner, says in workers.items() if queue in _list(says.get("queues"))]
        count.add_metric([queue], len(owners))
        age.add_metric([queue], max((ages.get(owner, 0.0) for owner in owners), default=0.0))
    return [count, age]


def _describe_readiness(models: Registry, fleet: Fleet) -> list[Metric]:
    ready = GaugeMetricFamily(
        "scorequeue_model_ready", "1, or 0 if no worker can load the version.", labels=list(_MODEL)
    )
    warm = GaugeMetricFamily("scorequeue_model_warm_processes", "Worker processes that have it.", labels=list(_MODEL))
    broken = {tuple(fault.file.split("/")[:2]) for fault in models.faults()}
    for name in models.names():
        for version in map(str, models.versions(name)):
            reference = f"{name}:{version}"
            is_ready = (name, version) not in broken and fleet.find_fault(reference) is None
            ready.add_metric([name, version], int(is_ready))
            warm.add_metric([name, version], fleet.warm[reference])
    return [ready, warm]


def _describe_webhooks(counts: dict[str, int]) -> Metric:
    told = CounterMetricFamily(
        "scorequeue_webhook_deliveries",
        "Webhooks, by outcome: delivered, retried (an attempt failed, and there will be another), failed (given up), "
        "dropped (too many waited).",
        labels=["outcome"],
    )
    for outcome, count in counts.items():
        told.add_metric([outcome], count)
    return told


def _list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
