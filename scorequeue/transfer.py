"""Large files to the service and back: streamed, followed, resumed, and whole or not at all.

It knows nothing of jobs beyond an id to name the unfinished download by.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from urllib3.exceptions import HTTPError

from scorequeue.errors import RequestRefused, ScorequeueError, ServiceUnreachable, WrongUse
from scorequeue.transport import Headers, Response, Transport

#: Times in a row that a download may break without having brought a byte.
DOWNLOAD_ATTEMPTS = 5

_BLOCK_BYTES = 256 * 1024
_CSV = "text/csv"
_PARQUET = "application/vnd.apache.parquet"
#: Bytes of the beginning of a file by which it is looked at: a hundred rows of ten thousand columns.
_HEAD_BYTES = 16 << 20
#: Longest time for which a finished result may be written anew in the format that is asked for.
_RENDITION_SECONDS = 3600.0
_MEDIA_TYPES = {
    ".csv": _CSV,
    ".tsv": _CSV,
    ".parquet": _PARQUET,
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
}
_ENCODINGS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class Progress:
    """How far a step of a long call is.

    Attributes
    ----------
    step : {'upload', 'score', 'download'}
    done, total : int
        In `unit`; a total of 0 is not known yet.
    unit : {'bytes', 'rows'}
    failed : int
        Of the rows that are done.
    per_second, eta_seconds : float or None
        As the service says; None while it does not know.
    """

    step: Literal["upload", "score", "download"]
    done: int
    total: int
    unit: Literal["bytes", "rows"]
    failed: int = 0
    per_second: float | None = None
    eta_seconds: float | None = None

    def __str__(self) -> str:
        total = f"{self.total:,}" if self.total else "?"
        parts = [f"{self.step}: {self.done:,} of {total} {self.unit}"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.per_second is not None:
            parts.append(f"{self.per_second:,.0f} {self.unit}/s")
        if self.eta_seconds:
            parts.append(f"ETA {self.eta_seconds:,.0f} s")
        return ", ".join(parts)


OnProgress = Callable[[Progress], object]


def check_paths(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Refuse a target that could not be written, before anything is uploaded.

    Raises
    ------
    WrongUse
        The folder of `target` is missing or read-only, `target` is a folder or the source, or is named as another form.
    """
    path = Path(target)
    if path.is_dir():
        raise WrongUse(f"{path} is a folder: name the file to write")
    if path.suffix.lower() in _ENCODINGS:
        raise WrongUse(f"{path}: results come as they are, not compressed; name a .csv, .parquet or .ndjson file")
    if not path.parent.is_dir():
        raise WrongUse(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise WrongUse(f"{path}: the folder {path.parent} cannot be written to")
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise WrongUse(f"{path} would be overwritten: the output must be another file than the input")


def upload_file(
    transport: Transport,
    path: str,
    source: str | os.PathLike[str],
    query: Mapping[str, Any],
    headers: Headers,
    on_progress: OnProgress | None = None,
    *,
    head_only: bool = False,
) -> Response:
    """POST the bytes of a file, with their length, as they come from the disk.

    Parameters
    ----------
    head_only : bool
        Send no more than the beginning, where the format can be read from there.

    Raises
    ------
    WrongUse
        `source` is not a file that can be read.
    RequestRefused, ServiceUnreachable
        As for `Transport.request`.
    """
    with _open_source(source) as file:
        size = os.fstat(file.fileno()).st_size
        described = _describe_content(source)
        if head_only and described["Content-Type"] != _PARQUET:
            size = min(size, _HEAD_BYTES)
        body = _WatchedFile(file, size, on_progress)
        headers = {**headers, **described, "Content-Length": str(size)}
        return transport.request("POST", path, query=query, headers=headers, body=body)  # type: ignore[arg-type]


def download_file(
    transport: Transport,
    path: str,
    target: str | os.PathLike[str],
    name: str,
    on_progress: OnProgress | None = None,
) -> None:
    """GET a file into a part beside `target`, and rename it when it is whole.

    Parameters
    ----------
    path : str
        Where the service has the file. What is there must never change.
    target : path
        Replaced at the end.
    name : str
        Identifies the content: a part of the same name, left by an earlier run, is continued.
    on_progress : callable, optional
        Called with a `Progress` in bytes.

    The name of `target` says in which format it is wanted: ``.parquet``, ``.ndjson``, ``.jsonl``, or else CSV.

    Raises
    ------
    RequestRefused
        The service has no such file.
    ServiceUnreachable
        The connection broke `DOWNLOAD_ATTEMPTS` times without a byte between; the part stays.
    """
    destination = Path(target)
    check_paths(os.devnull, destination)
    part = destination.with_name(f".{destination.name}.{name}.part")
    with open(part, "ab") as file:
        _fill_part(transport, path, _media_type(destination.suffix), file, on_progress)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, destination)


