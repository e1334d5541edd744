"""How callers name models, and what they are told when a name leads nowhere, or to something broken."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from shared.errors import ServiceError

# No separator and no leading dot: a name can never leave the registry's folder.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class UnknownModel(ServiceError):
    """A reference names no model, version or alias of the registry.

    Parameters
    ----------
    reference : str
        As the caller wrote it.
    known : sequence of str
        The names (or versions, or aliases) that exist.
    detail : str or None
        What was expected instead; by default made from `known`.
    """

    def __init__(self, reference: str, known: Sequence[str], detail: str | None = None) -> None:
        super().__init__("unknown_model", detail or describe_unknown(reference, known))
        self.reference = reference
        self.known = list(known)


class BrokenManifest(ServiceError):
    """A file of the registry cannot be used; it says which one and which field.

    Parameters
    ----------
    file : str
        Relative to the registry's folder.
    field : str or None
        Path of the field inside the file, ``$.sha256`` for example.
    reason : str
    """

    def __init__(self, file: str, field: str | None, reason: str) -> None:
        where = f"{file}, field {field}" if field else file
        super().__init__("model_not_ready", f"{where}: {reason}")
        self.file = file
        self.field = field
        self.reason = reason


def split_reference(reference: str) -> tuple[str, str, str]:
    """Split ``name@alias`` or ``name:version`` into name, separator and rest."""
    for separator in "@:":
        name, found, rest = reference.partition(separator)
        if found:
            return name, found, rest
    return reference, "", ""


def describe_unknown(reference: str, known: Sequence[str]) -> str:
    """Say what was expected instead of a reference that leads nowhere."""
    name = split_reference(reference)[0]
    if not known:
        return f"no model {quote(name)}: the registry is empty"
    near = difflib.get_close_matches(name[:100], known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    form = "" if NAME.fullmatch(name) else " (expected name, name@alias or name:version)"
    return f"no model {quote(name)}{form}; {hint}there is {list_some(known)}"


def list_some(known: Sequence[str], limit: int = 10) -> str:
    """List the first of many names."""
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return ", ".join(known[:limit]) + more


def quote(text: str) -> str:
    """Quote what a caller wrote, cut short."""
    return repr(text if len(text) <= 100 else text[:100] + "…")
