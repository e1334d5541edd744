"""The errors that cross a boundary: each carries the code by which callers know it.

They know no HTTP; ``api/problems.py`` holds the one table from code to status.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class Fault(TypedDict, total=False):
    """One of several faults: where it is and what was expected."""

    pointer: str
    detail: str
    column: str | None
    code: str


class ServiceError(Exception):
    """A request cannot be served; `code` is one of the contract's.

    Parameters
    ----------
    code : str
        A code of the contract's table of errors.
    detail : str
        What was wrong, where, and what was expected; shown to the caller.
    errors : sequence of Fault
        The single faults, when there are several.
    retry_after : int or None
        Seconds after which trying again makes sense.
    """

    def __init__(self, code: str, detail: str, *, errors: Sequence[Fault] = (), retry_after: int | None = None) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.retry_after = retry_after


class StoreUnavailable(ServiceError, OSError):
    """The file store does not do what it is asked, for a reason that is not the request's.

    Parameters
    ----------
    detail : str
        At what, and why; without addresses and credentials.
    """

    def __init__(self, detail: str) -> None:
        super().__init__("store_unavailable", detail, retry_after=5)

    def __str__(self) -> str:
        return self.detail
