"""Results: of rows jobs as they were stored; of file jobs the parts in order, streamed and never put together."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterator
from urllib.parse import quote

import msgspec
from flask import Response, request
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import dump_options_header, parse_range_header

from api.service import Service
from shared.columns import output_header
from shared.jobs import Job
from shared.plans import Plan
from shared.records import parse_header
from shared.store import LedgerEntry


def read_result(service: Service, job_id: str) -> bytes | None:
    """Return the result of a rows job: the bytes to be served; None if it has none, or none any more."""
    result = service.store.read_result(job_id)
    try:
        return None if result is None else service.files.fetch(job_id, result)
    except FileNotFoundError:  # files are removed before the record
        return None


def answer_file_result(service: Service, job: Job, *, partial: bool = False) -> Response:
    """Stream the scored file, or the range of it that is asked for.

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
    """
    plan = msgspec.json.decode(service.files.read_plan(job.id), type=Plan)
    header = _make_header(service, job, plan)
    ledger = service.store.read_ledger(job.id)
    if len(ledger) < len(plan.chunks) and not partial:
        raise FileNotFoundError("the ledger is gone")
    done = list(itertools.takewhile(ledger.__contains__, range(len(plan.chunks))))
    parts = [ledger[index] for index in done]
    service.files.check_parts(job.id, [part.part for part in parts])
    total = len(header) + sum(part.bytes for part in parts)
    etag = f"{job.id}-{total}"
    if request.if_none_match.contains(etag):
        response = Response(status=304)
    else:
        start, stop = _read_range(total, etag)
        response = Response(_iterate_bytes(service, job.id, header, parts, start, stop), mimetype="text/csv")
        response.headers["Content-Length"] = str(stop - start)
        if (start, stop) != (0, total):
            response.status_code = 206
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
    if partial:
        response.headers["Scorequeue-Rows"] = str(sum(plan.chunks[index].rows for index in done))
    response.set_etag(etag)
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Content-Disposition"] = dump_options_header("attachment", _name_file(job))
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


def _make_header(service: Service, job: Job, plan: Plan) -> bytes:
    document = job.document
    delimiter = document.delimiter.encode()
    header = service.files.get_input(job.id).read_range(0, plan.header_bytes)
    return output_header(header, parse_header(header, delimiter), document.classes, delimiter, document.column_prefix)


def _read_range(total: int, etag: str) -> tuple[int, int]:
    """Return first and last + 1 of the bytes that are asked for.

    Several ranges are answered with the whole, and so is a range of another file (``If-Range``, RFC 9110).
    """
    wanted = parse_range_header(request.headers.get("Range"))
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return 0, total
    if "If-Range" in request.headers and request.headers["If-Range"] != f'"{etag}"':
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


def _name_file(job: Job) -> dict[str, str]:
    """Return the parameters of ``Content-Disposition``; a header holds no more than ASCII safely (RFC 6266)."""
    stem = os.path.splitext(job.document.filename)[0] or job.id
    name = f"{stem}.scored.csv"
    if name.isascii():
        return {"filename": name}
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return {"filename": plain, "filename*": f"UTF-8''{quote(name, safe='')}"}
