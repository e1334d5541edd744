"""Webhooks: where the end of a job is told, what was tried for it, and with which secret it is signed.

A delivery is written down by the script that ends its job, so none is lost; it is sent by a thread of an API process
(`api.webhook_sender`). Keys in Redis, with ``sq:`` before them:

======================  ======  ==================================================================
``delivery:{id}``       hash    a delivery: t tenant, j job, u url, e event, s status, c created, d due, f finished,
                                a attempts, k those since it was begun or replayed, l log (JSON), b body as it is sent
``deliveries:{tenant}``  zset   ids in order of creation
``due:{tenant}``        zset    ids that wait, by the time of their next attempt
``webhooks``            set     tenants of which some wait
``webhook_counts``      hash    P  outcomes, for the metrics
``webhook_secrets``     hash    P  secrets by tenant
======================  ======  ==================================================================
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import redis

from shared import audit
from shared.jobs import format_time
from shared.scripts import Scripts

#: Seconds from a failed attempt to the next, as Standard Webhooks advises: three days in all.
RETRY_SECONDS = (5, 5 * 60, 30 * 60, *(hours * 3600 for hours in (2, 5, 10, 14, 20, 24)))
#: How long a secret that was replaced still signs, beside the new one.
OLD_SECRET_SECONDS = 24 * 3600

OUTCOMES = ("delivered", "retried", "failed", "dropped")

_SECRETS = "sq:webhook_secrets"
_PREFIX = "whsec_"
_SECRET_BYTES = 32
_FIELDS = ("t", "j", "u", "e", "s", "c", "d", "f", "a", "l")
_TRIMMED_AT_ONCE = 1000


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt to deliver: when (Unix ms), what was answered or what went wrong, and how long it took."""

    at: int
    seconds: float
    status: int | None = None
    error: str = ""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a delivery. Times are Unix milliseconds."""

    id: str
    tenant: str
    job_id: str
    url: str
    event: str
    status: Literal["pending", "delivered", "failed"]
    created: int
    due: int | None
    finished: int | None
    attempts: int
    log: list[Attempt]

    def describe(self) -> dict[str, Any]:
        """Describe the delivery as callers see it."""
        return {
            "id": self.id,
            "job_id": self.job_id,
            "event": self.event,
            "url": self.url,
            "status": self.status,
            "attempts": self.attempts,
            "created_at": format_time(self.created),
            "next_attempt_at": format_time(self.due),
            "finished_at": format_time(self.finished),
            "log": [
                {
                    "at": format_time(attempt.at),
                    "seconds": attempt.seconds,
                    "status": attempt.status,
                    "error": attempt.error or None,
                }
                for attempt in self.log
            ],
            "links": {"self": f"/v1/webhook-deliveries/{self.id}", "job": f"/v1/jobs/{self.job_id}"},
        }


class Claimed(msgspec.Struct, frozen=True):
    """A delivery that is to be sent now."""

    id: str
    tenant: str
    job_id: str
    url: str
    event: str
    #: Of all, and since it was begun or replayed.
    attempt: int
    try_number: int
    created: int
    #: As it was sent before; empty at the first attempt.
    body: bytes


class Secret(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a tenant's deliveries are signed with: ``whsec_`` and base64."""

    current: str
    previous: str = ""
    #: Unix seconds.
    previous_until: int = 0

    def list_valid(self, now: float) -> list[str]:
        """Return the secrets that sign now, the newest first."""
        return [self.current, self.previous] if self.previous and now < self.previous_until else [self.current]


