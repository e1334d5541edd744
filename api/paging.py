"""Lists in pages: newest first, the last id of a page being the cursor of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar
from urllib.parse import urlencode

import msgspec
from flask import Response

#: Records looked at for one page of a filtered list, so that a rare status cannot cost a scan of everything.
_MOST_LOOKED_AT = 5000

Record = TypeVar("Record")


class PageQuery(msgspec.Struct, kw_only=True):
    """Which page of a list."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=200, description="Records on a page.")] = 20
    after: Annotated[str, msgspec.Meta(description="The last record of the page before.")] = ""


def collect_page(
    query: PageQuery,
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
        At most as many records as are asked for, and the cursor of the next page.
    """
    found: list[Record] = []
    after, looked_at, limit = query.after or None, 0, query.limit
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
