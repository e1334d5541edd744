"""What the command line prints: tables, progress, and plain lines where the output is not a terminal.

It knows nothing of how things are fetched.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from scorequeue import transfer

#: Seconds between two lines of progress when nobody watches a bar: a log should stay readable.
_LINE_SECONDS = 5.0
#: Of a column, in the table of what a version reads.
_SHOWN_CATEGORIES = 8
_STEP_WORDS = {"upload": "Uploading", "score": "Scoring", "download": "Downloading"}
_STATUS_STYLES = {
    "succeeded": "green",
    "partially_succeeded": "yellow",
    "failed": "red",
    "canceled": "dim",
    "expired": "red",
    "running": "cyan",
}


def print_text(text: str) -> None:
    """Write a line to standard output, as it is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def clear_screen() -> None:
    """Begin at the top of an empty terminal."""
    print_text("\x1b[2J\x1b[H")


def print_note(text: str) -> None:
    """Write a line to standard error: what a script that reads the output must not see."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(value: Any) -> None:
    """Write a value as indented JSON."""
    print_text(json.dumps(value, indent=2, ensure_ascii=False))


def print_outcome(text: str, value: Mapping[str, Any], *, as_json: bool) -> None:
    """Write what was done: a line for people, or JSON for programs."""
    if as_json:
        print_json(value)
    else:
        print_text(text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """Write a table to a terminal, or tab-separated lines to anything else."""
    rows = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in [columns, *rows]:
            print_text("\t".join(line))
        return
    if not rows:
        print_note(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), no_wrap=column == "id", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STATUS_STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def print_record(record: Mapping[str, Any]) -> None:
    """Write the fields of a record one below the other, those without a value left out."""
    shown = {name: _describe_value(value) for name, value in record.items() if value not in (None, {}, [], "")}
    width = max(map(len, shown), default=0)
    for name, text in shown.items():
        print_text(f"{name.replace('_', ' '):<{width}}  {text}")


def summarise_job(record: Mapping[str, Any]) -> dict[str, Any]:
    """Choose what a person wants to see of a job's record."""
    left_out = ("links", "result", "model_sha256")
    return {name: value for name, value in record.items() if name not in left_out}


def list_versions(model: Mapping[str, Any]) -> list[list[Any]]:
    """Make a row for each version of a model: name, version, task, number of columns, aliases, state."""
    rows = []
    for version in model.get("versions") or ():
        number, signature = version.get("version"), version.get("signature") or {}
        aliases = [
            alias + _describe_share(meant, number)
            for alias, meant in (model.get("aliases") or {}).items()
            if _means(meant, number)
        ]
        columns = len(signature.get("columns") or ())
        about = [model.get("name"), number, signature.get("task"), columns, ", ".join(aliases)]
        rows.append([*about, _describe_state(version)])
    return rows


def _describe_state(version: Mapping[str, Any]) -> str:
    """Say whether a version is ready, and in how many processes it is in memory."""
    if version.get("ready") is False:
        return f"not ready: {version.get('not_ready_reason')}"
    warm = version.get("warm_processes")
    return f"warm in {warm}" if warm else "ready"


def _means(meant: Any, version: Any) -> bool:
    """Tell whether a version is what an alias means, or a part of it."""
    if not isinstance(meant, Mapping):
        return bool(meant == version)
    return meant.get("shadow") == version or str(version) in (meant.get("versions") or {})


def _describe_share(meant: Any, version: Any) -> str:
    """Say which share of an alias a version has, or that it is its shadow; nothing if it is all of it, or no part."""
    if not isinstance(meant, Mapping):
        return ""
    if meant.get("shadow") == version:
        return " (shadow)"
    share = (meant.get("versions") or {}).get(str(version))
    return "" if share in (None, 1) else f" ({share:.0%})"


