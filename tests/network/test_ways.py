"""Other ways than the right one: addresses, redirects, proxies. None of them gets the API key."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from agent.core.url import is_loopback
from tests.network.support import GOOD, NO_CONSOLE, PAGE, STAYS, fails, proxy_variables, refused
from tests.support.bad_server import BadServer, Script, answer, hang, header, relay, script, swallow
from tests.support.certificates import Authority
from tests.support.machine import API_KEY, Machine
from tests.support.marks import leaks

pytestmark = pytest.mark.attack


ESTABLISHED = b"HTTP/1.1 200 Established\r\n\r\n"

# Addresses

REFUSED_ADDRESSES = [
    "http://console.vast.ai",
    "http://127.0.0.1.evil",
    "http://localhost.evil",
    "http://evil.localhost",
    "http://localhost.",
    "http://127.0.0.1@evil/",
    "http://localhost:80@evil/",
    "http://@127.0.0.1/",
    "https://user@console.vast.ai",
    "http://127.0.0.1\\@evil/",
    "http://127.0.0.1\\.evil/",
    "http://127.0.0.1%2eevil/",
    "http://127.0.0.1%00.evil/",
    "http://127.0.0.1;evil/",
    "http://127.0.0.1,evil/",
    "http://127.0.0.1?@evil/",
    "http://127.0.0.1#@evil/",
    "http://127.0.0.1\t.evil/",
    "http://127.0.0.1\n.evil/",
    "http://127.0.0.1 .evil/",
    "http://[::1].evil/",
    "http://[::1]evil",
    "http://evil[::1]/",
    "http://[::1]@evil/",
    "http://[::1%25eth0]/",
    "http://[::1",
    "http://::1/",
    "http://[::]/",
    "http://[fe80::1]/",
    "http://[::ffff:1.2.3.4]/",
    "http://[::127.0.0.1]/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://128.0.0.1/",
    "http://127.0.0.256/",
    "http://127.0.0.1.1/",
    "https://2130706433/",
    "https://1.2.3/",
    "https://256.1.1.1/",
    "http://\u2460\u2461\u2466.0.0.1",
    "http://\uff11\uff12\uff17.0.0.1",
    "http://127\u3002evil",
    "http:127.0.0.1",
    "http:/127.0.0.1",
    "http:///127.0.0.1",
    "//127.0.0.1",
    "127.0.0.1",
    "http://:80/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:8x/",
    "ftp://127.0.0.1",
    "file:///etc/passwd",
    "unix:///run/x",
    "javascript:1",
    "https://",
    "https://-a/",
    "https://a..b/",
]


@pytest.mark.parametrize("url", REFUSED_ADDRESSES, ids=ascii)
def test_refused_address(machine: Machine, url: str) -> None:
    """Https, or http to this machine alone; nothing that two readers could read in two ways."""
    before = machine.fixed
    done = machine.here("sync", VAST_URL=url)
    assert (done.code, machine.fixed) == (78, before)
    assert "api.url" in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "http://127.0.0.1:8080/",
        "http://127.255.255.254/x",
        "http://localhost",
        "http://LOCALHOST:80/",
        "HTTP://127.0.0.1",
        "http://[::1]",
        "http://[::1]:8080/a/b",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://127.0.0.1/@evil",
        "http://127.0.0.1/..//evil",
    ],
)
def test_accepted_address_without_tls(machine: Machine, url: str) -> None:
    """Polling: whoever reads an accepted address, its http goes to this machine (RFC 3986)."""
    assert machine.here("config", "check", VAST_URL=url).code == 0
    host = httpx.URL(url).host
    assert is_loopback(host)
    found = {info[4][0] for info in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)}
    assert all(is_loopback(str(address)) for address in found)


@pytest.mark.parametrize("host", ["xn--a", "xn--zzzzzzzz9999999"])
def test_name_that_can_be_none(machine: Machine, host: str) -> None:
    """G1: a name that is no international one (RFC 5891 section 5.4) is a failure by name."""
    fails(machine, f"https://{host}", "name_unknown", 75, host, "api.url")


# Redirects

LOCATIONS = [
    "{other}/api/v0/ssh/",
    "{own}/api/v0/ssh/",
    "/api/v0/ssh/",
    "?again",
    "",
    "//127.0.0.1:{port}/",
    "http://user:password@127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}",
    "http:\\\\127.0.0.1:{port}",
    "file:///etc/passwd",
    "javascript:1",
    "data:application/json,[]",
    "unix:/run/x",
    "ftp://127.0.0.1:{port}/",
    "http://xn--/",
    "http://xn--a/",
    "http://[v1.x]/",
    "http://a:99999999/",
    "http://1.2.3.4.5:-1",
    "https://[/",
    "http://a b/",
    "//",
    "\x7f",
    "https:///x:y:z",
    "\xff\xfe",
    "\u2603",
    "http://" + "a." * 300,
    "http://" + "a" * 60_000,
]


@pytest.mark.parametrize("location", LOCATIONS, ids=lambda text: ascii(text[:20]))
def test_redirect(machine: Machine, location: str) -> None:
    """No redirect is followed, wherever it leads, and none is more than a redirect: nobody else
    hears of the API key, as that server's own record shows.
    """
    with BadServer(answer(GOOD)) as other, BadServer(b"") as server:
        place = location.format(other=other.url, own=server.url, port=other.port)
        for asked, status in enumerate((300, 301, 302, 303, 307, 308), 1):
            server.scripts = [script(refused(f"{status} Moved", GOOD, f"Location: {place}"))]
            fails(machine, server.url, "redirected", 65, str(status), "does not follow", "api.url")
            assert (other.connections, len(server.heads)) == (0, asked)


def test_redirect_from_https_to_http(machine: Machine, authority: Authority) -> None:
    """G1, polling: not even to the same machine without TLS."""
    trust = {"SSL_CERT_FILE": str(authority.path)}
    with BadServer(answer(GOOD)) as target:
        moved = refused("301 Moved Permanently", PAGE, f"Location: {target.url}/api/v0/ssh/")
        with BadServer(moved, tls=authority.server()) as server:
            fails(machine, server.url, "redirected", 65, "301", "api.url", **trust)
        assert target.connections == 0


@pytest.mark.parametrize("name", ["Refresh: 0; url={}", "Content-Location: {}", "Alt-Svc: h2={}"])
def test_other_headers_that_lead_away(machine: Machine, name: str) -> None:
    """Polling: nor is any other header that names another address."""
    with BadServer(answer(b"<html>")) as other:
        with BadServer(answer(GOOD, headers=[name.format(other.url)])) as server:
            assert machine.here("sync", VAST_URL=server.url).code == 0
        assert other.connections == 0


# Proxies of the environment


@pytest.mark.parametrize(
    "no_proxy", [None, "", "*.evil", "console.vast.ai"], ids=["unset", "empty", "other", "another"]
)
def test_plain_http_is_never_proxied(machine: Machine, no_proxy: str | None) -> None:
    """Polling: http carries the API key in clear, so it stays on this machine; no proxy sees it."""
    more = {} if no_proxy is None else {"NO_PROXY": no_proxy, "no_proxy": no_proxy}
    with BadServer(answer(GOOD)) as proxy, BadServer(answer(GOOD)) as server:
        done = machine.here(
            "sync", "--json", VAST_URL=server.url, **proxy_variables(proxy.url), **more
        )
        assert (done.code, len(server.heads), proxy.connections) == (0, 1, 0)


def test_https_to_loopback_is_not_proxied(machine: Machine, authority: Authority) -> None:
    """Polling: a proxy in the environment is not asked for a server on this machine."""
    with (
        BadServer(refused("502 Bad Gateway")) as proxy,
        BadServer(answer(GOOD), tls=authority.server()) as server,
    ):
        more = {"SSL_CERT_FILE": str(authority.path), **proxy_variables(proxy.url)}
        done = machine.here("sync", "--json", VAST_URL=server.url, **more)
        assert (done.code, len(server.heads)) == (0, 1), done.stdout
        assert proxy.connections == 0


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        (refused("407 Proxy Authentication Required"), "proxy_failed", 75),
        (refused("502 Bad Gateway"), "proxy_failed", 75),
        (refused("403 Forbidden", b"blocked"), "proxy_failed", 75),
        (refused("302 Found", b"", "Location: http://login/"), "proxy_failed", 75),
        (b"", "connection_lost", 75),
        (b"not HTTP at all\r\n\r\n", "not_http", 65),
        (script(ESTABLISHED, swallow, b"not TLS at all", hang), "tls_failed", 75),
        (script(ESTABLISHED, swallow, answer(GOOD), hang), "tls_failed", 75),
    ],
    ids=["407", "502", "403", "login", "closes", "no HTTP", "no TLS", "forged answer"],
)
def test_proxy_sees_no_api_key(
    machine: Machine, variable: str, said: Script | bytes, kind: str, code: int
) -> None:
    """A proxy for the world outside is told where to connect to; the API key comes only within
    TLS, and so not at all to one that pretends to be the console.
    """
    with BadServer(said) as proxy:
        words = ("HTTPS_PROXY", STAYS) if kind == "proxy_failed" else ()
        fails(machine, NO_CONSOLE, kind, code, *words, **{variable: proxy.url})
        assert len(proxy.heads) >= 1
        for head in proxy.heads:
            assert head.startswith("CONNECT console.keysync.invalid:443 HTTP/1.1\r\n")
            assert header(head, "Authorization") is None
            assert leaks(head) == []


def test_proxy_with_the_right_name_for_a_wrong_certificate(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    """Polling: a proxy that ends the TLS itself needs a certificate that this machine trusts."""
    stranger = Authority.made_in(tmp_path)
    context = stranger.server("console.keysync.invalid")
    with BadServer(answer(GOOD), tls=context) as forger, BadServer(b"") as proxy:
        proxy.scripts = [script(ESTABLISHED, relay(forger.port))]
        fails(
            machine,
            NO_CONSOLE,
            "tls_failed",
            75,
            "certificate",
            SSL_CERT_FILE=str(authority.path),
            HTTPS_PROXY=proxy.url,
        )
        assert forger.heads == []


def test_proxy_that_is_trusted(machine: Machine, authority: Authority) -> None:
    """Polling: through a proxy with a good console behind it, a sync works; so the key was withheld
    from the others for what they are.
    """
    context = authority.server("console.keysync.invalid")
    with BadServer(answer(GOOD), tls=context) as console, BadServer(b"") as proxy:
        proxy.scripts = [script(ESTABLISHED, relay(console.port))]
        done = machine.here(
            "sync",
            VAST_URL=NO_CONSOLE,
            SSL_CERT_FILE=str(authority.path),
            HTTPS_PROXY=proxy.url,
        )
        assert (done.code, len(console.heads)) == (0, 1), done.stdout
        assert header(console.heads[0], "Authorization") == f"Bearer {API_KEY}"
        assert leaks("".join(proxy.heads)) == []


def test_proxy_that_is_down(machine: Machine) -> None:
    """G1: when it is the proxy that cannot be reached, the message does not blame the console."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        fails(
            machine,
            NO_CONSOLE,
            "connection_failed",
            75,
            "proxy",
            "refused",
            STAYS,
            HTTPS_PROXY=f"http://127.0.0.1:{bound.getsockname()[1]}",
        )


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://127.0.0.1:9", "x://"])
def test_unusable_proxy(machine: Machine, proxy: str) -> None:
    """G1: a proxy setting that cannot be used is a failure by name, not a traceback."""
    fails(
        machine,
        NO_CONSOLE,
        "proxy_unusable",
        75,
        "HTTPS_PROXY",
        "NO_PROXY",
        STAYS,
        ALL_PROXY=proxy,
    )


