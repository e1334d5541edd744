"""A proxy between the service and Redis that fails as networks fail: cut, late, half-open, answers cut short.

It must not know Redis: requests and answers are bytes. Threads, two a connection; small on purpose.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK_BYTES = 1 << 16


@dataclass
class _Trap:
    """Waits for a request that contains all of some words."""

    words: tuple[bytes, ...]
    #: Bytes of its answer that are let through before the connection is cut; None: the link goes half-open instead.
    answer_bytes: int | None

    def matches(self, request: bytes) -> bool:
        return all(word in request for word in self.words)


class Proxy:
    """Listens on loopback and forwards to a unix socket.

    Parameters
    ----------
    target : str
        Path of the unix socket.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        #: Set while bytes pass at once; clear: they wait, for ever or for `_delay_seconds`.
        self._open = threading.Event()
        self._open.set()
        self._delay_seconds: float | None = None
        self._trap: _Trap | None = None
        #: Set when the trap has sprung.
        self.sprung = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._busy = 0
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def delay(self, seconds: float) -> None:
        """Let every block of bytes, in both directions, arrive so much later, until `heal`."""
        self._delay_seconds = seconds
        self._open.clear()

    def hang(self) -> None:
        """Go half-open: connections stay and new ones are made, but nothing arrives until `heal`."""
        self._delay_seconds = None
        self._open.clear()

    def heal(self) -> None:
        """Forward again; what was held back arrives now, as on a network that comes back."""
        self._open.set()

    def cut(self) -> None:
        """Close all connections; new ones are served."""
        with self._lock:
            sockets = list(self._sockets)
        for one in sockets:
            _shut(one)

    def cut_answer(self, *words: bytes, after_bytes: int = 0) -> None:
        """Cut the connection of the next request with these words when it is carried out, its answer under way."""
        self._set_trap(_Trap(words, after_bytes))

    def hang_at(self, *words: bytes) -> None:
        """Go half-open as the next request with these words arrives; it is held back too."""
        self._set_trap(_Trap(words, None))

    def is_quiet(self) -> bool:
        """Tell whether nothing is held back."""
        return self._busy == 0

    def close(self) -> None:
        """End it, with all its connections."""
        _shut(self._listener)
        self._listener.close()
        self.heal()
        self.cut()

    def _set_trap(self, trap: _Trap) -> None:
        self.sprung.clear()
        self._trap = trap

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._target)
            cut_after: list[int] = []
            with self._register(client, server):
                answers = threading.Thread(target=self._pump_answers, args=(server, client, cut_after), daemon=True)
                answers.start()
                self._pump_requests(client, server, cut_after)
                answers.join()

    @contextlib.contextmanager
    def _register(self, *sockets: socket.socket) -> Iterator[None]:
        with self._lock:
            self._sockets |= set(sockets)
        try:
            yield
        finally:
            with self._lock:
                self._sockets -= set(sockets)

    def _pump_requests(self, client: socket.socket, server: socket.socket, cut_after: list[int]) -> None:
        with contextlib.suppress(OSError):
            while block := client.recv(_BLOCK_BYTES):
                trap = self._trap
                if trap is not None and trap.matches(block):
                    self._trap = None
                    if trap.answer_bytes is None:
                        self.hang()
                    else:
                        cut_after.append(trap.answer_bytes)
                    self.sprung.set()
                self._forward(server, block)
        _shut(server)

    def _pump_answers(self, server: socket.socket, client: socket.socket, cut_after: list[int]) -> None:
        with contextlib.suppress(OSError):
            while block := server.recv(_BLOCK_BYTES):
                if cut_after:
                    client.sendall(block[: cut_after.pop()])
                    break
                self._forward(client, block)
        _shut(client)
        _shut(server)

    def _forward(self, target: socket.socket, block: bytes) -> None:
        with self._lock:
            self._busy += 1
        try:
            self._open.wait(self._delay_seconds)
            target.sendall(block)
        finally:
            with self._lock:
                self._busy -= 1


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
