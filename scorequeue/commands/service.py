"""Commands of a service as a whole: who I am to it, what it is busy with, what is wrong, and its settings."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer

from scorequeue import console, login
from scorequeue.client import Client
from scorequeue.commands.options import JsonOption, get_client
from scorequeue.errors import RequestRefused, WrongUse
from scorequeue.store_commands import run_api_command

_TOP_COLUMNS = ("model", "kind", "depth", "rows", "oldest_age_seconds", "rows_per_second", "workers", "warm_workers")


def log_in(
    context: typer.Context,
    forget: Annotated[bool, typer.Option("--forget", help="Remove what is kept.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep address and key for the commands that come; the key is asked for, and must be valid.

    [bold]Example[/bold]

      scorequeue --url https://scores.example.org login
    """
    file = login.find_file(os.environ)
    if forget:
        file.unlink(missing_ok=True)
        console.print_outcome("forgotten", {"forgotten": True}, as_json=as_json)
        return
    client = get_client(context)
    key = client.transport.api_key or _ask_key()
    with Client(client.transport.url, key) as checked:
        caller = checked.caller()
    login.write_login(file, login.Login(client.transport.url, key))
    said = f"logged in at {client.transport.url} as {caller['tenant']}: {', '.join(caller['scopes'])}"
    console.print_outcome(said, {"url": client.transport.url, **caller}, as_json=as_json)


def show_top(
    context: typer.Context,
    every: Annotated[float, typer.Option("--every", min=0.2, metavar="SECONDS", help="Time between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once; so it does too where nobody watches.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Watch the queues: what waits, for how long, how fast it goes and who works on it. Ctrl-C ends it."""
    client = get_client(context)
    watched = sys.stdout.isatty() and not once and not as_json
    while True:
        queues = sorted(client.queues(), key=lambda queue: -queue["outstanding_rows"])
        if as_json:
            console.print_json(queues)
            return
        if watched:
            console.clear_screen()
            console.print_text(f"{client.transport.url}  {time.strftime('%H:%M:%S')}\n")
        rows = [[queue.get(name) for name in _TOP_COLUMNS] for queue in queues]
        console.print_table(_TOP_COLUMNS, rows, empty="no queues")
        if not watched:
            return
        time.sleep(every)


def examine(context: typer.Context, as_json: JsonOption = False) -> None:
    """Look for what is wrong: service, stores, workers, models, queues, and your key. Exits 1 if anything is."""
    asked = get_client(context).transport
    with Client(asked.url, asked.api_key, patience=0) as client:  # what is away is to be told, not waited for
        findings = _examine(client)
    if as_json:
        console.print_json(
            [{"what": what, "ok": not fault, "detail": fault or detail} for what, fault, detail in findings]
        )
    else:
        for what, fault, detail in findings:
            console.print_text(f"{'problem' if fault else 'ok':<8}{what}: {fault or detail}")
    if any(fault for _, fault, _ in findings):
        raise typer.Exit(1)


def show_settings(as_json: JsonOption = False) -> None:
    """Print the settings that a service started here would have, secrets hidden."""
    code = run_api_command(["settings", *(["--json"] if as_json else [])], os.environ)
    if code:
        raise typer.Exit(code)


def _ask_key() -> str:
    key: str = typer.prompt("Key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not key:
        raise WrongUse("no key was given")
    return key


def _examine(client: Client) -> list[tuple[str, str, str]]:
    """Return what was looked at, what is wrong with it (or nothing), and how it is."""
    try:
        workers: dict[str, int] = client.readiness()["workers"]
    except RequestRefused:
        fault = f"it takes no jobs now: its store or its files are away; see {client.transport.url}/ready"
        return [("service", fault, "")]
    findings = [("service", "", f"ready, {client.transport.url}")]
    idle = [kind for kind, count in workers.items() if not count]
    counted = ", ".join(f"{count} for {kind}" for kind, count in workers.items())
    findings.append(("workers", f"nobody takes {' and '.join(idle)}" if idle else "", counted))
    try:
        caller = client.caller()
        findings.append(("key", "", f"{caller['tenant']}: {', '.join(caller['scopes'])}"))
        return findings + _examine_models(client) + _examine_queues(client)
    except RequestRefused as error:
        return [*findings, ("key", str(error), "")]


def _examine_models(client: Client) -> list[tuple[str, str, str]]:
    models = client.models()
    faults = [
        f"{model['name']}:{version['version']} is not ready: {version.get('not_ready_reason')}"
        for model in models
        for version in model["versions"]
        if version.get("ready") is False
    ]
    if not models:
        return [("models", "none is registered", "")]
    return [("models", fault, "") for fault in faults] or [("models", "", f"{len(models)} ready")]


def _examine_queues(client: Client) -> list[tuple[str, str, str]]:
    queues, letters = client.queues(), client.dead_letters()
    faults = [f"{queue['model']} ({queue['kind']}) is paused" for queue in queues if queue["paused"]]
    faults += [
        f"{queue['depth']} of {queue['model']} ({queue['kind']}) wait, and nobody serves it"
        for queue in queues
        if queue["depth"] and not queue["workers"]
    ]
    if letters:
        faults.append(f"{len(letters)} job(s) were given up; see: scorequeue dead-letters")
    waiting = sum(queue["depth"] for queue in queues)
    return [("queues", fault, "") for fault in faults] or [("queues", "", f"{waiting} wait")]
