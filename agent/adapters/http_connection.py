"""A connection that any thread can end, and that is kept only when nothing is left on it."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import httpx

T = TypeVar("T")


class TrackingSocket(ssl.SSLSocket):
    """A TLS socket that hands out the last byte of every read on its own.

    The HTTP parser reads on only while the answer is incomplete. So if it read that single byte,
    the byte completed the answer, and nothing that was received is left behind it; if it did not,
    surplus was received with the answer (docs/decisions/0013-surplus-bytes.md).
    `ssl.SSLContext.sslsocket_class` is the documented way to use such a class.
    """

    _held_back = b""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As socket.recv, one byte less; the next call gives that byte without waiting."""
        data = self._held_back or super().recv(buflen, flags)
        given, self._held_back = (data[:-1], data[-1:]) if len(data) > 1 else (data, b"")
        return given

    @property
    def is_drained(self) -> bool:
        """Whether every byte received so far belongs to the answers read so far."""
        return not self._held_back and not self.pending()


class Connection:
    """An httpx client with at most one open socket, for one request at a time.

    It ends with the first request that fails, or whose answer may have surplus bytes behind it.
    """

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.ended = False
        self.reused = False  # whether the current request may use a socket of an earlier one
        self._is_clean = False  # whether the last request left nothing on its socket
        self._socket: socket.socket | None = None  # a duplicate, so that nobody else closes it
        self._in_use = False
        self._lock = threading.Lock()
        self._outcomes: queue.SimpleQueue[object] = queue.SimpleQueue()

    def run(self, request: Callable[[], T], seconds: float) -> T:
        """The result of `request`, or the exception it raised.

        `request` runs in a thread of its own: nothing else limits the time of name resolution,
        of several addresses and of an answer that comes byte by byte with one deadline.

        Raises TimeoutError after so many seconds, and ConnectionAbortedError when another thread
        calls `end`; the connection has ended then.
        """

        def work() -> None:
            try:
                with self._use():
                    outcome: object = request()
            except Exception as error:  # noqa: BLE001  # reason: raised again in the caller
                outcome = error
            self._outcomes.put(outcome)

        threading.Thread(target=work, name="keysync-fetch", daemon=True).start()
        try:
            outcome = self._outcomes.get(timeout=seconds)
        except queue.Empty:
            self.end()
            raise TimeoutError from None
        if isinstance(outcome, Exception):
            raise outcome
        return cast(T, outcome)

    def end(self) -> None:
        """Ends it for good, from any thread; a thread that waits in `run` returns at once."""
        with self._lock:
            self.ended = True
            in_use = self._in_use
            self._outcomes.put(ConnectionAbortedError())
            if in_use:  # only the request's thread closes: another file could get the descriptor
                self._shut_down()
        if not in_use:
            self._close()

    def note_socket(self, event: str, info: dict[str, Any]) -> None:
        """For httpx's `trace` extension: remembers the socket of each new TCP connection."""
        if event.endswith("connect_tcp.complete"):
            opened: socket.socket = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._forget_socket()
                self._socket = opened.dup()
                if self.ended:
                    self._shut_down()

    def keep_if_clean(self, response: httpx.Response) -> None:
        """Keeps the connection for the next request if nothing lies behind this complete answer.

        Surplus bytes must not be taken for an answer (RFC 9112 section 6.3). Where they cannot be
        ruled out, as without TLS, the connection is closed.
        """
        used = response.extensions["network_stream"].get_extra_info("socket")
        self._is_clean = isinstance(used, TrackingSocket) and used.is_drained

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        with self._lock:
            self._in_use = True
        self.reused, self._is_clean = self._is_clean, False
        try:
            yield
        finally:
            with self._lock:
                self._in_use = False
                self.ended = self.ended or not self._is_clean
            if self.ended:
                self._close()

    def _close(self) -> None:
        self.client.close()
        with self._lock:
            self._forget_socket()

    def _forget_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
