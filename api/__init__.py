"""The Flask front end: it takes jobs, writes them down durably and answers; it never scores.

``flask --app api run`` and ``granian --interface wsgi api:app`` find ``app`` here. It is made when it is first asked
for, so that importing a module of this package needs no settings and no Redis.
"""

from __future__ import annotations

from typing import Any

from flask import Flask

from shared.logs import configure_logging
from shared.settings import Settings

__all__ = ["app", "create_app"]


def create_app(settings: Settings | None = None) -> Flask:
    """Join the parts of the front end; it connects to nothing yet.

    Parameters
    ----------
    settings : Settings, optional
        By default those of the environment.
    """
    from api import (
        callers,
        compatible,
        compression,
        dead_letters,
        events,
        headers,
        inference,
        invocations,
        jobs,
        limits,
        models,
        pages,
        problems,
        quality,
        queues,
        requests_log,
        retries,
        service,
        shortcuts,
        webhooks,
    )
    from api.front_end import FrontEnd

    app = FrontEnd(__name__, static_folder=None)
    app.url_map.strict_slashes = False
    app.extensions["scorequeue"] = service.Service(settings or Settings.from_env())
    shortcuts.install(app)
    app.wsgi_app = app.extensions["scorequeue"].connections.wrap(app.wsgi_app)  # type: ignore[method-assign]
    compression.install(app)
    requests_log.install(app)
    headers.install(app)
    problems.install(app)
    limits.install(app)
    callers.install(app)
    for module in (
        jobs,
        retries,
        events,
        dead_letters,
        queues,
        models,
        quality,
        webhooks,
        compatible,
        inference,
        invocations,
        service,
        pages,
    ):
        app.register_blueprint(module.blueprint)
    return app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    configure_logging()
    app = create_app()
    app.extensions["scorequeue"].start()
    globals()["app"] = app
    return app
