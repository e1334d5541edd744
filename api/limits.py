"""The limits of a caller, and the header fields that tell of them (IETF draft *RateLimit header fields*)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Flask, Response

from api.current_request import get_environ
from api.keyring import Caller
from api.problems import answer_service_error
from shared.errors import ServiceError
from shared.limits import Limit, Limiter, LimitExceeded, LimitState, parse_limit
from shared.settings import InvalidSettings, Settings
from shared.submissions import Quotas

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Where a request keeps in its environment what is left of its limits.
_HERE = "scorequeue.limits"


class Limits:
    """What callers may send.

    Parameters
    ----------
    settings : Settings
        The limits of each tenant; a key may have others of its own.
    limiter : Limiter

    Raises
    ------
    InvalidSettings
        A limit cannot be read.
    """

    def __init__(self, settings: Settings, limiter: Limiter) -> None:
        self._limiter = limiter
        self._requests, self._rows = settings.rate_limit, settings.row_limit
        self.quotas = Quotas(settings.max_tenant_jobs, settings.max_tenant_rows, settings.max_tenant_bytes)
        faults = []
        for name, text in (("RATE", self._requests), ("ROW", self._rows)):
            try:
                if text:
                    parse_limit(text)
            except ServiceError as error:
                faults.append(f"SCOREQUEUE_{name}_LIMIT={error.detail}")
        if faults:
            raise InvalidSettings(faults)

    def take_request(self, caller: Caller) -> None:
        """Count a request.

        Raises
        ------
        LimitExceeded
            There were too many.
        redis.RedisError
            Redis does not answer; nobody is let through uncounted.
        """
        if wanted := self.list_request_limits(caller):
            note_limits(self._limiter.take([(limit, 1) for limit in wanted]))

    @contextlib.contextmanager
    def counting(self, caller: Caller) -> Iterator[None]:
        """Count a request in the end, if it is refused before what takes it from its limits with its own work.

        Raises
        ------
        LimitExceeded, redis.RedisError
            As `take_request`: it stands before the reason for which the request would be refused else.
        """
        try:
            yield
        except LimitExceeded:
            raise
        except ServiceError:
            self.take_request(caller)
            raise

    def list_request_limits(self, caller: Caller) -> tuple[Limit, ...]:
        """Return the limits from which this request is still to be taken."""
        if _is_counted():
            return ()
        return _list_limits("requests", caller.tenant, self._requests, caller.key_id, caller.rate_limit)

    def list_row_limits(self, caller: Caller) -> tuple[Limit, ...]:
        """Return the limits from which a job's rows are taken."""
        return _list_limits("rows", caller.tenant, self._rows, caller.key_id, caller.row_limit)

    def check_rows(self, caller: Caller) -> None:
        """Refuse a caller who owes rows, before its file is read.

        Raises
        ------
        LimitExceeded
            Nothing is left.
        """
        if wanted := self.list_row_limits(caller):
            self._limiter.take([(limit, 0) for limit in wanted])


def install(app: Flask) -> None:
    """Tell who is refused by a limit what is left of all."""

    @app.errorhandler(LimitExceeded)
    def answer_exceeded(error: LimitExceeded) -> Response:
        note_limits(error.states)
        return answer_service_error(error)


def note_limits(states: list[LimitState]) -> None:
    """Keep what is left for the answer."""
    get_environ().setdefault(_HERE, []).extend(states)


def list_limit_fields(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    """Return the header fields that tell what is left of the limits that a request was taken from."""
    found: list[LimitState] = environ.get(_HERE, [])
    if not found:
        return []
    states = {state.limit.name: state for state in found}.items()
    policy = [f'"{name}";q={state.limit.amount};w={state.limit.seconds}' for name, state in states]
    left = [f'"{name}";r={state.remaining};t={state.reset_seconds}' for name, state in states]
    return [("RateLimit-Policy", ", ".join(policy)), ("RateLimit", ", ".join(left))]


def _is_counted() -> bool:
    return _HERE in get_environ()  # limits of rows are taken with those of requests or after them


@functools.lru_cache(1024)
def _list_limits(name: str, tenant: str, of_tenant: str, key_id: str, of_key: str) -> tuple[Limit, ...]:
    limits = []
    if of_tenant:
        limits.append(Limit(name, tenant, *parse_limit(of_tenant)))
    if of_key:
        limits.append(Limit(f"key-{name}", key_id, *parse_limit(of_key)))
    return tuple(limits)
