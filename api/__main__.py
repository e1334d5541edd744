"""``python -m api``: what an operator does to the store; the command line starts it as a process."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import redis

from shared.connection import connect
from shared.errors import ServiceError
from shared.jobs import format_time
from shared.keys import SCOPES, Key, KeyStore
from shared.limits import parse_limit
from shared.settings import InvalidSettings, Settings
from shared.webhooks import DeliveryStore

#: What a key may do if nobody says otherwise: all that a caller needs, and nothing that changes models for others.
DEFAULT_SCOPES = ("jobs:read", "jobs:write", "models:read")
_UNITS = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_EXIT_UNREACHABLE = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0 done, 1 it failed, 3 Redis cannot be reached (one line on standard error says why); wrong use exits with 2.
    """
    options = _build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (ServiceError, InvalidSettings) as error:
        sys.stderr.write(f"error: {error.detail if isinstance(error, ServiceError) else error}\n")
        return 2
    except redis.RedisError as error:
        sys.stderr.write(f"error: Redis does not answer: {error}\n")
        return _EXIT_UNREACHABLE
    return 0


def show_settings(options: argparse.Namespace) -> None:
    """Print the settings, secrets hidden."""
    shown = Settings.from_env().describe()
    if options.json:
        _print_json(shown)
        return
    for name, value in shown.items():
        _print(f"{name}={value}")


def create_key(options: argparse.Namespace) -> None:
    """Make a key and show it, this once."""
    for text in (options.rate_limit, options.row_limit):
        if text:
            parse_limit(text)
    key, text = _open_keys().create(
        options.tenant,
        options.scopes,
        expires=options.expires,
        rate_limit=options.rate_limit,
        row_limit=options.row_limit,
    )
    if options.json:
        _print_json(_describe(key) | {"key": text})
        return
    _print(text)
    sys.stderr.write(
        f"key {key.id} of tenant {key.tenant}: {' '.join(key.scopes)}; expires: {_format(key.expires) or 'never'}. "
        "It is shown this once and kept nowhere.\n"
    )


def list_keys(options: argparse.Namespace) -> None:
    """List the keys."""
    keys = [_describe(key) for key in _open_keys().read_all()]
    if options.json:
        _print_json(keys)
        return
    _print("id\ttenant\tstate\tscopes\tcreated_at\texpires_at\tlast_used_at")
    for key in keys:
        _print(
            "\t".join(
                [
                    key["id"], key["tenant"], key["state"], " ".join(key["scopes"]), key["created_at"],
                    key["expires_at"] or "never", key["last_used_at"] or "never",
                ]
            )
        )  # fmt: skip


def revoke_key(options: argparse.Namespace) -> None:
    """Revoke a key."""
    key = _open_keys().revoke(options.id)
    _print_json(_describe(key)) if options.json else _print(f"{key.id} revoked")


def show_secret(options: argparse.Namespace) -> None:
    """Show what a tenant's webhooks are signed with, or make it anew."""
    deliveries = DeliveryStore(_connect())
    secret = (deliveries.rotate_secret if options.rotate else deliveries.show_secret)(options.tenant)
    if options.json:
        _print_json({"tenant": options.tenant, "secret": secret.current})
        return
    _print(secret.current)
    if options.rotate:
        sys.stderr.write("The secret before it signs as well, for one day.\n")


def _connect() -> redis.Redis:
    return connect(Settings.from_env().redis_url, timeout_seconds=5.0)


def _open_keys() -> KeyStore:
    return KeyStore(_connect())


def _describe(key: Key) -> dict[str, Any]:
    state = "revoked" if key.revoked is not None else "live" if key.is_live(time.time()) else "expired"
    return {
        "id": key.id,
        "tenant": key.tenant,
        "state": state,
        "scopes": key.scopes,
        "rate_limit": key.rate_limit or None,
        "row_limit": key.row_limit or None,
        "created_at": _format(key.created),
        "expires_at": _format(key.expires),
        "revoked_at": _format(key.revoked),
        "last_used_at": _format(key.last_used),
    }


def _format(seconds: int | None) -> str | None:
    return format_time(None if seconds is None else seconds * 1000)


def _read_scopes(text: str) -> tuple[str, ...]:
    words = [word for word in re.split(r"[\s,]+", text) if word]
    if words == ["all"]:
        return SCOPES
    wrong = [word for word in words if word not in SCOPES]
    if wrong or not words:
        raise argparse.ArgumentTypeError(f"expected all, or some of {', '.join(SCOPES)}")
    return tuple(dict.fromkeys(words))


def _read_expiry(text: str) -> int | None:
    if text == "never":
        return None
    if span := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        return int(time.time()) + int(span[1]) * _UNITS[span[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "expected never, a time from now as 12h or 90d, or a moment as 2027-01-31"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _print_json(value: Any) -> None:
    _print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api", description="What an operator does to the store.")
    nouns = parser.add_subparsers(required=True, metavar="NOUN")

    command = nouns.add_parser("settings", help="print the settings, secrets hidden")
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=show_settings)

    keys = nouns.add_parser("keys", help="make, list and revoke API keys").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command = keys.add_parser("create", help="make a key and show it, this once")
    command.add_argument("--tenant", required=True, metavar="NAME", help="whose jobs the key is for")
    command.add_argument(
        "--scopes", type=_read_scopes, default=DEFAULT_SCOPES, metavar="LIST", help=f"all, or of {', '.join(SCOPES)}"
    )
    command.add_argument("--expires", type=_read_expiry, default=None, metavar="WHEN", help="12h, 90d, a date, never")
    command.add_argument("--rate-limit", default="", metavar="N/TIME", help="requests of this key, as 100/second")
    command.add_argument("--row-limit", default="", metavar="N/TIME", help="rows of this key, as 100000/minute")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=create_key)

    command = keys.add_parser("list", help="list all keys")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=list_keys)

    command = keys.add_parser("revoke", help="let nobody in by a key any more")
    command.add_argument("id", metavar="ID", help="the part of the key between sq_ and the next _")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=revoke_key)

    webhooks = nouns.add_parser("webhooks", help="show secrets of webhooks").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command = webhooks.add_parser("secret", help="show what a tenant's webhooks are signed with")
    command.add_argument("--tenant", default="default", metavar="NAME", help="by default that of callers without keys")
    command.add_argument("--rotate", action="store_true", help="make it anew; the old one signs too, for a day")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=show_secret)
    return parser


if __name__ == "__main__":
    sys.exit(main())
