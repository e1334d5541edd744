"""Logging: one JSON object a line on standard error, from our code and from the libraries alike.

Of an exception the line says what it is and where it was raised, module by module; not its message, which may quote
what a caller sent, and no path of this machine.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

_SHARED_STEPS: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


#: The innermost frames say most.
_FRAMES_MAX = 25


def configure_logging(level: int = logging.INFO) -> None:
    """Send every log record of this process through one JSON renderer."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED_STEPS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED_STEPS,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                describe_exceptions,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # "Task received" for every wake-up; "succeeded" says the same, with what was done.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)


def describe_exceptions(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace each exception of a log line by what may be told of it."""
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    if isinstance(error, BaseException):
        if event.get("logger") == "celery.app.trace":  # its text has the message
            event["event"] = "a task failed"
        event["exception"] = type(error).__name__
        event["where"] = _list_frames(error.__traceback__)
        if cause := error.__cause__ or error.__context__:
            event["caused_by"] = {"exception": type(cause).__name__, "where": _list_frames(cause.__traceback__)}
    for name, value in event.items():
        if isinstance(value, BaseException):
            event[name] = describe_error(value)
    return event


def describe_error(error: BaseException) -> str:
    """Put an error into words for a log: of the system's errors without the path that they name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _list_frames(trace: TracebackType | None) -> list[str]:
    frames = [
        f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(trace)
    ]
    return frames[-_FRAMES_MAX:]


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
