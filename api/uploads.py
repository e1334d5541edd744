"""File jobs: the body streams to the file store and is planned on its way; it is never held in memory."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator

from api.bodies import has_known_end, iterate_body
from api.callers import get_caller
from api.current_request import get_request
from api.decoding import decode, decode_body, read_encoding
from api.file_jobs import Received, finish_digest, plan_source, submit_received
from api.file_options import FORMATS, guess_format, read_options
from api.forms import FormReader
from api.intake import begin_intake
from api.parameters import read_arguments
from api.previews import Preview, preview_file
from api.service import Service
from api.submission import read_idempotency_key, resolve_model
from shared.errors import ServiceError
from shared.filestore import Upload
from shared.jobs import Job

FORM = "multipart/form-data"
MEDIA_TYPES = (*FORMATS, FORM)
#: Of a body that is longer than the answer needs.
_DRAINED_BLOCKS = 256


def submit_file(service: Service, tenant: str) -> Job | Preview:
    """Take a file whole, or not at all, and submit its job; or show its first rows, if only that is asked for.

    Raises
    ------
    ServiceError
        The upload is not complete, not of its format, or lacks columns of the model; nothing is kept.
    """
    check_upload(MEDIA_TYPES)
    service.admission.check_file()
    service.limits.check_rows(get_caller())
    with service.receiving():
        job_id = service.store.make_id(tenant)
        upload = service.files.begin_upload(job_id)
        try:
            if get_request().mimetype == FORM:
                return _submit_form(service, tenant, job_id, upload)
            return _submit_body(service, tenant, job_id, upload)
        finally:
            upload.discard()


def check_upload(media_types: tuple[str, ...]) -> None:
    """Refuse a body that is of another type, or whose end could not be told from a cut."""
    if get_request().mimetype not in media_types:
        raise ServiceError("unsupported_media_type", f"Content-Type: expected {' or '.join(media_types)}.")
    # A form and a Parquet file have an end mark of their own, as compressed data do.
    if (
        read_encoding() == "identity"
        and FORMATS.get(get_request().mimetype) in ("csv", "ndjson")
        and not has_known_end()
    ):
        raise ServiceError(
            "length_required", "Send Content-Length or Content-Digest: without them a cut-off upload looks complete."
        )


def _submit_body(service: Service, tenant: str, job_id: str, upload: Upload) -> Job | Preview:
    options, format = read_options(service, read_arguments()), FORMATS[get_request().mimetype]
    if options.input:
        raise ServiceError("invalid_parameter", "input: expected in a JSON body, without an upload.")
    manifest = resolve_model(service, options.model)  # before a byte is read: a wrong name costs nothing
    limit = service.settings.max_file_bytes
    body = iterate_body(limit)
    blocks = decode_body(body, limit)
    if options.dry_run:
        preview = preview_file(service, manifest, format, options, blocks)
        _drain(body)
        return preview
    intake = begin_intake(service, manifest, format, options)
    digest = hashlib.blake2b(digest_size=16)
    for block in blocks:
        digest.update(block)
        intake.feed(block)
        upload.write(block)
    plan = intake.finish(upload.close_input())
    intake.check_columns(manifest, options.column_prefix)
    received = Received(manifest, options, plan, "", finish_digest(digest, options))
    return submit_received(service, tenant, job_id, upload, received, read_idempotency_key())


def _drain(body: Iterator[bytes]) -> None:
    """Read a bounded rest of a body: many clients look for an answer only when they have sent theirs."""
    with contextlib.suppress(ServiceError):  # that it was cut off is of no account for what was looked at
        for _ in itertools.islice(body, _DRAINED_BLOCKS):
            pass


def _submit_form(service: Service, tenant: str, job_id: str, upload: Upload) -> Job | Preview:
    limit = service.settings.max_file_bytes
    form = FormReader(get_request().mimetype_params.get("boundary", ""))
    blocks = form.read_file(decode_body(iterate_body(limit), limit))
    first = next(blocks, b"")  # now the file's name is known, and with it how it is compressed
    named_format, encoding = guess_format(form.filename)
    for block in decode(itertools.chain([first], blocks), encoding, limit):
        upload.write(block)
    for _ in blocks:  # compressed data end before their part of the form does
        pass
    source = upload.close_input()
    options = read_options(service, form.fields)
    manifest = resolve_model(service, options.model)
    format = FORMATS.get(form.media_type) or named_format or "csv"
    if options.dry_run:
        return preview_file(service, manifest, format, options, source.iterate())
    plan, digest = plan_source(service, manifest, format, options, source)
    received = Received(manifest, options, plan, form.filename, digest)
    return submit_received(service, tenant, job_id, upload, received, read_idempotency_key())
