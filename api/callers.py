"""Who calls: API keys, tenants and the rate limit."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from urllib.parse import urlsplit

import limits
import limits.storage
import limits.strategies
from flask import Flask, Response, g, request

from shared.connection import TIMEOUT_SECONDS
from shared.errors import ServiceError
from shared.settings import InvalidSettings

#: The tenant of everybody when no key is configured.
DEFAULT_TENANT = "default"
#: Probes come without a key, and tell nothing that a stranger may not know.
#: By these a proxy tells that it asks for somebody else.
_PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
_OPEN_PATHS = frozenset({"/health", "/ready"})


class KeyRing:
    """The configured keys, kept as hashes.

    Parameters
    ----------
    text : str
        ``tenant:secret`` or ``secret``, comma-separated; a bare secret is a tenant of its own.
    """

    def __init__(self, text: str) -> None:
        self._tenants: dict[bytes, str] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, separator, rest = part.partition(":")
            secret = rest if separator else part
            digest = hashlib.sha256(secret.encode()).digest()
            if not secret or (separator and not name):
                raise InvalidSettings(["SCOREQUEUE_API_KEYS: expected tenant:secret or secret, separated by commas"])
            self._tenants[digest] = name if separator else digest.hex()[:12]

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def find_tenant(self, secret: str) -> str | None:
        """Return the tenant of a key, comparing with every key in constant time."""
        digest = hashlib.sha256(secret.encode()).digest()
        found = None
        for known, tenant in self._tenants.items():
            if hmac.compare_digest(known, digest):
                found = tenant
        return found


class RateLimit:
    """Requests that a tenant may make in a time, counted in Redis: right over all API processes.

    Parameters
    ----------
    text : str
        ``100/second``, for example.
    redis_url : str
    """

    def __init__(self, text: str, redis_url: str) -> None:
        try:
            self._limit = limits.parse(text)
        except ValueError:
            raise InvalidSettings([f"SCOREQUEUE_RATE_LIMIT={text!r}: expected for example 100/second"]) from None
        url = redis_url.replace("unix://", "redis+unix://", 1)
        storage = limits.storage.storage_from_string(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
        )
        self._strategy = limits.strategies.FixedWindowRateLimiter(storage)

    def take(self, tenant: str) -> dict[str, str]:
        """Count a request.

        Returns
        -------
        dict of str
            The ``RateLimit`` fields of the answer (IETF draft).

        Raises
        ------
        ServiceError
            ``rate_limited``: there were too many in this window.
        redis.RedisError
            Redis does not answer; nobody is let through uncounted.
        """
        allowed = self._strategy.hit(self._limit, tenant)
        window = self._strategy.get_window_stats(self._limit, tenant)
        seconds = max(1, round(window.reset_time - time.time()))
        amount, length = self._limit.amount, self._limit.get_expiry()
        fields = {
            "RateLimit-Policy": f'"requests";q={amount};w={length}',
            "RateLimit": f'"requests";r={window.remaining};t={seconds}',
        }
        g.rate_limit_fields = fields
        if not allowed:
            raise ServiceError(
                "rate_limited", f"{amount} requests in {length} s are allowed; try again later.", retry_after=seconds
            )
        return fields


def install(app: Flask) -> None:
    """Identify the caller of every request before anything else is done for it."""
    settings = app.extensions["scorequeue"].settings
    keys = KeyRing(settings.api_keys)
    limit = RateLimit(settings.rate_limit, settings.redis_url) if settings.rate_limit else None

    @app.before_request
    def identify_caller() -> None:
        if request.path in _OPEN_PATHS:
            return
        g.tenant = _identify(keys)
        if limit is not None and request.path != "/metrics":
            limit.take(g.tenant)

    @app.after_request
    def add_limit_fields(response: Response) -> Response:
        response.headers.update(g.get("rate_limit_fields", {}))
        return response


def get_tenant() -> str:
    """Return the tenant of the request that is being served."""
    tenant: str = g.tenant
    return tenant


def _identify(keys: KeyRing) -> str:
    if not keys:
        if not _comes_from_here():
            raise ServiceError(
                "forbidden",
                "No API key is configured, so only callers on this machine are served; set SCOREQUEUE_API_KEYS.",
            )
        return DEFAULT_TENANT
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    tenant = keys.find_tenant(secret.strip()) if scheme.lower() == "bearer" else None
    if tenant is None:
        raise ServiceError("unauthenticated", "Send a valid key as 'Authorization: Bearer <key>'.")
    return tenant


def _comes_from_here() -> bool:
    """Tell whether the caller is a program on this machine: no proxy for others, and no page of another site."""
    if any(name in request.headers for name in _PROXY_HEADERS):
        return False
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return False
    # A page whose name was bound to this address (DNS rebinding) still says that name as the host.
    hosts = [request.remote_addr, urlsplit(f"//{request.host}").hostname]
    if origin := request.headers.get("Origin"):
        hosts.append(urlsplit(origin).hostname)
    return all(_is_loopback(host) for host in hosts)


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
