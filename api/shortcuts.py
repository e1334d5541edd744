"""The calls that come most, served without Flask's routing and contexts, which would be most of what they cost.

They are the same views with the same checks before and the same edge around. Only what goes well ends here: whatever is
raised is left to Flask, which tells it as it does for every call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flask import Flask, Response

from api import jobs
from api.callers import admit_caller
from api.compression import compress
from api.current_request import begin_request, end_request, note_failure
from api.requests_log import note_route

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_PATH = re.compile(r"/v1/jobs(?:/([!-.0-~]+)(/result)?)?")


def install(app: Flask) -> None:
    """Begin every request of an app, and serve some."""
    inner, service = app.wsgi_app, app.extensions["scorequeue"]

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begin_request(environ, service)
        try:
            blocks = _serve_directly(environ, start_response)
            return inner(environ, start_response) if blocks is None else blocks
        finally:
            end_request(environ)

    app.wsgi_app = serve  # type: ignore[method-assign]


def _serve_directly(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes] | None:
    found = _find_view(environ["REQUEST_METHOD"], environ["PATH_INFO"])
    if found is None:
        return None
    rule, view, arguments = found
    try:
        note_route(environ, rule)
        admit_caller(rule)
        return compress(view(*arguments))(environ, start_response)
    except Exception as error:  # noqa: BLE001 - it is raised again, where errors are told
        note_failure(environ, error)
        return None


def _find_view(method: str, path: str) -> tuple[str, Callable[..., Response], tuple[str, ...]] | None:
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    job_id, rest = found.groups()
    if job_id is None:
        return ("/v1/jobs", jobs.submit, ()) if method == "POST" else None
    if method not in ("GET", "HEAD"):
        return None
    if rest:
        return "/v1/jobs/<job_id>/result", jobs.show_result, (job_id,)
    return "/v1/jobs/<job_id>", jobs.show, (job_id,)
