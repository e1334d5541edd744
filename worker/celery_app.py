"""The Celery entry: joins settings, signals and tasks. Importing it reads the settings; nothing else does."""

from __future__ import annotations

import importlib
import os
import tempfile
from typing import TYPE_CHECKING, Any

# prometheus_client decides at its import whether its values are shared between processes. The children of this
# worker must share them, or each scrape would show one child's (anchors: 10 to 25 times too low).
if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    _folder = tempfile.TemporaryDirectory(prefix="scorequeue-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _folder.name

from celery import signals
from kombu.entity import Queue

from shared.logs import configure_logging
from shared.settings import Settings
from shared.wakeups import SCORE_CHUNKS, SCORE_ROWS, make_celery, name_dedicated
from worker.parent import WorkerParent

if TYPE_CHECKING:
    from worker.process import WorkerProcess

settings = Settings.from_env()
app = make_celery(settings)
_parent = WorkerParent(settings, app)
_process: WorkerProcess | None = None


@app.task(name=SCORE_ROWS)  # type: ignore[untyped-decorator]
def score_rows(queue: str) -> str:
    """Score what waits in a queue of rows jobs; the returned line is what Flower shows."""
    return _get_process().score_rows(queue)


@app.task(name=SCORE_CHUNKS)  # type: ignore[untyped-decorator]
def score_chunks(queue: str) -> str:
    """Score chunks of files that wait in a queue; the returned line is what Flower shows."""
    return _get_process().score_chunks(queue)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _configure_logging(**_: Any) -> None:
    configure_logging()


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _consume_own_models(instance: Any, **_: Any) -> None:
    # Wake-ups of some models come on lists of their own, so that none reaches a worker that cannot take it.
    if names := settings.worker_model_names:
        queues = instance.app.amqp.queues
        dedicated = [name_dedicated(kind, name) for kind in queues.consume_from for name in names]
        for name in dedicated:
            queues.add(Queue(name))  # type: ignore[no-untyped-call]
        queues.select(dedicated)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _import_models(**_: Any) -> None:
    # Before the fork, or each child would spend seconds of a processor on it; and not above, or Flower would too.
    for module in ("worker.process", "sklearn.ensemble"):
        importlib.import_module(module)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _start_parent(**_: Any) -> None:
    _parent.start()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _stop_parent(**_: Any) -> None:
    _parent.stop()


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _start_process(**_: Any) -> None:
    _get_process()


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _stop_process(**_: Any) -> None:
    if _process is not None:
        _process.stop()


def _get_process() -> WorkerProcess:
    """Return this child's process, started on the first call: in pools without children, by the first task."""
    global _process  # one to a process, by its nature
    if _process is None:
        from worker.process import WorkerProcess

        starting = WorkerProcess(settings, queues=list(app.amqp.queues.consume_from))
        starting.start()  # one that could not start must not claim without a heartbeat
        _process = starting
    return _process
