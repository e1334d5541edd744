"""Flask without what no request of ours needs; each of these was a part of the cost of every request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response
from flask.ctx import RequestContext
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter

from api.current_request import make_request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class _NoSessions(SessionInterface):
    """Nobody has a session: who calls is told by a key in each request."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Never called: `is_null_session` is true of the only one."""


class FrontEnd(Flask):
    """The app: no sessions, no coroutines, and the same paths for every host."""

    session_interface = _NoSessions()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it is: none of ours is a coroutine."""
        return func

    def request_context(self, environ: WSGIEnvironment) -> RequestContext:
        """Serve the request that the views ask for (`api.current_request`)."""
        return RequestContext(self, environ, request=make_request(environ))

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Bind the paths to a request; its host is not looked at, and nothing is bound outside of one."""
        if request is None:
            return None
        host = request.environ.get("HTTP_HOST", "")
        query = request.query_string.decode("latin1")
        return MapAdapter(
            self.url_map, host, request.root_path, "", request.scheme, request.path, request.method, query
        )
