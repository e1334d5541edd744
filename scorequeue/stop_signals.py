"""The wish to stop, as it arrives by signal.

It must not know what is to be stopped: a handler only notes, so that it interrupts nothing half done.
"""

from __future__ import annotations

import signal
import time


class StopSignals:
    """Notes SIGTERM, SIGINT and SIGHUP, to be asked whether a stop is wished for, and whether impatiently.

    Use as a context manager; the handlers that were there before are back afterwards.
    """

    #: A second signal sooner than this is the same wish: some runners pass on a Ctrl-C that came anyway.
    ECHO_SECONDS = 0.5

    def __init__(self) -> None:
        self._first: float | None = None
        self._hurried = False

    def __enter__(self) -> StopSignals:
        numbers = [signal.SIGTERM, signal.SIGINT]
        # Under nohup the end of the terminal is ignored, and shall stay so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def is_stopped(self) -> bool:
        """Tell whether a stop was asked for."""
        return self._first is not None

    def is_hurried(self) -> bool:
        """Tell whether it was asked for a second time: kill, do not drain."""
        return self._hurried

    def _note(self, _number: int, _frame: object) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        elif now - self._first > self.ECHO_SECONDS:
            self._hurried = True
