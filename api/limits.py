"""The limits of a caller, and the header fields that tell of them (IETF draft *RateLimit header fields*)."""

from __future__ import annotations

import functools

from flask import Flask, Response, g

from api.keyring import Caller
from api.problems import answer_service_error
from shared.errors import ServiceError
from shared.limits import Limit, Limiter, LimitExceeded, LimitState, parse_limit
from shared.settings import InvalidSettings, Settings
from shared.store import Quotas

_read_limit = functools.cache(parse_limit)


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

    def list_request_limits(self, caller: Caller) -> list[Limit]:
        """Return the limits from which a request is taken."""
        return _list_limits("requests", caller, self._requests, caller.rate_limit)

    def list_row_limits(self, caller: Caller) -> list[Limit]:
        """Return the limits from which a job's rows are taken."""
        return _list_limits("rows", caller, self._rows, caller.row_limit)

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
    """Tell in each answer what is left of the limits that its request was taken from."""

    @app.errorhandler(LimitExceeded)
    def answer_exceeded(error: LimitExceeded) -> Response:
        note_limits(error.states)
        return answer_service_error(error)

    @app.after_request
    def add_fields(response: Response) -> Response:
        states: dict[str, LimitState] = g.get("limit_states", {})
        if states:
            response.headers["RateLimit-Policy"] = ", ".join(
                f'"{name}";q={state.limit.amount};w={state.limit.seconds}' for name, state in states.items()
            )
            response.headers["RateLimit"] = ", ".join(
                f'"{name}";r={state.remaining};t={state.reset_seconds}' for name, state in states.items()
            )
        return response


def note_limits(states: list[LimitState]) -> None:
    """Keep what is left for the answer."""
    if states:
        g.limit_states = g.get("limit_states", {}) | {state.limit.name: state for state in states}


def _list_limits(name: str, caller: Caller, of_tenant: str, of_key: str) -> list[Limit]:
    limits = []
    if of_tenant:
        limits.append(Limit(name, caller.tenant, *_read_limit(of_tenant)))
    if of_key:
        limits.append(Limit(f"key-{name}", caller.key_id, *_read_limit(of_key)))
    return limits
