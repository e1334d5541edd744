"""Pages and descriptions: the console, ``/openapi.json``, ``/docs`` and ``/redoc``, all from this machine."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path

import msgspec
from flask import Blueprint, Flask, Response, current_app

from api.compression import pack, wants_packed
from api.current_request import get_request
from api.openapi import build_document
from api.operations import JSON, Answer, describe
from shared import VERSION
from shared.errors import ServiceError

blueprint = Blueprint("pages", __name__)

_HERE = Path(__file__).parent / "static"
#: Swagger UI and Redoc as released; importing the package would read all of them.
_OFFAPI = importlib.util.find_spec("offapi")
_INSTALLED = {
    "swagger-ui.js": "swagger_bundle.js",
    "swagger-ui.css": "swagger_style.css",
    "redoc.js": "redoc.js",
}
_CONSOLE = tuple(f"console{part}.js" for part in ("", "-elements", "-jobs", "-models", "-scoring", "-service"))
_OWN = ("docs.js", "console.css", *_CONSOLE)
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
#: Scripts come from here alone; both pages write styles of their own, and search in a worker made from a blob.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
#: Of the console, which shows what callers sent: nothing but its own files, and no way from a text to a tag.
_CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


_SAME = Answer(says="The caller has it.", headers=("ETag",))


class Content:
    """A body that never changes while the process lives, plain and compressed.

    Parameters
    ----------
    data : bytes
    media_type : str
    """

    def __init__(self, data: bytes, media_type: str) -> None:
        self.data = data
        self.media_type = media_type
        self._etag = hashlib.blake2b(data, digest_size=12).hexdigest()
        self._packed = pack(data)

    def answer(self) -> Response:
        """Answer with it, compressed if the caller takes that; 304 if the caller has it."""
        packed = wants_packed()
        response = Response(self._packed if packed else self.data, content_type=self.media_type)
        response.set_etag(f"{self._etag}-gzip" if packed else self._etag)
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        response.vary.add("Accept-Encoding")
        response.headers["Cache-Control"] = "no-cache"  # kept, but asked for again each time: the ETag makes that cheap
        response.make_conditional(get_request())
        return response


def _answer_page(name: str, policy: str = _POLICY) -> Response:
    response = _read_file(str(_HERE / f"{name}.html")).answer()
    response.headers["Content-Security-Policy"] = policy
    return response


@functools.cache
def _read_file(path: str) -> Content:
    return Content(Path(path).read_bytes(), f"{_MEDIA_TYPES[Path(path).suffix]}; charset=utf-8")


@functools.cache
def _make_openapi(app: Flask) -> Content:
    return Content(msgspec.json.encode(build_document(app, VERSION)), JSON)


@blueprint.get("/")
@describe({200: Answer(says="A page.", media_types=("text/html",), headers=("ETag",)), 304: _SAME})
def show_console() -> Response:
    """Show the console: queues, workers, models, jobs and dead letters, by this very API."""
    return _answer_page("console", _CONSOLE_POLICY)


@blueprint.get("/openapi.json")
@describe({200: Answer(says="This document.", kind=dict, headers=("ETag",)), 304: _SAME})
def show_openapi() -> Response:
    """Describe all calls as OpenAPI 3.1."""
    return _make_openapi(current_app._get_current_object()).answer()  # type: ignore[attr-defined]


@blueprint.get("/docs")
@describe({200: Answer(says="A page.", media_types=("text/html",), headers=("ETag",)), 304: _SAME})
def show_docs() -> Response:
    """Show the calls in Swagger UI, from which they can be tried."""
    return _answer_page("docs")


@blueprint.get("/redoc")
@describe({200: Answer(says="A page.", media_types=("text/html",), headers=("ETag",)), 304: _SAME})
def show_redoc() -> Response:
    """Show the calls in Redoc, for reading."""
    return _answer_page("redoc")


@blueprint.get("/assets/<asset>")
@describe(
    {
        200: Answer(says="The file.", media_types=("text/javascript", "text/css"), headers=("ETag",)),
        304: _SAME,
    },
    problems=("not_found",),
)
def show_asset(asset: str) -> Response:
    """Serve a file of a page."""
    if asset in _OWN:
        return _read_file(str(_HERE / asset)).answer()
    if asset not in _INSTALLED or _OFFAPI is None or not _OFFAPI.submodule_search_locations:
        raise ServiceError("not_found", "There is no such file.")
    return _read_file(str(Path(_OFFAPI.submodule_search_locations[0]) / _INSTALLED[asset])).answer()
