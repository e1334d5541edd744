"""Compressed bodies: unpacked while they come in, with bounds, and known to be whole by their end mark."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from api.bodies import BLOCK_BYTES, iterate_body
from api.current_request import get_environ
from shared.errors import ServiceError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: A body that unpacks to more than this many times its size, and more than this many bytes, is a bomb.
RATIO_MAX = 1_000
_HARMLESS_BYTES = 16 << 20
#: 2^27 bytes, the most that the zstd format asks every decoder to take: a frame may not make us hold more.
_WINDOW_LOG_MAX = 27


class _Unpacker(Protocol):
    """One gzip member, zlib stream (which HTTP calls deflate) or zstd frame."""

    @property
    def eof(self) -> bool:
        """Whether its end mark has passed."""

    @property
    def unused_data(self) -> bytes:
        """What came after the end mark."""

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Yield what the data unpack to, a bounded block at a time."""


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits=wbits)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def unpack(self, data: bytes) -> Iterator[bytes]:
        while data and not self._inner.eof:
            yield self._inner.decompress(data, BLOCK_BYTES)
            data = self._inner.unconsumed_tail


class _Zstd:
    def __init__(self) -> None:
        self._inner = zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX},
        )

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def unpack(self, data: bytes) -> Iterator[bytes]:
        yield self._inner.decompress(data, BLOCK_BYTES)
        while not (self._inner.eof or self._inner.needs_input):
            yield self._inner.decompress(b"", BLOCK_BYTES)


def _open_gzip() -> _Unpacker:
    return _Zlib(16 + zlib.MAX_WBITS)


def _open_deflate() -> _Unpacker:
    return _Zlib(zlib.MAX_WBITS)


_UNPACKERS: dict[str, Callable[[], _Unpacker]] = {
    "gzip": _open_gzip,
    "x-gzip": _open_gzip,
    "deflate": _open_deflate,
    "zstd": _Zstd,
}
ENCODINGS = tuple(_UNPACKERS)


def read_body(limit: int) -> bytes:
    """Return the whole body, unpacked.

    Parameters
    ----------
    limit : int
        Bytes, also of what it unpacks to.

    Raises
    ------
    ServiceError
        As `api.bodies.iterate_body` and `decode_blocks`; ``unsupported_media_type``: it is packed in another way.
    """
    return b"".join(decode_body(iterate_body(limit), limit))


def read_encoding() -> str:
    """Return how the body is packed, as its ``Content-Encoding`` says; ``identity``: not.

    Raises
    ------
    ServiceError
        ``unsupported_media_type``.
    """
    encoding: str = get_environ().get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding not in ("identity", *ENCODINGS):
        raise ServiceError(
            "unsupported_media_type", f"Content-Encoding: expected one of {', '.join(ENCODINGS)}, or none."
        )
    return encoding


def decode_body(blocks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """Unpack a body as its ``Content-Encoding`` says."""
    return decode(blocks, read_encoding(), limit)


def decode(blocks: Iterator[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    """Unpack blocks; ``identity`` is not packed."""
    return blocks if encoding == "identity" else decode_blocks(blocks, encoding, limit)


def decode_blocks(blocks: Iterator[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    """Unpack a body; ends without an error only if it is whole.

    Several gzip members, or zstd frames, one after the other are one body.

    Parameters
    ----------
    blocks : iterator of bytes
        As they came in.
    encoding : str
        One of `ENCODINGS`.
    limit : int
        Bytes that it may unpack to.

    Raises
    ------
    ServiceError
        ``incomplete_upload`` without an end mark; ``malformed_file`` if it is not of this encoding;
        ``payload_too_large`` if it unpacks to more than `limit`, or to more than `RATIO_MAX` times its size.
    """
    counter = _Counter(limit)
    unpacker: _Unpacker | None = None
    for block in blocks:
        counter.received += len(block)
        rest = block
        while rest:
            if unpacker is None:
                unpacker = _UNPACKERS[encoding]()
            try:
                for data in unpacker.unpack(rest):
                    counter.add(len(data))
                    yield data
            except (zlib.error, zstd.ZstdError) as error:
                raise ServiceError("malformed_file", f"The body is not {encoding}: {error}.") from None
            rest = b""
            if unpacker.eof:
                rest, unpacker = unpacker.unused_data, None
    if unpacker is not None or not counter.received:
        raise ServiceError("incomplete_upload", f"The {encoding} data end before their end mark; nothing was kept.")


class _Counter:
    """Compares what came in with what it became."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._unpacked = 0
        self.received = 0

    def add(self, size: int) -> None:
        self._unpacked += size
        if self._unpacked > self._limit:
            raise ServiceError(
                "payload_too_large", f"The body unpacks to more than {self._limit} bytes, the limit here."
            )
        if self._unpacked > max(_HARMLESS_BYTES, RATIO_MAX * self.received):
            raise ServiceError("payload_too_large", f"The body unpacks to more than {RATIO_MAX} times its size.")
