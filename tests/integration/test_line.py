"""One connection for all threads: each gets its own reply, and an outage is told to all of them in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from shared.connection import connect
from shared.line import Line
from shared.scripts import Scripts
from tests.conftest import WaitUntil


def test_each_thread_gets_its_own_reply(client: redis.Redis) -> None:
    """Of thousands of calls from many threads none gets another's reply, errors among them."""
    line = Line(client)

    def ask(number: int) -> bool:
        if number % 10 == 0:
            with pytest.raises(redis.ResponseError, match="unknown command"):
                line.call("NOSUCH", number)
            return True
        return bool(line.call("ECHO", f"{number}") == str(number).encode())

    with ThreadPoolExecutor(32) as threads:
        assert all(threads.map(ask, range(5_000)))


def test_calls_that_come_together_go_together(client: redis.Redis) -> None:
    """What is asked while an exchange is under way waits for it, and then goes in one write."""
    line, before = Line(client), client.info("stats")["total_reads_processed"]
    slow = threading.Thread(target=lambda: line.call("BLPOP", "nothing", "0.3"))
    slow.start()

    with ThreadPoolExecutor(40) as threads:
        replies = list(threads.map(lambda number: line.call("ECHO", str(number)), range(40)))
    slow.join()

    assert replies == [str(number).encode() for number in range(40)]
    # One read each for `info` twice, the slow call, and what was asked meanwhile; some threads may have come late.
    assert client.info("stats")["total_reads_processed"] - before < 20


def test_a_script_that_the_server_has_forgotten_is_sent_again(client: redis.Redis) -> None:
    """After SCRIPT FLUSH, as after a restart, a script is run all the same."""
    scripts = Scripts(client, Line(client))
    assert scripts.run("look", "job_x", "", "", "kind")[1] == [None]

    client.script_flush()

    assert scripts.run("look", "job_x", "", "", "kind")[1] == [None]


def test_a_connection_that_was_closed_is_made_anew(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis ends idle connections, and all when it restarts: the next call does not notice."""
    line = Line(client)
    monkeypatch.setattr("shared.line._FRESH_SECONDS", 0.0)  # what was just used is not looked at
    assert line.call("PING") in (b"PONG", True, "PONG")

    client.client_kill_filter(_type="normal", skipme=True)

    assert line.call("ECHO", "here") == b"here"


def test_silence_is_told_to_all_who_wait_at_once(client: redis.Redis, redis_url: str, wait_until: WaitUntil) -> None:
    """Who asked while a call waited in vain has waited as long: nobody waits for one timeout after the other."""
    line = Line(connect(redis_url, timeout_seconds=0.5))
    line.call("PING")
    client.client_pause(2_000, all=True)  # the server reads nothing for so long
    began = time.monotonic()

    def ask(_: int) -> float:
        with pytest.raises(redis.TimeoutError):
            line.call("GET", "x")
        return time.monotonic() - began

    with ThreadPoolExecutor(16) as threads:
        waited = list(threads.map(ask, range(16)))

    assert max(waited) < 1.9
    wait_until(lambda: _is_answered(line), 10, "the line to be answered again")


def test_a_refused_connection_is_told_and_the_line_goes_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each call of a line without a server fails by itself; none hangs."""
    line = Line(connect("unix:///nowhere/r.sock"))

    with ThreadPoolExecutor(8) as threads:
        faults = list(threads.map(lambda _: _raised(lambda: line.call("PING")), range(50)))

    assert all(isinstance(fault, redis.ConnectionError) for fault in faults)


def _is_answered(line: Line) -> bool:
    try:
        return bool(line.call("ECHO", "x") == b"x")
    except redis.RedisError:
        return False


def _raised(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except redis.RedisError as error:
        return error
    return None


def test_who_waits_no_longer_keeps_nobody_else_waiting(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """A thread that gives up in the middle of those that are woken one after the other is left out."""
    monkeypatch.setattr("shared.line._PATIENCE_SECONDS", 0.8)
    line, replies, began = Line(client), {}, time.monotonic()

    def start(name: str, *command: str) -> threading.Thread:
        def ask() -> None:
            try:
                replies[name] = line.call(*command)
            except redis.TimeoutError:
                replies[name] = "gave up"

        waiting = len(line._waiting)
        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: len(line._waiting) > waiting or (name == "first" and line._is_busy), 5, f"{name} to wait")
        return thread

    threads = [start("first", "BLPOP", "nothing", "0.6"), start("slow", "BLPOP", "nothing", "0.5")]
    threads.append(start("early", "ECHO", "early"))  # until 0.8 s, and those before it take until 1.1 s
    wait_until(lambda: time.monotonic() > began + 0.5, 5, "the first to be nearly done")
    threads += [start("late", "ECHO", "late"), start("later", "ECHO", "later")]
    for thread in threads:
        thread.join(5)

    assert replies == {"first": None, "slow": None, "early": "gave up", "late": b"late", "later": b"later"}
    assert line.call("ECHO", "on") == b"on"
