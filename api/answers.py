"""Answers in JSON, made with no more than they need: most of what is asked is answered by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Response
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_HAS_NO_BODY = (204, 304)


class _OwnFields(Headers):
    """Fields that are all written here: nothing in them has to be checked, or made text."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._list = fields


class JsonResponse(Response):
    """An answer whose body is whole: its header fields are sent as they are, and not looked through once more.

    Parameters
    ----------
    body : bytes
        JSON.
    status : int
    headers : mapping, optional
        Further fields, in ASCII.
    """

    response: list[bytes]

    def __init__(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Vary", "Accept-Encoding")]
        super().__init__([body], status, _OwnFields([*fields, *headers.items()] if headers else fields))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Send it (PEP 3333)."""
        if self.status_code in _HAS_NO_BODY:
            return super().__call__(environ, start_response)
        start_response(self.status, self.headers.to_wsgi_list())
        return () if environ["REQUEST_METHOD"] == "HEAD" else self.response


def answer_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> JsonResponse:
    """Answer with a value, written as JSON."""
    return JsonResponse(msgspec.json.encode(value), status, headers)


def answer_tagged(value: Any) -> JsonResponse:
    """Answer with a value and its entity tag, by which a caller tells that it has it already."""
    body = msgspec.json.encode(value)
    return JsonResponse(body, headers={"ETag": f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"'})
