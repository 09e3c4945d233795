"""The failures of an HTTP request as the project's errors; none contains a secret."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from agent.core.text import printable
from agent.errors import KEYS_STAY, AnswerUnusable, KeysyncError, TemporaryFailure

# How h11 reports that an answer ended early; the second one within the head of a chunk.
_TRUNCATED = ("without sending complete message body", "unexpectedly closed connection")
_LOOK_FOR_PROXY = KEYS_STAY + " Look for a proxy that changes the answer."


def timed_out(host: str, seconds: float) -> TemporaryFailure:
    """No complete answer within so many seconds."""
    return TemporaryFailure(
        "timeout",
        f"{host} did not answer completely within {seconds:g} s.",
        KEYS_STAY + " api.timeout sets the limit.",
    )


def ended(host: str) -> TemporaryFailure:
    """keysync itself ended the request, because it stops."""
    return TemporaryFailure(
        "connection_lost", f"keysync closed the connection to {host} while it waited.", KEYS_STAY
    )


def impossible_host(host: str) -> TemporaryFailure:
    """The host name is impossible (RFC 5891 section 5.4)."""
    return TemporaryFailure(
        "name_unknown",
        f"{host} is not a possible host name, so it cannot be resolved.",
        KEYS_STAY + " Check api.url.",
    )


def proxy_unusable(host: str, error: Exception) -> TemporaryFailure:
    """httpx cannot work with the environment's proxy setting."""
    # The setting is not quoted: it may hold the proxy's password.
    why = _text(error) if isinstance(error, ImportError) else "its address is malformed"
    return TemporaryFailure(
        "proxy_unusable",
        f"The proxy in the environment cannot be used: {why}.",
        f"{KEYS_STAY} Correct or unset HTTPS_PROXY and ALL_PROXY, or add {host} to NO_PROXY.",
    )


def ambiguous_length(host: str) -> AnswerUnusable:
    """The end of the answer cannot be known (RFC 9112 section 6.3)."""
    return AnswerUnusable(
        "not_http",
        f"{host} sent an answer with both Content-Length and Transfer-Encoding, so its end is not "
        "certain.",
        _LOOK_FOR_PROXY,
    )


def unrequested_304() -> AnswerUnusable:
    """A confirmation of an earlier answer that the request did not name."""
    return AnswerUnusable(
        "unexpected_status",
        "The API answered that nothing was modified (status 304), but keysync did not ask that.",
        _LOOK_FOR_PROXY,
    )


def compressed(encoding: str) -> AnswerUnusable:
    """The answer would have to be unpacked, to an unknown size."""
    return AnswerUnusable(
        "unexpected_encoding",
        f"The API compressed its answer ({printable(encoding, 40)}), although keysync asked for "
        "none.",
        _LOOK_FOR_PROXY,
    )


def too_large(limit: int) -> AnswerUnusable:
    """The body has more than `limit` bytes."""
    return AnswerUnusable(
        "too_large",
        f"The API's answer is larger than {limit} bytes.",
        KEYS_STAY + " Check api.url.",
    )


@contextlib.contextmanager
def translate_http_errors(host: str, seconds: float, *, direct: bool) -> Iterator[None]:
    """Raises the project's errors for httpx's; `direct` means that no proxy is used."""
    try:
        yield
    except httpx.TimeoutException:
        raise timed_out(host, seconds) from None
    except httpx.ProxyError as error:
        raise TemporaryFailure(
            "proxy_failed",
            f"The proxy in the environment refused to connect to {host}: {_text(error)}.",
            KEYS_STAY + " Correct or unset HTTPS_PROXY and ALL_PROXY.",
        ) from None
    except httpx.ConnectError as error:
        proxy = None if direct else _environment_proxy(host)
        raise _through(proxy, host, error) if proxy else _not_connected(host, error) from None
    except httpx.RemoteProtocolError as error:
        raise _protocol(host, error) from None
    except httpx.TransportError as error:
        raise TemporaryFailure(
            "connection_lost",
            f"The connection to {host} was lost during the request ({type(error).__name__}).",
            KEYS_STAY,
        ) from None


def _environment_proxy(host: str) -> str | None:
    """Host and port of the environment's proxy, without its password; None without one."""
    proxies = {} if proxy_bypass(host) else getproxies()
    address = proxies.get("https") or proxies.get("all")
    if not address:
        return None
    with contextlib.suppress(ValueError):
        found = urlsplit(address if "://" in address else f"http://{address}")
        if found.hostname:
            return printable(f"{found.hostname}:{found.port or 80}")
    return "in the environment"


def _through(proxy: str, host: str, error: httpx.ConnectError) -> TemporaryFailure:
    """Behind a proxy, a connection that fails is the proxy's, except for TLS."""
    failure = _not_connected(f"{host} (through the proxy in the environment)", error)
    if failure.kind != "tls_failed":
        failure.message = f"The proxy {proxy} could not be reached: {_reason(error)}."
        failure.hint = KEYS_STAY + " Check HTTPS_PROXY and ALL_PROXY."
    return failure


def _not_connected(host: str, error: httpx.ConnectError) -> TemporaryFailure:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TemporaryFailure(
                "tls_failed",
                f"The TLS certificate of {host} is not valid: {cause.verify_message.rstrip('.')}.",
                KEYS_STAY + " Check the clock (date), api.url and the ca-certificates package.",
            )
        if isinstance(cause, ssl.SSLError):
            return TemporaryFailure(
                "tls_failed",
                f"The TLS handshake with {host} failed: {cause.reason or 'no reason given'}.",
                KEYS_STAY + " Check api.url, and whether a proxy intercepts the connection.",
            )
        if isinstance(cause, socket.gaierror):
            return TemporaryFailure(
                "name_unknown",
                f"The name {host} could not be resolved: {cause.strerror}.",
                KEYS_STAY + " Check the network and /etc/resolv.conf.",
            )
    return TemporaryFailure(
        "connection_failed",
        f"No connection to {host}: {_text(error)}.",
        KEYS_STAY + " Check the network and api.url.",
    )


def _protocol(host: str, error: httpx.RemoteProtocolError) -> KeysyncError:
    if any(words in str(error) for words in _TRUNCATED):
        return AnswerUnusable(
            "truncated", f"{host} closed the connection before the end of its answer.", KEYS_STAY
        )
    if "without sending a response" in str(error):
        return TemporaryFailure(
            "connection_lost", f"{host} closed the connection without an answer.", KEYS_STAY
        )
    return AnswerUnusable(
        "not_http", f"{host} sent something that is not HTTP/1.1.", KEYS_STAY + " Check api.url."
    )


def _reason(error: BaseException) -> str:
    """The system's own message if there is one: httpx says less about a failed name resolution."""
    texts = (cause.strerror for cause in _causes(error) if isinstance(cause, OSError))
    return next((text for text in texts if text), None) or _text(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from, to the innermost one."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _text(error: BaseException) -> str:
    return printable(str(error), 200).rstrip(".")