def stream_records(transport: Transport, path: str) -> Iterator[dict[str, Any]]:
    """GET newline-delimited JSON, a record at a time.

    Raises
    ------
    ServiceUnreachable
        The answer broke off.
    """
    response = transport.request("GET", path, headers={"Accept": "application/x-ndjson"}, stream=True)
    rest = b""
    try:
        for block in response.stream(_BLOCK_BYTES, decode_content=True):
            *lines, rest = (rest + block).split(b"\n")
            yield from (json.loads(line) for line in lines if line.strip())
        if rest.strip():
            yield json.loads(rest)
    except (HTTPError, OSError) as error:
        raise ServiceUnreachable(transport.url, f"the answer broke off ({error})") from error
    finally:
        response.close()


class _WatchedFile:
    """A file that tells how much of it was read, and holds to the length it had at the start."""

    def __init__(self, file: IO[bytes], size: int, on_progress: OnProgress | None) -> None:
        self._file = file
        self._size = size
        self._left = size
        self._on_progress = on_progress

    def read(self, count: int = -1) -> bytes:
        # A file that grows meanwhile is sent as it was; one that shrinks cannot be.
        block = self._file.read(self._left if count < 0 else min(count, self._left))
        self._left -= len(block)
        if not block and self._left:
            raise WrongUse(f"{self._file.name} became shorter while it was sent; nothing was kept of it")
        if block and self._on_progress:
            self._on_progress(Progress("upload", self._size - self._left, self._size, "bytes"))
        return block

    def seek(self, offset: int) -> int:
        self._left = self._size - offset
        return self._file.seek(offset)


def _open_source(source: str | os.PathLike[str]) -> IO[bytes]:
    try:
        file = open(source, "rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise WrongUse(f"{source}: {error.strerror or error}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise WrongUse(f"{source} is not a regular file: its length must be known before it is sent")
    return file


def _describe_content(source: str | os.PathLike[str]) -> Headers:
    suffixes = [suffix.lower() for suffix in Path(source).suffixes]
    headers = {}
    if suffixes and suffixes[-1] in _ENCODINGS:
        headers["Content-Encoding"] = _ENCODINGS[suffixes.pop()]
    headers["Content-Type"] = _media_type(suffixes[-1] if suffixes else "")
    return headers


def _media_type(suffix: str) -> str:
    return _MEDIA_TYPES.get(suffix.lower(), _CSV)


def _fill_part(
    transport: Transport, path: str, media_type: str, file: IO[bytes], on_progress: OnProgress | None
) -> None:
    """Append to the part until it is whole, asking anew for the rest whenever the connection breaks."""
    failures = 0
    while True:
        before = file.tell()
        try:
            response = _ask_from(transport, path, media_type, before)
            if response is None:
                return
            with response:
                _append(response, file, on_progress)
            return
        except (ServiceUnreachable, HTTPError, OSError) as error:
            _raise_local(error)
            failures = 1 if file.tell() > before else failures + 1
            if failures >= DOWNLOAD_ATTEMPTS:
                reason = f"the download broke {failures} times at byte {file.tell():,} ({error})"
                raise ServiceUnreachable(transport.url, reason) from error
            time.sleep(0.1 * 2**failures)


def _ask_from(transport: Transport, path: str, media_type: str, offset: int) -> Response | None:
    """Ask for the bytes from `offset` on; None says that there are none left."""
    headers = {"Accept": media_type, "Accept-Encoding": "identity"}
    if not offset:
        return _ask_patiently(transport, path, headers)
    try:
        return _ask_patiently(transport, path, {**headers, "Range": f"bytes={offset}-"})
    except RequestRefused as refusal:
        if refusal.status not in (400, 416):
            raise
    # The part may be whole already (a run that ended just before the rename), or be of something else.
    response = _ask_patiently(transport, path, headers)
    if response.headers.get("Content-Length") == str(offset):
        response.close()
        return None
    return response


def _ask_patiently(transport: Transport, path: str, headers: Headers) -> Response:
    """Ask for a result that is there, and wait while the service writes it in the format that is asked for."""
    give_up_at = time.monotonic() + _RENDITION_SECONDS
    while True:
        try:
            return transport.request("GET", path, headers=headers, stream=True)
        except RequestRefused as refusal:
            if refusal.code != "job_not_finished" or time.monotonic() > give_up_at:
                raise
            time.sleep(refusal.retry_after or 1.0)


def _append(response: Response, file: IO[bytes], on_progress: OnProgress | None) -> None:
    start, total = _read_extent(response)
    if start != file.tell():
        # The service does not resume (200), or not from where we are: begin anew.
        file.seek(start)
        file.truncate()
    for block in response.stream(_BLOCK_BYTES, decode_content=False):
        file.write(block)
        if on_progress:
            on_progress(Progress("download", file.tell(), total, "bytes"))
    file.flush()
    if total and file.tell() != total:
        raise ServiceUnreachable(response.url or "", f"{file.tell():,} of {total:,} bytes came")


def _read_extent(response: Response) -> tuple[int, int]:
    """Return the offset of the first byte of an answer, and the length of the whole (0: not said)."""
    if response.status == 206:
        # Content-Range: bytes 100-199/200
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        start = span.partition("-")[0]
        if start.isdigit():
            return int(start), int(total) if total.isdigit() else 0
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else 0


def _raise_local(error: BaseException) -> None:
    """Let a full disk and the like through: only the network is worth another try."""
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | ScorequeueError | TimeoutError):
        raise error
