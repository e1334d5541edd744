"""Header fields of every answer: what a browser may do with it, what is left of the limits, nothing of the server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask

from api.limits import list_limit_fields

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: For pages, which are files of the installed package: scripts and styles of this service alone, no frame around them.
_PAGE_POLICY = "; ".join(
    [
        "default-src 'self'", "img-src 'self' data:", "style-src 'self' 'unsafe-inline'", "worker-src 'self' blob:",
        "object-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ]
)  # fmt: skip
#: Anything else is data: a browser that shows it shall run nothing in it.
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
_FIELDS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    # What one caller may see is kept in no cache but his own, and not believed without asking.
    "Cache-Control": "private, no-cache",
    # The server would put its name there.
    "Server": "",
}


_POLICY = "Content-Security-Policy"
#: All fields of an answer that sets none of them itself: nearly every one.
_OF_DATA = [*_FIELDS.items(), (_POLICY, _DATA_POLICY)]
_OF_PAGES = [*_FIELDS.items(), (_POLICY, _PAGE_POLICY)]
_NAMES = frozenset(name.lower() for name, _ in _OF_DATA)


def install(app: Flask) -> None:
    """Add the fields to every answer that does not set them itself.

    Where the answer leaves the app: as a plain list they cost a tenth of what they cost in its headers.
    """
    inner = app.wsgi_app

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
            headers += _list_missing(headers)
            headers += list_limit_fields(environ)
            return start_response(status, headers, error)

        return inner(environ, start)

    app.wsgi_app = serve  # type: ignore[method-assign]


def _list_missing(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    own = {name.lower(): value for name, value in headers}
    fields = _OF_PAGES if own.get("content-type", "").startswith("text/html") else _OF_DATA
    if _NAMES.isdisjoint(own):
        return fields
    return [pair for pair in fields if pair[0].lower() not in own]