class DeliveryStore:
    """Deliveries and secrets in Redis.

    Parameters
    ----------
    client : redis.Redis
        All methods raise `redis.RedisError` when Redis does not answer in time.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._scripts = Scripts(client)

    def claim(
        self, most: int, *, most_of_one: int, lease_seconds: float, passed_over: Iterable[str] = ()
    ) -> list[Claimed]:
        """Take deliveries that are due; others may take them after the lease, if their outcome is not known by then.

        Parameters
        ----------
        most, most_of_one : int
            Deliveries, in all and of one tenant.
        lease_seconds : float
        passed_over : iterable of str
            Tenants that have their share already.
        """
        taken = self._scripts.run("claim_deliveries", most, most_of_one, int(lease_seconds * 1000), *passed_over)
        return [_read_claimed(fields) for fields in taken]

    def finish(
        self,
        claimed: Claimed,
        attempt: Attempt,
        *,
        status: Literal["pending", "delivered", "failed"],
        body: bytes,
        retention_seconds: float,
        wait_seconds: float = 0.0,
    ) -> bool:
        """Note the outcome of an attempt; False if the delivery is another's by now, or gone."""
        return bool(
            self._scripts.run(
                "finish_delivery",
                claimed.id,
                claimed.attempt,
                status,
                int(wait_seconds * 1000),
                int(retention_seconds * 1000),
                msgspec.json.encode(attempt),
                body,
            )
        )

    def replay(self, delivery_id: str, tenant: str) -> bool:
        """Deliver again, at once; False if the tenant has no such delivery."""
        return bool(self._scripts.run("replay_delivery", delivery_id, tenant))

    def read(self, delivery_ids: Iterable[str]) -> list[Delivery | None]:
        """Return deliveries in the order of their ids, None for those that are gone."""
        ids = list(delivery_ids)
        with self._client.pipeline(transaction=False) as pipe:
            for delivery_id in ids:
                pipe.hmget(f"sq:delivery:{delivery_id}", _FIELDS)
            return [_read_delivery(*pair) for pair in zip(ids, pipe.execute(), strict=True)]

    def list_ids(self, tenant: str, *, after: str | None, most: int) -> list[str]:
        """Return ids of a tenant's deliveries, newest first, from the one after `after`."""
        top = f"({after}" if after else "+"
        found: list[bytes] = self._client.zrevrangebylex(f"sq:deliveries:{tenant}", top, "-", start=0, num=most)  # type: ignore[assignment]
        return [delivery_id.decode() for delivery_id in found]

    def trim(self) -> None:
        """Forget the names of deliveries that are past their retention."""
        tenants: set[bytes] = self._client.smembers("sq:tenants")  # type: ignore[assignment]
        for tenant in tenants:
            last = b""
            while last := self._scripts.run("trim_deliveries", tenant, _TRIMMED_AT_ONCE, last):
                pass

    def read_counts(self) -> dict[str, int]:
        """Return how many attempts and deliveries ended in each of `OUTCOMES`."""
        counts: dict[bytes, bytes] = self._client.hgetall("sq:webhook_counts")  # type: ignore[assignment]
        return {name: int(counts.get(name.encode(), 0)) for name in OUTCOMES}

    def read_secret(self, tenant: str) -> Secret:
        """Return a tenant's secret; it is made when it is first asked for."""
        made = Secret(_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hsetnx(_SECRETS, tenant, msgspec.json.encode(made))
            pipe.hget(_SECRETS, tenant)
            _, text = pipe.execute()
        return msgspec.json.decode(text, type=Secret)

    def show_secret(self, tenant: str) -> Secret:
        """Return a tenant's secret for a person to see, which the audit trail tells."""
        secret = self.read_secret(tenant)
        with self._client.pipeline(transaction=True) as pipe:
            audit.note_event(pipe, "webhook secret shown", tenant=tenant)
            pipe.execute()
        return secret

    def rotate_secret(self, tenant: str) -> Secret:
        """Make a new secret; the old one signs beside it for a day, so that receivers can change over."""
        old = self.read_secret(tenant)
        new = Secret(
            _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode(),
            old.current,
            int(time.time()) + OLD_SECRET_SECONDS,
        )
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(_SECRETS, tenant, msgspec.json.encode(new))
            audit.note_event(pipe, "webhook secret rotated", tenant=tenant)
            pipe.execute()
        return new


def sign(secret: Secret, delivery_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the header fields of Standard Webhooks.

    Parameters
    ----------
    secret : Secret
    delivery_id : str
        The same for all attempts, so that a receiver knows what it has had.
    timestamp : int
        Of the attempt, in Unix seconds.
    body : bytes
    """
    content = b"%b.%d.%b" % (delivery_id.encode(), timestamp, body)
    signatures = []
    for text in secret.list_valid(timestamp):
        key = base64.b64decode(text.removeprefix(_PREFIX))
        signatures.append("v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode())
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def _read_claimed(fields: list[Any]) -> Claimed:
    delivery_id, tenant, job_id, url, event = (text.decode() for text in fields[:5])
    return Claimed(delivery_id, tenant, job_id, url, event, *fields[5:])


def _read_delivery(delivery_id: str, record: list[bytes | None]) -> Delivery | None:
    fields = {name: None if value is None else value.decode() for name, value in zip(_FIELDS, record, strict=True)}
    if fields["t"] is None:
        return None
    return msgspec.convert(
        {
            "id": delivery_id,
            "tenant": fields["t"],
            "job_id": fields["j"],
            "url": fields["u"],
            "event": fields["e"],
            "status": fields["s"],
            "created": fields["c"],
            "due": fields["d"],
            "finished": fields["f"],
            "attempts": fields["a"],
            "log": [msgspec.json.decode(line) for line in json.loads(fields["l"] or "[]")],
        },
        type=Delivery,
        strict=False,
    )
