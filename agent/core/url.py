"""Which addresses of the API may be used: every request there carries the API key."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_NUMBER = re.compile("[0-9]+|0x[0-9a-f]*")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_MAX_NAME_CHARS = 253  # RFC 1035 section 2.3.4
_EXPECTED = "must be an address such as https://console.example.com"


class InvalidUrl(Exception):
    """This address may not be used; the text completes a sentence that begins with the option."""


def parse_url(value: object) -> str:
    """An https address, or http to this machine, without a final slash. Raises InvalidUrl."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise InvalidUrl(_EXPECTED)
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its text quotes what may be a password
        raise InvalidUrl("is not a valid address: its host or port is impossible") from None
    if not host or parts.username is not None or {"?", "#", " "} & set(value):
        raise InvalidUrl(f"{_EXPECTED}, without user or query")
    if not _is_host(host) or not _is_netloc(parts.netloc.lower(), host):
        raise InvalidUrl("has an impossible host name")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise InvalidUrl("must begin with https:// (http:// is for 127.0.0.1 and localhost only)")
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether requests to `host` never leave the machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_host(host: str) -> bool:
    """An IP address, or a name of labels that a resolver accepts (RFC 1123 section 2.1).

    Other numbers are not names: a resolver reads 127.1 and 2130706433 as addresses (inet_aton(3)).
    """
    try:
        return "%" not in str(ipaddress.ip_address(host))
    except ValueError:
        labels = host.removesuffix(".").split(".")
        is_name = len(host) <= _MAX_NAME_CHARS and all(map(_LABEL.fullmatch, labels))
        return is_name and not _NUMBER.fullmatch(labels[-1])


def _is_netloc(netloc: str, host: str) -> bool:
    """Whether it is the host and at most a port: urlsplit ignores text around [...]."""
    name = f"[{host}]" if ":" in host else host
    rest = netloc.removeprefix(name)
    return netloc.startswith(name) and (not rest or rest[0] == ":")
