"""Telling systemd how the service is: the protocol of sd_notify(3), one datagram a message."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

_SEND_SECONDS = 1.0  # a service manager that is busy is waited for, one that hangs is not


class Notifier:
    """Sends to $NOTIFY_SOCKET; without one, and when systemd does not listen, it does nothing.

    `watchdog_seconds` is how long systemd waits for a sign of life, None when it does not wait.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        text = environment.get("WATCHDOG_USEC", "")
        desired = mine and text.isascii() and text.isdecimal() and int(text) > 0
        self.watchdog_seconds = int(text) / 1e6 if desired else None

    def ready(self, status: str) -> None:
        """The first attempt was made, or a reload is done."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again; systemd wants the time with it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1", "STATUS=stopping")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Feeds the watchdog."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address.startswith(("/", "@")):
            return
        address = self._address
        if address.startswith("@"):  # the abstract name space of unix(7)
            address = "\0" + address[1:]
        message = "\n".join(line.replace("\n", " ") for line in lines)
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as channel:
            channel.settimeout(_SEND_SECONDS)
            channel.sendto(message.encode(), address)
