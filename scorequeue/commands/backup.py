"""`scorequeue backup` and `restore`: their options, what they print and how they exit.

How it is done is in `scorequeue.snapshot`.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from scorequeue import console
from scorequeue.commands.options import JsonOption

if TYPE_CHECKING:
    from scorequeue.archive import Contents
    from scorequeue.snapshot import SnapshotError

DataOption = Annotated[Path, typer.Option("--data", metavar="DIR", help="The data folder of `scorequeue up`.")]
DEFAULT_DATA = Path(".scorequeue")


def backup(
    out: Annotated[
        Path, typer.Argument(metavar="OUT.tar", help="The file to write; .tar.gz compresses.", show_default=False)
    ],
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Save jobs, files and models of a data folder into one file; its service may run.

    Every job that was accepted before the command began is in it. OUT.tar is whole or not there.

    [bold]Example[/bold]

      scorequeue backup --data .scorequeue /backups/today.tar
    """
    _check_system()
    # Here and not above: the client's commands start without it, and on systems without it.
    from scorequeue.snapshot import SnapshotError, save_data

    try:
        contents = save_data(data, out, os.environ)
    except SnapshotError as error:
        _fail("backup", error)
    _print(f"saved {_describe(contents)}: {out}", out, contents, as_json=as_json)


def restore(
    archive: Annotated[Path, typer.Argument(metavar="IN.tar", help="What backup wrote.", show_default=False)],
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Put a backup into a new data folder, for `scorequeue up --data DIR`; a folder with something in it is refused.

    Jobs whose retention has passed since are removed when the service starts.

    [bold]Example[/bold]

      scorequeue restore /backups/today.tar --data restored
    """
    _check_system()
    from scorequeue.snapshot import SnapshotError, restore_data

    try:
        contents = restore_data(archive, data)
    except SnapshotError as error:
        _fail("restore", error)
    said = f"restored {_describe(contents)}, saved {contents.created_at}: {data}"
    _print(said, data, contents, as_json=as_json)


def _print(text: str, path: Path, contents: Contents, *, as_json: bool) -> None:
    console.print_outcome(text, {"path": str(path), **asdict(contents)}, as_json=as_json)


def _describe(contents: Contents) -> str:
    return f"{contents.files:,} files, {contents.bytes:,} bytes"


def _check_system() -> None:
    if os.name != "posix":
        typer.echo("data folders are of Linux and macOS; elsewhere `scorequeue up` does not run", err=True)
        raise typer.Exit(2)


def _fail(command: str, error: SnapshotError) -> NoReturn:
    typer.echo(f"scorequeue {command}: {error}", err=True)
    raise typer.Exit(error.exit_code)
