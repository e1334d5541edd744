"""HTTP as the chaos clients speak it: one connection a client, no repeats, and an honest word for a lost answer."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec


class Lost(Exception):
    """No answer came: whether the request was carried out is unknown."""


class Refused(Lost):
    """Nobody listened: it was surely not carried out."""


class Finished(msgspec.Struct):
    """What is read of a job, its result as the bytes that were served."""

    id: str
    status: str
    result: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(frozen=True)
class Answer:
    """Status and body."""

    status: int
    body: bytes

    @property
    def code(self) -> str:
        """Status, and with a problem its code."""
        if self.status < 400:
            return str(self.status)
        try:
            return f"{self.status} {json.loads(self.body)['code']}"
        except (ValueError, KeyError):
            return f"{self.status} without a problem document"

    def parse(self) -> Any:
        """Decode the body.

        Raises
        ------
        Lost
            It is not what was asked for, but an error.
        """
        if self.status >= 400:
            raise Lost(f"answered {self.code}")
        return json.loads(self.body)

    def read_job(self) -> Finished:
        """Decode a job, leaving its result as it is."""
        return msgspec.json.decode(self.body, type=Finished)


class Caller:
    """A keep-alive connection to the service; made anew after each loss.

    Parameters
    ----------
    port : int
    timeout : float
        Seconds without a byte after which an answer counts as lost.
    """

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask once.

        Raises
        ------
        Lost
            The answer did not arrive whole.
        """
        try:
            if self._connection.sock is None:
                self._connection.connect()
        except OSError as error:
            raise Refused(str(error)) from error
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            response = self._connection.getresponse()
            return Answer(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Lost(f"{type(error).__name__}: {error}") from error

    def ask_until_answered(self, path: str, seconds: float = 60.0) -> Answer:
        """Get a page, again and again while the service is away.

        Raises
        ------
        Lost
            It did not come back in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = self.ask("GET", path)
                if answer.status != 503:
                    return answer
            except Lost:
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise Lost(f"{path} answers 503 for {seconds:g} s")
            time.sleep(0.1)
