"""Lets the daemon's main thread wait for signals and for calls from its other threads.

A byte in a socket pair ends the wait. A lock would not do: before Python 3.11 its timeout can be
measured on the wall clock, so setting the clock back would stop the daemon.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections import deque
from collections.abc import Iterable
from types import FrameType, TracebackType

_MAX_BYTES = 1 << 20  # more than the socket pair holds


class Inbox:
    """A context manager that receives `signals` and restores the earlier handlers at its end.

    It must be entered in the main thread (a restriction of Python's signal module).
    """

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._signals = tuple(signals)
        self._received: deque[signal.Signals] = deque()
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)

    def __enter__(self) -> Inbox:
        # When the socket pair is full, bytes are dropped; those inside it end the wait anyway.
        self._wakeup = signal.set_wakeup_fd(self._in.fileno(), warn_on_full_buffer=False)
        self._handlers = [signal.signal(number, self._receive) for number in self._signals]
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

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(signal.Signals(number))

    def wake(self) -> None:
        """Ends the current or next wait, from any thread; does nothing after the inbox's end."""
        with contextlib.suppress(OSError):
            self._in.send(b"\0")

    def wait(self, seconds: float) -> list[signal.Signals]:
        """Waits up to `seconds`; returns the signals received, in order.

        Empty if `wake` ended the wait or the time is over.
        """
        ready, _, _ = select.select([self._out], [], [], seconds)
        if ready:
            self._out.recv(_MAX_BYTES)
        return [self._received.popleft() for _ in range(len(self._received))]
