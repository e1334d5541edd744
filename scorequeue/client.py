"""The client of one service.

It owns what the service's addresses are and what its answers mean; `transport` owns how a request is made,
and `transfer` how a large file goes back and forth.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote, urljoin, urlsplit

from scorequeue import transfer
from scorequeue.aliases import find_version, promote_alias
from scorequeue.errors import ServiceUnreachable, WrongUse
from scorequeue.job import Job, idempotency_headers, job_path, wait_headers
from scorequeue.payloads import encode_submission
from scorequeue.transfer import OnProgress
from scorequeue.transport import Headers, Response, Transport, read_json

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_URL = "http://127.0.0.1:8000"
_DAY_SECONDS = 24 * 3600.0
#: Seconds that the service may take to look through a file in a bucket.
_PLAN_SECONDS = 1800.0

Priority = Literal["high", "normal", "low"]


class Client:
    """Talks to one service; safe to share between threads.

    Parameters
    ----------
    url : str, optional
        Address of the service; by default ``SCOREQUEUE_URL``, or this machine.
    api_key : str, optional
        Key to show; by default ``SCOREQUEUE_API_KEY``, or none.
    timeout : float
        Seconds that the service may stay silent before `ServiceUnreachable` is raised.
    patience : float
        Seconds for which a request is repeated that was turned away for now (429, 503) or not connected.
    connections : int
        Connections that are kept open: as many as threads that use the client at once.

    Examples
    --------
    >>> client = Client("http://127.0.0.1:8000")  # doctest: +SKIP
    >>> client.submit([[1.0, 2.0]], model="churn").wait(timeout=30).result()["predictions"]  # doctest: +SKIP
    [1]
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        patience: float = 30.0,
        connections: int = 8,
    ) -> None:
        url = url or os.environ.get("SCOREQUEUE_URL") or DEFAULT_URL
        api_key = api_key or os.environ.get("SCOREQUEUE_API_KEY") or None
        self.transport = Transport(url, api_key, timeout=timeout, patience=patience, connections=connections)

    def submit(
        self,
        rows: Any,
        model: str,
        *,
        wait: float = 0.0,
        priority: Priority | None = None,
        deadline_seconds: float | None = None,
        retention_seconds: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """Submit rows to be scored.

        Parameters
        ----------
        rows : sequence of rows, ndarray of shape (n_rows, n_columns), or DataFrame
            At most 10,000 rows, each a sequence in the order of the model's columns or a mapping by column
            name. NaN is a missing value.
        model : str
            ``name``, ``name@alias`` or ``name:version``.
        wait : float
            Seconds to wait for the job in the same request.
        priority : {'high', 'normal', 'low'}, optional
        deadline_seconds : float, optional
            Time after which a job that still waits is given up.
        retention_seconds : float, optional
            Time for which the finished job is kept.
        metadata : mapping, optional
            Kept with the job.
        idempotency_key : str, optional
            A submission with the same key is taken once; a fresh one by default.
        **options
            Other members of the submission, as the service's documentation names them.

        Returns
        -------
        Job

        Raises
        ------
        RequestRefused
            The rows do not fit the model (422, every fault with its row and column), or the model is unknown.
        OutcomeUnknown
            The connection broke; the service may have taken the job.
        WrongUse
            A value has no form in JSON.
        """
        options |= {
            "priority": priority,
            "deadline_seconds": deadline_seconds,
            "retention_seconds": retention_seconds,
            "metadata": metadata,
        }
        headers = {"Content-Type": "application/json", **idempotency_headers(idempotency_key)}
        if wait > 0:
            headers |= wait_headers(wait)
        body = encode_submission(model, rows, options)
        response = self.transport.request("POST", "/v1/jobs", headers=headers, body=body, wait=wait)
        return self._read_submission(response)

    def submit_file(
        self,
        path: str | PathLike[str],
        model: str,
        *,
        on_progress: OnProgress | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """Upload a file to be scored, streamed from the disk; or name one that is in a bucket.

        Parameters
        ----------
        path : path
            CSV, Parquet or JSON lines (``.ndjson``, ``.jsonl``), also compressed: ``.csv.gz``, ``.csv.zst``. What it
            is, is told from its name. ``s3://bucket/name`` names a file that the service reads itself, where it
            allows that.
        model : str
            ``name``, ``name@alias`` or ``name:version``.
        on_progress : callable, optional
            Called with a `Progress` in bytes.
        idempotency_key : str, optional
            As for `submit`.
        **options
            ``priority``, ``deadline_seconds``, ``on_row_error``, ``column_prefix`` … as the service has them.

        Raises
        ------
        WrongUse
            `path` is not a file.
        RequestRefused, OutcomeUnknown
            As for `submit`.
        """
        headers = idempotency_headers(idempotency_key)
        query = {"model": model, **options}
        if is_address(path):
            return self._read_submission(self._name_input(path, query, headers))
        return self._read_submission(
            transfer.upload_file(self.transport, "/v1/jobs", path, query, headers, on_progress)
        )

    def preview_file(self, path: str | PathLike[str], model: str, **options: Any) -> dict[str, Any]:
        """Score the first rows of a file and compare its columns with the model's, without making a job.

        Parameters
        ----------
        path, model, **options
            As for `submit_file`. No more than the beginning of the file is sent, unless it is Parquet.

        Returns
        -------
        dict
            ``preview``: a dict for each of the first rows, with what scoring adds (None if columns are missing);
            ``differences``: ``column``, ``code`` and ``detail`` of what is missing, double, unused, or faulty in
            these rows; ``model``; ``rows_per_second`` of earlier files.

        Raises
        ------
        WrongUse, RequestRefused, ServiceUnreachable
            As for `submit_file`.
        """
        query = {"model": model, **options, "dry_run": "true"}
        if is_address(path):
            return dict(read_json(self._name_input(path, query | {"dry_run": True}, {})))
        response = transfer.upload_file(self.transport, "/v1/jobs", path, query, {}, head_only=True)
        return dict(read_json(response))

    def job(self, job_id: str) -> Job:
        """Look up a job.

        Raises
        ------
        RequestRefused
            404 if there never was one of yours by that id, 410 if it is past its retention.
        """
        return Job(self.transport, self.transport.fetch_json(job_path(job_id)))

    def jobs(
        self,
        *,
        status: str | None = None,
        model: str | None = None,
        kind: Literal["rows", "file"] | None = None,
        page_size: int | None = None,
    ) -> Iterator[Job]:
        """Iterate over your jobs, newest first; the next page is asked for when it is needed."""
        path: str | None = "/v1/jobs"
        query: dict[str, Any] | None = {"status": status, "model": model, "kind": kind, "limit": page_size}
        while path:
            response = self.transport.request("GET", path, query=query)
            for record in _read_list(read_json(response), "jobs"):
                yield Job(self.transport, record)
            path, query = _next_page(response), None

    def dead_letters(self) -> list[dict[str, Any]]:
        """List your jobs that were given up, newest first, each with its ``error``."""
        return _read_list(self.transport.fetch_json("/v1/dead-letters"), "dead_letters")

    def webhook_deliveries(self, *, status: str | None = None, most: int = 20) -> list[dict[str, Any]]:
        """List the newest of your webhook deliveries: to where, of which job, what came of it."""
        query = {"status": status, "limit": min(most, 200)}
        return _read_list(self.transport.fetch_json("/v1/webhook-deliveries", query=query), "deliveries")

    def replay_webhook(self, delivery_id: str) -> None:
        """Deliver a webhook again."""
        self.transport.request("POST", f"/v1/webhook-deliveries/{quote(delivery_id, safe='')}/replay")

    def caller(self) -> dict[str, Any]:
        """Return who this client is to the service: tenant, id of the key, scopes."""
        answer: dict[str, Any] = self.transport.fetch_json("/v1/caller")
        return answer

    def readiness(self) -> dict[str, Any]:
        """Return whether the service takes jobs, and its workers by what they take.

        Raises
        ------
        RequestRefused
            It takes none now (503).
        """
        answer: dict[str, Any] = self.transport.fetch_json("/ready")
        return answer

    def queues(self) -> list[dict[str, Any]]:
        """List the queues: rows waiting, age of the oldest, workers, whether paused."""
        return _read_list(self.transport.fetch_json("/v1/queues"), "queues")

    def pause_queue(self, model: str) -> None:
        """Stop the scoring of a model's jobs; they are still taken, and wait."""
        self.transport.request("POST", f"/v1/queues/{quote(model, safe='')}/pause")

    def resume_queue(self, model: str) -> None:
        """Let the jobs of a paused model be scored again."""
        self.transport.request("POST", f"/v1/queues/{quote(model, safe='')}/resume")

    def models(self) -> list[dict[str, Any]]:
        """List the models that the service knows."""
        return _read_list(self.transport.fetch_json("/v1/models"), "models")

    def model(self, name: str) -> dict[str, Any]:
        """Describe a model: its versions and aliases."""
        answer: dict[str, Any] = self.transport.fetch_json(f"/v1/models/{quote(name, safe='')}")
        return answer

    def model_quality(self, name: str) -> dict[str, Any]:
        """Describe what the rows of each version of a model were like, and how its scores have shifted."""
        answer: dict[str, Any] = self.transport.fetch_json(f"/v1/models/{quote(name, safe='')}/quality")
        return answer

    def model_version(self, reference: str) -> dict[str, Any]:
        """Describe the version that a reference means now: signature, SHA-256, metrics from training.

        Parameters
        ----------
        reference : str
            ``name`` (its champion), ``name@alias`` or ``name:version``.

        Raises
        ------
        RequestRefused
            There is no such model or version.
        WrongUse
            The model has no such alias.
        """
        name, _, version = reference.partition(":")
        if not version:
            name, _, alias = reference.partition("@")
            version = self._resolve_alias(name, alias or "champion")
        path = f"/v1/models/{quote(name, safe='')}/versions/{quote(version, safe='')}"
        answer: dict[str, Any] = self.transport.fetch_json(path)
        return answer

    def promote(
        self,
        name: str,
        versions: int | Mapping[int, float],
        *,
        alias: str = "champion",
        shadow: int | None = None,
        timeout: float = 300.0,
    ) -> dict[str, Any]:
        """Point an alias at a version, once every worker has it warm and its golden sample is right.

        Parameters
        ----------
        name : str
        versions : int, or mapping of int to float
            Several get a share each of the submissions; the shares add up to 1.
        alias : str
        shadow : int, optional
            A version that scores the same rows unseen; only how many answers differ is counted.
        timeout : float
            Seconds that the workers may take to load it.

        Returns
        -------
        dict
            The model, and ``checked_by``: how many processes checked it.

        Raises
        ------
        RequestRefused
            A version failed its check, or nobody could check it: the alias is as it was.
        """
        return promote_alias(self.transport, name, versions, alias=alias, shadow=shadow, timeout=timeout)

    def score(self, frame: pd.DataFrame, model: str, *, timeout: float = _DAY_SECONDS, **options: Any) -> pd.DataFrame:
        """Score a frame; needs pandas.

        Parameters
        ----------
        frame : DataFrame, shape (n_rows, n_columns)
            With the model's columns among its own; NaN is a missing value.
        model : str
            ``name``, ``name@alias`` or ``name:version``.
        timeout : float
            Seconds to wait for the scores.
        **options
            As for `submit_file`.

        Returns
        -------
        DataFrame, shape (n_rows, n_columns + the new ones)
            A copy with ``prediction``, ``probability_<class>``, ``error_code`` and ``error_message``, in the
            same order and with the same index. A row that was not scored has its error and no prediction.

        Raises
        ------
        WrongUse
            The frame lacks a column of the model, or has one by the name of a new one.
        JobFailed, JobTimeout, RequestRefused, ServiceUnreachable
            As for `score_file`.
        """
        try:
            from scorequeue.frames import score_frame
        except ModuleNotFoundError as error:
            raise ImportError("Client.score needs pandas: pip install pandas") from error
        return score_frame(self, frame, model, timeout=timeout, **options)

    def score_file(
        self,
        source: str | PathLike[str],
        target: str | PathLike[str],
        model: str,
        on_progress: OnProgress | None = None,
        *,
        timeout: float = _DAY_SECONDS,
        **options: Any,
    ) -> Job:
        """Score a file of any size, without holding it in memory: upload it, wait, and download.

        Parameters
        ----------
        source : path
            As for `submit_file`.
        target : path
            Written at the end, at once, as a whole: as CSV, or in the format that its name says.
        model : str
            ``name``, ``name@alias`` or ``name:version``.
        on_progress : callable, optional
            Called with a `Progress` as bytes go up, rows are scored and bytes come down.
        timeout : float
            Seconds that the scoring may take, with the time in the queue.
        **options
            As for `submit_file`.

        Returns
        -------
        Job
            Finished. ``partially_succeeded`` says that rows failed: their errors are in the file.

        Raises
        ------
        WrongUse
            `source` cannot be read, `target` cannot be written, or they are one file.
        JobFailed, JobTimeout, RequestRefused, ServiceUnreachable
            Nothing is left at `target`.
        """
        transfer.check_paths(source, target)
        job = self.submit_file(source, model, on_progress=on_progress, **options)
        job.wait(timeout, on_progress=on_progress)
        job.download(target, on_progress=on_progress)
        return job

    def fetch_metrics(self) -> str:
        """Return the service's own figures, in the text form of Prometheus."""
        return self.transport.request("GET", "/metrics", headers={"Accept": "text/plain"}).data.decode()

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _resolve_alias(self, name: str, alias: str) -> str:
        aliases = self.model(name).get("aliases") or {}
        if alias not in aliases:
            known = ", ".join(aliases) or "none"
            raise WrongUse(f"model {name} has no alias {alias}; it has {known}")
        return find_version(aliases[alias])

    def _name_input(self, address: str | PathLike[str], options: Mapping[str, Any], headers: Headers) -> Response:
        members = {name: value for name, value in options.items() if value is not None} | {"input": str(address)}
        headers = {**headers, "Content-Type": "application/json"}
        body = json.dumps(members).encode()
        # The service reads the whole file once before it answers.
        return self.transport.request("POST", "/v1/jobs", headers=headers, body=body, wait=_PLAN_SECONDS)

    def _read_submission(self, response: Response) -> Job:
        record = read_json(response)
        if not isinstance(record, dict) or "id" not in record:
            raise ServiceUnreachable(self.transport.url, "the answer names no job: is this the service's address?")
        return Job(self.transport, record)


def is_address(path: str | PathLike[str]) -> bool:
    """Tell whether a file is named by its address in a bucket."""
    return str(path).startswith("s3://")


def _read_list(answer: Any, name: str) -> list[dict[str, Any]]:
    listed = answer.get(name) if isinstance(answer, dict) else answer
    return [record for record in listed or () if isinstance(record, dict)]


def _next_page(response: Response) -> str | None:
    """Return path and query of the page that the ``Link`` header calls next."""
    for link in response.headers.get("Link", "").split(","):
        target, _, parameters = link.partition(";")
        if 'rel="next"' in parameters.replace(" ", "") or "rel=next" in parameters.replace(" ", ""):
            parts = urlsplit(urljoin("/v1/jobs", target.strip().strip("<>")))
            return parts.path + (f"?{parts.query}" if parts.query else "")
    return None
