"""Counts of data quality in Redis: added to by every worker process, and so the same for all that read them.

Keys, with ``sq:`` before them. A version is named with the beginning of its SHA-256: one that was removed may give its
number to another.

================================  ====  =============================================================
``quality:{version}``             hash  since the first row; dropped after 90 days without any
``quality:{version}:{hour}``      hash  of one hour (of Unix time), kept for three
================================  ====  =============================================================

Fields: ``since`` (Unix seconds), ``rows``, ``m:{column}`` missing, ``o:{column}`` outside of what training knew,
``r:{column}:{code}`` refused before the model, ``s:{score}:{bin}``. Columns, scores and bins are numbers: places in the
signature and in the manifest's `QualityReference`. So there are only as many fields as the registry allows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import redis

from shared.manifest import Manifest

KEPT_SECONDS = 90 * 24 * 3600
_HOUR_SECONDS = 3600
_HOUR_KEPT_SECONDS = 3 * _HOUR_SECONDS
_SHA_CHARACTERS = 12

Counts = Mapping[str, int]


def name_version(manifest: Manifest) -> str:
    """Return the name under which a version is counted."""
    return f"{manifest.reference}:{manifest.sha256[:_SHA_CHARACTERS]}"


def start_of_recent(now: float) -> int:
    """Return since when counts are recent: this hour and the one before."""
    return (int(now) // _HOUR_SECONDS - 1) * _HOUR_SECONDS


class Counted:
    """What was counted of a version, in all or recently.

    Parameters
    ----------
    fields : mapping of str to int
    """

    def __init__(self, fields: Counts) -> None:
        self._fields = fields
        self.rows = fields.get("rows", 0)
        #: Unix seconds of the first row.
        self.since = fields.get("since")

    def missing(self, column: int) -> int:
        """Return how many rows had no value in a column."""
        return self._fields.get(f"m:{column}", 0)

    def outside(self, column: int) -> int:
        """Return how many rows had a value outside of the training sample's range, or a category not seen there."""
        return self._fields.get(f"o:{column}", 0)

    def refused(self, column: int) -> dict[str, int]:
        """Return how many rows were refused for a column before the model saw them, by code."""
        start = f"r:{column}:"
        return {name[len(start) :]: count for name, count in sorted(self._fields.items()) if name.startswith(start)}

    def bins(self, score: int, bins: int) -> list[int]:
        """Return how many rows fell in each bin of a score."""
        return [self._fields.get(f"s:{score}:{index}", 0) for index in range(bins)]


class QualityCounts:
    """The counts of all versions.

    Parameters
    ----------
    client : redis.Redis
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def add(self, version: str, counts: Counts) -> None:
        """Add to the counts of a version, all or none.

        Parameters
        ----------
        version : str
            As `name_version` gives it.
        counts : mapping of str to int
            By field.
        """
        now = int(time.time())
        hour = now // _HOUR_SECONDS
        with self.client.pipeline(transaction=True) as pipe:
            for key, seconds in ((_total_key(version), KEPT_SECONDS), (_hour_key(version, hour), _HOUR_KEPT_SECONDS)):
                for field, count in counts.items():
                    pipe.hincrby(key, field, count)
                pipe.hsetnx(key, "since", str(now))
                pipe.expire(key, seconds)
            pipe.execute()

    def read(self, versions: Sequence[str]) -> list[tuple[Counted, Counted]]:
        """Return what was counted of each version in all, and recently."""
        hour = int(time.time()) // _HOUR_SECONDS
        with self.client.pipeline(transaction=False) as pipe:
            for version in versions:
                pipe.hgetall(_total_key(version))
                pipe.hgetall(_hour_key(version, hour - 1))
                pipe.hgetall(_hour_key(version, hour))
            hashes = [_read_hash(fields) for fields in pipe.execute()]
        return [
            (Counted(hashes[start]), Counted(_add(hashes[start + 1], hashes[start + 2])))
            for start in range(0, len(hashes), 3)
        ]


def _total_key(version: str) -> str:
    return f"sq:quality:{version}"


def _hour_key(version: str, hour: int) -> str:
    return f"sq:quality:{version}:{hour}"


def _read_hash(fields: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(count) for name, count in fields.items()}


def _add(earlier: dict[str, int], later: dict[str, int]) -> Counts:
    total = Counter(later)
    total.update(earlier)
    if "since" in earlier:
        total["since"] = earlier["since"]
    return total
