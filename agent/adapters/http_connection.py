"""A connection to the console's API that can be ended from outside, and is kept only when clean."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import httpx


@dataclass(slots=True)
class Connection:
    """A client and the socket it has open, so that a request past its deadline can be ended."""

    client: httpx.Client
    opened: int = 0
    ended: bool = False
    _socket: socket.socket | None = None
    _handshake: socket.socket | None = None  # a second handle, while TLS holds the first
    _in_use: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """What a request's thread does with it; only that thread may then close the socket.

        A descriptor closed by another thread could be a key file's when this one reads on.
        """
        with self._lock:
            self._in_use = True
        try:
            yield
        finally:
            with self._lock:
                self._in_use = False
                ended = self.ended
            if ended:
                self.client.close()

    def note_socket(self, event: str, info: dict[str, Any]) -> None:
        """Follows httpcore's trace; behind a proxy the names begin differently."""
        if event.endswith("connect_tcp.complete"):
            self.opened += 1
            self._socket = info["return_value"].get_extra_info("socket")
            if self.ended:
                self._break_off()
        elif event.endswith("start_tls.started") and self._socket is not None:
            self._handshake = self._socket.dup()
        elif event.endswith("start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")
            self._end_handshake()
        elif event.endswith("start_tls.failed"):
            self._end_handshake()

    def _end_handshake(self) -> None:
        if self._handshake is not None:
            self._handshake.close()
            self._handshake = None

    def shed_surplus(self, url: str) -> None:
        """Closes a kept connection on which more came than the answer that was asked for.

        Such bytes must not be taken for an answer (RFC 9112 section 6.3); httpcore would take them
        for the next one, and offers no public way to see them. What cannot be seen is closed too:
        docs/decisions/0013-surplus-bytes.md.
        """
        transport = self.client._transport_for_url(httpx.URL(url))  # noqa: SLF001  # reason: above
        for held in transport._pool.connections:  # type: ignore[attr-defined]  # noqa: SLF001  # reason: above
            if not held.is_closed() and _surplus(held):
                held.close()

    def end(self) -> None:
        """Ends it for good, from any thread; who waits for its answer gets an error."""
        with self._lock:
            self.ended = True
            in_use = self._in_use
        if in_use:
            self._break_off()
        else:
            self.client.close()

    def _break_off(self) -> None:
        for handle in (self._socket, self._handshake):
            if handle is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own: it takes the session from under the reading thread.
                    socket.socket.shutdown(handle, socket.SHUT_RDWR)


def _surplus(connection: object) -> bool:
    """Whether bytes that nobody asked for lie in the parser (h11) of a connection of httpcore."""
    try:
        return bool(attrgetter("_connection._h11_state.trailing_data")(connection)[0])
    except AttributeError:  # another version of httpcore
        return True
