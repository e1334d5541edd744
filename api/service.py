"""The service's own endpoints, and the parts that the others share: store, registry, files, waiters."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import redis
from flask import Blueprint, Response

from api.admission import Admission
from api.answers import answer_json
from api.callers import get_caller
from api.connections import ConnectionGuard, make_spans
from api.current_request import get_service
from api.fleet import FleetView
from api.keyring import KeyRing
from api.limits import Limits
from api.operations import Answer, describe
from api.receiving import ReceivingPlaces
from api.renditions import Renditions
from api.shapes import CallerView, Health, Readiness
from api.waiting import Waiters
from api.webhook_sender import WebhookSender
from shared import metrics
from shared.blobs import open_blobs
from shared.connection import connect
from shared.filestore import FileStore
from shared.keys import KeyStore
from shared.limits import Limiter
from shared.line import Line
from shared.logs import get_logger
from shared.quality_counts import QualityCounts
from shared.registry import Registry
from shared.settings import Settings
from shared.store import JobStore
from shared.sweep import Sweep
from shared.wakeups import CELERY_QUEUES, WakeupPublisher
from shared.webhooks import DeliveryStore

blueprint = Blueprint("service", __name__)
logger = get_logger(__name__)

#: Of the places for bodies, what one tenant may hold when there are others.
_TENANT_SHARE = 0.5


class Service:
    """What one API process works with.

    Parameters
    ----------
    settings : Settings
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        client = connect(settings.redis_url)
        line = Line(client)
        self.store = JobStore(client, line)
        self.keys = KeyRing(settings, KeyStore(client))
        self.limits = Limits(settings, Limiter(client, line))
        self.registry = Registry(settings.models)
        self.fleet = FleetView(self.store)
        self.files = FileStore(open_blobs(settings.file_store))
        self.renditions = Renditions(self.files)
        self.publisher = WakeupPublisher(settings)
        # A bucket has no disk that could be full.
        on_disk = [] if "://" in settings.file_store else [Path(settings.file_store)]
        folders = [*on_disk, *([settings.redis_folder] if settings.redis_folder else [])]
        self.admission = Admission(self.store.client, folders, settings.min_free_bytes)
        self.connections = ConnectionGuard(
            make_spans(settings.stall_seconds, settings.max_wait_seconds), settings.min_bytes_per_second
        )
        self._places = ReceivingPlaces(settings.receiving_clients)
        self.quality = QualityCounts(self.store.client)
        self.deliveries = DeliveryStore(self.store.client)
        self.webhooks = WebhookSender(settings, self.deliveries, self.store)
        self.waiters = Waiters(settings.redis_url, settings.waiting_clients)

    def start(self) -> None:
        """Start the threads of this process: the sweep, the listener for finished jobs, webhooks, and others."""
        self.waiters.start()
        self.connections.start()
        self.webhooks.start()
        self._say_who_is_served()
        name = f"api@{socket.gethostname()}:{os.getpid()}"
        Sweep(JobStore(connect(self.settings.redis_url)), self.files, self.publisher, name).start()

    def _say_who_is_served(self) -> None:
        try:
            if not self.keys.needs_key():
                logger.warning("no API key is configured: only callers on this machine are served")
        except redis.RedisError as error:
            logger.warning("Redis does not answer; nobody is served until it does", error=str(error))

    def receiving(self) -> contextlib.AbstractContextManager[None]:
        """Read a body in this block; slow ones take some threads of the process and never all.

        Raises
        ------
        ServiceError
            ``overloaded``: too many bodies come in already, and none was whole within a second.
        """
        caller = get_caller()
        return self._places.take(caller.tenant, share=_TENANT_SHARE if caller.key_id else 1.0)


@blueprint.get("/health")
@describe({200: Answer(says="It lives.", kind=Health)})
def show_health() -> Response:
    """Answer that the process lives; it depends on nothing, or an outage of Redis would restart every API."""
    return answer_json({"status": "alive"})


@blueprint.get("/ready")
@describe(
    {
        200: Answer(says="Jobs can be taken.", kind=Readiness),
        503: Answer(says="Jobs cannot be taken; `missing` says why.", kind=Readiness),
    }
)
def show_ready() -> Response:
    """Answer whether jobs can be taken; workers are told but do not decide, or nothing could scale up from none."""
    service = get_service()
    missing = look_at_stores(service)
    state: dict[str, Any] = {
        "status": "not_ready" if missing else "ready",
        "redis": "redis" not in missing,
        "file_store": "file_store" not in missing,
        "workers": _count_workers(service),
    }
    if missing:
        state["missing"] = missing
    return answer_json(state, 503 if missing else 200)


def look_at_stores(service: Service) -> list[str]:
    """Return what is missing of that on which the taking of jobs depends: ``redis``, ``file_store``."""
    missing = []
    try:
        service.store.client.ping()
    except redis.RedisError:
        missing.append("redis")
    try:
        service.files.check()
    except OSError:
        missing.append("file_store")
    return missing


def _count_workers(service: Service) -> dict[str, int]:
    counts = dict.fromkeys(CELERY_QUEUES, 0)
    with contextlib.suppress(redis.RedisError):  # it is known already that it does not answer
        for says in service.store.list_workers().values():
            for queue in says.get("queues", ()):
                counts[queue] = counts.get(queue, 0) + 1
    return counts


@blueprint.get("/v1/caller")
@describe({200: Answer(says="The caller.", kind=CallerView)})
def show_caller() -> Response:
    """Tell a caller who it is and what it may do; any key may ask."""
    caller = get_caller()
    return answer_json({"tenant": caller.tenant, "key_id": caller.key_id or None, "scopes": list(caller.scopes)})


@blueprint.get("/metrics")
@describe({200: Answer(says="Metrics in Prometheus's text format.", media_types=("text/plain",))})
def show_metrics() -> Response:
    """Serve the metrics of this host's processes and of the queues."""
    service = get_service()
    text = metrics.render_metrics(lambda: metrics.collect_queues(service.store, service.registry))
    return Response(text, content_type=metrics.CONTENT_TYPE)
