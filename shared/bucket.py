"""Blobs as objects of a bucket: Amazon S3, or whatever speaks its protocol.

Where it is and with which credentials is said by the usual ``AWS_…`` variables of the environment, as
``AWS_ENDPOINT_URL`` and ``AWS_ACCESS_KEY_ID``.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

import boto3
import botocore.config
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from shared.blobs import BLOCK_BYTES, AlteredBlob
from shared.errors import StoreUnavailable

#: Bytes of one piece of a large object: S3 takes at most 10,000 of them, so this bounds the largest file too.
_PIECE_BYTES = 8 << 20
#: Pieces on their way at once: with the one that is filled, all that a writer holds in memory.
_PIECES_AT_ONCE = 2
#: Objects that are copied at once: each takes a round trip, and a retry may have thousands.
_COPIES_AT_ONCE = 8
_DELETED_AT_ONCE = 1000
_ABSENT = ("404", "NoSuchKey", "NotFound")
_ALTERED = ("412", "PreconditionFailed")

#: Requests must not outlast the patience of those who wait for an answer.
_CONFIG = botocore.config.Config(
    connect_timeout=2,
    read_timeout=10,
    retries={"max_attempts": 3, "mode": "standard"},
    max_pool_connections=32,
    # Stores other than Amazon's often refuse the newer checksums.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


class Bucket:
    """A bucket, or what is below a prefix of it.

    Parameters
    ----------
    name : str
        Of the bucket.
    prefix : str
        Put before each name; empty, or ends with ``/``.
    """

    def __init__(self, name: str, prefix: str = "") -> None:
        self._name = name
        self._prefix = prefix
        self._clients = _Clients()

    @classmethod
    def open(cls, address: str) -> Bucket:
        """Return the bucket of an address, ``s3://bucket/prefix``; nothing is connected to yet.

        Raises
        ------
        ValueError
            The address names no bucket.
        """
        name, _, prefix = address.removeprefix("s3://").partition("/")
        if not name:
            raise ValueError(f"{address!r}: s3://bucket/prefix was expected")
        return cls(name, prefix.strip("/") + "/" if prefix.strip("/") else "")

    def check(self) -> None:
        """Raise `OSError` if nothing can be written."""
        self.write(".check", b"")

    def write(self, name: str, data: bytes) -> None:
        """Write a blob whole, in place of one that may be there."""
        with _translate(name):
            self._clients.get().put_object(**self._place(name), Body=data)

    def open_writer(self, name: str) -> ObjectWriter:
        """Begin a blob of any size."""
        return ObjectWriter(name, self._clients.get(), self._place(name))

    def read(self, name: str) -> bytes:
        """Return a whole blob."""
        return b"".join(self.iterate(name))

    def read_range(self, name: str, offset: int, length: int, mark: str = "") -> bytes:
        """Return `length` bytes from `offset`."""
        data = b"".join(self.iterate(name, offset, offset + length, mark))
        if len(data) < length:
            raise OSError(f"{name} ends at {offset + len(data)}; {offset + length} bytes were expected")
        return data

    def iterate(self, name: str, start: int = 0, stop: int | None = None, mark: str = "") -> Iterator[bytes]:
        """Yield the bytes from `start` to before `stop` (the end by default), in blocks."""
        if stop is not None and stop <= start:
            return
        wanted = {"IfMatch": mark} if mark else {}
        if start or stop is not None:
            wanted["Range"] = f"bytes={start}-" if stop is None else f"bytes={start}-{stop - 1}"
        with _translate(name):
            body = self._clients.get().get_object(**self._place(name), **wanted)["Body"]
            with contextlib.closing(body):
                yield from body.iter_chunks(BLOCK_BYTES)

    def open_reader(self, name: str) -> BinaryIO:
        """Open a blob for reading at any place."""
        return io.BufferedReader(_Reader(self, name, self.find(name)[0]), BLOCK_BYTES)

    def find(self, name: str) -> tuple[int, str]:
        """Return the bytes of a blob, and its ETag."""
        with _translate(name):
            meta = self._clients.get().head_object(**self._place(name))
        return meta["ContentLength"], meta["ETag"]

    def copy(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Copy blobs to further names, without bringing them here."""
        client = self._clients.get()
        transfer = TransferConfig(use_threads=False)

        def copy(pair: tuple[str, str]) -> None:
            old, new = pair
            with _translate(old):
                client.copy(self._place(old), **self._place(new), Config=transfer)

        with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
            list(pool.map(copy, pairs))

    def list_names(self, folder: str) -> list[str]:
        """Return the last parts of all names, and of all folders, directly below a folder."""
        names = []
        for page in self._list_pages(folder, Delimiter="/"):
            names += [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
            names += [entry["Key"] for entry in page.get("Contents", ())]
        return sorted(name.rstrip("/").rpartition("/")[2] for name in names)

    def read_age_seconds(self, folder: str) -> float:
        """Return the time since something below a folder was last written."""
        pages = self._list_pages(folder)
        written = [entry["LastModified"].timestamp() for page in pages for entry in page.get("Contents", ())]
        return time.time() - max(written, default=0.0)

    def remove(self, name: str) -> None:
        """Remove a blob; nothing happens if it is not there."""
        with _translate(name):
            self._clients.get().delete_object(**self._place(name))

    def remove_folder(self, folder: str) -> None:
        """Remove all blobs below a folder; nothing happens if there are none."""
        keys = [entry["Key"] for page in self._list_pages(folder) for entry in page.get("Contents", ())]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            objects = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
            with _translate(folder):
                self._clients.get().delete_objects(Bucket=self._name, Delete={"Objects": objects, "Quiet": True})

    def _place(self, name: str) -> dict[str, str]:
        return {"Bucket": self._name, "Key": self._prefix + name}

    def _list_pages(self, folder: str, **options: str) -> Iterator[dict[str, Any]]:
        below = self._prefix + (f"{folder}/" if folder else "")
        with _translate(folder):
            pages = self._clients.get().get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=self._name, Prefix=below, **options)


