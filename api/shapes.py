"""The shapes of JSON answers, for the OpenAPI document; the tests hold every answer they get against them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from api.tensors import Datatype, OutputTensor
from shared.jobs import Event, Status
from shared.signature import Signature

Time = Annotated[str, Meta(description="RFC 3339, in UTC.", extra_json_schema={"format": "date-time"})]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
JobId = Annotated[
    str, Meta(pattern="^job_[0-9A-HJKMNP-TV-Z]{34}$", examples=["job_01KB5Z3VJ8T7Q2M4D9XW6R1C0PFNAE4T00"])
]
Exact = Annotated[str, Meta(description="`name:version`.", examples=["churn:3"])]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Fault(TypedDict):
    """One of several faults: where it is and what was expected."""

    detail: str
    pointer: NotRequired[str]
    column: NotRequired[str | None]
    code: NotRequired[str]
    row: NotRequired[int]
    line: NotRequired[int | None]


class Problem(TypedDict):
    """A problem document (RFC 9457)."""

    type: Annotated[str, Meta(pattern="^urn:scorequeue:problem:[a-z-]+$")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    instance: str
    code: Annotated[str, Meta(pattern="^[a-z_]+$")]
    errors: NotRequired[list[Fault]]


class RowCounts(TypedDict):
    """Rows of a job; they always add up, and move while it runs."""

    total: Count
    succeeded: Count
    failed: Count
    pending: Count


class JobView(TypedDict):
    """A job."""

    id: JobId
    kind: Literal["rows", "file"]
    status: Status
    model: Exact
    model_sha256: Sha256
    priority: Literal["high", "normal", "low"]
    row_counts: RowCounts
    progress: Annotated[float, Meta(ge=0, le=1)]
    rows_per_second: float | None
    eta_seconds: float | None
    queue_position: Annotated[int, Meta(ge=0)] | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    gone_at: Annotated[Time, Meta(description="When the job is removed; null while it has not ended.")] | None
    attempts: Count
    retry_of: str | None
    error: Problem | None
    metadata: dict[str, Any] | None
    links: dict[str, str]


class Evidence(TypedDict):
    """What scored a result, and how."""

    model: Exact
    model_sha256: Sha256
    micro_batch_rows: Annotated[int, Meta(ge=1, description="Rows of the model call, those of other jobs among them.")]
    queue_seconds: Seconds
    predict_seconds: Seconds


class RowFault(TypedDict):
    """Why a row was not scored."""

    row: Count
    code: str
    detail: str


class RowsResult(Evidence):
    """The result of a rows job; a row that failed has null."""

    predictions: list[Any]
    errors: list[RowFault]
    outputs: NotRequired[Annotated[list[str], Meta(description="Names of the values of a prediction, if several.")]]
    classes: NotRequired[list[Any]]
    probabilities: NotRequired[list[Any]]


class EndedJob(JobView):
    """A job that ended while its caller waited, with its result; null if it has none."""

    result: RowsResult | None


class JobList(TypedDict):
    """A page of jobs, the newest first, and the cursor of the next page."""

    jobs: list[JobView]
    next: str | None


class Preview(TypedDict):
    """A dry run: the first rows scored, and how the file's columns differ from the model's."""

    model: Exact
    model_sha256: Sha256
    rows_per_second: float | None
    preview: list[dict[str, Any]] | None
    differences: list[Fault]


class DeadLetters(TypedDict):
    """Jobs that were given up, the newest first."""

    dead_letters: list[JobView]


class QueueView(TypedDict):
    """What waits for a model version."""

    kind: Literal["rows", "files"]
    model: Exact
    depth: Annotated[int, Meta(description="Jobs, or chunks of files, that wait.")]
    rows: int
    outstanding_rows: Annotated[int, Meta(description="Rows that wait or are being scored.")]
    depth_by_priority: dict[str, int]
    oldest_age_seconds: Seconds
    rows_per_second: float | None
    paused: bool
    workers: Annotated[int, Meta(ge=0, description="Processes that serve it.")]
    warm_workers: Annotated[int, Meta(ge=0, description="Those of them that have the model in memory.")]


class Queues(TypedDict):
    """Queues, and how many worker processes live."""

    queues: list[QueueView]
    workers: NotRequired[Count]


class AliasTarget(TypedDict):
    """What an alias means when that is more than one version."""

    versions: dict[str, float]
    shadow: NotRequired[int]


class VersionView(TypedDict):
    """A model version."""

    name: str
    version: Annotated[int, Meta(ge=1)]
    aliases: Annotated[list[str], Meta(description="Those of which it is a part, with a share or as their shadow.")]
    ready: Annotated[bool, Meta(description="False if a worker process could not load it and none has it warm.")]
    not_ready_reason: str | None
    warm_processes: Count
    golden_rows: NotRequired[Count]
    signature: NotRequired[Signature]
    sha256: NotRequired[Sha256]


class ModelView(TypedDict):
    """A model with its versions and aliases."""

    name: str
    aliases: dict[str, int | AliasTarget]
    versions: list[VersionView]


class MovedAlias(ModelView):
    """A model after a promotion."""

    checked_by: Annotated[int, Meta(description="Worker processes that loaded and checked the versions first.")]


class ModelList(TypedDict):
    """All models."""

    models: list[ModelView]


class TrainingColumn(TypedDict):
    """A column of the training sample."""

    name: str
    missing: Count


class ScoreBinsView(TypedDict):
    """How the scores of the training sample were distributed."""

    name: Annotated[str, Meta(description="As the column of a scored file.")]
    edges: Annotated[list[float], Meta(description="Bin i is above edge i - 1 and not above edge i.")]
    counts: list[Count]


class TrainingQuality(TypedDict):
    """The training sample."""

    rows: Count
    columns: list[TrainingColumn]
    scores: list[ScoreBinsView]


class CountedColumn(TypedDict):
    """Rows with an unusual value in a column; `refused` are those that did not reach the model, by code."""

    name: str
    missing: Count
    unseen: Count
    out_of_range: Count
    refused: dict[str, Count]


class CountedScore(TypedDict):
    """A distribution of scores."""

    name: str
    psi: Annotated[float | None, Meta(description="Population stability index against the training sample.")]
    psi_by_chance: Annotated[float | None, Meta(description="What so few rows would have without any shift.")]
    counts: list[Count]


class CountedQuality(TypedDict):
    """What was counted of a version."""

    rows: Count
    since: Time | None
    columns: list[CountedColumn]
    scores: list[CountedScore]


class VersionQuality(TypedDict):
    """The data quality of a version."""

    version: int
    training: TrainingQuality | None
    total: CountedQuality
    recent: CountedQuality


class ModelQuality(TypedDict):
    """The data quality of a model's versions."""

    name: str
    recent_since: Time
    versions: list[VersionQuality]


