"""One HTTP exchange with the service: connections, time limits, what may be repeated, and errors.

It knows nothing of jobs or models.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationValueError, ReadTimeoutError

from scorequeue.errors import OutcomeUnknown, RequestRefused, ScorequeueError, ServiceUnreachable, WrongUse

#: Seconds to make a connection: a service that is there answers in milliseconds, also far away.
CONNECT_TIMEOUT_SECONDS = 5.0
#: Times that one request is made, at most.
ATTEMPTS = 4
#: Statuses by which the service says that it did nothing and that the request may come again.
_TRY_AGAIN = frozenset({429, 503})
#: Statuses of a proxy in between: whether the service acted is not known.
_GATEWAY = frozenset({502, 504})
#: Bytes that are sent or received at a time; 16 KiB, the default, costs a call for every fourth of a page.
_BLOCK_BYTES = 256 * 1024

Response = urllib3.BaseHTTPResponse
Headers = dict[str, str]


class Transport:
    """Makes requests to one service over kept-alive connections; safe to share between threads.

    Parameters
    ----------
    url : str
        Address of the service, as ``http://127.0.0.1:8000``.
    api_key : str or None
        Sent as a bearer token.
    timeout : float
        Seconds that the service may stay silent.
    patience : float
        Seconds after which one call no longer begins anew what was turned away or broke.
    connections : int
        Connections that are kept open; more threads than these open others for a moment.
    """

    def __init__(self, url: str, api_key: str | None, *, timeout: float, patience: float, connections: int) -> None:
        self.url = check_url(url)
        self.api_key = api_key
        self.timeout = timeout
        self.patience = patience
        self._headers = {"User-Agent": "scorequeue-client", "Accept": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._pool = urllib3.PoolManager(maxsize=connections, blocksize=_BLOCK_BYTES, retries=False)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
        wait: float = 0.0,
        stream: bool = False,
    ) -> Response:
        """Make a request and return its answer, whose status is below 400.

        Nothing is done twice: what may have been acted upon is repeated only if it is a GET or carries an
        ``Idempotency-Key``, by which the service knows it again; anything else only when the connection was
        refused, or when the service says that it did nothing (429, 503).

        Parameters
        ----------
        method, path : str
            Path from the root of the service.
        query : mapping, optional
            Options; those that are None are left out.
        headers : mapping, optional
            Besides the usual ones.
        body : bytes or file, optional
            A file is streamed and must come with a ``Content-Length`` header; it is rewound before a repeat.
        wait : float
            Seconds that the service was asked to wait before it answers; added to the time limit.
        stream : bool
            Leave the answer's body to the caller, who then releases the connection.

        Raises
        ------
        RequestRefused
            The service answered with an error.
        ServiceUnreachable
            There was no answer; `OutcomeUnknown` if the request may have been acted upon.
        """
        give_up_at = time.monotonic() + self.patience
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._exchange(method, path, query, headers, body, wait, stream)
            except ServiceUnreachable as error:
                failure: ScorequeueError = error
                repeatable = not isinstance(error, OutcomeUnknown) or "Idempotency-Key" in (headers or {})
                pause = _backoff_seconds(attempt)
            else:
                if response.status < 400:
                    return response
                failure = refusal = read_refusal(response)
                repeatable = refusal.status in _TRY_AGAIN or (
                    refusal.status in _GATEWAY and method == "GET" and refusal.code.startswith("http_")
                )
                pause = refusal.retry_after if refusal.retry_after is not None else _backoff_seconds(attempt)
            # Waiting in vain would only delay the bad news: give up at once if the time will not suffice.
            if not repeatable or attempt == ATTEMPTS or time.monotonic() + pause > give_up_at:
                raise failure
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def fetch_json(self, path: str, **options: Any) -> Any:
        """GET `path` and return its body as JSON."""
        return read_json(self.request("GET", path, **options))

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._pool.clear()

    def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        body: bytes | IO[bytes] | None,
        wait: float,
        stream: bool,
    ) -> Response:
        if body is not None and not isinstance(body, bytes):
            body.seek(0)
        options = {name: str(value) for name, value in (query or {}).items() if value is not None}
        address = self.url + path
        if options:
            address += ("&" if "?" in path else "?") + urlencode(options)
        try:
            return self._pool.request(
                method,
                address,
                headers={**self._headers, **(headers or {})},
                body=body,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=self.timeout + wait),
                redirect=False,
                preload_content=not stream,
            )
        except ConnectTimeoutError as error:  # also a refused connection: nothing was sent
            raise ServiceUnreachable(self.url, _describe_failure(error)) from error
        except (HTTPError, OSError) as error:
            reason = _describe_failure(error)
            kind = ServiceUnreachable if method == "GET" else OutcomeUnknown
            raise kind(self.url, reason) from error


def check_url(url: str) -> str:
    """Return the address without a slash at its end.

    Raises
    ------
    WrongUse
        It is not an http or https address.
    """
    try:
        parts = urllib3.util.parse_url(url)
    except LocationValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.host:
        raise WrongUse(f"{url!r} is not the address of a service: expected one as http://127.0.0.1:8000")
    return url.rstrip("/")


def read_json(response: Response) -> Any:
    """Return the body as JSON.

    Raises
    ------
    ServiceUnreachable
        It is something else: what answers at that address is not the service.
    """
    try:
        return json.loads(response.data)
    except ValueError as error:
        kind = response.headers.get("Content-Type", "an unnamed type")
        reason = f"expected JSON and got {kind}: is this the address of the service?"
        raise ServiceUnreachable(response.url or "the service", reason) from error


def read_refusal(response: Response) -> RequestRefused:
    """Turn an answer with an error status into the error to raise."""
    try:
        problem = json.loads(response.data)
    except (ValueError, HTTPError):
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": f"the service answered {response.status} {response.reason or ''}".rstrip()}
    return RequestRefused.from_problem(response.status, problem, read_retry_after(response))


def read_retry_after(response: Response) -> float | None:
    """Return the seconds of ``Retry-After``, or None; its other form, a date, is not used by this service."""
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _backoff_seconds(attempt: int) -> float:
    """Return 0.1 s, doubled by every attempt, spread so that many clients do not come back together."""
    return float(0.1 * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))


def _describe_failure(error: BaseException) -> str:
    if isinstance(error, ReadTimeoutError):
        return "it did not answer in time"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[0].lower() + cause.strerror[1:]
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
