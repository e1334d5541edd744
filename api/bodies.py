"""Bodies of requests: read within a limit, and known to be whole.

They are read from the server's stream, not through Flask: the server gives a clean end of file for an upload that was
cut off (design, decision 12), so that completeness is ours to check.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import Any

from api.connections import reading_from_client
from api.current_request import get_environ, get_request
from shared.errors import ServiceError

BLOCK_BYTES = 256 * 1024
_SMALL_BYTES = 16 * 1024
_DIGEST = re.compile(r"(sha-256|sha-512)=:([A-Za-z0-9+/=]+):")
_ALGORITHMS = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


def iterate_body(limit: int) -> Iterator[bytes]:
    """Yield the body in blocks; ends without an error only if it is whole.

    Parameters
    ----------
    limit : int
        Bytes.

    Raises
    ------
    ServiceError
        ``payload_too_large``; ``incomplete_upload`` if it ends before its ``Content-Length`` or does not match its
        ``Content-Digest`` (RFC 9530).
    """
    length = get_request().content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    digests = _expected_digests()
    environ = get_environ()
    stream: Any = environ["wsgi.input"]
    received = 0
    # A server may block for ever on a read past the end that the client announced.
    while length is None or received < length:
        with reading_from_client(environ):
            block = stream.read(BLOCK_BYTES if length is None else min(BLOCK_BYTES, length - received))
        if not block:
            break
        received += len(block)
        if received > limit:
            raise _too_large(limit)
        for hasher, _ in digests:
            hasher.update(block)
        yield block
    if length is not None and received != length:
        raise ServiceError("incomplete_upload", f"The body ended after {received} of {length} bytes; nothing was kept.")
    if any(hasher.digest() != expected for hasher, expected in digests):
        raise ServiceError("incomplete_upload", "The body does not match its Content-Digest; nothing was kept.")


def is_small() -> bool:
    """Tell whether a body is read and looked at in less time than it takes to ask Redis."""
    length = get_request().content_length
    return length is not None and length <= _SMALL_BYTES and "HTTP_CONTENT_ENCODING" not in get_environ()


def has_known_end() -> bool:
    """Tell whether a cut-off body would be noticed."""
    return get_request().content_length is not None or bool(_expected_digests())


def _expected_digests() -> list[tuple[Any, bytes]]:
    digests = []
    for algorithm, text in _DIGEST.findall(get_environ().get("HTTP_CONTENT_DIGEST", "")):
        try:
            digests.append((_ALGORITHMS[algorithm](), base64.b64decode(text, validate=True)))
        except binascii.Error:
            raise ServiceError("invalid_parameter", "Content-Digest is not valid base64.") from None
    return digests


def _too_large(limit: int) -> ServiceError:
    return ServiceError("payload_too_large", f"The body has more than {limit} bytes, the limit here.")
