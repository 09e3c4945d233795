"""Waiting for other processes: for writers of a file by a lease, for another agent by a lock.

Both end after a while, and some file systems have neither: they make conflicts rare, no more.
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
    """Waits until nobody has the file open for writing, or until `deadline` (time.monotonic).

    Inside the block a read lease (fcntl(2), F_SETLEASE) stops whoever opens the file for writing.
    The block gets a function that returns whether the lease still holds. Where leases are
    unsupported, the block begins after a short pause and the function always returns True.
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
    """Sets the lease (fcntl(2), F_SETLEASE), without CAP_LEASE as the file's owner.

    In a container the capability may be missing. setfsuid(2) affects this thread only.
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
    """Takes the exclusive flock(2) lock; False when another process holds it for `seconds`.

    Closing `fd` releases it. Raises OSError.
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
    """Locks the directory, waiting up to `seconds` for another agent; yields whether it is locked.

    The lock is only a help, since the user can hold it as long as they like, and some file systems
    have none (then it counts as locked). It is the exchange that prevents the loss of edits.
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
