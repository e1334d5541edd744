"""Requests to addresses that callers chose: to public ones only, and to no other than the one that was checked.

A name is resolved once; each of its addresses is checked, and the connection is made to a checked address, not to the
name, so that a second answer of a name server changes nothing. Redirects are not followed.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from shared.errors import ServiceError
from shared.settings import InvalidSettings

_ADDRESS_MAX_LENGTH = 2048
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 15.0
#: For all of it: a receiver that sends a byte now and then shall not hold a thread.
_WHOLE_SECONDS = 30.0
#: Ranges that hide another address in theirs; what is behind it is not checked, so nothing is.
_TUNNELS = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "2002::/16", "2001::/32", "::/96"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Refused(Exception):
    """A request that is not made; the message is for whoever chose its address."""


class Answer(NamedTuple):
    """What a receiver said."""

    status: int
    retry_after: str | None


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read the networks that may be called although they are not public.

    Raises
    ------
    InvalidSettings
        One of them is no network.
    """
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InvalidSettings([f"SCOREQUEUE_WEBHOOK_NETWORKS: {error}; expected for example 10.1.0.0/16"]) from None


def check_address(address: str, networks: tuple[Network, ...]) -> None:
    """Refuse an address that could never be called; a name is resolved only when it is.

    Raises
    ------
    ServiceError
        ``invalid_parameter``.
    """
    try:
        parts = _split(address)
        with contextlib.suppress(ValueError):  # a name
            _check_host(ipaddress.ip_address(parts.hostname or ""), parts.scheme, networks)
        if parts.scheme == "http" and not networks:
            raise Refused("expected https")
    except Refused as error:
        raise ServiceError("invalid_parameter", f"webhook.url: {error}.") from None


def post(address: str, body: bytes, headers: dict[str, str], networks: tuple[Network, ...]) -> Answer:
    """Post a body, and read no more of the answer than its head.

    Parameters
    ----------
    address : str
    body : bytes
    headers : dict of str
    networks : tuple of networks
        That may be called although they are not public; only there http will do.

    Raises
    ------
    Refused
        The address may not be called.
    OSError, http.client.HTTPException
        There was no answer, or none that can be read, within 30 s.
    """
    parts = _split(address)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    hosts = _resolve(parts, port, networks)
    with contextlib.ExitStack() as stack:
        plain = _connect(hosts, port)
        stack.callback(plain.close)
        stack.enter_context(_cutting_off(plain, _WHOLE_SECONDS))
        plain.settimeout(_READ_SECONDS)
        connection = http.client.HTTPConnection(parts.hostname or "", port)
        connection.sock = plain
        if secure:
            context = ssl.create_default_context()
            connection.sock = stack.enter_context(context.wrap_socket(plain, server_hostname=parts.hostname))
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc if parts.port else parts.netloc.removesuffix(":")
        connection.request("POST", target, body, headers | {"Host": host, "Connection": "close"})
        response = connection.getresponse()
        stack.callback(response.close)
        return Answer(response.status, response.getheader("Retry-After"))


def _split(address: str) -> SplitResult:
    if len(address) > _ADDRESS_MAX_LENGTH:
        raise Refused(f"expected at most {_ADDRESS_MAX_LENGTH} characters")
    # What is no printable ASCII could be read differently by others, or break a line of the request.
    if not address.isascii() or any(character <= " " or character == "\x7f" for character in address):
        raise Refused("expected an address in printable ASCII without spaces")
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise Refused("expected an address as https://example.org/hook") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused("expected an address as https://example.org/hook")
    if "@" in parts.netloc or parts.fragment or "\\" in address:
        raise Refused("expected an address without a user, a fragment or a backslash")
    return parts


def _resolve(parts: SplitResult, port: int, networks: tuple[Network, ...]) -> list[str]:
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise OSError("the name has no address") from None
    hosts = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    # All of them: a name with a public and a private address is not one to be trusted with a choice.
    for host in hosts:
        _check_host(ipaddress.ip_address(host), parts.scheme, networks)
    return hosts


def _check_host(host: Address, scheme: str, networks: tuple[Network, ...]) -> None:
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    if any(host in network for network in networks):
        return
    # Nothing is said of the address itself: by it a caller could learn the names of an inner network.
    if not host.is_global or host.is_multicast or any(host in network for network in _TUNNELS):
        raise Refused("the address is not public, and its network is not among SCOREQUEUE_WEBHOOK_NETWORKS")
    if scheme != "https":
        raise Refused("expected https, for the address is public")


def _connect(hosts: list[str], port: int) -> socket.socket:
    failure: OSError | None = None
    for host in hosts[:3]:
        try:
            return socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
        except OSError as error:
            failure = error
    raise failure or OSError("the name has no address")


@contextlib.contextmanager
def _cutting_off(connection: socket.socket, seconds: float) -> Iterator[None]:
    """End a connection if the block takes longer."""
    # A file descriptor of its own, so that neither TLS nor the end of the block can take it away meanwhile.
    with connection.dup() as same:

        def cut_off() -> None:
            with contextlib.suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut_off)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
