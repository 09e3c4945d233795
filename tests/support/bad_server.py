"""A server on loopback that sends exactly the bytes it is told to, and records what it was sent.

Each request is answered by the next script of a list, the last one again and again. A script is a
row of steps on the socket; after the last one the connection is closed, unless the script keeps it.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

_HEAD_LIMIT = 1 << 16
_ENDLESS_STEP_BYTES = 1 << 16


class _Over(Exception):
    """Either the client or the test has ended the conversation."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One accepted connection, and whether the server is about to stop."""

    socket: socket.socket
    stopping: threading.Event

    def send(self, data: bytes) -> None:
        """Sends all of it; raises `_Over` when nobody listens any more."""
        try:
            self.socket.sendall(data)
        except OSError:
            raise _Over from None

    def wait(self, seconds: float) -> None:
        """Pauses, but not after the server was told to stop."""
        if self.stopping.wait(seconds):
            raise _Over


Step: TypeAlias = Callable[[Connection], None]


def send(data: bytes) -> Step:
    """Sends these bytes."""
    return lambda connection: connection.send(data)


def drip(data: bytes, seconds: float = 1.0) -> Step:
    """Sends these bytes one by one with a pause of so many seconds before each."""

    def step(connection: Connection) -> None:
        for at in range(len(data)):
            connection.wait(seconds)
            connection.send(data[at : at + 1])

    return step


def endless(data: bytes) -> Step:
    """Sends these bytes over and over, as fast as they are taken."""

    def step(connection: Connection) -> None:
        block = data * max(1, _ENDLESS_STEP_BYTES // len(data))
        while not connection.stopping.is_set():
            connection.send(block)

    return step


def hang(connection: Connection) -> None:
    """Says nothing more, with the connection open, until the client goes away."""
    connection.socket.settimeout(0.05)
    while not connection.stopping.is_set():
        with suppress(TimeoutError):
            try:
                if not connection.socket.recv(4096):
                    return
            except (ConnectionError, ssl.SSLError):
                return


def swallow(connection: Connection) -> None:
    """Takes what the client says next: left unread, it would turn the close into a reset."""
    connection.socket.recv(1 << 16)


def reset(connection: Connection) -> None:
    """Breaks the connection off with a RST instead of a FIN (SO_LINGER 0, socket(7))."""
    linger = struct.pack("ii", 1, 0)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.socket.close()


def relay(port: int) -> Step:
    """Passes everything on to another port of loopback, both ways, until one side ends."""

    def pass_on(source: socket.socket, drain: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                drain.sendall(data)
        with suppress(OSError):
            drain.shutdown(socket.SHUT_WR)

    def step(connection: Connection) -> None:
        with socket.create_connection(("127.0.0.1", port)) as there:
            back = threading.Thread(target=pass_on, args=(there, connection.socket))
            back.start()
            pass_on(connection.socket, there)
            back.join()

    return step


@dataclass(frozen=True, slots=True)
class Script:
    """The steps for one request; `at_once` starts without waiting for the request."""

    steps: tuple[Step, ...]
    at_once: bool = False
    keep: bool = False


def script(*steps: Step | bytes, at_once: bool = False, keep: bool = False) -> Script:
    """A script; bytes stand for sending them."""
    made = (send(step) if isinstance(step, bytes) else step for step in steps)
    return Script(tuple(made), at_once, keep)


def answer(
    body: bytes = b"",
    status: str = "200 OK",
    headers: Iterable[str] = (),
    *,
    version: str = "HTTP/1.1",
    length: int | None = -1,
) -> bytes:
    """The bytes of an HTTP answer; `length` is announced: -1 the true one, None leaves it out."""
    lines = [f"{version} {status}", "Content-Type: application/json", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8") + body


class BadServer:
    """A context manager that serves its scripts on a free port of 127.0.0.1; `tls` for https."""

    def __init__(self, *scripts: Script | bytes, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self.heads: list[str] = []
        self.scripts: Sequence[Script] = [
            script(one) if isinstance(one, bytes) else one for one in scripts
        ]
        self._tls = tls
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def idle(self) -> bool:
        """Whether every connection has ended."""
        with self._lock:
            return not self._open

    def __enter__(self) -> BadServer:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for opened in self._open:
                with suppress(OSError):
                    socket.socket.shutdown(opened, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name="bad-server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.add(accepted)
            self._start(lambda opened=accepted: self._serve(opened))  # type: ignore[misc]  # reason: mypy cannot type a lambda's default

    def _serve(self, accepted: socket.socket) -> None:
        opened = accepted
        try:
            if self._tls is not None and not self._next().at_once:
                opened = self._tls.wrap_socket(accepted, server_side=True)
                with self._lock:
                    self._open.add(opened)
            connection = Connection(opened, self._stopping)
            while self._converse(connection):
                pass
        except (_Over, OSError):
            pass
        finally:
            opened.close()
            with self._lock:
                self._open -= {accepted, opened}

    def _next(self) -> Script:
        return self.scripts[min(len(self.heads), len(self.scripts) - 1)]

    def _converse(self, connection: Connection) -> bool:
        """One request and its script; whether another may follow on this connection."""
        current = self._next()
        if not current.at_once:
            head = _read_head(connection)
            if head is None:
                return False
            with self._lock:
                current = self._next()
                self.heads.append(head)
        for step in current.steps:
            step(connection)
        return current.keep


def _read_head(connection: Connection) -> str | None:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _HEAD_LIMIT:
        part = connection.socket.recv(4096)
        if not part:
            return None
        data += part
    return data.decode("latin-1")


def header(head: str, name: str) -> str | None:
    """The value of a header in a recorded request."""
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether the condition comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
