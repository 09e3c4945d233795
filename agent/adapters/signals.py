"""What the daemon's main thread waits for: signals, and a call from its other threads.

A byte on a pair of sockets ends the wait. Waiting for a lock would do too, but before Python 3.11
its time-out is counted on the wall clock, and a clock set back would stop the daemon.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections import deque
from collections.abc import Iterable
from types import FrameType, TracebackType

_ALL = 1 << 20


class Inbox:
    """Takes the `signals` over while it is entered, in the main thread; gives them back after."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._signals = tuple(signals)
        self._came: deque[signal.Signals] = deque()
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)

    def __enter__(self) -> Inbox:
        # A full pair of sockets drops bytes; then there are others in it that end the wait.
        self._wakeup = signal.set_wakeup_fd(self._in.fileno(), warn_on_full_buffer=False)
        self._handlers = [signal.signal(number, self._take) for number in self._signals]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in zip(self._signals, self._handlers, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._in.close()
        self._out.close()

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(signal.Signals(number))

    def wake(self) -> None:
        """Ends the wait, from any thread; when the main thread has gone, nobody needs it."""
        with contextlib.suppress(OSError):
            self._in.send(b"\0")

    def wait(self, seconds: float) -> list[signal.Signals]:
        """The signals that came, in their order; none when it was woken, or the time is over."""
        ready, _, _ = select.select([self._out], [], [], seconds)
        if ready:
            self._out.recv(_ALL)
        return [self._came.popleft() for _ in range(len(self._came))]