def flatten_version(version: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a version's signature and backend to the level of its other fields."""
    signature, backend = version.get("signature") or {}, version.get("backend") or {}
    first = {
        "name": version.get("name"),
        "version": version.get("version"),
        "task": signature.get("task"),
        "classes": signature.get("classes"),
        "aliases": ", ".join(version.get("aliases") or ()),
    }
    return {
        **first,
        **{name: value for name, value in version.items() if name not in (*first, "signature", "backend")},
        "backend": ": ".join(str(backend[key]) for key in ("name", "reason") if backend.get(key)),
    }


def tabulate_columns(version: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Make a table of what a version reads: a row for each column, in the model's order."""
    signature = version.get("signature") or {}
    rows = [
        [column["name"], column.get("type"), "yes" if column.get("nullable") else "no", _describe_values(column)]
        for column in signature.get("columns") or ()
    ]
    return ["column", "type", "may_be_missing", "seen_in_training"], rows


def _describe_values(column: Mapping[str, Any]) -> str:
    """Say what a column held in training, and that nothing else is taken, if that is so."""
    if categories := column.get("categories"):
        shown = ", ".join(map(str, categories[:_SHOWN_CATEGORIES]))
        more = f" and {len(categories) - _SHOWN_CATEGORIES} more" if len(categories) > _SHOWN_CATEGORIES else ""
        return shown + more + ("; others are refused" if column.get("unseen") == "error" else "")
    if column.get("min") is None:
        return ""
    return f"{column['min']:g} to {column['max']:g}"


def tabulate_speeds(version: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Make a table of what registration measured: a row for each size of call, and what runs it, under their names."""
    backend = version.get("backend") or {}
    name, switch = backend.get("name"), backend.get("graph_rows")
    rows = []
    for speed in backend.get("measured") or ():
        own, other = speed.get("estimator"), speed.get("converted")
        times = f"{other / own:.2f}" if own and other else "-"
        speeds = [f"{value:,.0f}" if value else "-" for value in (own, other)]
        # Beyond that size the estimator's own trees answer, with the same bits.
        runs = "trees" if switch is not None and speed["rows"] > switch else name
        rows.append([speed["rows"], *speeds, times, runs])
    other_name = "converted" if name == "scikit-learn" else name
    return ["rows_a_call", "scikit-learn_rows/s", f"{other_name}_rows/s", "times", "run_by"], rows


def list_shifts(quality: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Make a table of the scores of a model's versions, in this hour and the one before."""
    columns = ["version", "rows", "recent_rows", "score", "recent_psi", "psi_by_chance"]
    return columns, [
        [
            version["version"],
            version["total"]["rows"],
            version["recent"]["rows"],
            score["name"],
            *("-" if score[key] is None else score[key] for key in ("psi", "psi_by_chance")),
        ]
        for version in quality["versions"]
        for score in version["recent"]["scores"]
    ]


def list_unusual(quality: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Make a table of the columns of a model's versions that had unusual values."""
    counted = ["missing", "unseen", "out_of_range"]
    return ["version", "column", *counted, "refused"], [
        [version["version"], column["name"], *(column[key] for key in counted), sum(column["refused"].values())]
        for version in quality["versions"]
        for column in version["total"]["columns"]
        if column["refused"] or any(column[key] for key in counted)
    ]


class ProgressView:
    """Shows the steps of a long call: a bar a step on a terminal, else a line now and then.

    An instance is what `Client.score_file` wants as ``on_progress``.
    """

    def __init__(self) -> None:
        self._bars = _make_bars() if sys.stderr.isatty() else None
        self._tasks: dict[str, TaskID] = {}
        self._step = ""
        self._step_began_at = self._line_at = 0.0

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars:
            self._bars.stop()

    def __call__(self, progress: transfer.Progress) -> None:
        """Show how far a step is."""
        if self._bars:
            self._move_bar(self._bars, progress)
        else:
            self._write_line(progress)

    def _move_bar(self, bars: Progress, progress: transfer.Progress) -> None:
        task = self._tasks.get(progress.step)
        if task is None:
            task = bars.add_task(_STEP_WORDS[progress.step], total=None, unit=progress.unit, failed=0)
            self._tasks[progress.step] = task
        bars.update(task, completed=progress.done, total=progress.total or None, failed=progress.failed)

    def _write_line(self, progress: transfer.Progress) -> None:
        now = time.monotonic()
        if progress.step != self._step:
            self._step, self._step_began_at, self._line_at = progress.step, now, -_LINE_SECONDS
        finished = bool(progress.total) and progress.done >= progress.total
        if not finished and now - self._line_at < _LINE_SECONDS:
            return
        self._line_at = now
        seconds = now - self._step_began_at
        rate = ""
        if progress.per_second is None and seconds > 0.5:
            rate = f", {format_rate(progress.done / seconds, progress.unit)}"
        print_note(f"{progress}{rate}")


def format_rate(per_second: float, unit: str) -> str:
    """Write a speed: ``12,300 rows/s``, ``4.2 MB/s``."""
    return f"{per_second / 1e6:,.1f} MB/s" if unit == "bytes" else f"{per_second:,.0f} {unit}/s"


def _describe_value(value: Any) -> str:
    if isinstance(value, Mapping) and all(not isinstance(part, Mapping | list) for part in value.values()):
        return ", ".join(f"{name} {part}" for name, part in value.items() if part is not None)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else str(value)


def _make_bars() -> Progress:
    return Progress(
        TextColumn("{task.description:<11}"),
        BarColumn(),
        _AmountColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class _AmountColumn(ProgressColumn):
    """What is done and how fast, in the step's own unit."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        if unit == "bytes":
            amount = f"{task.completed / 1e6:,.1f} MB"
        else:
            total = f" of {task.total:,.0f}" if task.total else ""
            amount = f"{task.completed:,.0f}{total} {unit}"
            if task.fields["failed"]:
                amount += f", {task.fields['failed']:,} failed"
        speed = task.finished_speed or task.speed
        return Text(f"{amount}  {format_rate(speed, unit)}" if speed else amount)
