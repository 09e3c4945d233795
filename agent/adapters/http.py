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
from dataclasses import dataclass, replace
from datetime import timezone
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from agent import __version__
from agent.adapters.http_connection import Connection
from agent.core.authorized_keys import printable
from agent.core.listing import partial_list, refusal
from agent.core.secret import Credential
from agent.core.url import is_loopback
from agent.errors import AnswerUnusable, KeysyncError, TemporaryFailure

MAX_BODY_BYTES = 16 << 20
_MAX_REFUSAL_BYTES = 64 << 10
_MAX_ETAG_CHARS = 256
_KEEP_SECONDS = 300.0
_MAX_RETRY_AFTER_SECONDS = 86400
_PATH = "/api/v0/ssh/"
# How h11 says that the end came too early; the second within the head of a chunk.
_BROKEN_OFF = ("without sending complete message body", "unexpectedly closed connection")
_RETRY = "The keys on this machine stay as they are; the next sync tries again."


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of a 200 answer; `not_modified` when it is the previous one, confirmed by a 304."""

    body: bytes
    etag: str | None = None
    not_modified: bool = False


class Console:
    """A client of the API at `url` that keeps its connection between calls.

    `timeout` is the limit for a whole request in seconds, name resolution and body included.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url.rstrip("/") + _PATH
        self._host = urlsplit(url).hostname or url
        self._secure = urlsplit(url).scheme != "http"
        self._timeout = timeout
        # A proxy from the environment is for the world outside this machine.
        self._direct = not self._secure or is_loopback(self._host)
        self._connection: Connection | None = None
        self._last: Answer | None = None  # kept only when the server gave it an ETag
        self._last_credential = ""

    def close(self) -> None:
        """Ends the connection; a request that another thread waits for fails at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.end()

    def fetch(self, credential: Credential) -> Answer:
        """The body of the account's key list. Raises a KeysyncError of its own for each failure.

        The request runs in a thread of its own: nothing else bounds name resolution, several
        addresses and a header that comes byte by byte with one deadline.
        """
        connection = self._connection = self._connection or self._connect()
        if credential.value != self._last_credential:  # an ETag holds for one account only
            self._last, self._last_credential = None, credential.value
        etag = self._last.etag if self._last else None
        outcomes: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()

        def work() -> None:
            try:
                with connection.used():
                    answer = self._request(connection, credential, etag)
                outcomes.put(answer)
            except Exception as error:  # noqa: BLE001  # reason: raised again in the caller
                outcomes.put(error)

        threading.Thread(target=work, name="keysync-fetch", daemon=True).start()
        try:
            outcome = outcomes.get(timeout=self._timeout)
        except queue.Empty:
            self._connection = None
            connection.end()
            raise _timed_out(self._host, self._timeout) from None
        if isinstance(outcome, Exception):
            raise outcome
        return self._remember(outcome)

    def _remember(self, answer: Answer) -> Answer:
        if answer.not_modified and self._last is not None:
            return replace(self._last, not_modified=True)
        self._last = answer if answer.etag else None
        return answer

    def _connect(self) -> Connection:
        try:
            _ = httpx.URL(self._url).host
        except (httpx.InvalidURL, UnicodeError):  # such as xn-- with nothing sensible behind it
            raise TemporaryFailure(
                "name_unknown", f"There can be no host {self._host}.", _RETRY + " Check api.url."
            ) from None
        try:
            client = httpx.Client(
                timeout=self._timeout,
                limits=httpx.Limits(keepalive_expiry=_KEEP_SECONDS),
                follow_redirects=False,
                trust_env=not self._direct,
                verify=ssl.create_default_context() if self._secure else False,
                # A session that a cookie keeps alive could outlive the API key it was given for.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                event_hooks={"response": [_forget_location]},
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": f"keysync/{__version__}",
                },
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            # Its address is not quoted: it may hold the proxy's password.
            why = _said(error) if isinstance(error, ImportError) else "its address is wrong"
            raise TemporaryFailure(
                "proxy_unusable",
                f"The proxy that the environment names cannot be used: {why}.",
                _RETRY + " Correct or unset HTTPS_PROXY and ALL_PROXY, or add "
                f"{self._host} to NO_PROXY.",
            ) from None
        return Connection(client)

    def _proxy(self) -> str | None:
        """Host and port of the environment's proxy, without its password; None without one."""
        if self._direct or proxy_bypass(self._host):
            return None
        proxies = getproxies()
        address = proxies.get("https") or proxies.get("all")
        if not address:
            return None
        with contextlib.suppress(ValueError):
            found = urlsplit(address if "://" in address else f"http://{address}")
            if found.hostname:
                return printable(f"{found.hostname}:{found.port or 80}")
        return "of the environment"

    def _not_connected(self, error: httpx.ConnectError) -> TemporaryFailure:
        """Behind a proxy, a connection that does not come about is the proxy's, except for TLS."""
        proxy = self._proxy()
        if proxy is None:
            return _not_connected(self._host, error)
        found = _not_connected(f"{self._host} (through the environment's proxy)", error)
        if found.kind == "tls_failed":
            return found
        found.message = f"The proxy {proxy} could not be reached: {_reason(error)}."
        found.hint = _RETRY + " Check HTTPS_PROXY and ALL_PROXY."
        return found

    # ---- in the worker thread ----

    def _request(self, connection: Connection, credential: Credential, etag: str | None) -> Answer:
        opened = connection.opened
        if connection.ended:  # between the decision for it and its use
            raise TemporaryFailure(
                "connection_lost", f"The connection to {self._host} was ended.", _RETRY
            )
        try:
            return self._exchange(connection, credential, etag)
        except TemporaryFailure as error:
            was_new = connection.opened > opened
            if error.kind != "connection_lost" or was_new or connection.ended:
                raise
        # The kept connection had died since the last poll: a new one decides.
        return self._exchange(connection, credential, etag)

    def _exchange(self, connection: Connection, credential: Credential, etag: str | None) -> Answer:
        headers = {"Authorization": f"Bearer {credential.value}"}
        if etag is not None:
            headers["If-None-Match"] = etag
        trace = {"trace": connection.note_socket}
        try:
            with (
                self._named_failures(),
                connection.client.stream(
                    "GET", self._url, headers=headers, extensions=trace
                ) as response,
            ):
                return self._judge(response, credential, etag)
        finally:
            connection.shed_surplus(self._url)

    def _judge(self, response: httpx.Response, credential: Credential, etag: str | None) -> Answer:
        if response.status_code == 304:
            response.read()  # the end of an answer without a body keeps the connection
            return _not_modified(asked=etag is not None)
        if response.status_code != 200:
            raise _refusal(response)
        if {"content-length", "transfer-encoding"} <= response.headers.keys():
            raise AnswerUnusable(
                "not_http",
                f"{self._host} gave its answer two different ends (RFC 9112 section 6.3).",
                _RETRY + " Look for a proxy in between.",
            )
        if any("next" in (relation or "").lower().split() for relation in response.links):
            raise partial_list("its Link header names a next page")
        body = _read_body(response, MAX_BODY_BYTES)
        return Answer(credential.hidden_in_body(body), _usable_etag(response))

    @contextlib.contextmanager
    def _named_failures(self) -> Iterator[None]:
        """Turns httpx's exceptions into the project's; most special first."""
        try:
            yield
        except httpx.TimeoutException:
            raise _timed_out(self._host, self._timeout) from None
        except httpx.ProxyError as error:
            raise TemporaryFailure(
                "proxy_failed",
                f"The proxy that the environment names gives no way to {self._host}: "
                f"{_said(error)}.",
                _RETRY + " Correct or unset HTTPS_PROXY and ALL_PROXY.",
            ) from None
        except httpx.ConnectError as error:
            raise self._not_connected(error) from None
        except httpx.RemoteProtocolError as error:
            raise _protocol(self._host, error) from None
        except httpx.TransportError as error:
            raise TemporaryFailure(
                "connection_lost",
                f"The connection to {self._host} broke off ({type(error).__name__}).",
                _RETRY,
            ) from None


