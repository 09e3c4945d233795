"""Reports the state of the service to systemd, by the protocol of sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

_SEND_SECONDS = 1.0  # long enough for a busy service manager; one that hangs must not block us


class Notifier:
    """Sends messages to $NOTIFY_SOCKET; does nothing if it is unset or nobody listens there.

    `watchdog_seconds` is the watchdog timeout (sd_watchdog_enabled(3)), None without a watchdog.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        text = environment.get("WATCHDOG_USEC", "")
        enabled = for_us and text.isascii() and text.isdecimal() and int(text) > 0
        self.watchdog_seconds = int(text) / 1e6 if enabled else None

    def ready(self, status: str) -> None:
        """The first sync was attempted, or a reload is complete."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being reloaded; sd_notify(3) requires the time of the reload."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service is about to stop."""
        self._send("STOPPING=1", "STATUS=stopping")

    def status(self, text: str) -> None:
        """Sets the line that `systemctl status` shows."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Resets the watchdog timer, if there is one."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address.startswith(("/", "@")):
            return
        address = self._address
        if address.startswith("@"):  # an abstract address (unix(7))
            address = "\0" + address[1:]
        message = "\n".join(line.replace("\n", " ") for line in lines)
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sender:
            sender.settimeout(_SEND_SECONDS)
            sender.sendto(message.encode(), address)
