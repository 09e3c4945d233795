"""One HTTP request to a given URL with the API key, limited in time and size.

Transport only: what an answer means is decided in agent/providers/. Every failure is one of the
project's errors (http_errors), and none of them holds the API key.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from datetime import timezone
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit

import httpx

from agent import __version__
from agent.adapters.http_connection import Connection, TrackingSocket
from agent.adapters.http_errors import (
    ambiguous_length,
    compressed,
    ended,
    impossible_host,
    proxy_unusable,
    timed_out,
    too_large,
    translate_http_errors,
    unrequested_304,
)
from agent.core.answer import Answer
from agent.core.secret import Credential
from agent.core.url import is_loopback
from agent.errors import AnswerUnusable, TemporaryFailure

MAX_BODY_BYTES = 16 << 20
_MAX_REFUSAL_BYTES = 64 << 10
_MAX_ETAG_CHARS = 256
_KEEP_SECONDS = 300.0
_MAX_RETRY_AFTER_SECONDS = 86400


class HttpClient:
    """Requests `url` repeatedly, on one connection where that is safe.

    `timeout` limits a whole request, name resolution and body included, in seconds. Plain http
    and loopback addresses never use the environment's proxy.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._host = urlsplit(url).hostname or url
        self._secure = urlsplit(url).scheme != "http"
        self._timeout = timeout
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
        """The answer to one GET; only a body of status 200 is certain to be complete.

        Raises TemporaryFailure when no answer came, and AnswerUnusable when it is not HTTP,
        incomplete, compressed, or larger than MAX_BODY_BYTES.
        """
        if credential.value != self._last_credential:  # an ETag holds for one account only
            self._last, self._last_credential = None, credential.value
        etag = self._last.etag if self._last else None
        connection = self._connection
        if connection is None or connection.ended:
            connection = self._connection = self._connect()
        try:
            answer = connection.run(
                lambda: self._request(connection, credential, etag), self._timeout
            )
        except TimeoutError:
            raise timed_out(self._host, self._timeout) from None
        except ConnectionAbortedError:
            raise ended(self._host) from None
        return self._remember(answer)

    def _remember(self, answer: Answer) -> Answer:
        if answer.not_modified and self._last is not None:
            return self._last._replace(not_modified=True)
        # A 304 does not repeat the Link header, so it would confirm a part for ever.
        if answer.status == 200 and not answer.has_next_link:
            self._last = answer if answer.etag else None
        return answer

    def _connect(self) -> Connection:
        try:
            _ = httpx.URL(self._url).host
        except (httpx.InvalidURL, UnicodeError):  # such as xn-- followed by nonsense
            raise impossible_host(self._host) from None
        try:
            client = httpx.Client(
                timeout=self._timeout,
                limits=httpx.Limits(keepalive_expiry=_KEEP_SECONDS),
                follow_redirects=False,
                trust_env=not self._direct,
                verify=_tls_context() if self._secure else False,
                # A session kept alive by a cookie could outlive the API key it was made with.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                event_hooks={"response": [_forget_location]},
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": f"keysync/{__version__}",
                },
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise proxy_unusable(self._host, error) from None
        return Connection(client)

    # ---- in the thread of the request ----

    def _request(self, connection: Connection, credential: Credential, etag: str | None) -> Answer:
        if connection.ended:  # after it was chosen, before it was used
            raise ended(self._host)
        try:
            return self._exchange(connection, credential, etag)
        except TemporaryFailure as error:
            if error.kind != "connection_lost" or not connection.reused or connection.ended:
                raise
        # The kept connection may have died since the last request: a new one decides.
        return self._exchange(connection, credential, etag)

    def _exchange(self, connection: Connection, credential: Credential, etag: str | None) -> Answer:
        headers = {"Authorization": f"Bearer {credential.value}"}
        if etag is not None:
            headers["If-None-Match"] = etag
        trace = {"trace": connection.note_socket}
        with (
            translate_http_errors(self._host, self._timeout, direct=self._direct),
            connection.client.stream("GET", self._url, headers=headers, extensions=trace) as found,
        ):
            answer = self._read(found, credential, asked=etag is not None)
            connection.keep_if_clean(found)
        return answer

    def _read(self, response: httpx.Response, credential: Credential, *, asked: bool) -> Answer:
        if response.status_code == 304:
            response.read()  # its end, so that the connection can be kept
            if not asked:
                raise unrequested_304()
            return Answer(304, not_modified=True)
        if response.status_code != 200:
            return Answer(
                response.status_code,
                credential.hidden_in_body(_readable_part(response)),
                retry_after=_retry_after(response),
            )
        if {"content-length", "transfer-encoding"} <= response.headers.keys():
            raise ambiguous_length(self._host)
        return Answer(
            200,
            credential.hidden_in_body(_read_body(response, MAX_BODY_BYTES)),
            etag=_usable_etag(response),
            has_next_link=_has_next_link(response),
        )


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = TrackingSocket
    return context


def _forget_location(response: httpx.Response) -> None:
    """httpx parses it although redirects are not followed, and fails on a malformed one."""
    response.headers.pop("Location", None)


def _has_next_link(response: httpx.Response) -> bool:
    relations = ((relation or "").lower().split() for relation in response.links)
    return any("next" in words for words in relations)


def _usable_etag(response: httpx.Response) -> str | None:
    """Only what can be sent back as it came (RFC 9110 section 8.8.3)."""
    etag = str(response.headers.get("ETag", ""))
    usable = etag.isascii() and etag.isprintable() and len(etag) <= _MAX_ETAG_CHARS
    return etag if etag and usable else None


def _readable_part(response: httpx.Response) -> bytes:
    """The body of a refusal, b"" when it is unusable: its status alone decides what it means."""
    with contextlib.suppress(AnswerUnusable, httpx.TransportError):
        return _read_body(response, _MAX_REFUSAL_BYTES)
    return b""


def _read_body(response: httpx.Response, limit: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise compressed(encoding)
    parts, size = [], 0
    for part in response.iter_raw():
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
    return b"".join(parts)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait, at most a day, from either form of Retry-After (RFC 9110 section 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal() and text.isascii():
        return float(min(int(text[:9]), _MAX_RETRY_AFTER_SECONDS))
    with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # RFC 5322 writes an unknown zone as -0000; the time is UTC
            moment = moment.replace(tzinfo=timezone.utc)
        return min(max(moment.timestamp() - time.time(), 0.0), float(_MAX_RETRY_AFTER_SECONDS))
    return None
