"""Waiting for other processes: for writers of a file by a lease, for another agent by a lock.

Neither keeps anybody out for ever, and not every file system has them; they make accidents rare.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator

_PAUSE_SECONDS = 0.005


@contextlib.contextmanager
def read_lease(fd: int, deadline: float) -> Iterator[Callable[[], bool]]:
    """Begins when nobody has the file open for writing, or at `deadline` (time.monotonic).

    Until it ends, a read lease (fcntl(2), F_SETLEASE) blocks whoever opens the file for writing;
    the function that it gives says whether still nobody does. Where leases are unsupported it
    begins after one short pause, and the function always says yes.
    """
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # SIGIO, the default, would end the process
    leased = _take_lease(fd, deadline)
    try:
        yield lambda: not leased or fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK
    finally:
        if leased:
            _set_lease(fd, fcntl.F_UNLCK)


def _take_lease(fd: int, deadline: float) -> bool:
    while True:
        try:
            _set_lease(fd, fcntl.F_RDLCK)
        except OSError as error:
            time.sleep(_PAUSE_SECONDS)
            if error.errno != errno.EAGAIN or time.monotonic() >= deadline:
                return False
        else:
            return True


def _set_lease(fd: int, kind: int) -> None:
    """As F_SETLEASE; without CAP_LEASE, as in a container, the file's owner may, so as that one.

    setfsuid(2) holds for this thread alone, and for the one call.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
    except PermissionError:
        import ctypes

        libc = ctypes.CDLL(None)
        before = libc.setfsuid(os.fstat(fd).st_uid)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
        finally:
            libc.setfsuid(before)


def wait_for_writers(fd: int, deadline: float) -> None:
    """Returns when nobody has the file open for writing, or at `deadline` (time.monotonic)."""
    with read_lease(fd, deadline):
        pass


def take_lock(fd: int, seconds: float) -> bool:
    """Takes the exclusive flock(2) lock; False when somebody else holds it for so many seconds.

    It is free again when `fd` is closed. Raises OSError.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_SECONDS)
        else:
            return True


@contextlib.contextmanager
def locked(directory: int | None, seconds: float) -> Iterator[bool]:
    """Waits so long for another agent in the same directory; gives whether it is locked now.

    The user can hold this lock for ever, so it is only a courtesy, as it is on a file system
    without locks; the exchange is what keeps edits from being lost.
    """
    if directory is None:
        yield True
        return
    try:
        alone = take_lock(directory, seconds)
    except OSError:  # a file system without locks
        alone = True
    try:
        yield alone
    finally:
        if alone:
            with contextlib.suppress(OSError):
                fcntl.flock(directory, fcntl.LOCK_UN)
