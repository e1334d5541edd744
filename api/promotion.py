"""Promotion: an alias moves when every live worker process has the new version warm and checked, or not at all."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence

from api.service import Service
from shared.aliases import Target
from shared.errors import Fault, ServiceError
from shared.fleet import Fleet, Says
from shared.logs import get_logger

#: How long a request waits for the workers, at most; loading goes on, and the request may be repeated.
WAIT_SECONDS = 30.0
#: How long workers are asked to load it: while the caller may repeat its request.
_ASKED_SECONDS = 120.0
_LOOK_SECONDS = 0.1
#: Requests of one API process that may wait for workers at a time.
_PLACES = threading.BoundedSemaphore(4)
#: Of a version that cannot be loaded: after this time workers have tried again.
_RETRY_SECONDS = 60

logger = get_logger(__name__)


def promote(service: Service, name: str, alias: str, target: Target, *, caller: str) -> int:
    """Point an alias at versions that all workers have loaded and checked.

    Returns
    -------
    int
        Processes that checked them.

    Raises
    ------
    ServiceError
        ``model_not_ready``: a version failed its check, is still loading, or there is nobody to check it; the alias is
        as it was. ``invalid_parameter``: the alias or the versions make no sense.
    UnknownModel, BrokenManifest
        There is no such version, or it cannot be used.
    """
    try:
        service.registry.check_target(name, alias, target)
    except ValueError as error:
        raise ServiceError("invalid_parameter", f"{error}.") from None
    if not _PLACES.acquire(blocking=False):
        raise ServiceError("overloaded", "Too many promotions wait for the workers; try again.", retry_after=5)
    try:
        checked_by = _await_checks(service, name, [f"{name}:{version}" for version in target.all_versions])
    finally:
        _PLACES.release()
    service.registry.set_alias(name, alias, target)
    logger.info("alias moved", audit=True, model=name, alias=alias, target=target.describe(), caller=caller)
    return checked_by


def _await_checks(service: Service, name: str, references: Sequence[str]) -> int:
    nonce = secrets.token_hex(6)
    asked = {f"{reference} {nonce}": reference for reference in references}
    service.store.ask_to_prepare(asked, _ASKED_SECONDS)
    end = time.monotonic() + min(WAIT_SECONDS, service.settings.max_wait_seconds)
    while True:
        serving = Fleet(service.store.list_workers().values()).list_serving(name)
        if not serving:
            raise _refuse(
                "no_worker", f"No worker process runs that serves {name}, so nobody can check it; nothing was changed."
            )
        pending = 0
        for member, reference in asked.items():
            answers = [said["answers"].get(member) for said in serving]
            if faults := [(said, answer) for said, answer in zip(serving, answers, strict=True) if answer]:
                raise _refuse("model_not_ready", _describe_faults(reference, faults, len(serving)))
            pending += answers.count(None)
        if not pending:
            return len(serving)
        if time.monotonic() > end:
            raise ServiceError(
                "model_not_ready",
                f"Not all of the {len(serving)} worker processes that serve {name} have loaded it yet; nothing was"
                " changed. They go on loading: repeat the request.",
                retry_after=1,
            )
        time.sleep(_LOOK_SECONDS)


def _refuse(code: str, detail: str) -> ServiceError:
    fault: Fault = {"pointer": "#", "code": code, "detail": detail}
    return ServiceError("model_not_ready", detail, errors=[fault], retry_after=_RETRY_SECONDS)


def _describe_faults(reference: str, faults: Sequence[tuple[Says, str]], processes: int) -> str:
    hosts = ", ".join(sorted({str(said.get("host", "?")) for said, _ in faults}))
    return (
        f"{reference} is not ready in {len(faults)} of {processes} worker processes (on {hosts}): {faults[0][1]}."
        " Nothing was changed."
    )
