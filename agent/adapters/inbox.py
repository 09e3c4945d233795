"""What the daemon's main thread waits for: signals, and word from its other threads.

Both come as single bytes on a pair of sockets. A wait on a lock would do for that, but before
Python 3.11 its time-out is counted on the wall clock, and a clock set back would stop the daemon.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections.abc import Iterable
from types import FrameType, TracebackType

WORD = 0  # no signal has this number
_MOST_AT_ONCE = 4096


class Inbox:
    """Takes the `signals` over while it is entered, in the main thread; gives them back after."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._signals = tuple(signals)
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)

    def __enter__(self) -> Inbox:
        self._wakeup = signal.set_wakeup_fd(self._in.fileno(), warn_on_full_buffer=False)
        self._handlers = [signal.signal(number, _taken) for number in self._signals]
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

    def put_word(self) -> None:
        """Puts WORD in, from any thread; when the main thread has gone, nobody needs it."""
        with contextlib.suppress(OSError):
            self._in.send(bytes([WORD]))

    def wait(self, seconds: float) -> bytes:
        """The numbers that came, in their order; nothing after so many seconds without any."""
        ready, _, _ = select.select([self._out], [], [], seconds)
        return self._out.recv(_MOST_AT_ONCE) if ready else b""


def _taken(_number: int, _frame: FrameType | None) -> None:
    """The byte that Python writes to the wake-up descriptor is the message."""
