"""Who calls, whether they may, and how often: before anything else is done for a request."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import redis
from flask import Flask, Request

from api.current_request import get_environ, get_request, get_service, raise_failure
from api.keyring import Caller, KeyRing
from api.scopes import PAGES, PROBES, ScopeMissing, find_scope
from shared import audit
from shared.errors import ServiceError
from shared.keys import parse_key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: The tenant of everybody when no key is configured.
DEFAULT_TENANT = "default"
#: By these a proxy tells that it asks for somebody else.
_PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
#: Where a request finds its caller in its environment.
_HERE = "scorequeue.caller"
#: These take their request from its limits themselves, in the one round trip in which they do their work (`api.jobs`).
_COUNTED_LATER = frozenset(
    {
        ("POST", "/v1/jobs"),
        *((method, f"/v1/jobs/<job_id>{rest}") for method in ("GET", "HEAD") for rest in ("", "/result")),
    }
)


class _CallersElsewhere(ServiceError):
    """No key is needed yet, and the caller is not on this machine."""

    def __init__(self) -> None:
        super().__init__(
            "forbidden",
            "No API key is configured, so only callers on this machine are served; "
            "make one with `scorequeue keys create`, or set SCOREQUEUE_API_KEYS.",
        )


def install(app: Flask) -> None:
    """Identify the caller of every request before anything else is done for it."""

    @app.before_request
    def begin() -> None:
        raise_failure(get_environ())
        rule = get_request().url_rule
        admit_caller(rule.rule if rule else None)


def admit_caller(rule: str | None) -> None:
    """Find out who calls and whether they may, and count the request.

    Parameters
    ----------
    rule : str or None
        Of the call; None: there is none of that path, or not by that method.

    Raises
    ------
    ServiceError
        ``unauthenticated``, ``forbidden`` or ``rate_limited``.
    redis.RedisError
        Redis does not answer; nobody is let through who might not be.
    """
    service, environ = get_service(), get_environ()
    method = environ["REQUEST_METHOD"]
    if rule in PROBES:
        return
    try:
        if rule in PAGES:
            _check_page(service.keys)
            return
        environ[_HERE] = caller = _identify(service.keys, environ)
        _check_scope(caller, rule, method)
    except ServiceError as error:
        _note_refusal(error, rule)
        raise
    if rule != "/metrics" and (method, rule) not in _COUNTED_LATER:
        service.limits.take_request(caller)


def get_caller() -> Caller:
    """Return who makes the request that is being served."""
    caller: Caller = get_environ()[_HERE]
    return caller


def get_tenant() -> str:
    """Return the tenant of the request that is being served."""
    return get_caller().tenant


def _identify(keys: KeyRing, environ: WSGIEnvironment) -> Caller:
    if not _needs_key(keys, environ):
        if not _comes_from_here(get_request()):
            raise _CallersElsewhere
        return Caller(tenant=DEFAULT_TENANT)
    scheme, _, text = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise ServiceError("unauthenticated", "Send a key as 'Authorization: Bearer <key>'.")
    return keys.find_caller(text.strip())


def _needs_key(keys: KeyRing, environ: WSGIEnvironment) -> bool:
    try:
        return keys.needs_key()
    except redis.RedisError:
        # Metrics are there to show just this outage; they are all that a caller from here gets to see in it.
        if environ["PATH_INFO"] == "/metrics" and keys.knows_none():
            return False
        raise


def _check_page(keys: KeyRing) -> None:
    # A link to a page may stand on another site: a page holds no data, and what it asks for comes from itself.
    if not keys.needs_key() and not _is_local(get_request()):
        raise _CallersElsewhere


def _check_scope(caller: Caller, rule: str | None, method: str) -> None:
    scope = find_scope(rule, method)
    if scope is None:
        raise ServiceError("forbidden", "No key is allowed this call.")
    if scope and scope not in caller.scopes:
        raise ScopeMissing(scope)


def _note_refusal(error: ServiceError, rule: str | None) -> None:
    request = get_request()
    shown = parse_key(request.headers.get("Authorization", "").partition(" ")[2].strip())
    audit.log_refusal(
        error.code,
        reason=error.detail,
        key=shown,  # only the id of one; what else may stand there is not ours to keep
        method=request.method,
        route=rule,
        address=request.remote_addr,
    )


def _comes_from_here(request: Request) -> bool:
    """Tell whether the caller is a program on this machine: no proxy for others, and no page of another site."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return False
    origin = request.headers.get("Origin")
    return _is_local(request) and (not origin or _is_loopback(urlsplit(origin).hostname))


def _is_local(request: Request) -> bool:
    if any(name in request.headers for name in _PROXY_HEADERS):
        return False
    # A page whose name was bound to this address (DNS rebinding) still says that name as the host.
    return _is_loopback(request.remote_addr) and _is_loopback(urlsplit(f"//{request.host}").hostname)


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
