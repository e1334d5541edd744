"""Dry runs: the first rows of a file scored, and how its columns differ from the model's; no job is made of it.

The rows go through the queue as those of a small file of nobody, so what is shown is what a job would give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from api.file_jobs import Received, submit_received
from api.file_options import FileOptions
from api.intake import Intake
from api.renditions import render
from api.service import Service
from api.waiting import await_job
from shared.errors import Fault, ServiceError
from shared.jobs import Job, queue_name
from shared.manifest import Manifest
from shared.plans import Format, Plan

Preview = dict[str, Any]

ROWS = 100
#: Whose jobs the previews are while they run: no caller has this name.
TENANT = "preview/"
#: A hundred rows of any use are smaller.
_HEAD_BYTES_MAX = 64 << 20
_WAIT_SECONDS = 30.0
_MOST_DIFFERENCES = 1000


def preview_file(
    service: Service, manifest: Manifest, format: Format, options: FileOptions, blocks: Iterator[bytes]
) -> Preview:
    """Score the first rows of a file, and list its differences from the model's columns.

    Parameters
    ----------
    blocks : iterator of bytes
        The file; no more of it is taken than the rows need, so it need not be whole.

    Returns
    -------
    dict
        ``model``, ``model_sha256``, ``rows_per_second`` of earlier files (None if there were none), ``differences``,
        and ``preview``: the rows with what scoring adds; None if a column that is needed is not there.

    Raises
    ------
    ServiceError
        The bytes are no such file; ``overloaded``: no worker was free in time.
    """
    job_id = service.store.make_id(TENANT)
    upload = service.files.begin_upload(job_id)
    try:
        for block in _take_head(format, options, blocks):
            upload.write(block)
        source = upload.close_input()
        intake = _begin(format, options)
        for block in source.iterate():
            intake.feed(block)
        plan = intake.finish(source)
        plan = msgspec.structs.replace(plan, chunks=plan.chunks[:1], rows=sum(chunk.rows for chunk in plan.chunks[:1]))
        faults = intake.find_faults(manifest)
        for name in intake.find_collisions(manifest, options.column_prefix):
            detail = "scoring adds a column of this name; give a column_prefix"
            faults.append({"column": name, "code": "column_collision", "detail": detail})
        unused = sorted(set(intake.columns) - set(manifest.signature.column_names))
        notes: list[Fault] = [
            {"column": name, "code": "unused_column", "detail": "the model does not use it; it passes through"}
            for name in unused
        ]
        answer: Preview = {
            "model": manifest.reference,
            "model_sha256": manifest.sha256,
            "rows_per_second": service.store.read_chunk_speed(queue_name("files", manifest.name, manifest.version)),
            "preview": None,
        }
        if not faults:
            asked = msgspec.structs.replace(
                options, priority="high", deadline_seconds=2 * _WAIT_SECONDS, retention_seconds=_WAIT_SECONDS,
                on_row_error="continue", error_threshold=None, webhook=None,
            )  # fmt: skip
            job = submit_received(service, TENANT, job_id, upload, Received(manifest, asked, plan, "", ""))
            answer["preview"], row_faults = _read_scored(service, job)
            faults = _sum_up(row_faults)
        return answer | {"differences": (faults + notes)[:_MOST_DIFFERENCES]}
    finally:
        upload.discard()
        service.store.remove(job_id)
        service.files.remove(job_id)


def _begin(format: Format, options: FileOptions) -> Intake:
    return Intake(format, delimiter=options.delimiter, chunk_bytes=_HEAD_BYTES_MAX, chunk_rows=ROWS)


def _take_head(format: Format, options: FileOptions, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the bytes up to the end of the first rows; all of them where that cannot be told."""
    intake = _begin(format, options)
    taken = 0
    for block in blocks:
        intake.feed(block)
        if intake.first_chunk is not None:
            yield block[: intake.first_chunk.offset + intake.first_chunk.length - taken]
            return
        taken += len(block)
        if taken > _HEAD_BYTES_MAX and format != "parquet":
            raise ServiceError("payload_too_large", f"The first {ROWS} rows are over {_HEAD_BYTES_MAX} bytes.")
        yield block


def _read_scored(service: Service, job: Job) -> tuple[list[dict[str, Any]], list[Fault]]:
    ended = await_job(service, job, _WAIT_SECONDS)
    if ended is None or not ended.status.is_terminal:
        raise ServiceError("overloaded", "The workers are busy: the first rows were not scored in time.", retry_after=5)
    if ended.problem is not None and not ended.failed:
        raise ServiceError(ended.problem.get("code", "internal_error"), ended.problem.get("detail", ""))
    plan = msgspec.json.decode(service.files.read_plan(job.id), type=Plan)
    entries = [entry for _, entry in sorted(service.store.read_ledger(job.id).items())]
    signature = service.registry.manifest(job.document.model, job.document.version).signature
    lines = b"".join(render(service.files, job, plan, signature, [entry.part for entry in entries], "ndjson"))
    errors = [service.files.read_part(job.id, entry.errors_part) for entry in entries if entry.errors_part]
    faults = [msgspec.json.decode(line) for blocks in errors for line in b"".join(blocks).splitlines()]
    return [msgspec.json.decode(line) for line in lines.splitlines()], faults


def _sum_up(faults: list[Fault]) -> list[Fault]:
    """Return one fault for each column and code: how many rows have it, and where the first is."""
    counts = Counter((fault.get("column"), fault["code"]) for fault in faults)
    firsts = {(fault.get("column"), fault["code"]): fault for fault in reversed(faults)}
    return [
        {"column": column, "code": code, "detail": f"{count} row(s); the first: {firsts[column, code]['detail']}"}
        for (column, code), count in counts.items()
    ]
