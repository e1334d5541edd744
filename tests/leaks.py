"""The leak check: each key in Redis has a TTL, belongs to a live job, or is on the short list of permanent ones."""

from __future__ import annotations

import redis

#: Bounded in number by the registered models, the tenants and the processes.
_PERMANENT = (
    "sq:queues", "sq:tenants", "sq:queue:", "sq:stream:", "sq:id_key", "sq:workers", "sq:sweep", "sq:keys", "sq:audit",
    "sq:flight:", "sq:litter", "sq:webhook_counts", "sq:webhook_secrets",
)  # fmt: skip
_BROKER = ("_kombu.", "unacked", "rows", "files", "celery")
#: Indexes: each member must be a job, a delivery or a tenant's list that exists.
_INDEXES = {
    "sq:jobs:": "sq:job:",
    "sq:deadlines": "sq:job:",
    "sq:retention": "sq:job:",
    "sq:dead:": "sq:job:",
    "sq:deliveries:": "sq:delivery:",
    "sq:due:": "sq:delivery:",
}
_LIVE = ("queued", "running")


def find_leaks(client: redis.Redis) -> list[str]:
    """Return a sentence for each key, index entry or stream entry that nobody would ever remove."""
    leaks = []
    for key in sorted(name.decode() for name in client.scan_iter(count=1000)):
        if key.startswith(_PERMANENT):
            leaks += _find_stale_entries(client, key)
        elif index := next((index for index in _INDEXES if key.startswith(index)), None):
            leaks += [
                f"{key} names {member.decode()}, which does not exist"
                for member in client.zrange(key, 0, -1)  # type: ignore[union-attr]
                if not client.exists(_INDEXES[index].encode() + member)
            ]
        elif key == "sq:webhooks":
            leaks += [
                f"{key} names {tenant.decode()}, for whom nothing waits"
                for tenant in client.smembers(key)  # type: ignore[union-attr]
                if not client.exists(b"sq:due:" + tenant)
            ]
        elif not key.startswith(_BROKER) and client.ttl(key) == -1 and not _belongs_to_live_job(client, key):
            leaks.append(f"{key} has no TTL and belongs to no live job")
    return leaks


def _belongs_to_live_job(client: redis.Redis, key: str) -> bool:
    job_id = next((part for part in key.split(":") if part.startswith("job_")), None)
    if job_id is None:
        return False
    status = client.hget(f"sq:job:{job_id}", "s")
    return status is not None and status.decode() in _LIVE  # type: ignore[union-attr]


def _find_stale_entries(client: redis.Redis, key: str) -> list[str]:
    if not key.startswith("sq:stream:"):
        return []
    return [
        f"{key} holds an entry of {fields[b'j'].decode()}, which is not live"
        for _, fields in client.xrange(key)  # type: ignore[union-attr]
        if not _belongs_to_live_job(client, f"sq:job:{fields[b'j'].decode()}")
    ]
