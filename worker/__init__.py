"""The Celery workers: they claim what waits, score it and commit.

``celery -A worker worker`` finds ``app`` here. It is made when it is first asked for, so that importing a module of
this package needs no settings and no Redis.
"""

from __future__ import annotations

from typing import Any

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from worker import celery_app

    return celery_app.app
