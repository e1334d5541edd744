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

_SERVICE, _REQUEST, _FAILURE = "scorequeue.service", "scorequeue.request", "scorequeue.failure"
_current: ContextVar[WSGIEnvironment] = ContextVar("environ")


def begin_request(environ: WSGIEnvironment, service: Service) -> None:
    """Make the request of an environment the one that this thread is serving."""
    environ[_SERVICE] = service
    _current.set(environ)


def end_request(environ: WSGIEnvironment) -> None:
    """Let go of what refers to the environment that it stands in: it would stay until garbage is collected."""
    environ.pop(_REQUEST, None)
    environ.pop("werkzeug.request", None)


def note_failure(environ: WSGIEnvironment, error: Exception) -> None:
    """Keep what a request failed with, for Flask to tell."""
    environ[_FAILURE] = error


def raise_failure(environ: WSGIEnvironment) -> None:
    """Raise what the request failed with before it came to Flask, if it did."""
    error: Exception | None = environ.pop(_FAILURE, None)
    if error is not None:
        try:
            raise error
        finally:
            del error  # its trace holds this frame


def get_environ() -> WSGIEnvironment:
    """Return the environment of the request that is being served (PEP 3333), for what stands in it as it is."""
    return _current.get()


def get_request() -> Request:
    """Return the request that is being served, for what has to be read out of its environment."""
    return make_request(_current.get())


def make_request(environ: WSGIEnvironment) -> Request:
    """Return the request of an environment: it is made once, and when it is first asked for."""
    request: Request | None = environ.get(_REQUEST)
    if request is None:
        request = environ[_REQUEST] = Request(environ)
    return request


def get_service() -> Service:
    """Return the parts of the app that serves this request."""
    service: Service = _current.get()[_SERVICE]
    return service
