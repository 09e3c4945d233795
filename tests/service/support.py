"""A real `keysync run` with its log and its signals, and a service manager to listen to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.bad_server import eventually
from tests.support.machine import REPOSITORY, Machine, clean_environment

PATIENCE_SECONDS = 15.0  # for anything that shall happen, on a machine that others use too
FAST = "poll: {interval: 1s, jitter: 0s, max_backoff: 2s}\n"
SLOW = "poll: {interval: 1h, jitter: 0s, max_backoff: 1h}\n"


@dataclass
class Agent:
    """Runs while it is entered; `program` are the words after the interpreter."""

    machine: Machine
    environment: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "agent")
    level: tuple[str, ...] = ("--log-level", "debug")  # unchanged polls have a line too

    def __enter__(self) -> Agent:
        environment = clean_environment() | {"HOME": str(self.machine.folder)}
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            environment.pop(name, None)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *self.program,
                    "--config",
                    str(self.machine.config),
                    *self.level,
                    "run",
                ],
                cwd=REPOSITORY,
                env=environment | self.machine.environment | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def _log(self) -> Path:
        return self.machine.folder / "log"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The whole lines of the log; all of them must be JSON."""
        text = self._log.read_bytes()
        return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def said(self, name: str) -> list[dict[str, Any]]:
        """The events of this name so far."""
        return [event for event in self.events if event["event"] == name]

    def wait_for(self, name: str, times: int = 1) -> dict[str, Any]:
        """Waits until the event was logged so often, and gives the last of them."""
        found = eventually(lambda: len(self.said(name)) >= times, PATIENCE_SECONDS)
        assert found, (name, self.events)
        return self.said(name)[times - 1]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Ends it by a signal; gives the exit code and how many seconds it took."""
        asked = time.monotonic()
        self.send(number)
        code = self.process.wait(PATIENCE_SECONDS)
        return code, time.monotonic() - asked

    @property
    def resources(self) -> dict[str, Any]:
        """What the process holds, from /proc: its threads, and descriptors by what they lead to."""
        proc = Path(f"/proc/{self.process.pid}")
        names = Counter(_kind(fd) for fd in (proc / "fd").iterdir())
        return {"threads": sorted(_threads(proc)), "descriptors": names}


def _kind(fd: Path) -> str:
    try:
        return os.readlink(fd).partition(":")[0]
    except FileNotFoundError:
        return "gone"


def _threads(proc: Path) -> list[str]:
    return [task.name for task in (proc / "task").iterdir()]


class ServiceManager:
    """The other end of sd_notify(3): a datagram socket whose messages are kept in order."""

    def __init__(self, folder: Path, watchdog: float | None = None) -> None:
        self._path = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        self._socket.setblocking(False)
        self._watchdog = watchdog
        self._messages: list[str] = []

    def __enter__(self) -> ServiceManager:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    @property
    def environment(self) -> dict[str, str]:
        """What the manager gives to its service."""
        found = {"NOTIFY_SOCKET": self._path}
        if self._watchdog is not None:
            found["WATCHDOG_USEC"] = str(round(self._watchdog * 1e6))
        return found

    @property
    def messages(self) -> list[str]:
        """Every datagram so far."""
        while True:
            try:
                self._messages.append(self._socket.recv(1 << 16).decode())
            except BlockingIOError:
                return list(self._messages)

    def told(self, text: str) -> list[str]:
        """The messages that hold this text."""
        return [message for message in self.messages if text in message]

    def wait_for(self, text: str, times: int = 1) -> str:
        """Waits until messages with this text came so often, and gives the last of them."""
        found = eventually(lambda: len(self.told(text)) >= times, PATIENCE_SECONDS)
        assert found, (text, self.messages)
        return self.told(text)[times - 1]