def _forget_location(response: httpx.Response) -> None:
    """httpx parses it although redirects are not followed, and fails over an impossible one."""
    response.headers.pop("Location", None)


def _not_modified(*, asked: bool) -> Answer:
    if asked:
        return Answer(b"", not_modified=True)
    raise AnswerUnusable(
        "unexpected_status",
        "The API answered that nothing was modified (status 304), which was not asked.",
        _RETRY + " Look for a proxy in between.",
    )


def _refusal(response: httpx.Response) -> KeysyncError:
    """The status decides; the body, as far as it can be had, only gives words to it."""
    body = b""
    with contextlib.suppress(AnswerUnusable, httpx.TransportError):
        body = _read_body(response, _MAX_REFUSAL_BYTES)
    return refusal(response.status_code, body, _retry_after(response))


def _usable_etag(response: httpx.Response) -> str | None:
    """Only what can be sent back as it came (RFC 9110 section 8.8.3)."""
    etag = str(response.headers.get("ETag", ""))
    usable = etag.isascii() and etag.isprintable() and len(etag) <= _MAX_ETAG_CHARS
    return etag if etag and usable else None


def _read_body(response: httpx.Response, limit: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise AnswerUnusable(
            "unexpected_encoding",
            f"The API compressed its answer ({printable(encoding, 40)}), which was not asked for.",
            _RETRY + " Look for a proxy in between.",
        )
    parts, size = [], 0
    for part in response.iter_raw():
        size += len(part)
        if size > limit:
            raise AnswerUnusable(
                "too_large",
                f"The API's answer is larger than {limit} bytes.",
                _RETRY + " Check api.url.",
            )
        parts.append(part)
    return b"".join(parts)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait, from either form of Retry-After (RFC 9110 section 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal() and text.isascii():
        return float(min(int(text[:9]), _MAX_RETRY_AFTER_SECONDS))
    with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # RFC 5322 writes an unknown zone as -0000; the time is UTC
            moment = moment.replace(tzinfo=timezone.utc)
        return min(max(moment.timestamp() - time.time(), 0.0), float(_MAX_RETRY_AFTER_SECONDS))
    return None


def _said(error: Exception) -> str:
    return printable(str(error), 200).rstrip(".")


def _timed_out(host: str, seconds: float) -> TemporaryFailure:
    return TemporaryFailure(
        "timeout",
        f"{host} gave no whole answer within {seconds:g} s.",
        _RETRY + " api.timeout sets the limit.",
    )


def _not_connected(host: str, error: httpx.ConnectError) -> TemporaryFailure:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message.rstrip(".")
            return TemporaryFailure(
                "tls_failed",
                f"The TLS certificate of {host} is not accepted: {why}.",
                _RETRY + " Check the clock (date), api.url and the ca-certificates package.",
            )
        if isinstance(cause, ssl.SSLError):
            return TemporaryFailure(
                "tls_failed",
                f"No TLS connection to {host}: {cause.reason or 'handshake failed'}.",
                _RETRY + " Check api.url, and whether a proxy stands in between.",
            )
        if isinstance(cause, socket.gaierror):
            return TemporaryFailure(
                "name_unknown",
                f"The name {host} could not be resolved: {cause.strerror}.",
                _RETRY + " Check the network and /etc/resolv.conf.",
            )
        cause = cause.__cause__ or cause.__context__
    return TemporaryFailure(
        "connection_failed",
        f"No connection to {host}: {_said(error)}.",
        _RETRY + " Check the network and api.url.",
    )


def _reason(error: BaseException) -> str:
    """The innermost one that names it: httpx says less of a name that could not be resolved."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return printable(str(error), 200).rstrip(".")


def _protocol(host: str, error: httpx.RemoteProtocolError) -> KeysyncError:
    if any(words in str(error) for words in _BROKEN_OFF):
        return AnswerUnusable(
            "truncated", f"The answer of {host} broke off before its end.", _RETRY
        )
    if "without sending a response" in str(error):
        return TemporaryFailure(
            "connection_lost", f"{host} closed the connection without an answer.", _RETRY
        )
    return AnswerUnusable(
        "not_http", f"{host} sent something that is not HTTP/1.1.", _RETRY + " Check api.url."
    )
