"""Files that are in a bucket already: scored where they are, if they lie under a prefix that the operator allows."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from api.callers import get_caller
from api.decoding import decode
from api.file_jobs import Received, plan_source, submit_received
from api.file_options import FileOptions, guess_format, read_options
from api.previews import Preview, preview_file
from api.service import Service
from api.submission import read_idempotency_key, resolve_model
from shared.blobs import open_reference
from shared.errors import ServiceError
from shared.filestore import Source
from shared.jobs import Job


def read_input(service: Service, body: bytes) -> FileOptions | None:
    """Return the options of a body that names a file by ``input``; None if it is a body of another kind.

    Raises
    ------
    ServiceError
        ``invalid_parameter``.
    """
    try:
        members = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if "input" not in members:
        return None
    options = read_options(service, members, strict=True)
    if not options.input:
        raise ServiceError("invalid_parameter", "input: expected the address of a file, s3://bucket/name.")
    return options


def submit_input(service: Service, tenant: str, options: FileOptions) -> Job | Preview:
    """Submit the job of a file that is there already; or show its first rows, if only that is asked for.

    Raises
    ------
    ServiceError
        ``invalid_parameter``: the address is not under an allowed prefix; ``not_found``; or it does not fit the model.
    """
    service.admission.check_file()
    service.limits.check_rows(get_caller())
    source = find_source(service, tenant, options.input)
    manifest = resolve_model(service, options.model)
    format, encoding = guess_format(source.name)
    with service.receiving():
        blocks = decode(source.iterate(), encoding, service.settings.max_file_bytes)
        if options.dry_run:
            return preview_file(service, manifest, format or "csv", options, blocks)
        job_id = service.store.make_id(tenant)
        upload = service.files.begin_upload(job_id)
        try:
            if encoding == "identity":
                plan, _ = plan_source(service, manifest, format or "csv", options, source)
                plan = msgspec.structs.replace(plan, source=options.input, mark=source.mark)
            else:  # chunks are byte ranges, which compressed data do not have: it is unpacked into the file store
                for block in blocks:
                    upload.write(block)
                plan, _ = plan_source(service, manifest, format or "csv", options, upload.close_input())
            received = Received(manifest, options, plan, source.name.rpartition("/")[2], _identify(options, source))
            return submit_received(service, tenant, job_id, upload, received, read_idempotency_key())
        finally:
            upload.discard()


def find_source(service: Service, tenant: str, address: str) -> Source:
    """Return the file at an address that `tenant` may name, as it is now.

    Raises
    ------
    ServiceError
        ``invalid_parameter`` or ``not_found``.
    """
    allowed_here = filter(None, (prefix.strip() for prefix in service.settings.input_prefixes.split(",")))
    # A prefix is a folder: what only begins like it is not in it, as the files of a tenant with a longer name.
    prefixes = [prefix.replace("{tenant}", tenant).rstrip("/") + "/" for prefix in allowed_here]
    allowed = any(address.startswith(prefix) and address != prefix for prefix in prefixes)
    # To S3 ".." is a name like others; a store that keeps its objects in folders may see more in it.
    if not allowed or {".", ".."} & set(address.split("/")):
        raise ServiceError("invalid_parameter", "input: the address is not under a prefix that is allowed here.")
    try:
        blobs, name = open_reference(address)
        size, mark = blobs.find(name)
    except ValueError as error:
        raise ServiceError("invalid_parameter", f"input: {error}") from None
    except FileNotFoundError:
        raise ServiceError("not_found", "input: there is no file at this address.") from None
    if size > service.settings.max_file_bytes:
        raise ServiceError(
            "payload_too_large", f"The file has {size} bytes; at most {service.settings.max_file_bytes} are taken."
        )
    return Source(blobs, name, mark)


def _identify(options: FileOptions, source: Source) -> str:
    """Return a digest of what is asked for; what the file holds need not be read for it: its mark stands for that."""
    return hashlib.blake2b(f"{options!r} {source.mark}".encode(), digest_size=16).hexdigest()
