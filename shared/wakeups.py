"""Wake-ups: small Celery messages that say "there is work in this queue"; never the work itself.

Losing one costs at most the life of its mark and one sweep (3 s), never a job. So none of Celery's own ways to
keep a message is used: acked early, not retried, expiring soon (design, decision 7).
"""

from __future__ import annotations

import kombu.exceptions
import redis
from celery import Celery
from kombu.entity import Queue

from shared.jobs import parse_queue
from shared.logs import get_logger
from shared.settings import Settings

SCORE_ROWS = "scorequeue.score_rows"
SCORE_CHUNKS = "scorequeue.score_chunks"

#: The Celery queues: rows jobs and files each have processes of their own, so that neither holds up the other.
CELERY_QUEUES = ("rows", "files")
_TASKS = {"rows": SCORE_ROWS, "files": SCORE_CHUNKS}

#: Where a wake-up is published; `mark_wakeup` in ``units.lua`` decides by who is alive.
ALL_MODELS, ONE_MODEL = 1, 2
#: Stands for the name of a model where a worker serves all.
ANY_MODEL = "*"

#: A wake-up older than this is pointless: the sweep has published another.
_EXPIRES_SECONDS = 60

#: A wake-up is not worth more of a caller's time, or of a worker's that holds claims; the sweep repeats it.
_PUBLISH_TIMEOUT_SECONDS = 0.5

logger = get_logger(__name__)


def make_celery(settings: Settings, *, socket_timeout: float = 10.0) -> Celery:
    """Return the Celery app, configured for messages that are only hints.

    Parameters
    ----------
    settings : Settings
    socket_timeout : float
        Seconds; a worker's must outlast its blocking pop, a publisher's must be short.
    """
    app = Celery("scorequeue", set_as_current=False)
    app.conf.update(
        broker_url=_broker_url(settings.broker_url or settings.redis_url),
        worker_consumer="worker.consumer:QuickConsumer",
        # kombu waits for ever on a dead link otherwise, and tries a refused one again for six seconds.
        broker_transport_options={
            "max_retries": 0,
            "socket_timeout": socket_timeout,
            "socket_connect_timeout": min(socket_timeout, 5.0),
            "socket_keepalive": True,
        },
        task_queues=[Queue(name) for name in CELERY_QUEUES],  # type: ignore[no-untyped-call]
        task_default_queue="rows",
        task_ignore_result=True,
        task_acks_late=False,
        # A process that hangs in a model is killed; its jobs are tried alone.
        task_time_limit=settings.task_seconds,
        task_send_sent_event=False,
        worker_send_task_events=True,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        # A model may load for minutes; the default of 4 s kills every recycled child for ever (design, 18).
        worker_proc_alive_timeout=300.0,
        # Where SIGTERM means a soft shutdown (the images), and for the watchdog's SIGQUIT: running tasks may end.
        worker_soft_shutdown_timeout=20.0,
        worker_hijack_root_logger=False,
        accept_content=["json"],
        task_serializer="json",
        timezone="UTC",
    )
    return app


class WakeupPublisher:
    """Publishes wake-ups; a failure is logged and left to the sweep.

    Parameters
    ----------
    settings : Settings
    """

    def __init__(self, settings: Settings) -> None:
        self._app = make_celery(settings, socket_timeout=_PUBLISH_TIMEOUT_SECONDS)

    def publish(self, queue: str, where: int) -> None:
        """Tell the workers that `queue` has work.

        Parameters
        ----------
        queue : str
        where : int
            `ALL_MODELS`, `ONE_MODEL` or both, as the script said that set the mark.
        """
        kind, model, _ = parse_queue(queue)
        try:
            if where & ALL_MODELS:
                self._send(kind, kind, queue)
            if where & ONE_MODEL:
                self._send(kind, name_dedicated(kind, model), queue)
        except (kombu.exceptions.OperationalError, redis.RedisError, OSError) as error:
            logger.warning("wake-up not published; the sweep repeats it", queue=queue, error=str(error))

    def _send(self, kind: str, celery_queue: str, queue: str) -> None:
        self._app.send_task(
            _TASKS[kind],
            kwargs={"queue": queue},
            # Both: without the queue's name Celery takes its default one, whatever the routing key; and without the
            # empty exchange kombu would look up the bindings of the queue's own first.
            queue=celery_queue,
            exchange="",
            expires=_EXPIRES_SECONDS,
            retry=False,
            ignore_result=True,
        )


def name_dedicated(kind: str, model: str) -> str:
    """Name the Celery queue of the workers that are there for one model alone."""
    return f"{kind}.{model}"


def _broker_url(url: str) -> str:
    # kombu spells a unix socket in its own way.
    if url.startswith("unix://"):
        path, _, query = url.removeprefix("unix://").partition("?")
        database = query.removeprefix("db=") if query.startswith("db=") else "0"
        return f"redis+socket://{path}?virtual_host={database}"
    return url
