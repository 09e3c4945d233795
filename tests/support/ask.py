"""Asking a real sshd which keys it would accept, without their private halves.

RFC 4252 section 7: a `publickey` request without a signature is answered with PK_OK or FAILURE.
"""

from __future__ import annotations

import queue
import socket
from collections.abc import Callable, Iterable
from types import TracebackType

from paramiko import Transport
from paramiko.auth_handler import AuthHandler
from paramiko.common import (
    MSG_SERVICE_ACCEPT,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_INFO_REQUEST,
    cMSG_SERVICE_REQUEST,
    cMSG_USERAUTH_REQUEST,
)
from paramiko.message import Message

# For Instance(sshd_options=...): sshd counts each refused key, and ends a connection by this limit.
MANY_QUESTIONS = ("MaxAuthTries 100000", "LoginGraceTime 0")
_MSG_USERAUTH_PK_OK = MSG_USERAUTH_INFO_REQUEST  # both are 60
_MAX_QUESTIONS = 1000  # sshd ends a connection at 1024 requests of any outcome (auth2.c)
_SECONDS = 20.0


class _Handler(AuthHandler):
    """Hands the three answers that matter to whoever waits for them."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        self.answers: queue.SimpleQueue[int] = queue.SimpleQueue()

    @property
    def _handler_table(self) -> dict[int, Callable[[Message], None]]:
        desired = (MSG_SERVICE_ACCEPT, MSG_USERAUTH_FAILURE, _MSG_USERAUTH_PK_OK)
        return {number: self._noting(number) for number in desired}

    def _noting(self, number: int) -> Callable[[Message], None]:
        return lambda _message: self.answers.put(number)


class Questioner:
    """A context manager: one connection to the sshd at `port` of loopback, renewed when it must."""

    def __init__(self, port: int, user: str) -> None:
        self._port = port
        self._user = user
        self._transport: Transport | None = None
        self._handler: _Handler | None = None
        self._asked = 0

    def __enter__(self) -> Questioner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def accepted(self, blobs: Iterable[bytes]) -> set[bytes]:
        """Those of the key blobs (certificates too) that sshd would let log in now."""
        return {blob for blob in blobs if self.accepts(blob)}

    def accepts(self, blob: bytes) -> bool:
        """Whether sshd would let this key log in now."""
        if self._asked >= _MAX_QUESTIONS:
            self._close()
        transport, handler = self._connection()
        self._asked += 1
        question = Message()
        question.add_byte(cMSG_USERAUTH_REQUEST)
        question.add_string(self._user)
        question.add_string("ssh-connection")
        question.add_string("publickey")
        question.add_boolean(False)
        question.add_string(_algorithm(blob))
        question.add_string(blob)
        _send(transport, question)
        return handler.answers.get(timeout=_SECONDS) == _MSG_USERAUTH_PK_OK

    def _connection(self) -> tuple[Transport, _Handler]:
        if self._transport is None or self._handler is None:
            self._asked = 0
            sock = socket.create_connection(("127.0.0.1", self._port), timeout=_SECONDS)
            transport = self._transport = Transport(sock)
            transport.start_client(timeout=_SECONDS)
            handler = self._handler = _Handler(transport)
            transport.auth_handler = handler
            request = Message()
            request.add_byte(cMSG_SERVICE_REQUEST)
            request.add_string("ssh-userauth")
            _send(transport, request)
            handler.answers.get(timeout=_SECONDS)
        return self._transport, self._handler

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self._transport = self._handler = None


def _send(transport: Transport, message: Message) -> None:
    # paramiko has no public way to ask without a signature.
    transport._send_message(message)  # type: ignore[attr-defined]  # noqa: SLF001  # reason: see above


def _algorithm(blob: bytes) -> bytes:
    """The signature algorithm to name for a key: of RSA the one that sshd still takes."""
    name = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
    return name.replace(b"ssh-rsa", b"rsa-sha2-512")