@pytest.mark.parametrize("no_proxy", ["console.keysync.invalid", ".keysync.invalid", "*"])
def test_no_proxy(machine: Machine, no_proxy: str) -> None:
    """Polling: NO_PROXY is heeded."""
    with BadServer(answer(GOOD)) as proxy:
        fails(
            machine,
            NO_CONSOLE,
            "name_unknown",
            75,
            HTTPS_PROXY=proxy.url,
            NO_PROXY=no_proxy,
            RES_OPTIONS="attempts:1 timeout:1",
        )
        assert proxy.connections == 0


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:{0}",
        "http://user:{0}@[::1",
        "ftp://user:{0}@127.0.0.1:9",
        "socks5://user:{0}@127.0.0.1:9",
        "://{0}",
        "http://user:{0}@127.0.0.1:9",
        "http://user:{0}@xn--a:9",
        "user:{0}@127.0.0.1:9",
    ],
)
def test_password_of_a_proxy(machine: Machine, proxy: str) -> None:
    """G10: a proxy's address that cannot be used is a failure by name, and its password stays
    unsaid.
    """
    before = machine.fixed
    done = machine.here(
        "sync",
        "--json",
        "--log-level",
        "debug",
        VAST_URL=NO_CONSOLE,
        HTTPS_PROXY=proxy.format("hunter2hunter2"),
    )
    assert (done.code, machine.fixed) == (75, before)
    assert done.json["error"]["kind"] in ("proxy_unusable", "connection_failed", "name_unknown")
    assert "hunter2" not in (done.stdout + done.stderr).lower()
