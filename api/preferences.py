"""The ``Prefer`` header (RFC 7240): whether, and how long, a caller is willing to wait."""

from __future__ import annotations

import re

from flask import Response

from api.current_request import get_environ

_ASYNC = re.compile(r"(?:^|[,;])\s*respond-async\s*(?=$|[,;])", re.IGNORECASE)
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)


def get_wait_seconds(limit: float) -> float:
    """Return the seconds that the caller prefers to wait, at most `limit`; 0 if it does not."""
    found = _WAIT.search(_read_preferences())
    return min(float(found[1]), limit) if found else 0.0


def confirm_wait(response: Response, seconds: float) -> Response:
    """Say that the preference was honoured."""
    response.headers["Preference-Applied"] = f"wait={int(seconds)}"
    return response


def prefers_async() -> bool:
    """Tell whether the caller would rather have a job than wait for its end."""
    return bool(_ASYNC.search(_read_preferences()))


def confirm_async(response: Response) -> Response:
    """Say that the preference for a job was honoured."""
    response.headers["Preference-Applied"] = "respond-async"
    return response


def _read_preferences() -> str:
    preferences: str = get_environ().get("HTTP_PREFER", "")
    return preferences
