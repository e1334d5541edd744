"""Lists in pages: newest first, the last id of a page being the cursor of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlencode

from flask import Response, request

from shared.errors import ServiceError

_PAGE = 20
_MOST_PAGE = 200
#: Records looked at for one page of a filtered list, so that a rare status cannot cost a scan of everything.
_MOST_LOOKED_AT = 5000

Record = TypeVar("Record")


def read_limit() -> int:
    """Return the records that the caller wants on a page.

    Raises
    ------
    ServiceError
        ``invalid_parameter``.
    """
    text = request.args.get("limit", str(_PAGE))
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= _MOST_PAGE:
        raise ServiceError("invalid_parameter", f"limit: expected a whole number from 1 to {_MOST_PAGE}.")
    return int(text)


def collect_page(
    limit: int,
    list_ids: Callable[[str | None, int], list[str]],
    read: Callable[[Sequence[str]], list[Record | None]],
    is_wanted: Callable[[Record], bool],
    *,
    filtered: bool,
) -> tuple[list[Record], str | None]:
    """Collect the page after the cursor that the caller names.

    Parameters
    ----------
    list_ids : callable
        Takes a cursor and a number; returns so many ids after it, the newest first.
    read : callable
        Takes ids; returns their records, None for those that are gone.
    is_wanted : callable
        Whether a record belongs into the list.
    filtered : bool
        Whether it may not.

    Returns
    -------
    tuple of list and (str or None)
        At most `limit` records, and the cursor of the next page.
    """
    found: list[Record] = []
    after, looked_at = request.args.get("after"), 0
    while looked_at < _MOST_LOOKED_AT:
        ids = list_ids(after, max(limit, 100) if filtered else limit + 1)
        if not ids:
            return found, None
        for record_id, record in zip(ids, read(ids), strict=True):
            if record is not None and is_wanted(record):
                if len(found) == limit:
                    return found, after
                found.append(record)
            after = record_id
        looked_at += len(ids)
    return found, after


def link_next(response: Response, path: str, wanted: dict[str, str], limit: int, cursor: str | None) -> Response:
    """Say where the next page is, if there is one."""
    if cursor:
        query = urlencode([*wanted.items(), ("limit", limit), ("after", cursor)])
        response.headers["Link"] = f'<{path}?{query}>; rel="next"'
    return response
