"""What a caller may ask for with a file, from the query, the fields of a form, or a JSON body."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from api.parameters import explain_fault
from api.service import Service
from api.submission import DeadlineSeconds, Options, Priority, RetentionSeconds, check_options
from shared.errors import ServiceError
from shared.plans import Format

#: The formats of files by their media types; the first of each format is the one that is answered.
FORMATS: dict[str, Format] = {
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-ndjson": "ndjson",
}
MEDIA_TYPES: dict[Format, str] = {name: media_type for media_type, name in FORMATS.items()}
_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
_PACKED: dict[str, str] = {".gz": "gzip", ".zst": "zstd"}
_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}


OnRowError = Literal["continue", "fail"]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]


class FileOptions(Options):
    """What a caller may ask for with a file."""

    model: str = ""
    on_row_error: OnRowError = "continue"
    error_threshold: Ratio | None = None
    delimiter: str = ","
    column_prefix: str = ""
    dry_run: bool = False
    #: Address of a file that is there already, instead of an upload.
    input: str = ""


class FileQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The options of a file in a query, or in the fields of a form."""

    model: Annotated[str, msgspec.Meta(description="`name`, `name@alias` or `name:version`.")] = ""
    priority: Priority = "normal"
    deadline_seconds: DeadlineSeconds | msgspec.UnsetType = msgspec.UNSET
    retention_seconds: RetentionSeconds | msgspec.UnsetType = msgspec.UNSET
    on_row_error: OnRowError = "continue"
    error_threshold: Ratio | msgspec.UnsetType = msgspec.UNSET
    delimiter: Annotated[str, msgspec.Meta(description="One character, or `comma`, `semicolon`, `tab`, `pipe`.")] = ","
    column_prefix: str = ""
    dry_run: bool = False
    webhook_url: str | msgspec.UnsetType = msgspec.UNSET
    webhook_events: Annotated[str, msgspec.Meta(description="Names, with commas.")] | msgspec.UnsetType = msgspec.UNSET


class FileForm(FileQuery, kw_only=True):
    """A form with a file; the options may stand before or after it."""

    file: Annotated[str, msgspec.Meta(extra_json_schema={"contentMediaType": "application/octet-stream"})]


class InputRequest(FileOptions, kw_only=True):
    """A file that is there already."""

    input: Annotated[str, msgspec.Meta(min_length=1, examples=["s3://bucket/incoming/rows.csv"])]


def read_options(service: Service, values: Mapping[str, Any], *, strict: bool = False) -> FileOptions:
    """Read the options of a file.

    Parameters
    ----------
    service : Service
    values : mapping of str to object
    strict : bool
        Whether they have types of their own, as in JSON; else they are texts.

    Raises
    ------
    ServiceError
        ``invalid_parameter``.
    """
    delimiter = values.get("delimiter", ",")
    named = {"delimiter": _DELIMITERS.get(delimiter, delimiter)} if isinstance(delimiter, str) else {}
    try:
        if not strict:
            msgspec.convert({name: values[name] for name in values}, FileQuery, strict=False)
        options = msgspec.convert({**_nest_webhook(values), **named}, type=FileOptions, strict=strict)
    except msgspec.ValidationError as error:
        raise ServiceError("invalid_parameter", explain_fault(error, FileOptions)) from None
    check_options(service, options)
    return options


def _nest_webhook(values: Mapping[str, Any]) -> dict[str, Any]:
    """Read ``webhook_url`` and ``webhook_events``, by which a query says what JSON nests."""
    values = dict(values)
    webhook = {}
    if "webhook_url" in values:
        webhook["url"] = values.pop("webhook_url")
    if "webhook_events" in values:
        webhook["events"] = values.pop("webhook_events").split(",")
    return values | {"webhook": webhook} if webhook else values


def limit_failures(options: FileOptions, rows: int) -> int | None:
    """Return how many rows may fail before the job does; None if all may."""
    if options.on_row_error == "fail":
        return 0
    return None if options.error_threshold is None else math.floor(options.error_threshold * rows)


def guess_format(filename: str) -> tuple[Format | None, str]:
    """Tell from a file's name its format, None if that says nothing, and how it is compressed (``identity``: not)."""
    stem, encoding = filename.lower(), "identity"
    for ending, packed in _PACKED.items():
        if stem.endswith(ending):
            stem, encoding = stem.removesuffix(ending), packed
    return next((name for ending, name in _ENDINGS.items() if stem.endswith(ending)), None), encoding
