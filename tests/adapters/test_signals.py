"""Signals and calls that wake the main thread."""

from __future__ import annotations

import signal
import threading
import time

from agent.adapters.signals import Inbox

TAKEN = (signal.SIGUSR1, signal.SIGHUP)


def test_signals_come_in_their_order() -> None:
    """Polling: what somebody asked for is known, one by one."""
    with Inbox(TAKEN) as inbox:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGUSR1)
        assert inbox.wait(10.0) == [signal.SIGHUP, signal.SIGUSR1]
        assert inbox.wait(0.0) == []


def test_a_storm_loses_nothing() -> None:
    """More signals than the sockets hold bytes hide none that comes after them."""
    with Inbox(TAKEN) as inbox:
        for _ in range(5000):
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGHUP)
        inbox.wake()
        came = inbox.wait(10.0)
        assert (len(came), came[-1]) == (5001, signal.SIGHUP)
        assert inbox.wait(0.0) == []


def test_a_call_from_another_thread_ends_the_wait() -> None:
    """The end of a sync is acted upon at once."""
    with Inbox(TAKEN) as inbox:
        caller = threading.Timer(0.05, inbox.wake)
        caller.start()
        begun = time.monotonic()
        assert inbox.wait(30.0) == []
        assert time.monotonic() - begun < 10.0
        caller.join()


def test_the_earlier_handlers_come_back() -> None:
    """Nothing is left behind, and a late call from a thread is no error."""
    before = [signal.getsignal(number) for number in TAKEN]
    with Inbox(TAKEN) as inbox:
        assert [signal.getsignal(number) for number in TAKEN] != before
    assert [signal.getsignal(number) for number in TAKEN] == before
    inbox.wake()
