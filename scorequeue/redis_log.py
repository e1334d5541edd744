"""What the embedded Redis says, in its log, of its append-only files at a start: that it repaired or cannot read them.

It reads the log and never the socket: a server that cannot read its files ends before it listens.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from scorequeue.append_only import FOLDER, MANIFEST, find_last_file
from scorequeue.embedded_redis import find_binary

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
#: A submission, as ``submit.lua`` writes it down: unlike `offer`, it does not go on with the entry's id.
_SUBMISSION = re.compile(rb"sq:job:([\w-]+)\r\n\$1\r\ns\r\n\$6\r\nqueued\r\n(?!\$1\r\nx\r\n)")


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
    """

    def __init__(self, log: Path, redis: Path) -> None:
        self._log = log
        self._redis = redis
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
        found = _TRUNCATED.search(text)
        # What is dropped is said before the file is loaded, and ready after it.
        self._loading = found is None and _READY not in text
        return describe_repair(self._redis / FOLDER / found[1], int(found[2]), self._tail) if found else None

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


def describe_repair(path: Path, offset: int, tail: Tail | None) -> str:
    """Write the line about a repair: what was dropped, and which jobs it may have cost.

    Parameters
    ----------
    path : Path
        The repaired file.
    offset : int
        Where it was cut off.
    tail : Tail or None
        How it ended before.
    """
    told = f"Redis's append-only file ended in an unfinished command and was repaired: {path}, "
    if tail is None or tail.path != path or tail.size < offset:
        return f"{told}cut off at byte {offset:,}. What a crash cuts off was never answered"
    dropped = tail.content[max(0, len(tail.content) - (tail.size - offset)) :]
    told += f"{tail.size - offset:,} bytes dropped from byte {offset:,} on. "
    jobs = list(dict.fromkeys(job.decode() for job in _SUBMISSION.findall(dropped)))
    if not jobs:
        return told + "No submission was in them; a job that was answered with 202 is not affected"
    named = ", ".join(jobs[:SHOWN_JOBS]) + (f" and {len(jobs) - SHOWN_JOBS} more" if len(jobs) > SHOWN_JOBS else "")
    return (
        f"{told}The submission of {named} was in them. If a crash was the cause, nobody has a 202 for it: that is sent "
        "when the command is on disk. If the file was cut off in another way, it is lost: submit it again"
    )
