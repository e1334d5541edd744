"""Job ids: sortable by creation, and recognisable as ours long after the job is gone.

``job_`` + 10 characters of time (ms) + 16 of chance + 6 that authenticate the rest for one tenant + 2 of shard, in
Crockford's base 32. Because an id proves by itself that this service issued it to this tenant, a job that was
deleted can be told from one that never existed (410 or 404) without keeping a tombstone: at 2,800 jobs/s a day
of tombstones would take more memory than an hour of results (docs/decisions/0005-job-ids.md).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Of ten bits: every id is made of such.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
PREFIX = "job_"
#: Which Redis holds the job; there is one for now, and ids will not change when there are more.
SHARD = "00"
_LENGTH = len(PREFIX) + 34


def make_job_id(key: bytes, tenant: str, milliseconds: int | None = None) -> str:
    """Make a new id for a job of `tenant`.

    Parameters
    ----------
    key : bytes
        The service's secret, the same in every API process.
    tenant : str
        The caller to whom the job will belong.
    milliseconds : int, optional
        Unix time of creation; now by default.
    """
    moment = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    stem = _encode(moment, 10) + _encode(secrets.randbits(80), 16)
    return PREFIX + stem + _authenticate(key, tenant, stem) + SHARD


def is_issued(job_id: str, key: bytes, tenant: str) -> bool:
    """Tell whether this service made `job_id` for `tenant`."""
    if len(job_id) != _LENGTH or not job_id.startswith(PREFIX) or not job_id.endswith(SHARD):
        return False
    stem, mark = job_id[4:30], job_id[30:36]
    return hmac.compare_digest(mark.encode(), _authenticate(key, tenant, stem).encode())


def looks_like_id(text: str) -> bool:
    """Tell whether a text has the form of an id, whoever made it."""
    return len(text) == _LENGTH and text.startswith(PREFIX) and set(text[len(PREFIX) :]) <= set(_ALPHABET)


def created_at_ms(job_id: str) -> int:
    """Return the Unix time in milliseconds that an issued id carries."""
    value = 0
    for character in job_id[4:14]:
        value = value * 32 + _VALUES[character]
    return value


def _authenticate(key: bytes, tenant: str, stem: str) -> str:
    digest = hashlib.blake2b(f"{tenant}\n{stem}".encode(), key=key, digest_size=4).digest()
    return _encode(int.from_bytes(digest) >> 2, 6)


def _encode(value: int, length: int) -> str:
    pairs = []
    for _ in range(length // 2):
        pairs.append(_PAIRS[value & 1023])
        value >>= 10
    return "".join(reversed(pairs))
