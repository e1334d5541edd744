"""The request that a thread is serving, and what is kept of it: for the views, whoever has called them.

Flask's own proxies are not used: most requests are served without it (`api.shortcuts`).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from flask import Request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from api.service import Service

_SERVICE, _FAILURE = "scorequeue.service", "scorequeue.failure"
_current: ContextVar[Request] = ContextVar("request")


def begin_request(environ: WSGIEnvironment, service: Service) -> Request:
    """Make the request of an environment the one that this thread is serving."""
    environ[_SERVICE] = service
    request = Request(environ)
    _current.set(request)
    return request


def note_failure(request: Request, error: Exception) -> None:
    """Keep what a request failed with, for Flask to tell."""
    request.environ[_FAILURE] = error


def raise_failure(request: Request) -> None:
    """Raise what the request failed with before it came to Flask, if it did."""
    error: Exception | None = request.environ.pop(_FAILURE, None)
    if error is not None:
        try:
            raise error
        finally:
            del error  # its trace holds this frame


def get_request() -> Request:
    """Return the request that is being served."""
    return _current.get()


def get_service() -> Service:
    """Return the parts of the app that serves this request."""
    service: Service = _current.get().environ[_SERVICE]
    return service
