"""Compression of answers: large JSON, for callers that take gzip."""

from __future__ import annotations

import gzip

from flask import Flask, Response

from api.answers import JsonResponse
from api.current_request import get_request

#: What is smaller is in one or two packets anyway.
_LARGE_BYTES = 8 * 1024
#: A higher level costs the processor more than it spares the network.
_LEVEL = 1
_PACKED_TYPES = frozenset({"application/json", "application/problem+json"})


def install(app: Flask) -> None:
    """Compress every large JSON answer of an app whose caller takes it."""
    app.after_request(compress)


def wants_packed() -> bool:
    """Tell whether the caller takes gzip at least as gladly as the plain body (RFC 9110, 12.5.3)."""
    accepted = get_request().accept_encodings
    return accepted.quality("gzip") > 0 and accepted.quality("gzip") >= accepted.quality("identity")


def pack(data: bytes) -> bytes:
    """Compress as well as it goes, for what is compressed once."""
    return gzip.compress(data, 9, mtime=0)


def compress(response: Response) -> Response:
    """Compress an answer if it is large JSON and its caller takes that; return it."""
    if isinstance(response, JsonResponse) and len(response.response[0]) < _LARGE_BYTES:
        return response
    if response.mimetype not in _PACKED_TYPES or response.is_streamed or response.direct_passthrough:
        return response
    if "Content-Encoding" in response.headers or response.status_code in (204, 206, 304):
        return response
    if "Vary" in response.headers:
        response.vary.add("Accept-Encoding")
    else:
        response.headers["Vary"] = "Accept-Encoding"
    data = response.get_data()
    if len(data) < _LARGE_BYTES or not wants_packed():
        return response
    response.set_data(gzip.compress(data, _LEVEL, mtime=0))
    response.headers["Content-Encoding"] = "gzip"
    etag, _ = response.get_etag()
    if etag is not None:  # other bytes, the same meaning
        response.set_etag(etag, weak=True)
    return response
