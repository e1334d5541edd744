"""Places for bodies: a burst of fast ones waits its turn, and slow ones are not waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.receiving import ReceivingPlaces
from shared.errors import ServiceError
from tests.conftest import WaitUntil

#: More than twice the places: as many as may hold one, as many as may always wait, and others.
MANY = 12


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands still."""
    return Clock()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Give a thread for each request."""
    with ThreadPoolExecutor(MANY) as threads:
        yield threads


def test_a_burst_of_fast_bodies_is_served_whole(clock: Clock, pool: ThreadPoolExecutor, wait_until: WaitUntil) -> None:
    """More bodies than places and waiters at one moment are no reason to refuse any, if each comes in quickly."""
    places = ReceivingPlaces(4, clock=clock)
    go = threading.Event()

    def receive(_: int) -> bool:
        with places.take("shop", share=1.0):
            return go.wait(30)

    served = [pool.submit(receive, number) for number in range(MANY)]
    wait_until(lambda: places.waiting == MANY - 4, 30, "all others to wait")
    go.set()

    assert all(one.result(30) for one in served)


def test_slow_bodies_are_not_waited_for_by_more_than_there_are_places(
    clock: Clock, pool: ThreadPoolExecutor, wait_until: WaitUntil
) -> None:
    """When no place has been given for a second, more waiting would only hold threads."""
    places = ReceivingPlaces(2, clock=clock, wait_seconds=30.0)
    go = threading.Event()

    def receive(_: int) -> bool:
        with places.take("shop", share=1.0):
            return go.wait(30)

    held = [pool.submit(receive, number) for number in range(2)]
    wait_until(lambda: places.held == 2, 30, "the places to be held")
    clock.now += 2.0
    waiting = [pool.submit(receive, number) for number in range(2)]
    wait_until(lambda: places.waiting == 2, 30, "as many to wait")

    with pytest.raises(ServiceError, match="Too many bodies"), places.take("shop", share=1.0):
        pass
    go.set()

    assert all(one.result(30) for one in held + waiting)


def test_one_tenant_has_its_share_of_the_places(clock: Clock) -> None:
    """The places of others stay free, and a wait in vain ends with a refusal."""
    places = ReceivingPlaces(4, clock=clock, wait_seconds=0.05)

    with places.take("shop", share=0.5), places.take("shop", share=0.5):
        with pytest.raises(ServiceError, match="Too many bodies"), places.take("shop", share=0.5):
            pass
        with places.take("bank", share=0.5):
            assert places.held == 3
    assert places.held == 0
