"""The Lua scripts: every change of state in Redis is one of them, so none can be half done.

Each file in ``shared/lua`` says what it takes and returns. ``words.lua`` is put before all of them, and
``units.lua`` before most: both are run at each call.
Redis Cluster is not supported: the scripts build their keys themselves (design, decision 16).
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoScriptError

from shared.line import Line

#: Scripts that take memory. All others only free it, and so must run when Redis is full (``allow-oom``):
#: what is queued still drains.
_GROWING = frozenset({"submit"})
#: They are called with every request, and know nothing of units.
_LOOKING = frozenset({"look", "take"})
_USING_CHUNKS = frozenset({"submit", "commit_chunk"})
_USING_LIMITS = frozenset({"look", "submit", "take"})


def _read(name: str) -> str:
    return (resources.files("shared") / "lua" / f"{name}.lua").read_text("utf-8")


def _assemble(name: str) -> str:
    # `flags=` makes Redis 7 refuse to start a script that takes memory when there is none, and lets the rest run.
    shebang = "#!lua" if name in _GROWING else "#!lua flags=allow-oom"
    chunks = _read("chunks") if name in _USING_CHUNKS else ""
    limits = _read("limits") if name in _USING_LIMITS else ""
    body = f"local function main()\n{_read(name)}end\nlocal reply = main()\nwrite_counts()\nreturn reply"
    units = "" if name in _LOOKING else _read("units")
    return "\n".join((shebang, _read("words"), units, chunks, limits, body))


class _Script(NamedTuple):
    text: str
    digest: str


class Scripts:
    """The scripts of one Redis server; each is sent once and then called by its hash.

    Parameters
    ----------
    client : redis.Redis
        Where they run.
    line : Line, optional
        On which they are called, by a process of many threads; by default each call takes a connection of the client.
    """

    def __init__(self, client: redis.Redis, line: Line | None = None) -> None:
        self._call = client.execute_command if line is None else line.call
        self._scripts: dict[str, _Script] = {}

    def run(self, name: str, *arguments: str | bytes | int | float) -> Any:
        """Run the script `name` with `arguments` and return its reply."""
        script = self._scripts.get(name)
        if script is None:
            text = _assemble(name)
            script = self._scripts[name] = _Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
        try:
            return self._call("EVALSHA", script.digest, 0, *arguments)
        except NoScriptError:
            return self._call("EVAL", script.text, 0, *arguments)
