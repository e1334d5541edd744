"""The thread that sends webhooks: it takes what is due, and a few others call the receivers.

It runs in every API process. A delivery is taken with a lease, so one process at a time sends it, and one that was
taken by a process that died is sent by another. A tenant whose receivers are slow holds half of the callers at most.
"""

from __future__ import annotations

import contextlib
import http.client
import queue
import random
import threading
import time
from collections import Counter
from typing import Any

import msgspec
import redis

from api import outbound
from shared.jobs import Job, format_time
from shared.logs import get_logger
from shared.settings import Settings
from shared.store import JobStore
from shared.webhooks import RETRY_SECONDS, Attempt, Claimed, DeliveryStore, sign

_LOOK_SECONDS = 0.5
_CALLERS = 6
_CALLERS_OF_ONE = 3
#: Longer than an attempt can take (`outbound.post`), names included.
_LEASE_SECONDS = 90.0
_METADATA_MAX_BYTES = 16 * 1024
_RETRY_AFTER_MAX_SECONDS = 24 * 3600
_GONE = 410

logger = get_logger(__name__)


class WebhookSender:
    """Sends the deliveries that are due.

    Parameters
    ----------
    settings : Settings
    deliveries : DeliveryStore
    jobs : JobStore
    retry_seconds : tuple of float
        From a failed attempt to the next.

    Raises
    ------
    InvalidSettings
        The networks of the settings cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        deliveries: DeliveryStore,
        jobs: JobStore,
        retry_seconds: tuple[float, ...] = RETRY_SECONDS,
    ) -> None:
        self.networks = outbound.parse_networks(settings.webhook_networks)
        self._retention_seconds = settings.webhook_retention_seconds
        self._deliveries = deliveries
        self._jobs = jobs
        self._retry_seconds = retry_seconds
        self._claimed: queue.SimpleQueue[Claimed | None] = queue.SimpleQueue()
        self._busy: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._reachable = True

    def start(self) -> None:
        """Send in threads of its own, until `stop` or the end of the process."""
        for number in range(_CALLERS):
            threading.Thread(target=self._call_receivers, name=f"webhook-{number}", daemon=True).start()
        threading.Thread(target=self._run, name="webhooks", daemon=True).start()

    def stop(self) -> None:
        """End the threads; what they are about is sent again by others when its lease is over."""
        self._stop.set()
        for _ in range(_CALLERS):
            self._claimed.put(None)

    def send(self, claimed: Claimed) -> None:
        """Make one attempt and note its outcome."""
        began, at = time.monotonic(), time.time_ns() // 1_000_000
        body = claimed.body or self._make_body(claimed)
        headers = sign(self._deliveries.read_secret(claimed.tenant), claimed.id, at // 1000, body)
        headers |= {"Content-Type": "application/json", "User-Agent": "scorequeue-webhooks"}
        answer, error, hopeless = None, "", False
        try:
            answer = outbound.post(claimed.url, body, headers, self.networks)
        except outbound.Refused as refusal:
            error, hopeless = str(refusal), True
        except (OSError, http.client.HTTPException) as failure:
            error = _name_failure(failure)
        attempt = Attempt(at, round(time.monotonic() - began, 3), answer.status if answer else None, error)
        if answer is not None and 200 <= answer.status < 300:
            self._note(claimed, attempt, "delivered", body)
        elif hopeless or (answer and answer.status == _GONE) or claimed.try_number > len(self._retry_seconds):
            self._note(claimed, attempt, "failed", body)
        else:
            self._note(claimed, attempt, "pending", body, self._choose_wait(claimed, answer))

    def _note(self, claimed: Claimed, attempt: Attempt, status: Any, body: bytes, wait: float = 0.0) -> None:
        noted = self._deliveries.finish(
            claimed,
            attempt,
            status=status,
            body=body,
            wait_seconds=wait,
            retention_seconds=self._retention_seconds,
        )
        if status != "delivered":
            logger.warning(
                "webhook not delivered", delivery=claimed.id, job=claimed.job_id, tenant=claimed.tenant,
                answer=attempt.status, error=attempt.error, given_up=status == "failed", noted=noted,
            )  # fmt: skip

    def _choose_wait(self, claimed: Claimed, answer: outbound.Answer | None) -> float:
        """Return the seconds to the next attempt: spread, so that receivers that come back are not stormed."""
        wait = self._retry_seconds[claimed.try_number - 1] * random.uniform(0.9, 1.2)
        asked = answer.retry_after if answer else None
        if asked and asked.isdecimal() and len(asked) < 9:
            return max(wait, min(float(asked), _RETRY_AFTER_MAX_SECONDS))
        return wait

    def _make_body(self, claimed: Claimed) -> bytes:
        job = self._jobs.read_job(claimed.job_id, claimed.tenant)
        data = {"id": claimed.job_id, "status": claimed.event.removeprefix("job.")}
        if job is not None:
            data |= _describe(job)
        document = {"type": claimed.event, "timestamp": format_time(claimed.created), "data": data}
        return msgspec.json.encode(document)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                found = self._take()
                self._reachable = True
            except redis.RedisError as error:
                if self._reachable:  # once an outage
                    logger.warning("Redis does not answer; webhooks wait for it", error=str(error))
                self._reachable, found = False, False
            except Exception:  # the thread must outlive any fault, or nothing is sent any more
                logger.exception("webhooks could not be taken; it is tried again")
                found = False
            if not found:
                self._stop.wait(_LOOK_SECONDS)

    def _take(self) -> bool:
        """Take as many deliveries as there are callers at leisure; tell whether there were any."""
        with self._lock:
            free = _CALLERS - self._busy.total()
            shares = {tenant: held for tenant, held in self._busy.items() if held}
        if free <= 0:
            return False
        full = [tenant for tenant, held in shares.items() if held >= _CALLERS_OF_ONE]
        # Those that hold some may take one more each time, which keeps them within their share.
        most_of_one = 1 if shares else _CALLERS_OF_ONE
        taken = self._deliveries.claim(free, most_of_one=most_of_one, lease_seconds=_LEASE_SECONDS, passed_over=full)
        with self._lock:
            self._busy.update(claimed.tenant for claimed in taken)
        for claimed in taken:
            self._claimed.put(claimed)
        return bool(taken)

    def _call_receivers(self) -> None:
        while (claimed := self._claimed.get()) is not None:
            try:
                self.send(claimed)
            except redis.RedisError as error:
                logger.warning("a webhook's outcome could not be noted; it is sent again", error=str(error))
            except Exception:  # one delivery's fault must not end the thread; it is tried again after its lease
                logger.exception("a webhook could not be sent", delivery=claimed.id)
            finally:
                with self._lock:
                    self._busy[claimed.tenant] -= 1


def _describe(job: Job) -> dict[str, Any]:
    """Describe an ended job, thinly: who wants more asks for it."""
    document = job.describe(job.finished or job.created, None)
    problem = job.problem or {}
    names = (
        "id",
        "kind",
        "status",
        "model",
        "row_counts",
        "created_at",
        "started_at",
        "finished_at",
        "gone_at",
        "links",
    )
    described = {name: document[name] for name in names}
    described["error"] = {name: problem[name] for name in ("code", "detail") if name in problem} or None
    metadata = job.document.metadata
    if metadata is not None and len(msgspec.json.encode(metadata)) <= _METADATA_MAX_BYTES:
        described["metadata"] = metadata
    return described


def _name_failure(error: BaseException) -> str:
    """Put a failure into words that tell nothing of this machine."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        return "the connection was cut off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    with contextlib.suppress(AttributeError):
        return str(error.verify_message)  # type: ignore[attr-defined]
    return str(error) if type(error) is OSError else type(error).__name__
