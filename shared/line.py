"""One connection to Redis for all threads of a process: what they ask at the same moment goes in one write.

The thread that finds the line free sends its own command and those that came meanwhile, and reads all replies; the
others wait for theirs. So the cost of a round trip, and of a write to Redis's log with ``appendfsync always``, is
shared by as many as wait (group commit). Redis runs one command after the other in any case. It answers no sooner for
one alone, and no later: nobody waits for others to come.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import redis
from hiredis import pack_command

#: A thread waits for the exchange under way and for its own, each bounded by the connection's timeout; with more than
#: this something is broken.
_PATIENCE_SECONDS = 10.0
#: A connection that was used so short a time ago is not looked at before it is used again.
_FRESH_SECONDS = 0.1

Word = str | bytes | int | float


class _Call:
    """A command, and what became of it."""

    def __init__(self, command: tuple[Word, ...]) -> None:
        self.command = command
        self.reply: Any = None
        self.error: Exception | None = None
        self.is_done = False
        #: Released when the call is done, or when its thread is to send.
        self.turn = threading.Lock()
        self.turn.acquire()
        #: Whom its thread wakes when it is woken: one after the other, since only one can run at a time.
        self.next: _Call | None = None
        #: Its thread waits no longer.
        self.is_abandoned = False

    def finish(self) -> Any:
        if self.error is not None:
            # Anew: other threads raise what became of the same exchange.
            raise type(self.error)(*self.error.args) from self.error
        return self.reply


class Line:
    """Sends commands of many threads over one connection.

    Parameters
    ----------
    client : redis.Redis
        Whose server is asked; the connection is one of its pool.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._connection: Any = None
        self._used = 0.0
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []
        self._is_busy = False

    def call(self, *command: Word) -> Any:
        """Send a command and return its reply.

        Raises
        ------
        redis.RedisError
            Redis refuses the command, or does not answer in time: then it is not known whether it was run.
        """
        mine = _Call(command)
        with self._lock:
            self._waiting.append(mine)
            leads = not self._is_busy
            self._is_busy = True
        if not leads:
            self._await_turn(mine)
        if not mine.is_done:
            self._serve(mine)
        return mine.finish()

    def _await_turn(self, mine: _Call) -> None:
        if not mine.turn.acquire(timeout=_PATIENCE_SECONDS):
            with self._lock:
                if not mine.turn.acquire(blocking=False):
                    mine.is_abandoned = True
                    if mine in self._waiting:
                        self._waiting.remove(mine)
        if mine.next is not None:
            mine.next.turn.release()
        if mine.is_abandoned and not mine.is_done:
            raise redis.TimeoutError("waited in vain for other calls of this process")

    def _serve(self, mine: _Call) -> None:
        """Send all that waits, this thread's own among it, and hand the line on."""
        with self._lock:
            batch, self._waiting = self._waiting, []
        try:
            self._exchange(batch)
        except redis.TimeoutError as error:
            # The store is away. Who came meanwhile has waited as long, and is told at once.
            with self._lock:
                late, self._waiting = self._waiting, []
            _fail([*batch, *late], error)
            batch += late
        except (redis.RedisError, OSError) as error:
            _fail(batch, error)
        except BaseException as error:
            _fail(batch, redis.ConnectionError(f"the exchange broke off: {type(error).__name__}"))
            raise
        finally:
            self._hand_on(mine, batch)

    def _exchange(self, batch: list[_Call]) -> None:
        connection = self._connect()
        try:
            words = b"".join([pack_command(call.command) for call in batch])  # type: ignore[arg-type]  # a tuple of any length
            connection.send_packed_command([words], check_health=False)
            for call in batch:
                try:
                    call.reply = connection.read_response()
                except redis.ResponseError as error:
                    call.error = error
                call.is_done = True
            self._used = time.monotonic()
        except BaseException:
            connection.disconnect()  # replies that still come must not be taken for those of others
            raise

    def _connect(self) -> Any:
        if self._connection is None:
            self._connection = self._pool.get_connection()
        connection = self._connection
        if connection.is_connected and time.monotonic() - self._used < _FRESH_SECONDS:
            return connection
        # As redis-py looks before it uses a connection again: one that was closed meanwhile would lose the command.
        try:
            if connection.is_connected and connection.can_read(timeout=0):
                connection.disconnect()
        except (redis.ConnectionError, OSError):
            connection.disconnect()
        connection.connect()
        return connection

    def _hand_on(self, mine: _Call, batch: list[_Call]) -> None:
        with self._lock:
            others = [call for call in batch if call is not mine and not call.is_abandoned]
            for call, after in itertools.pairwise(others):
                call.next = after
            self._is_busy = bool(self._waiting)
            for first in (*self._waiting[:1], *others[:1]):
                first.turn.release()


def _fail(calls: list[_Call], error: Exception) -> None:
    for call in calls:
        if not call.is_done:
            call.error, call.is_done = error, True
