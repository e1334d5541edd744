"""Which scope each call needs; what is not listed here nobody may call, so a new endpoint has to be thought of."""

from __future__ import annotations

import functools

from shared.errors import ServiceError

_READING = frozenset({"GET", "HEAD", "OPTIONS"})

#: Probes: they come without a key, and tell nothing that a stranger may not know.
PROBES = frozenset({"/health", "/ready", "/ping", "/v2/health/live", "/v2/health/ready"})
#: Pages and descriptions: files of the installed package, the same for everybody and without any data. A browser loads
#: them without a key; the calls that they make carry the one that their user types in.
PAGES = frozenset({"/", "/openapi.json", "/docs", "/redoc", "/assets/<asset>"})
#: What any caller may ask, whatever the scopes of its key: about itself.
ANY_KEY = frozenset({"/v1/caller"})
#: Beginnings of rules, the most special first: scope for reading, scope for all else.
_SCOPES = (
    ("/v1/jobs", "jobs:read", "jobs:write"),
    ("/v1/dead-letters", "jobs:read", "jobs:write"),
    ("/v1/webhook-deliveries", "jobs:read", "jobs:write"),
    ("/v1/models", "models:read", "models:write"),
    ("/v1/queues", "models:read", "models:write"),
    ("/predict", "jobs:write", "jobs:write"),
    ("/v2", "models:read", "jobs:write"),
    ("/invocations", "jobs:write", "jobs:write"),
    ("/version", "models:read", "models:read"),
    ("/metrics", "metrics:read", "metrics:read"),
)


class ScopeMissing(ServiceError):
    """The caller's key does not have the scope that its call needs."""

    def __init__(self, scope: str) -> None:
        super().__init__("forbidden", f"This key lacks the scope {scope}.")
        self.scope = scope


@functools.lru_cache(1024)
def find_scope(rule: str | None, method: str) -> str | None:
    """Return the scope that a call needs; empty if any key will do, None if none does."""
    if rule is None or rule in ANY_KEY:  # None: nothing is there, or not by this method
        return ""
    for beginning, reading, changing in _SCOPES:
        if rule == beginning or rule.startswith((f"{beginning}/", f"{beginning}_")):
            return reading if method in _READING else changing
    return None
