"""A network of one machine: a namespace with nothing but loopback, which outlives its boots.

The test itself steps in to serve the console there and to log in; sockets and child processes
stay where they were made (network_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914  # netdevice(7)
_IFF_UP = 0x1
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """Held open by a descriptor; `path` is what systemd-nspawn wants to know."""

    def __init__(self) -> None:
        made: list[int] = []
        thread = threading.Thread(target=lambda: made.append(_new_namespace()))
        thread.start()  # a namespace is a thread's own, so this one's can be left behind
        thread.join()
        [self._fd] = made

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self) -> None:
        """Forgets it; it goes with the last process in it."""
        os.close(self._fd)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets, threads and processes that are made in this block belong to the network."""
        outside = _current_namespace()
        try:
            _enter(self._fd)
            yield
        finally:
            _enter(outside)
            os.close(outside)


def _new_namespace() -> int:
    _check(_libc.unshare(_CLONE_NEWNET))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        fcntl.ioctl(anything, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    return _current_namespace()


def _current_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(fd: int) -> None:
    _check(_libc.setns(fd, _CLONE_NEWNET))


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
