"""What `scorequeue up` was asked for, and whether it can be done on this machine; nothing is started here."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


class LaunchError(Exception):
    """The service does not run, and the message says why.

    Parameters
    ----------
    message : str
        For people.
    exit_code : int
        2 if the command was used wrongly, 1 if something failed.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class LaunchOptions:
    """What `scorequeue up` was asked for.

    Parameters
    ----------
    host, port
        Where the API listens.
    data : Path
        The data folder, as it was typed.
    workers : int
        Processes for each of the two queues.
    demo : bool
        Register the demo models first.
    flower_port : int or None
        Where Flower listens, on loopback; None: it is not started.
    """

    host: str
    port: int
    data: Path
    workers: int
    demo: bool
    flower_port: int | None


def check_installation() -> None:
    """See that the service is installed, not only its client.

    Raises
    ------
    LaunchError
        Something that `up` starts is missing.
    """
    # Only looked for, not imported.
    missing = [name for name in ("api", "worker", "granian", "celery", "flower") if not _is_installed(name)]
    if missing:
        raise LaunchError(
            f"not installed: {', '.join(missing)}; `up` needs the whole of it: pip install 'scorequeue[up]'",
            2,
        )


def resolve_host(host: str) -> str:
    """Turn the host into one numeric address.

    Raises
    ------
    LaunchError
        There is no such address.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LaunchError(f"--host {host}: no such address ({error})", 2) from error
    # localhost often has both kinds; IPv4 is what its users then type.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def check_exposure(
    host: str, environ: Mapping[str, str], has_stored_key: Callable[[], bool], say: Callable[[str], None]
) -> None:
    """Refuse to serve other machines without a key.

    Parameters
    ----------
    host : str
        A numeric address.
    environ : mapping
    has_stored_key : callable
        Asks Redis whether a key was ever made; called only if the environment has none.
    say : callable

    Raises
    ------
    LaunchError
        The address can be reached from outside, and no API key is configured.
    """
    if environ.get("SCOREQUEUE_API_KEYS", "").strip() or has_stored_key():
        return
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        raise LaunchError(
            f"--host {host} would serve other machines without any key. Start it without --host, make one "
            "(scorequeue keys create --tenant NAME), and start it again; or set SCOREQUEUE_API_KEYS to tenant:secret",
            2,
        )
    say("no API key is configured: serving this machine only")


def check_ports(options: LaunchOptions) -> None:
    """See that the ports are free.

    Raises
    ------
    LaunchError
        One is not; the message names the option that changes it.
    """
    if options.port == options.flower_port:
        raise LaunchError(f"the API and Flower cannot share port {options.port}; choose with --flower-port", 2)
    _check_port(options.host, options.port, "choose another with --port")
    if options.flower_port:
        _check_port(
            "127.0.0.1",
            options.flower_port,
            "choose another with --flower-port, or leave Flower out with --no-flower",
        )


def _check_port(host: str, port: int, advice: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As the servers do: a port whose last connections only just ended counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise LaunchError(f"port {port} is taken; {advice}", 2) from error
            if error.errno == errno.EADDRNOTAVAIL:
                raise LaunchError(f"{host} is not an address of this machine; change it with --host", 2) from error
            raise LaunchError(f"port {port} cannot be opened ({error.strerror}); {advice}", 2) from error


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
