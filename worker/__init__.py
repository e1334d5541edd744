"""The Celery workers: they claim what waits, score it and commit.

``celery -A worker worker`` finds ``app`` here, and notebooks find ``register``. Each is made when it is first asked
for, so that importing a module of this package needs no settings, no Redis and no scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.registration import register

__all__ = ["app", "register"]


def __getattr__(name: str) -> Any:
    if name == "app":
        from worker import celery_app

        return celery_app.app
    if name == "register":
        from worker import registration

        return registration.register
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