class Attempt(TypedDict):
    """One attempt to deliver a webhook."""

    at: Time
    seconds: Seconds
    status: int | None
    error: str | None


class DeliveryView(TypedDict):
    """What was told to a webhook, and what came of it."""

    id: str
    job_id: JobId
    event: Event
    url: str
    status: Literal["pending", "delivered", "failed"]
    attempts: Count
    created_at: Time
    next_attempt_at: Time | None
    finished_at: Time | None
    log: list[Attempt]
    links: dict[str, str]


class DeliveryList(TypedDict):
    """A page of deliveries, the newest first, and the cursor of the next page."""

    deliveries: list[DeliveryView]
    next: str | None


class WebhookData(TypedDict):
    """The ended job, thinly."""

    id: JobId
    status: Status
    kind: NotRequired[Literal["rows", "file"]]
    model: NotRequired[Exact]
    row_counts: NotRequired[RowCounts]
    created_at: NotRequired[Time | None]
    started_at: NotRequired[Time | None]
    finished_at: NotRequired[Time | None]
    gone_at: NotRequired[Time | None]
    error: NotRequired[dict[str, str] | None]
    metadata: NotRequired[dict[str, Any]]
    links: NotRequired[dict[str, str]]


class WebhookMessage(TypedDict):
    """What a webhook is sent (Standard Webhooks)."""

    type: Event
    timestamp: Time
    data: WebhookData


class CallerView(TypedDict):
    """Whose key was shown, and what it is for."""

    tenant: str
    key_id: Annotated[str | None, Meta(description="Null while no key is needed.")]
    scopes: list[str]


class Health(TypedDict):
    """The process lives."""

    status: Literal["alive"]


class Readiness(TypedDict):
    """Whether jobs can be taken."""

    status: Literal["ready", "not_ready"]
    redis: bool
    file_store: bool
    workers: Annotated[dict[str, int], Meta(description="Processes by what they take: `rows`, `files`.")]
    missing: NotRequired[list[str]]


class Prediction(TypedDict):
    """The answer to one row."""

    prediction: Any
    probability: list[float] | None
    processing_time: Seconds
    timestamp: Time


class IndexedPrediction(TypedDict):
    """The answer to one of several rows."""

    index: Count
    prediction: Any
    probability: list[float] | None
    error: NotRequired[str]


class Predictions(TypedDict):
    """The answers to several rows."""

    results: list[IndexedPrediction]
    total_count: Count
    timestamp: Time


class Live(TypedDict):
    """The process lives (Open Inference Protocol)."""

    live: Literal[True]


class Ready(TypedDict):
    """Whether requests can be taken (Open Inference Protocol)."""

    ready: bool
    error: NotRequired[str]


class InferenceServer(TypedDict):
    """The server (Open Inference Protocol)."""

    name: str
    version: str
    extensions: list[str]


class TensorKind(TypedDict):
    """What a model takes or answers: -1 is the number of rows."""

    name: str
    datatype: Datatype
    shape: list[Annotated[int, Meta(ge=-1)]]


class InferenceModel(TypedDict):
    """A model (Open Inference Protocol). All inputs may also be sent as one of shape ``[rows, columns]``."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorKind]
    outputs: list[TensorKind]


class ModelReady(TypedDict):
    """A model can be asked (Open Inference Protocol)."""

    name: str
    ready: Literal[True]


class InferenceAnswer(TypedDict):
    """The outputs of a model; its parameters say what scored them, and how."""

    model_name: str
    model_version: str
    id: NotRequired[str]
    outputs: list[OutputTensor]
    parameters: dict[str, Any]


class Invocations(TypedDict):
    """The answers to a frame, in the rows' order."""

    predictions: list[Any]
    errors: NotRequired[list[RowFault]]
