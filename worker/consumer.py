"""Celery's consumer, made to come back quickly: a wake-up that waits for it is a job that waits."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from shared.logs import get_logger

#: Seconds between two attempts to reach the broker. Celery's own grow to thirty, for which a healed worker stays deaf.
RETRY_SECONDS = 0.5

logger = get_logger(__name__)


class QuickConsumer(Consumer):  # type: ignore[misc]
    """Looks for a lost broker every half second, and does not look for other workers.

    At each connection Celery asks for its neighbours and waits a second for their answers (mingle, gossip): revoked
    tasks and logical clocks, of which a service whose messages are only hints needs none.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        worker_options = options.pop("worker_options", None) or {}
        alone = {"without_mingle": True, "without_gossip": True}
        super().__init__(*args, worker_options=worker_options | alone, **{**options, **alone})

    def ensure_connected(self, conn: Any) -> Any:
        """Connect to the broker, however long it takes."""
        self.broker_connection_retry_attempt = 0
        return conn.ensure_connection(
            self._say_lost,
            interval_start=RETRY_SECONDS,
            interval_step=0,
            interval_max=RETRY_SECONDS,
            callback=maybe_shutdown,
        )

    def _say_lost(self, error: BaseException, _: float) -> None:
        self.broker_connection_retry_attempt += 1
        if self.broker_connection_retry_attempt == 1:
            logger.warning("the broker does not answer; the worker waits for it", error=str(error))
