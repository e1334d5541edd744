"""File jobs: the body streams to the file store and is planned on its way; it is never held in memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from flask import request
from werkzeug.sansio.multipart import Data, Field, File, MultipartDecoder, NeedData, State

from api.bodies import BLOCK_BYTES, has_known_end, iterate_body
from api.callers import get_caller
from api.decoding import ENCODINGS, decode_blocks
from api.service import Service
from api.submission import Options, check_options, make_document, read_idempotency_key, resolve_model, submit_job
from shared.columns import ColumnCollision, added_columns, find_collisions, missing_columns
from shared.errors import Fault, ServiceError
from shared.filestore import Upload
from shared.jobs import Job, queue_name
from shared.manifest import Manifest
from shared.records import RecordScanner
from shared.store import Submission

MEDIA_TYPES = ("text/csv", "multipart/form-data")

_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}
_CHUNK_SECONDS = 0.5
_FIRST_CHUNK_ROWS = 10_000
#: Below this a chunk's own cost counts for more than the model's.
_FEWEST_CHUNK_ROWS = 500
#: A field of a form is an option, not data.
_MOST_FIELD_BYTES = 64 * 1024
#: What the reader of a form may hold at a time: the block that came, and a part's header.
_MOST_HELD_BYTES = 2 * BLOCK_BYTES


class FileOptions(Options):
    """What a caller may ask for with a file."""

    model: str = ""
    on_row_error: Literal["continue", "fail"] = "continue"
    error_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    delimiter: str = ","
    column_prefix: str = ""


def submit_file(service: Service, tenant: str) -> Job:
    """Take a file whole, or not at all, and submit its job.

    Raises
    ------
    ServiceError
        The upload is not complete, not CSV, or lacks columns of the model; nothing is kept.
    """
    check_upload(MEDIA_TYPES)
    service.admission.check_file()
    service.limits.check_rows(get_caller())
    with service.receiving():
        job_id = service.store.make_id(tenant)
        upload = service.files.begin_upload(job_id)
        try:
            return _receive(service, tenant, job_id, upload)
        finally:
            upload.discard()


def check_upload(media_types: tuple[str, ...]) -> None:
    """Refuse a body that is of another type, or whose end could not be told from a cut."""
    if request.mimetype not in media_types:
        raise ServiceError("unsupported_media_type", f"Content-Type: expected {' or '.join(media_types)}.")
    if _read_encoding() == "identity" and not has_known_end():
        raise ServiceError(
            "length_required", "Send Content-Length or Content-Digest: without them a cut-off upload looks complete."
        )


def decode_body(blocks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """Unpack a body as its ``Content-Encoding`` says."""
    encoding = _read_encoding()
    return blocks if encoding == "identity" else decode_blocks(blocks, encoding, limit)


def _receive(service: Service, tenant: str, job_id: str, upload: Upload) -> Job:
    limit = service.settings.max_file_bytes
    blocks = decode_body(iterate_body(limit), limit)
    idempotency_key, digest = read_idempotency_key(), hashlib.blake2b(digest_size=16)
    if request.mimetype == "multipart/form-data":
        form = _FormReader(upload)
        form.read(blocks)  # the options may come after the file
        options, filename = _read_options(service, form.fields), form.filename
        manifest = resolve_model(service, options.model)
        scanner = _make_scanner(service, manifest, options)
        for block in upload.close_input().iterate():
            digest.update(block)
            scanner.feed(block)
    else:
        options, filename = _read_options(service, dict(request.args.items())), ""
        manifest = resolve_model(service, options.model)  # before a byte is read: a wrong name costs nothing
        scanner = _make_scanner(service, manifest, options)
        for block in blocks:
            digest.update(block)
            scanner.feed(block)
            upload.write(block)
        upload.close_input()
    plan = scanner.finish()
    _check_columns(scanner.columns or [], manifest, options)
    digest.update(repr(options).encode())
    upload.keep(msgspec.json.encode(plan))
    submission = Submission(
        id=job_id,
        kind="file",
        tenant=tenant,
        queue=queue_name("files", manifest.name, manifest.version),
        priority=options.priority,
        rows=plan.rows,
        bytes=plan.file_bytes,
        deadline_seconds=options.deadline_seconds or service.settings.deadline_seconds,
        retention_seconds=options.retention_seconds or service.settings.file_retention_seconds,
        document=make_document(
            manifest,
            options,
            delimiter=options.delimiter,
            column_prefix=options.column_prefix,
            filename=filename,
            classes=manifest.signature.classes,
            max_failed_rows=_limit_failures(options, plan.rows),
        ),
        chunk_rows=tuple(chunk.rows for chunk in plan.chunks),
        idempotency_key=idempotency_key,
        fingerprint=digest.hexdigest(),
    )
    return submit_job(service, submission)


def _read_encoding() -> str:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", *ENCODINGS):
        raise ServiceError(
            "unsupported_media_type", f"Content-Encoding: expected one of {', '.join(ENCODINGS)}, or none."
        )
    return encoding


def _read_options(service: Service, values: dict[str, Any]) -> FileOptions:
    values = _nest_webhook(values)
    delimiter = values.get("delimiter", ",")
    try:
        options = msgspec.convert(
            values | {"delimiter": _DELIMITERS.get(delimiter, delimiter)}, type=FileOptions, strict=False
        )
    except msgspec.ValidationError as error:
        raise ServiceError("invalid_parameter", f"{error}".replace("$.", "")) from None
    check_options(service, options)
    return options


def _nest_webhook(values: dict[str, Any]) -> dict[str, Any]:
    """Read ``webhook_url`` and ``webhook_events``, by which a query says what JSON nests."""
    values = dict(values)
    webhook = {}
    if "webhook_url" in values:
        webhook["url"] = values.pop("webhook_url")
    if "webhook_events" in values:
        webhook["events"] = values.pop("webhook_events").split(",")
    return values | {"webhook": webhook} if webhook else values


def _limit_failures(options: FileOptions, rows: int) -> int | None:
    """Return how many rows may fail before the job does; None if all may."""
    if options.on_row_error == "fail":
        return 0
    return None if options.error_threshold is None else math.floor(options.error_threshold * rows)


def _make_scanner(service: Service, manifest: Manifest, options: FileOptions) -> RecordScanner:
    try:
        return RecordScanner(
            options.delimiter.encode(),
            chunk_bytes=service.settings.chunk_bytes,
            chunk_rows=_size_chunks(service, manifest),
        )
    except ValueError as error:
        raise ServiceError("invalid_parameter", str(error)) from None


def _size_chunks(service: Service, manifest: Manifest) -> int:
    """Return the rows of half a second of work, as measured; a chunk is what is lost, and waited for, at a time."""
    speed = service.store.read_chunk_speed(queue_name("files", manifest.name, manifest.version))
    rows = _FIRST_CHUNK_ROWS if speed is None else round(speed * _CHUNK_SECONDS)
    return min(max(rows, _FEWEST_CHUNK_ROWS), service.settings.chunk_rows)


def _check_columns(columns: list[str], manifest: Manifest, options: FileOptions) -> None:
    names = manifest.signature.column_names
    differences = missing_columns(columns, names)
    if differences:
        faults: list[Fault] = [
            {
                "column": column.name,
                "code": "missing_column",
                "detail": "the file has no such column"
                + (f"; did you mean {', '.join(column.nearest)}?" if column.nearest else ""),
            }
            for column in differences.missing
        ]
        faults += [
            {"column": name, "code": "duplicate_column", "detail": "the file has more than one column of this name"}
            for name in differences.duplicated
        ]
        listed = ", ".join(str(fault["column"]) for fault in faults[:5]) + (", ..." if len(faults) > 5 else "")
        raise ServiceError(
            "schema_mismatch",
            f"The file's header does not fit {manifest.reference}: {len(faults)} of its {len(names)} columns are "
            f"missing or double ({listed}). Nothing was scored.",
            errors=faults[:100],
        )
    collisions = find_collisions(columns, added_columns(manifest.signature.classes, options.column_prefix))
    if collisions:
        raise ColumnCollision(collisions)


class _FormReader:
    """Reads a multipart form: the part ``file`` to the upload, the others as options."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self.fields: dict[str, Any] = {}
        self.filename = ""
        self._has_file = False

    def read(self, blocks: Iterator[bytes]) -> None:
        decoder = MultipartDecoder(_read_boundary(), max_form_memory_size=_MOST_HELD_BYTES, max_parts=100)
        for block in blocks:
            if decoder.state != State.EPILOGUE:  # what follows the end mark means nothing, and is not held
                decoder.receive_data(block)
                self._take_events(decoder)
        if decoder.state != State.EPILOGUE:
            raise ServiceError("incomplete_upload", "The form has no end mark; nothing was kept.")
        if not self._has_file:
            raise ServiceError("malformed_file", "The form has no part named 'file'.")

    def _take_events(self, decoder: MultipartDecoder) -> None:
        try:
            while not isinstance(event := decoder.next_event(), NeedData):
                self._take(event)
        except ValueError as error:
            raise ServiceError("malformed_file", f"The form cannot be read: {error}") from None

    def _take(self, event: Any) -> None:
        if isinstance(event, File | Field):
            if not event.name:
                raise ServiceError("malformed_file", "The form has a part without a name.")
            self._name = event.name
            self._in_file = event.name == "file"
            if self._in_file:
                if self._has_file:
                    raise ServiceError("malformed_file", "The form has two parts named 'file'.")
                self._has_file = True
                self.filename = _clean_filename(getattr(event, "filename", ""))
            else:
                self.fields[self._name] = b""
        elif isinstance(event, Data):
            if self._in_file:
                self._upload.write(event.data)
                return
            value = self.fields[self._name] + event.data
            if len(value) > _MOST_FIELD_BYTES:
                raise ServiceError("payload_too_large", f"The field {self._name!r} is longer than 64 KiB.")
            self.fields[self._name] = value if event.more_data else value.decode("utf-8", "replace")


def _read_boundary() -> bytes:
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary or not boundary.isascii():
        raise ServiceError("malformed_file", "The form's Content-Type has no boundary that can be used.")
    return boundary.encode()


def _clean_filename(name: str) -> str:
    """Return the last part of a path, without what cannot stand in a header."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable())[:200]
