"""The ``Prefer`` header (RFC 7240): how long a caller is willing to wait."""

from __future__ import annotations

import re

from flask import Response, request

_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)


def get_wait_seconds(limit: float) -> float:
    """Return the seconds that the caller prefers to wait, at most `limit`; 0 if it does not."""
    found = _WAIT.search(",".join(request.headers.getlist("Prefer")))
    return min(float(found[1]), limit) if found else 0.0


def confirm_wait(response: Response, seconds: float) -> Response:
    """Say that the preference was honoured."""
    response.headers["Preference-Applied"] = f"wait={int(seconds)}"
    return response
