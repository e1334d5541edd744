"""File jobs: made of a file that is whole, in the file store, and planned."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from api.file_options import FileOptions, limit_failures
from api.intake import begin_intake
from api.service import Service
from api.submission import make_document, submit_job
from shared.filestore import Source, Upload
from shared.jobs import Job, queue_name
from shared.manifest import Manifest
from shared.plans import Format, Plan
from shared.submissions import Submission


class Received(NamedTuple):
    """A file that is whole, in the file store, and planned."""

    manifest: Manifest
    options: FileOptions
    plan: Plan
    filename: str
    #: Of all that was sent.
    digest: str


def submit_received(
    service: Service, tenant: str, job_id: str, upload: Upload, received: Received, idempotency_key: str = ""
) -> Job:
    """Submit the job of a file that is in the file store."""
    manifest, options, plan, filename, digest = received
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
            format=plan.format,
            delimiter=options.delimiter,
            column_prefix=options.column_prefix,
            filename=filename,
            outputs=manifest.signature.answers,
            max_failed_rows=limit_failures(options, plan.rows),
        ),
        chunk_rows=tuple(chunk.rows for chunk in plan.chunks),
        idempotency_key=idempotency_key,
        fingerprint=digest,
    )
    return submit_job(service, submission)


def plan_source(
    service: Service, manifest: Manifest, format: Format, options: FileOptions, source: Source
) -> tuple[Plan, str]:
    """Plan a file that is there already; return the plan and a digest of it and the options."""
    intake = begin_intake(service, manifest, format, options)
    digest = hashlib.blake2b(digest_size=16)
    for block in source.iterate():
        digest.update(block)
        intake.feed(block)
    plan = intake.finish(source)
    intake.check_columns(manifest, options.column_prefix)
    return plan, finish_digest(digest, options)


def finish_digest(digest: hashlib.blake2b, options: FileOptions) -> str:
    """Return a digest of all that a repetition under the same idempotency key must equal."""
    digest.update(repr(options).encode())
    return digest.hexdigest()
