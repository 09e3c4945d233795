"""The console's API: one request for the account's SSH keys, bounded in time and size.

Transport only; what an answer means is decided in core.listing. Every failure is one of the
project's errors, and none of them holds the API key.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from agent import __version__
from agent.adapters.credential import Credential
from agent.core.authorized_keys import printable
from agent.core.listing import refusal
from agent.errors import AnswerUnusable, ApiUnreachable, KeysyncError

MAX_BODY_BYTES = 16 << 20
_PATH = "/api/v0/ssh/"
_RETRY = "The keys on this machine stay as they are; the next poll tries again."


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of a 200 answer; `not_modified` when it is the previous one, confirmed by a 304."""

    body: bytes
    etag: str | None = None
    not_modified: bool = False


@dataclass(frozen=True, slots=True)
class _Connection:
    """A client and the socket it has open, so that a request past its deadline can be ended."""

    client: httpx.Client
    sockets: list[socket.socket] = field(default_factory=list)

    def note_socket(self, event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self.sockets[:] = [info["return_value"].get_extra_info("socket")]

    def break_off(self) -> None:
        for open_socket in self.sockets:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)


class Console:
    """A client of the API at `url` that keeps its connection between calls.

    `timeout` is the limit for a whole request in seconds, name resolution and body included.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url.rstrip("/") + _PATH
        self._host = urlsplit(url).hostname or url
        self._timeout = timeout
        self._connection: _Connection | None = None
        self._last: Answer | None = None  # kept only when the server gave it an ETag

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.client.close()
            self._connection = None

    def fetch(self, credential: Credential) -> Answer:
        """The body of the account's key list. Raises a KeysyncError of its own for each failure.

        The request runs in a thread of its own: nothing else bounds name resolution, several
        addresses and a header that comes byte by byte with one deadline.
        """
        connection = self._connection = self._connection or self._connect()
        headers = {"Authorization": f"Bearer {credential.value}"}
        if self._last is not None and self._last.etag:
            headers["If-None-Match"] = self._last.etag
        outcomes: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()

        def work() -> None:
            try:
                outcomes.put(self._request(connection, headers))
            except Exception as error:  # noqa: BLE001  # reason: raised again in the caller
                outcomes.put(error)

        threading.Thread(target=work, name="keysync-fetch", daemon=True).start()
        try:
            outcome = outcomes.get(timeout=self._timeout)
        except queue.Empty:
            self._connection = None
            connection.break_off()
            raise _timed_out(self._host, self._timeout) from None
        if isinstance(outcome, Exception):
            raise outcome
        return self._remember(outcome)

    def _remember(self, answer: Answer) -> Answer:
        if answer.not_modified and self._last is not None:
            return replace(self._last, not_modified=True)
        self._last = answer if answer.etag else None
        return answer

    def _connect(self) -> _Connection:
        secure = self._url.startswith("https:")
        # A proxy from the environment must not see the credential of a request to loopback.
        client = httpx.Client(
            timeout=self._timeout,
            follow_redirects=False,
            trust_env=secure,
            verify=ssl.create_default_context() if secure else False,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"keysync/{__version__}",
            },
        )
        return _Connection(client)

    # ---- in the worker thread ----

    def _request(self, connection: _Connection, headers: dict[str, str]) -> Answer:
        trace = {"trace": connection.note_socket}
        with (
            self._named_failures(),
            connection.client.stream(
                "GET", self._url, headers=headers, extensions=trace
            ) as response,
        ):
            if response.status_code == 304 and "If-None-Match" in headers:
                return Answer(b"", not_modified=True)
            body = _read_body(response)
            if response.status_code != 200:
                raise refusal(response.status_code, body, _retry_after(response))
            return Answer(body, response.headers.get("ETag"))

    @contextlib.contextmanager
    def _named_failures(self) -> Iterator[None]:
        """Turns httpx's exceptions into the project's; most special first."""
        try:
            yield
        except httpx.TimeoutException:
            raise _timed_out(self._host, self._timeout) from None
        except httpx.ConnectError as error:
            raise _not_connected(self._host, error) from None
        except httpx.RemoteProtocolError as error:
            raise _protocol(self._host, error) from None
        except httpx.TransportError as error:
            raise ApiUnreachable(
                "connection_lost",
                f"The connection to {self._host} broke off ({type(error).__name__}).",
                _RETRY,
            ) from None


def _read_body(response: httpx.Response) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise AnswerUnusable(
            "unexpected_encoding",
            f"The API compressed its answer ({printable(encoding, 40)}), which was not asked for.",
            _RETRY + " Look for a proxy in between.",
        )
    parts, size = [], 0
    for part in response.iter_raw():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise AnswerUnusable(
                "too_large",
                f"The API's answer is larger than {MAX_BODY_BYTES} bytes.",
                _RETRY + " Check api.url.",
            )
        parts.append(part)
    return b"".join(parts)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait, from either form of Retry-After (RFC 9110 section 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal() and text.isascii():
        return float(min(int(text[:9]), 86400))
    with contextlib.suppress(ValueError, TypeError):
        return min(max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0), 86400.0)
    return None


def _timed_out(host: str, seconds: float) -> ApiUnreachable:
    return ApiUnreachable(
        "timeout",
        f"{host} gave no whole answer within {seconds:g} s.",
        _RETRY + " api.timeout sets the limit.",
    )


def _not_connected(host: str, error: httpx.ConnectError) -> ApiUnreachable:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ApiUnreachable(
                "tls_failed",
                f"The TLS certificate of {host} is not accepted: {cause.verify_message}",
                _RETRY + " Check the clock (date), api.url and the ca-certificates package.",
            )
        if isinstance(cause, ssl.SSLError):
            return ApiUnreachable(
                "tls_failed",
                f"No TLS connection to {host}: {cause.reason or 'handshake failed'}.",
                _RETRY + " Check api.url, and whether a proxy stands in between.",
            )
        if isinstance(cause, socket.gaierror):
            return ApiUnreachable(
                "name_unknown",
                f"The name {host} could not be resolved: {cause.strerror}.",
                _RETRY + " Check the network and /etc/resolv.conf.",
            )
        cause = cause.__cause__ or cause.__context__
    return ApiUnreachable(
        "connection_failed",
        f"No connection to {host}: {error}.",
        _RETRY + " Check the network and api.url.",
    )


def _protocol(host: str, error: httpx.RemoteProtocolError) -> KeysyncError:
    if "without sending complete message body" in str(error) or "incomplete" in str(error):
        return AnswerUnusable(
            "truncated", f"The answer of {host} broke off before its end.", _RETRY
        )
    if "without sending a response" in str(error):
        return ApiUnreachable(
            "connection_lost", f"{host} closed the connection without an answer.", _RETRY
        )
    return AnswerUnusable(
        "not_http", f"{host} sent something that is not HTTP/1.1.", _RETRY + " Check api.url."
    )
