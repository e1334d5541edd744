"""The keys that this process knows: those of the settings, and a copy of Redis's, never older than half a second.

A copy, so that most requests ask Redis nothing for their key; so young, so that a revoked one is refused everywhere
within a second. Without Redis nobody is let in by a key that might have been revoked.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time

import msgspec
import redis

from shared.errors import ServiceError
from shared.keys import SCOPES, Key, KeyStore, is_key, parse_key
from shared.settings import InvalidSettings, Settings

#: With the time of asking (a second at most) a process knows of a change within 1 s in all but an outage.
_FRESH_SECONDS = 0.5
#: A key's last use is written down this often, not at each request.
_USE_SECONDS = 10.0
_NOBODY = Key(id="", tenant="", digest=hashlib.sha256(b"").hexdigest(), scopes=(), created=0)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, and what for."""

    tenant: str
    scopes: tuple[str, ...] = SCOPES
    #: Of the key that was shown, for the log and for its own limits; empty if there are no keys.
    key_id: str = ""
    rate_limit: str = ""
    row_limit: str = ""


class _Copy(msgspec.Struct, frozen=True):
    keys: dict[str, Key]
    version: int
    taken: float


class KeyRing:
    """Tells callers by their keys.

    Parameters
    ----------
    settings : Settings
        Its keys need no Redis, may do everything (the one for metrics only that), and are never revoked.
    store : KeyStore
    """

    def __init__(self, settings: Settings, store: KeyStore) -> None:
        self._store = store
        self._own = _read_own_keys(settings)
        self._copy = _Copy({}, -1, 0.0)
        self._lock = threading.Lock()
        self._failed = 0.0
        self._uses: dict[str, float] = {}

    def needs_key(self) -> bool:
        """Tell whether any key was ever made; if not, this machine's callers need none.

        Raises
        ------
        redis.RedisError
            It is not known: Redis does not answer.
        """
        return bool(self._own or self._read_copy().keys)

    def knows_none(self) -> bool:
        """Tell whether this process has heard of no key so far."""
        return not (self._own or self._copy.keys)

    def find_caller(self, text: str) -> Caller:
        """Return who shows a key.

        Raises
        ------
        ServiceError
            ``unauthenticated``: there is no such key, or it lets nobody in any more.
        redis.RedisError
            Whether it still holds is not known: Redis does not answer.
        """
        digest = hashlib.sha256(text.encode()).digest()
        own = None
        for known, caller in self._own.items():
            if hmac.compare_digest(known, digest):
                own = caller
        if own is not None:
            return own
        key = self._read_copy().keys.get(parse_key(text) or "", _NOBODY)
        if not is_key(key, text) or key is _NOBODY:
            raise ServiceError("unauthenticated", "Send a valid key as 'Authorization: Bearer <key>'.")
        if not key.is_live(time.time()):
            state = "was revoked" if key.revoked is not None else "has expired"
            raise ServiceError("unauthenticated", f"The key {key.id} {state}.")
        self._note_use(key.id)
        return Caller(
            tenant=key.tenant,
            scopes=key.scopes,
            key_id=key.id,
            rate_limit=key.rate_limit,
            row_limit=key.row_limit,
        )

    def _read_copy(self) -> _Copy:
        copy, came = self._copy, time.monotonic()
        if came - copy.taken < _FRESH_SECONDS:
            return copy
        with self._lock:
            asked = time.monotonic()
            if asked - self._copy.taken < _FRESH_SECONDS:
                return self._copy
            if self._failed > came:  # the one before us asked in vain meanwhile: asking in a row would take too long
                raise redis.ConnectionError("Redis did not answer another request of this moment")
            try:
                version, keys = self._store.read_changes(self._copy.version)
            except redis.RedisError:
                self._failed = time.monotonic()
                raise
            known = self._copy.keys if keys is None else {key.id: key for key in keys}
            self._copy = _Copy(known, version, asked)
            return self._copy

    def _note_use(self, key_id: str) -> None:
        now = time.monotonic()
        if now - self._uses.get(key_id, -_USE_SECONDS) >= _USE_SECONDS:
            self._uses[key_id] = now
            self._store.note_use(key_id)


def _read_own_keys(settings: Settings) -> dict[bytes, Caller]:
    own: dict[bytes, Caller] = {}
    for part in filter(None, (part.strip() for part in settings.api_keys.split(","))):
        name, separator, rest = part.partition(":")
        secret = rest if separator else part
        if not secret or (separator and not name):
            raise InvalidSettings(["SCOREQUEUE_API_KEYS: expected tenant:secret or secret, separated by commas"])
        digest = hashlib.sha256(secret.encode())
        short = digest.hexdigest()[:12]
        own[digest.digest()] = Caller(tenant=name if separator else short, key_id=f"setting-{short}")
    if settings.metrics_key:
        digest = hashlib.sha256(settings.metrics_key.encode())
        own[digest.digest()] = Caller(tenant="metrics", scopes=("metrics:read",), key_id="setting-metrics")
    return own
