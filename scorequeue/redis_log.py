"""What the embedded Redis says, in its log, of its append-only files at a start: that it repaired or cannot read them.

A server that cannot read its files ends before it listens, so the log is all that it leaves behind.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from scorequeue.append_only import FOLDER, MANIFEST, find_last_file
from scorequeue.embedded_redis import find_binary, list_missing_keys

#: Bytes at the file's end in which what a repair drops is looked at; a commit of 512 jobs is a few hundred kB.
TAIL_BYTES = 8 << 20
#: Jobs that a line names; more are counted.
SHOWN_JOBS = 5

_TRUNCATED = re.compile(r"# !!! Truncating the AOF (\S+) at offset (\d+) !!!")
_READY = "eady to accept connections"
#: Each means that another start would end in the same way (valkey 9.1: aof.c, rdb.c).
_DAMAGE = re.compile(
    r"# (?:Bad file format reading the append only file (?P<format>\S+): "
    r"|Unexpected end of file reading the append only file (?P<end>\S+)\. "
    r"|Unrecoverable error reading the append only file (?P<unreadable>[^:\s]+): "
    r"|Unable to obtain the AOF file (?P<missing>\S+) length"
    r"|Error reading the RDB (?:preamble of the AOF|base) file (?P<base>[^,\s]+),"
    r"|Fatal error: the truncated file is not the last file"
    r"|Internal error in RDB reading|Short read or OOM loading DB"
    r"|\s*\*\*\* FATAL AOF MANIFEST FILE ERROR)"
)
#: The id of a job, and the key of its record (shared/ids.py, shared/store.py).
_JOB_ID = re.compile(rb"job_[0-9A-Z]{34}")
_JOB_KEY = "sq:job:"


@dataclass(frozen=True)
class Tail:
    """The end of the file to which the server appends, as it was before a start.

    Parameters
    ----------
    path : Path
    size : int
        Bytes of the whole file.
    content : bytes
        Its last bytes, at most `TAIL_BYTES`.
    """

    path: Path
    size: int
    content: bytes


class RedisLog:
    """The log of one server, start by start; it is told of each start before it happens.

    Parameters
    ----------
    log : Path
        To which the server's output is appended.
    redis : Path
        The server's folder.
    unix_socket : Path
        Where it listens.
    """

    def __init__(self, log: Path, redis: Path, unix_socket: Path) -> None:
        self._log = log
        self._redis = redis
        self._socket = unix_socket
        self._from = 0
        self._read_bytes = -1
        self._loading = False
        self._tail: Tail | None = None

    def note_start(self) -> None:
        """Remember where the log is and how the files end: a repair overwrites that."""
        self._from = self._measure()
        self._read_bytes = -1
        self._loading = True
        self._tail = read_tail(self._redis)

    def explain_death(self) -> str | None:
        """Say which file kept the server from starting, and what to do; None if something else ended it."""
        found = _DAMAGE.search(self._read())
        if found is None:
            return None
        folder = self._redis / FOLDER
        name = next((name for name in found.groupdict().values() if name), None)
        if name is None and "MANIFEST" in found.group():
            name = MANIFEST
        damaged = folder / name if name else folder
        advice = f"cannot read its data back: {damaged} is missing or damaged. Restore a backup (scorequeue restore)"
        if name and name.endswith(".incr.aof") and found["missing"] is None:
            repair = f"(exec -a valkey-check-aof {shlex.quote(str(find_binary()))} --fix {shlex.quote(str(damaged))})"
            advice += f"; or copy {folder}, and then drop the file's rest from the damage on, in bash: {repair}"
        return advice

    def read_repair(self) -> str | None:
        """Say, once a start, that the server dropped an unfinished last command; None if it did not, or not yet."""
        if not self._loading or self._measure() == self._read_bytes:
            return None
        self._read_bytes = self._measure()
        text = self._read()
        if _READY not in text:
            return None
        self._loading = False
        found = _TRUNCATED.search(text)
        return self._describe_repair(self._redis / FOLDER / found[1], int(found[2])) if found else None

    def _describe_repair(self, path: Path, offset: int) -> str:
        """Write the line about a repair: what was dropped, and which jobs it may have cost."""
        told = f"Redis's append-only file ended in an unfinished command and was repaired: {path}, "
        tail = self._tail
        if tail is None or tail.path != path or tail.size < offset:
            return f"{told}cut off at byte {offset:,}. What a crash cuts off was never answered"
        dropped = tail.content[max(0, len(tail.content) - (tail.size - offset)) :]
        told += f"{tail.size - offset:,} bytes dropped from byte {offset:,} on. "
        if not (jobs := self._list_missing_jobs(dropped)):
            return told + "No submission was in them; a job that was answered with 202 is not affected"
        named = ", ".join(jobs[:SHOWN_JOBS])
        if len(jobs) > SHOWN_JOBS:
            named += f" and {len(jobs) - SHOWN_JOBS} more"
        return (
            f"{told}The submission of {named} was in them. If a crash was the cause, nobody has a 202 for it: that is "
            "sent when the command is on disk. If the file was cut off in another way, it is lost: submit it again"
        )

    def _list_missing_jobs(self, dropped: bytes) -> list[str]:
        """List the jobs that commands are about and that are not there: what wrote them down is dropped, too."""
        keys = list(dict.fromkeys(_JOB_KEY + found.decode() for found in _JOB_ID.findall(dropped)))
        # Without an answer all of them are named: better one too many.
        with contextlib.suppress(OSError):
            keys = list_missing_keys(self._socket, keys)
        return [key.removeprefix(_JOB_KEY) for key in keys]

    def _measure(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _read(self) -> str:
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            # A rotation with copytruncate may have begun it anew.
            file.seek(self._from if self._measure() >= self._from else 0)
            return file.read().decode(errors="replace")


def read_tail(redis: Path) -> Tail | None:
    """Read the end of the file to which a server will append; None if there is none."""
    path = find_last_file(redis)
    if path is None or not path.is_file():
        return None
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        return Tail(path, size, file.read())
