"""Which addresses of the API may be asked (polling)."""

from __future__ import annotations

import pytest

from agent.core.url import InvalidUrl, is_loopback, parse_url


@pytest.mark.parametrize(
    "url",
    [
        "http://console.vast.ai",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://127.1.example",
        "http://0.0.0.0",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "console.vast.ai",
        "//console.vast.ai",
    ],
)
def test_plain_http_is_for_loopback(url: str) -> None:
    """Polling: the API key travels by https only, except within this machine."""
    with pytest.raises(InvalidUrl, match="https://"):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https:///ssh",
        "https://user@host",
        "https://user:word@host",
        "https://@host",
        "https://host/?a=b",
        "https://host?",
        "https://host#",
        "https://host:port",
        "https://host:99999",
        "https://ho st",
        "https://host\n/x",
        "https://host\t",
        " https://host",
        "https://höst",
        "https://a..b",
        "https://-a",
        "https://" + "a" * 64,
        "https://" + "a." * 130 + "a",
        "https://a\\@b",
        "https://a%2eb",
        "https://[::1",
        "https://[zz]",
        None,
        443,
    ],
)
def test_impossible_address(url: object) -> None:
    """Polling: an address that no request can go to is refused."""
    with pytest.raises(InvalidUrl):
        parse_url(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://console.vast.ai/", "https://console.vast.ai"),
        ("HTTPS://Console.vast.ai", "https://Console.vast.ai"),
        ("https://console.vast.ai.:8443/a/b", "https://console.vast.ai.:8443/a/b"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.8.8", "http://127.8.8.8"),
        ("http://localhost:1", "http://localhost:1"),
        ("HTTP://LOCALHOST:1", "http://LOCALHOST:1"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("https://10.0.0.1", "https://10.0.0.1"),
    ],
)
def test_possible_address(url: str, expected: str) -> None:
    """Polling: the address is kept as it was meant, with its scheme in small letters."""
    assert parse_url(url) == expected


def test_loopback() -> None:
    """Polling: only what certainly stays on this machine is loopback."""
    hosts = ("localhost", "127.0.0.1", "127.255.0.1", "::1", "0.0.0.0", "::", "example", "127.1")
    assert [is_loopback(host) for host in hosts] == [True] * 4 + [False] * 4