class ObjectWriter:
    """An object that is still coming in, piece by piece; nothing is seen of it before `close`.

    Parameters
    ----------
    name : str
        For messages.
    client : botocore client
    place : dict
        Its bucket and key.
    """

    def __init__(self, name: str, client: Any, place: dict[str, str]) -> None:
        self._name = name
        self._client = client
        self._place = place
        self._piece = bytearray()
        self._upload_id = ""
        self._pool = ThreadPoolExecutor(_PIECES_AT_ONCE, "upload")
        self._on_their_way: deque[Future[dict[str, Any]]] = deque()
        self._arrived: list[dict[str, Any]] = []
        self._count = 0
        self._ended = False

    def write(self, data: bytes, /) -> object:
        """Take further bytes."""
        self._piece += data
        while len(self._piece) >= _PIECE_BYTES:
            self._send(bytes(self._piece[:_PIECE_BYTES]))
            del self._piece[:_PIECE_BYTES]
        return len(data)

    def close(self) -> None:
        """Make it visible: it is stored for good when this returns."""
        with _translate(self._name):
            if not self._upload_id:
                self._client.put_object(**self._place, Body=bytes(self._piece))
            else:
                if self._piece:
                    self._send(bytes(self._piece))
                self._await(0)
                self._client.complete_multipart_upload(
                    **self._place, UploadId=self._upload_id, MultipartUpload={"Parts": self._arrived}
                )
        self._end()

    def abandon(self) -> None:
        """Forget it, and what the store has of it; nothing happens if it was closed."""
        if self._ended:
            return
        self._end()
        if self._upload_id:
            with contextlib.suppress(ClientError, BotoCoreError):  # the bucket's lifecycle rule removes it then
                self._client.abort_multipart_upload(**self._place, UploadId=self._upload_id)

    def _send(self, piece: bytes) -> None:
        with _translate(self._name):
            if not self._upload_id:
                self._upload_id = self._client.create_multipart_upload(**self._place)["UploadId"]
            self._await(_PIECES_AT_ONCE - 1)
        self._count += 1
        self._on_their_way.append(self._pool.submit(self._send_piece, self._count, piece))

    def _send_piece(self, number: int, piece: bytes) -> dict[str, Any]:
        answer = self._client.upload_part(**self._place, UploadId=self._upload_id, PartNumber=number, Body=piece)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _await(self, most: int) -> None:
        """Wait until at most so many pieces are on their way; each request has its own time limits."""
        while len(self._on_their_way) > most:
            self._arrived.append(self._on_their_way.popleft().result())

    def _end(self) -> None:
        self._ended = True
        self._pool.shutdown(cancel_futures=True)


class _Reader(io.RawIOBase):
    """Reads an object at any place, each time by a request of its own."""

    def __init__(self, bucket: Bucket, name: str, size: int) -> None:
        self._bucket = bucket
        self._name = name
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        length = max(0, min(len(buffer), self._size - self._position))
        buffer[:length] = self._bucket.read_range(self._name, self._position, length)
        self._position += length
        return length


class _Clients:
    """One client a process: its connections must not be shared with a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._client: Any = None

    def get(self) -> Any:
        with self._lock:
            if self._owner != os.getpid():
                session = boto3.session.Session()
                config = _CONFIG
                if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
                    # Others than Amazon seldom have a name in their DNS for each bucket.
                    config = config.merge(botocore.config.Config(s3={"addressing_style": "path"}))
                with _translate("the bucket"):
                    self._client = session.client("s3", config=config)
                self._owner = os.getpid()
            return self._client


@contextlib.contextmanager
def _translate(what: str) -> Iterator[None]:
    """Let the library's errors be `OSError`, without addresses and credentials in them."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        if code in _ABSENT:
            raise FileNotFoundError(what) from error
        if code in _ALTERED:
            raise AlteredBlob(f"{what} was altered") from error
        raise StoreUnavailable(f"the file store refused {what} ({code})") from error
    except (BotoCoreError, HTTPError) as error:
        raise StoreUnavailable(f"the file store failed at {what} ({type(error).__name__})") from error
