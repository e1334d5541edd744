"""Results: of rows jobs as they were stored; of file jobs the parts in order, streamed and never put together."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import quote

import msgspec
from flask import Response
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import dump_options_header, parse_range_header

from api.current_request import get_request
from api.file_options import FORMATS, MEDIA_TYPES
from api.renditions import render
from api.service import Service
from shared.claims import LedgerEntry
from shared.columns import output_header
from shared.errors import ServiceError
from shared.jobs import Job
from shared.plans import Format, Plan
from shared.records import parse_header
from shared.signature import Signature


def read_result(service: Service, job_id: str) -> bytes | None:
    """Return the result of a rows job: the bytes to be served; None if it has none, or none any more."""
    return fetch_result(service, job_id, service.store.read_result(job_id))


def fetch_result(service: Service, job_id: str, stored: bytes | None) -> bytes | None:
    """Return the result that a record has, or that it says where to find; None if it is not there any more."""
    try:
        return None if stored is None else service.files.fetch(job_id, stored)
    except FileNotFoundError:  # files are removed before the record
        return None


def answer_file_result(service: Service, job: Job, *, partial: bool = False) -> Response:
    """Stream the scored file, in the format that is asked for, or the range of it.

    Parameters
    ----------
    partial : bool
        Take what there is from the start: the chunks before the first that is not done.

    Raises
    ------
    FileNotFoundError
        The job was removed meanwhile.
    RequestedRangeNotSatisfiable
        The range begins after the end.
    ServiceError
        ``job_not_finished``: it is being written in that format.
    """
    plan = msgspec.json.decode(service.files.read_plan(job.id), type=Plan)
    ledger = service.store.read_ledger(job.id)
    if len(ledger) < len(plan.chunks) and not partial:
        raise FileNotFoundError("the ledger is gone")
    done = list(itertools.takewhile(ledger.__contains__, range(len(plan.chunks))))
    parts = [ledger[index] for index in done]
    service.files.check_parts(job.id, [part.part for part in parts])
    format = _choose_format(plan.format)
    if format == plan.format != "parquet":
        response = _answer_parts(service, job, plan, parts, format)
    else:
        names, signature = [part.part for part in parts], _find_signature(service, job)
        if partial:
            blocks = render(service.files, job, plan, signature, names, format)
            response = Response(blocks, mimetype=MEDIA_TYPES[format])
        else:
            size = service.renditions.make(job, plan, signature, names, format)
            response = _answer_range(
                size, job, format, lambda start, stop: service.files.read_rendition(job.id, format, start, stop)
            )
    if partial:
        response.headers["Scorequeue-Rows"] = str(sum(plan.chunks[index].rows for index in done))
    response.headers["Content-Disposition"] = dump_options_header("attachment", _name_file(job, format))
    response.vary.add("Accept")
    return response


def answer_file_errors(service: Service, job: Job) -> Response:
    """Stream the failed rows as NDJSON, in order, as far as the chunks are done.

    Raises
    ------
    FileNotFoundError
        The job was removed meanwhile.
    """
    ledger = service.store.read_ledger(job.id)
    names = [entry.errors_part for _, entry in sorted(ledger.items()) if entry.errors_part]
    service.files.check_parts(job.id, names)
    lines = (block for name in names for block in service.files.read_part(job.id, name))
    return Response(lines, mimetype="application/x-ndjson")


def _choose_format(native: Format) -> Format:
    """Return the format that the caller would have best; the file's own where it does not care, or asks for none."""
    offered = [native, *(name for name in MEDIA_TYPES if name != native)]
    wanted = get_request().accept_mimetypes.best_match([MEDIA_TYPES[name] for name in offered], MEDIA_TYPES[native])
    return FORMATS[wanted or MEDIA_TYPES[native]]


def _find_signature(service: Service, job: Job) -> Signature | None:
    try:
        return service.registry.manifest(job.document.model, job.document.version).signature
    except ServiceError:  # removed since, or broken: its columns are then texts
        return None


def _answer_parts(service: Service, job: Job, plan: Plan, parts: list[LedgerEntry], format: Format) -> Response:
    """Answer with the parts one after the other, as they are."""
    header = _make_header(job, plan) if format == "csv" else b""
    total = len(header) + sum(part.bytes for part in parts)
    return _answer_range(
        total, job, format, lambda start, stop: _iterate_bytes(service, job.id, header, parts, start, stop)
    )


def _answer_range(total: int, job: Job, format: Format, iterate: Callable[[int, int], Iterator[bytes]]) -> Response:
    etag = f"{job.id}-{format}-{total}"
    if get_request().if_none_match.contains(etag):
        response = Response(status=304)
    else:
        start, stop = _read_range(total, etag)
        response = Response(iterate(start, stop), mimetype=MEDIA_TYPES[format])
        response.headers["Content-Length"] = str(stop - start)
        if (start, stop) != (0, total):
            response.status_code = 206
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
    response.set_etag(etag)
    response.headers["Accept-Ranges"] = "bytes"
    return response


def _make_header(job: Job, plan: Plan) -> bytes:
    document = job.document
    delimiter = document.delimiter.encode()
    columns = parse_header(plan.header, delimiter)
    return output_header(plan.header, columns, document.outputs, delimiter, document.column_prefix)


def _read_range(total: int, etag: str) -> tuple[int, int]:
    """Return first and last + 1 of the bytes that are asked for.

    Several ranges are answered with the whole, and so is a range of another file (``If-Range``, RFC 9110).
    """
    wanted = parse_range_header(get_request().headers.get("Range"))
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return 0, total
    if "If-Range" in get_request().headers and get_request().headers["If-Range"] != f'"{etag}"':
        return 0, total
    found = wanted.range_for_length(total)
    if found is None:
        raise RequestedRangeNotSatisfiable(total, description=f"The result has {total} bytes.")
    return found


def _iterate_bytes(
    service: Service, job_id: str, header: bytes, parts: list[LedgerEntry], start: int, stop: int
) -> Iterator[bytes]:
    position = len(header)
    if start < position:
        yield header[start:stop]
    for part in parts:
        first, last = max(start - position, 0), min(stop - position, part.bytes)
        position += part.bytes
        if first < last:
            yield from service.files.read_part(job_id, part.part, first, last)


def _name_file(job: Job, format: Format) -> dict[str, str]:
    """Return the parameters of ``Content-Disposition``; a header holds no more than ASCII safely (RFC 6266)."""
    stem = os.path.splitext(re.sub(r"\.(gz|zst)$", "", job.document.filename))[0] or job.id
    name = f"{stem}.scored.{format}"
    if name.isascii():
        return {"filename": name}
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return {"filename": plain, "filename*": f"UTF-8''{quote(name, safe='')}"}
