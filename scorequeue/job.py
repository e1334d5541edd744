"""A job, as a caller sees it: how far it is, the wait for it, its result.

It knows nothing of how a job is submitted.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any
from urllib.parse import quote

from scorequeue import transfer
from scorequeue.errors import JobFailed, JobTimeout, RequestRefused, ServiceUnreachable, WrongUse
from scorequeue.transfer import OnProgress, Progress
from scorequeue.transport import Headers, Transport, read_json, read_retry_after

#: A job with one of these statuses is done; its status never changes again.
TERMINAL_STATUSES = frozenset({"succeeded", "partially_succeeded", "failed", "canceled", "expired"})
#: The terminal statuses with which there is a result.
RESULT_STATUSES = frozenset({"succeeded", "partially_succeeded"})

#: Seconds that one request asks the service to wait: short enough for the proxies in between.
_WAIT_SECONDS = 20.0
#: Seconds for which a waiting caller puts up with a service that is away.
_OUTAGE_SECONDS = 30.0
#: Seconds between two looks at a job when the service did not wait.
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.02, 1.0


class Job:
    """A job, as it was when last looked at: `refresh` and `wait` look again.

    Attributes
    ----------
    id : str
    record : dict
        Everything that the service last said about it.
    """

    def __init__(self, transport: Transport, record: Mapping[str, Any]) -> None:
        self.id: str = record["id"]
        self.record = dict(record)
        self._transport = transport

    @property
    def status(self) -> str:
        """``queued``, ``running`` or one of `TERMINAL_STATUSES`."""
        return str(self.record.get("status", "queued"))

    @property
    def done(self) -> bool:
        """Whether the status is final."""
        return self.status in TERMINAL_STATUSES

    @property
    def kind(self) -> str:
        """``rows`` or ``file``."""
        return str(self.record.get("kind", "rows"))

    @property
    def model(self) -> str:
        """The model with the version that was fixed at submission."""
        return str(self.record.get("model", ""))

    @property
    def row_counts(self) -> dict[str, int]:
        """Rows by outcome: ``total, succeeded, failed, pending``."""
        return dict(self.record.get("row_counts") or {})

    def refresh(self) -> Job:
        """Look at the job again."""
        self.record = self._transport.fetch_json(job_path(self.id))
        return self

    def wait(self, timeout: float = 60.0, *, on_progress: OnProgress | None = None) -> Job:
        """Wait until the job is done, whether it succeeded or not.

        Parameters
        ----------
        timeout : float
            Seconds to wait at most.
        on_progress : callable, optional
            Called with a `Progress` in rows, whenever the job was looked at.

        Raises
        ------
        JobTimeout
            The job was not done in time; it goes on.
        ServiceUnreachable
            The service was away for half a minute, or until the time was over.
        """
        end = time.monotonic() + timeout
        pause = _FIRST_PAUSE_SECONDS
        # With somebody watching, ask again soon: an answer that waits for the end shows no progress.
        longest = 1.0 if on_progress else _WAIT_SECONDS
        while not self.done:
            asked_at = time.monotonic()
            if asked_at >= end:
                raise JobTimeout(self, timeout)
            wait = min(longest, end - asked_at)
            retry_after = self._look_patiently(wait, end)
            if on_progress:
                on_progress(self._progress())
            # A service whose waiting places are taken answers at once: then the waiting is ours.
            if not self.done and time.monotonic() - asked_at < wait / 2:
                time.sleep(min(retry_after if retry_after is not None else pause, max(0.0, end - time.monotonic())))
                pause = min(pause * 2, _LAST_PAUSE_SECONDS)
        return self

    def result(self) -> dict[str, Any]:
        """Fetch the result of a rows job.

        Returns
        -------
        dict
            ``predictions`` and, from a classifier, ``probabilities`` and ``classes``, one entry a row (None
            where it failed); ``errors`` with row, code and detail; and the evidence: ``model``,
            ``model_sha256``, ``micro_batch_rows``, ``queue_seconds``, ``predict_seconds``.

        Raises
        ------
        JobFailed
            The job has no result; the reason is in the error.
        RequestRefused
            The job is not finished (409).
        WrongUse
            It is a file job.
        """
        if self.kind == "file":
            raise WrongUse(f"the result of job {self.id} is a file: fetch it with download(path)")
        if self.done:
            self._check_result()
        if isinstance(self.record.get("result"), dict):
            return dict(self.record["result"])
        answer: dict[str, Any] = self._transport.fetch_json(job_path(self.id) + "/result")
        return answer

    def download(self, path: str | PathLike[str], *, on_progress: OnProgress | None = None) -> None:
        """Fetch the result of a file job into `path`, which is written whole or not at all.

        A download that broke, now or in an earlier run, goes on where it stopped.

        Parameters
        ----------
        path : path
            Written as a whole: as CSV, or in the format that its name says (``.parquet``, ``.ndjson``, ``.jsonl``).
        on_progress : callable, optional
            Called with a `Progress` in bytes.

        Raises
        ------
        JobFailed, RequestRefused
            As for `result`.
        ServiceUnreachable
            The connection broke again and again; the part that came is kept for the next try.
        """
        if not self.done:
            self.refresh()
        if not self.done:
            problem = {"code": "job_not_finished", "detail": f"job {self.id} is {self.status}; wait for it first"}
            raise RequestRefused.from_problem(409, problem, None)
        self._check_result()
        transfer.download_file(self._transport, job_path(self.id) + "/result", path, self.id, on_progress)

    def errors(self) -> Iterator[dict[str, Any]]:
        """Iterate over the failed rows: row, line, column, code, detail."""
        return transfer.stream_records(self._transport, job_path(self.id) + "/errors")

    def cancel(self) -> Job:
        """Cancel the job; a file job stops when its running chunks have.

        Raises
        ------
        RequestRefused
            The job is done already (409).
        """
        response = self._transport.request("POST", job_path(self.id) + "/cancel")
        if response.data:
            self.record.update(read_json(response))
            return self
        return self.refresh()

    def retry(
        self,
        source: str | PathLike[str] | None = None,
        *,
        model: str = "",
        on_progress: OnProgress | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Make a new job of what this one left undone: its failed and unscored rows, or the whole dead letter.

        Parameters
        ----------
        source : path, optional
            A corrected file, with the same header and as many rows; by default the first file again.
        model : str
            Another version to score with; by default that of this job.
        on_progress : callable, optional
            Called with a `Progress` as the corrected file goes up.
        idempotency_key : str, optional
            As for `Client.submit`.

        Returns
        -------
        Job
            The new job; the result of a file is the merged whole.

        Raises
        ------
        RequestRefused
            The job has not ended, nothing of it failed, or the file does not fit.
        """
        path, headers = job_path(self.id) + "/retry", idempotency_headers(idempotency_key)
        if source is not None:
            query = {"model": model} if model else {}
            response = transfer.upload_file(self._transport, path, source, query, headers, on_progress)
        elif model:
            body, headers = json.dumps({"model": model}).encode(), {**headers, "Content-Type": "application/json"}
            response = self._transport.request("POST", path, headers=headers, body=body)
        else:
            response = self._transport.request("POST", path, headers=headers)
        return Job(self._transport, read_json(response))

    def delete(self) -> None:
        """Remove the job with its input and its result."""
        self._transport.request("DELETE", job_path(self.id))

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.status}>"

    def _look_patiently(self, wait: float, end: float) -> float | None:
        """Look at the job, also when the service is away for a moment: a restart does not harm a job."""
        give_up_at = None
        while True:
            try:
                return self._look(wait)
            except (ServiceUnreachable, RequestRefused) as error:
                if isinstance(error, RequestRefused) and error.status != 503:
                    raise
                # From the first failure on: what was waited before was the service's own waiting.
                now = time.monotonic()
                give_up_at = min(end, now + _OUTAGE_SECONDS) if give_up_at is None else give_up_at
                if now >= give_up_at:
                    raise
            time.sleep(_LAST_PAUSE_SECONDS)

    def _look(self, wait: float) -> float | None:
        response = self._transport.request("GET", job_path(self.id), headers=wait_headers(wait), wait=wait)
        self.record = read_json(response)
        return read_retry_after(response)

    def _progress(self) -> Progress:
        counts = self.row_counts
        finished = (counts.get("succeeded") or 0) + (counts.get("failed") or 0)
        return Progress(
            "score",
            finished,
            counts.get("total") or 0,
            "rows",
            counts.get("failed") or 0,
            self.record.get("rows_per_second"),
            self.record.get("eta_seconds"),
        )

    def _check_result(self) -> None:
        if self.status not in RESULT_STATUSES:
            raise JobFailed(self, self.record.get("error") or {"code": self.status})


def job_path(job_id: str) -> str:
    """Return where the service has the job."""
    return f"/v1/jobs/{quote(job_id, safe='')}"


def wait_headers(wait: float) -> Headers:
    """Ask the service to answer only when the job is done, or after `wait` seconds."""
    # Whole seconds, as RFC 7240 has them; under one second it is not worth asking.
    return {"Prefer": f"wait={int(wait)}"} if wait >= 1 else {}


def idempotency_headers(key: str | None) -> Headers:
    """Ask that a repetition under the same key, by default a new one, makes no second job."""
    # A structured string, in quotes, as the draft has it.
    return {"Idempotency-Key": f'"{key or uuid.uuid4()}"'}
