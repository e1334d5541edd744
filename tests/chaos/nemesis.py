"""The nemesis: it kills, stops and lies, each kind of fault at its own pace, all by one seed.

It must not know what the clients do.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import kombu.exceptions
import redis

from scorequeue.processes import kill_group, read_start_time
from scorequeue.readiness import fetch
from shared.connection import connect
from shared.jobs import PRIORITIES
from shared.settings import Settings
from shared.store import JobStore
from shared.wakeups import SCORE_CHUNKS, SCORE_ROWS, make_celery
from tests.chaos.history import History
from tests.live_service import LiveService

_WORKERS = ("rows worker", "files worker")
_TASKS = {"rows": SCORE_ROWS, "files": SCORE_CHUNKS}
#: After so many seconds a new process of the API is at work.
_SETTLED_SECONDS = 4.0
#: Mean seconds between two faults of a kind: a hundred of each in 15 to 20 minutes, and still time to work.
PERIODS = {
    "kill a worker's child": 7.0,
    "kill a whole worker": 7.0,
    "kill an API process": 3.0,
    "kill the whole API": 12.0,
    "kill Redis": 7.5,
    "kill the broker": 7.5,
    "stop a worker's child past its lease": 9.0,
    "stop Redis for a while": 15.0,
    "stop the broker for a while": 15.0,
    "double a stream entry": 3.0,
    "publish a needless wake-up": 3.0,
    "publish a wake-up for nothing": 5.0,
    "lose the waiting wake-ups": 4.0,
    "delete the wake mark": 3.0,
}
#: These take seconds to start. One that is not up waits for its next turn: were it tried again soon, it would be killed
#: whenever it is just ready, and nothing would ever be done.
_SLOW = {"kill a whole worker", "kill an API process", "kill the whole API"}
#: All others that found nothing to harm are tried again after so many seconds.
_AGAIN_SECONDS = 0.5


class Nemesis:
    """Harms a running service.

    Parameters
    ----------
    service : LiveService
    history : History
        Each fault is noted in it.
    seed : int
    stop : threading.Event
        Ends it.
    lease_seconds : float
        How long a process may be silent.
    """

    def __init__(
        self, service: LiveService, history: History, seed: int, stop: threading.Event, lease_seconds: float
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._service = service
        self._history = history
        self._random = random.Random(seed)
        self._lease_seconds = lease_seconds
        self._stop = stop
        #: Processes to be continued: when, pid, and when they started.
        self._stopped: list[tuple[float, int, str | None]] = []
        settings = Settings(redis_url=service.redis_url, broker_url=service.broker_url)
        # Short: it must not itself hang on a Redis that it has stopped, and is to continue.
        self._store = JobStore(connect(service.redis_url, timeout_seconds=0.3))
        self._broker = connect(service.broker_url, timeout_seconds=0.3)
        self._celery = make_celery(settings, socket_timeout=0.3)
        self._faults: dict[str, Callable[[], bool]] = {
            "kill a worker's child": self._kill_child,
            "kill a whole worker": self._kill_worker,
            "kill an API process": self._kill_api_process,
            "kill the whole API": self._kill_api,
            "kill Redis": lambda: self._kill_server("Redis", self._store.client),
            "kill the broker": lambda: self._kill_server("broker", self._broker),
            "stop a worker's child past its lease": self._stop_child,
            "stop Redis for a while": lambda: self._stop_server("Redis"),
            "stop the broker for a while": lambda: self._stop_server("broker"),
            "double a stream entry": self._double_entry,
            "publish a needless wake-up": self._wake_again,
            "publish a wake-up for nothing": self._wake_nobody,
            "lose the waiting wake-ups": self._lose_wakeups,
            "delete the wake mark": self._delete_mark,
        }

    def run(self) -> None:
        """Do each kind of fault at its pace until the event is set; then what is stopped is continued."""
        due = [(time.monotonic() + self._pick_pause(name), name) for name in self._faults]
        heapq.heapify(due)
        while not self._stop.wait(0.02):
            now = time.monotonic()
            self._continue_stopped(now)
            if due[0][0] > now:
                continue
            _, name = heapq.heappop(due)
            done = self._try(name)
            heapq.heappush(due, (now + (self._pick_pause(name) if done or name in _SLOW else _AGAIN_SECONDS), name))
        self._continue_stopped(float("inf"))
        self._store.client.close()
        self._broker.close()
        self._celery.pool.force_close_all()

    def _pick_pause(self, name: str) -> float:
        return PERIODS[name] * self._random.uniform(0.4, 1.6)

    def _try(self, name: str) -> bool:
        try:
            done = self._faults[name]()
        except (redis.RedisError, OSError, kombu.exceptions.OperationalError):
            return False  # what it needs is down already
        if done:
            self.counts[name] += 1
            self._history.note(None, "fault", kind=name)
        return done

    # Kills

    def _kill_child(self) -> bool:
        return self._kill_one(self._service.list_children(self._random.choice(_WORKERS)))

    def _kill_api_process(self) -> bool:
        # One that has just been respawned is left alone: two deaths in 3.5 s and Granian ends, which is another fault.
        children = [pid for pid in self._service.list_children("API") if _read_age(pid) > _SETTLED_SECONDS]
        return len(children) > 1 and self._kill_one(children)

    def _kill_one(self, pids: list[int]) -> bool:
        if not pids:
            return False
        return _send(self._random.choice(sorted(pids)), signal.SIGKILL)

    def _kill_worker(self) -> bool:
        group = self._service.find_group(self._random.choice(_WORKERS))
        if group is None or not any(said.get("parent") == group.pid for said in self._store.list_workers().values()):
            return False  # not warm yet
        kill_group(group.pid)
        return True

    def _kill_api(self) -> bool:
        group = self._service.find_group("API")
        if group is None or fetch("127.0.0.1", self._service.port, "/health") is None:
            return False
        return _send(group.pid, signal.SIGKILL)

    def _kill_server(self, name: str, client: redis.Redis) -> bool:
        group = self._service.find_group(name)
        if group is None or self._is_stopped(group.pid):
            return False
        client.ping()
        return _send(group.pid, signal.SIGKILL)

    # Stops

    def _stop_child(self) -> bool:
        children = self._service.list_children(self._random.choice(_WORKERS))
        seconds = self._lease_seconds + self._random.uniform(1, 3)
        return bool(children) and self._stop_one(self._random.choice(sorted(children)), seconds)

    def _stop_server(self, name: str) -> bool:
        group = self._service.find_group(name)
        return group is not None and self._stop_one(group.pid, self._random.uniform(1, 3))

    def _stop_one(self, pid: int, seconds: float) -> bool:
        if self._is_stopped(pid):
            return False
        started = read_start_time(pid)
        if not _send(pid, signal.SIGSTOP):
            return False
        heapq.heappush(self._stopped, (time.monotonic() + seconds, pid, started))
        return True

    def _is_stopped(self, pid: int) -> bool:
        return any(stopped == pid for _, stopped, _ in self._stopped)

    def _continue_stopped(self, now: float) -> None:
        while self._stopped and self._stopped[0][0] <= now:
            _, pid, started = heapq.heappop(self._stopped)
            if read_start_time(pid) == started:
                _send(pid, signal.SIGCONT)

    # Lies

    def _double_entry(self) -> bool:
        """Put a copy of a waiting or claimed entry into a stream, as a repeated XADD would."""
        queue = self._pick_queue()
        if queue is None:
            return False
        stream = f"sq:stream:{queue}:{self._random.choice(PRIORITIES)}"
        entries = self._store.client.xrange(stream, count=50)
        if not entries:
            return False
        _, fields = self._random.choice(entries)
        self._store.client.xadd(stream, fields)  # type: ignore[arg-type]
        return True

    def _wake_again(self) -> bool:
        queue = self._pick_queue()
        return queue is not None and self._publish(queue.partition(":")[0], queue)

    def _wake_nobody(self) -> bool:
        kind = self._random.choice(("rows", "files"))
        return self._publish(kind, self._random.choice((f"{kind}:ghost:7", f"{kind}:iris:99", "nonsense")))

    def _publish(self, kind: str, queue: str) -> bool:
        self._celery.send_task(_TASKS[kind], kwargs={"queue": queue}, queue=kind, retry=False, ignore_result=True)
        return True

    def _lose_wakeups(self) -> bool:
        return bool(self._broker.delete(self._random.choice(("rows", "files"))))

    def _delete_mark(self) -> bool:
        queue = self._pick_queue()
        return queue is not None and bool(self._store.client.delete(f"sq:wake:{queue}"))

    def _pick_queue(self) -> str | None:
        queues = self._store.list_queues()
        return self._random.choice(queues) if queues else None


def _read_age(pid: int) -> float:
    """Return for how many seconds a process has been there."""
    try:
        return time.time() - os.stat(f"/proc/{pid}").st_mtime
    except OSError:
        return 0.0


def _send(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False
