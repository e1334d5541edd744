"""API keys as Redis keeps them: who each lets in, what for, and how much; of the key itself only a digest.

A key reads ``sq_{id}_{secret}``. The id finds the record; the secret, 238 bits of chance, is compared as its SHA-256,
which needs no slow hash because there is nothing to guess from. A record never changes: that a key was revoked, and
when it was last used, is kept beside it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import time

import msgspec
import redis

from shared import audit
from shared.errors import ServiceError
from shared.scripts import Scripts

SCOPES = ("jobs:read", "jobs:write", "models:read", "models:write", "metrics:read")

_RECORDS, _REVOKED, _USED, _VERSION = "sq:keys", "sq:keys:revoked", "sq:keys:used", "sq:keys:version"
_LETTERS = string.ascii_letters + string.digits
_ID_LETTERS = string.ascii_lowercase + string.digits
_KEY = re.compile(r"sq_([a-z0-9]{12})_([A-Za-z0-9]{40})")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a key. Times are Unix seconds."""

    id: str
    tenant: str
    #: SHA-256 of the whole key, in hex.
    digest: str
    scopes: tuple[str, ...]
    created: int
    expires: int | None = None
    #: Requests and rows that this key alone may send, as ``100/second``; empty: no more than its tenant may.
    rate_limit: str = ""
    row_limit: str = ""
    revoked: int | None = None
    last_used: int | None = None

    def is_live(self, now: float) -> bool:
        """Tell whether the key lets anybody in."""
        return self.revoked is None and (self.expires is None or now < self.expires)


class KeyStore:
    """The keys in Redis.

    Parameters
    ----------
    client : redis.Redis
        All methods raise `redis.RedisError` when Redis does not answer in time.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._scripts = Scripts(client)

    def create(
        self,
        tenant: str,
        scopes: tuple[str, ...],
        *,
        expires: int | None = None,
        rate_limit: str = "",
        row_limit: str = "",
    ) -> tuple[Key, str]:
        """Make a key.

        Returns
        -------
        tuple of Key and str
            Its record, and the key itself, which is kept nowhere.

        Raises
        ------
        ServiceError
            ``invalid_parameter``: the tenant's name or a scope is none, or it has expired already.
        """
        _check(tenant, scopes, expires)
        key_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(12))
        text = f"sq_{key_id}_" + "".join(secrets.choice(_LETTERS) for _ in range(40))
        key = Key(
            id=key_id,
            tenant=tenant,
            digest=take_digest(text),
            scopes=scopes,
            created=int(time.time()),
            expires=expires,
            rate_limit=rate_limit,
            row_limit=row_limit,
        )
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(_RECORDS, key_id, msgspec.json.encode(key))
            pipe.incr(_VERSION)
            audit.note_event(pipe, "key created", key=key_id, tenant=tenant, scopes=list(scopes), expires=expires)
            pipe.execute()
        return key, text

    def revoke(self, key_id: str) -> Key:
        """Let nobody in by a key any more; every process knows within a second.

        Raises
        ------
        ServiceError
            ``not_found``.
        """
        key = next((key for key in self.read_all() if key.id == key_id), None)
        if key is None:
            raise ServiceError("not_found", f"There is no key {key_id}.")
        if key.revoked is not None:
            return key
        now = int(time.time())
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hsetnx(_REVOKED, key_id, str(now))
            pipe.incr(_VERSION)
            audit.note_event(pipe, "key revoked", key=key_id, tenant=key.tenant)
            pipe.execute()
        return msgspec.structs.replace(key, revoked=now)

    def read_all(self) -> list[Key]:
        """Return all keys, also those that let nobody in any more, the oldest first."""
        with self._client.pipeline(transaction=True) as pipe:
            for name in (_RECORDS, _REVOKED, _USED):
                pipe.hgetall(name)
            records, revoked, used = pipe.execute()
        return sorted(_read_keys(records, revoked, used), key=lambda key: (key.created, key.id))

    def read_changes(self, version: int) -> tuple[int, list[Key] | None]:
        """Return the version of the keys and, if it is not `version`, all of them; their last use is left out."""
        now, *rest = self._scripts.run("read_keys", version)
        if not rest:
            return now, None
        return now, _read_keys(_pair(rest[0]), _pair(rest[1]), {})

    def note_use(self, key_id: str) -> None:
        """Note that a key was used now."""
        self._scripts.run("note_key_use", key_id, int(time.time()))


def parse_key(text: str) -> str | None:
    """Return the id in a text that has the form of a key."""
    found = _KEY.fullmatch(text)
    return found[1] if found else None


def take_digest(text: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_key(key: Key, text: str) -> bool:
    """Tell whether a text is that key; it takes as long whatever the text is."""
    return hmac.compare_digest(key.digest, take_digest(text))


def _check(tenant: str, scopes: tuple[str, ...], expires: int | None) -> None:
    if not _TENANT.fullmatch(tenant):
        raise ServiceError(
            "invalid_parameter", f"tenant {tenant!r}: expected up to 64 letters, digits, dots, hyphens and underscores."
        )
    wrong = [scope for scope in scopes if scope not in SCOPES]
    if wrong or not scopes:
        raise ServiceError("invalid_parameter", f"scopes: {wrong or 'none'}; expected some of {', '.join(SCOPES)}.")
    if expires is not None and expires <= time.time():
        raise ServiceError("invalid_parameter", "expires: that moment has passed.")


def _pair(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _read_keys(records: dict[bytes, bytes], revoked: dict[bytes, bytes], used: dict[bytes, bytes]) -> list[Key]:
    return [
        msgspec.structs.replace(
            msgspec.json.decode(record, type=Key),
            revoked=int(revoked[key_id]) if key_id in revoked else None,
            last_used=int(used[key_id]) if key_id in used else None,
        )
        for key_id, record in records.items()
    ]
