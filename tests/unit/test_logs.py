"""Log lines: JSON, with what is needed to find a fault, and nothing that a caller sent."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from shared.logs import configure_logging, get_logger

SENT = "what-a-caller-sent"


@pytest.fixture
def read_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Log as the service does; return a function that gives the lines so far."""
    root, written = logging.getLogger(), io.StringIO()
    before = root.handlers, root.level
    monkeypatch.setattr("sys.stderr", written)
    configure_logging()
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    structlog.reset_defaults()
    root.handlers, root.level = before[0], before[1]


def fail(value: str) -> None:
    """Raise an error that quotes its argument, because of another that does."""
    try:
        int(value)
    except ValueError as error:
        raise LookupError(f"/srv/secret/{value}") from error


@pytest.mark.parametrize("library", [False, True], ids=["ours", "a library's"])
def test_exception_is_told_by_its_kind_and_place(read_lines: Callable[[], list[dict[str, Any]]], library: bool) -> None:
    """A line says which exception, raised where and because of which; not its message, and no path."""
    logger: Any = logging.getLogger("some.library") if library else get_logger("ours")
    try:
        fail(SENT)
    except LookupError:
        logger.exception("it failed")
    [line] = read_lines()
    assert (line["event"], line["level"], line["exception"]) == ("it failed", "error", "LookupError")
    assert line["where"][-1].split(":")[0].endswith("test_logs")
    assert line["where"][-1].endswith(" fail")
    assert line["caused_by"]["exception"] == "ValueError"
    text = json.dumps(line)
    for hidden in (SENT, "/srv", ".py", "Traceback"):
        assert hidden not in text


def test_failed_task_is_told_without_its_message(read_lines: Callable[[], list[dict[str, Any]]]) -> None:
    """Celery writes the message into its text; it is replaced."""
    try:
        fail(SENT)
    except LookupError as error:
        logging.getLogger("celery.app.trace").error("Task raised unexpected: %r", error, exc_info=True)
    [line] = read_lines()
    assert line["event"] == "a task failed"
    assert SENT not in json.dumps(line)


def test_error_of_the_system_is_told_without_its_path(read_lines: Callable[[], list[dict[str, Any]]]) -> None:
    """An error that is a field of a line is put into words, and those of the system name no file."""
    get_logger("ours").warning(
        "full", error=OSError(28, "No space left on device", "/srv/secret"), other=ValueError("x")
    )
    [line] = read_lines()
    assert (line["error"], line["other"]) == ("No space left on device", "x")
