"""Whatever the API does short of a whole listing is a failure with its own name (G1).

Every case runs the real command against a real socket on a machine that was in sync before. Its key
file must stay the same file, and the API key must not be seen anywhere.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from agent.adapters.console import MAX_BODY_BYTES, Console
from agent.core.secret import Credential
from agent.errors import ApiUnreachable
from tests.http.support import (
    GOOD,
    PAGE,
    STAYS,
    Case,
    case,
    error_body,
    fails,
    fetching,
    names,
    refused,
    sockets,
    synced_machine,
)
from tests.support.bad_server import (
    BadServer,
    Script,
    answer,
    drip,
    endless,
    eventually,
    hang,
    header,
    reset,
    script,
)
from tests.support.certificates import Authority
from tests.support.machine import API_KEY, Machine, entry, key_line

pytestmark = pytest.mark.attack

DEADLINE = 0.4
PATIENCE = 10 * DEADLINE


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return synced_machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def nothing_left_over() -> Iterator[None]:
    """No thread and no socket of the agent outlives its command for long."""
    before = sockets()
    yield
    assert eventually(lambda: not fetching()), "the fetching thread is still there"
    assert eventually(lambda: sockets() <= before), "a socket is still open"


AUTH_ERROR = error_body("auth_error", "Invalid user key")
TOO_OFTEN = b"API requests too frequent: endpoint threshold=1.0"
SCOPE = "user_read"

CONNECTION = [
    case("closes at once", script(at_once=True), "connection_lost", 75, "127.0.0.1", STAYS),
    case("closes after the request", script(), "connection_lost", 75, "without an answer", STAYS),
    case("resets after the request", script(reset), "connection_lost", 75, "127.0.0.1", STAYS),
    case("resets in the headers", script(answer(GOOD)[:20], reset), "connection_lost", 75, STAYS),
    case(
        "breaks off in the headers",
        script(answer(GOOD)[:20]),
        "connection_lost",
        75,
        "127.0.0.1",
        STAYS,
    ),
    case("truncated", answer(GOOD)[:-5], "truncated", 65, "before its end", STAYS),
    case(
        "truncated chunks",
        answer(b"10\r\n[ ", headers=["Transfer-Encoding: chunked"], length=None),
        "truncated",
        65,
        STAYS,
    ),
    case("says more than it sends", answer(GOOD, length=len(GOOD) + 9), "truncated", 65),
    case("says less than it sends", answer(GOOD, length=len(GOOD) - 9), "not_json", 65, "JSON"),
    case(
        "HTTP/1.0 cut short",
        answer(GOOD[:-9], version="HTTP/1.0", length=None),
        "not_json",
        65,
        "not whole JSON",
    ),
    case("two lengths", answer(GOOD, headers=["Content-Length: 7"]), "not_http", 65, "HTTP"),
    case("not HTTP", b"220 mail ESMTP\r\n502 what?\r\n\r\n", "not_http", 65, "api.url"),
    case(
        "endless headers",
        script(b"HTTP/1.1 200 OK\r\n", endless(b"X-More: and more\r\n")),
        "not_http",
        65,
        "api.url",
    ),
    case(
        "an endless header",
        script(b"HTTP/1.1 200 OK\r\nX-More: ", endless(b"more")),
        "not_http",
        65,
        "api.url",
    ),
    case(
        "endless body",
        script(answer(length=None), endless(b"[" + b" " * 1023)),
        "too_large",
        65,
        str(MAX_BODY_BYTES),
        "api.url",
    ),
    case(
        "endless chunks",
        script(
            answer(headers=["Transfer-Encoding: chunked"], length=None),
            endless(b"400\r\n" + b" " * 1024 + b"\r\n"),
        ),
        "too_large",
        65,
        "api.url",
    ),
]

SLOW = [
    case("never answers", script(hang), "timeout", 75),
    case("never answers, asked or not", script(hang, at_once=True), "timeout", 75),
    case("a header byte now and then", script(drip(answer(GOOD), 0.1)), "timeout", 75),
    case(
        "a body byte now and then",
        script(answer(length=len(GOOD)), drip(GOOD, 0.1)),
        "timeout",
        75,
    ),
    case("stops within the headers", script(answer(GOOD)[:20], hang), "timeout", 75),
    case("stops within the body", script(answer(GOOD)[:-1], hang), "timeout", 75),
    case(
        "promises without end",
        script(*[drip(b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.01)] * 50),
        "timeout",
        75,
    ),
]

STATUS = [
    case("401", refused("401 Unauthorized"), "credential_rejected", 77, "401", SCOPE, "wxyz"),
    case("403", refused("403 Forbidden"), "credential_rejected", 77, "403", SCOPE, "session key"),
    case(
        "401 with a page",
        refused("401 Unauthorized", PAGE),
        "credential_rejected",
        77,
        "401",
        SCOPE,
    ),
    case(
        "404 as the API says it of a bad key",
        refused("404 Not Found", AUTH_ERROR),
        "credential_rejected",
        77,
        "Invalid user key",
        SCOPE,
        "api_key",
        "wxyz",
    ),
    case(
        "404 as documented for no keys",
        refused("404 Not Found", error_body("not_found", "No SSH keys found for the user")),
        "not_found",
        65,
        "has no SSH keys",
        "API key is wrong",
        "never taken for an empty list",
        "wxyz",
    ),
    case("404 of a web server", refused("404 Not Found", PAGE), "not_found", 65, "api.url", "wxyz"),
    case(
        "429 without Retry-After",
        refused("429 Too Many Requests", TOO_OFTEN),
        "rate_limited",
        75,
        "429",
        "share the limit",
    ),
    case(
        "429 in detail",
        refused("429 Too Many Requests", b'{"detail": "threshold=1.0"}', "Retry-After: 7"),
        "rate_limited",
        75,
        "threshold=1.0",
    ),
    case(
        "500",
        refused("500 Internal Server Error", error_body("server_error", "Oh no")),
        "server_error",
        75,
        "500",
        "Oh no",
        STAYS,
    ),
    case("502 with a page", refused("502 Bad Gateway", PAGE), "server_error", 75, "502", STAYS),
    case(
        "503 compressed",
        refused("503 Service Unavailable", b"\x1f\x8b\x08", "Content-Encoding: gzip"),
        "server_error",
        75,
        "503",
        STAYS,
    ),
    case(
        "429 compressed",
        refused("429 Too Many Requests", b"\x1f\x8b\x08", "Content-Encoding: br"),
        "rate_limited",
        75,
        "429",
    ),
    case(
        "401 with an endless body",
        script(answer(b"", "401 Unauthorized", length=None), endless(b" " * 1024)),
        "credential_rejected",
        77,
        "401",
        SCOPE,
    ),
    case(
        "500 cut short",
        answer(b"{", "500 Internal Server Error", length=99),
        "server_error",
        75,
        "500",
        STAYS,
    ),
    case("204", refused("204 No Content"), "unexpected_status", 65, "204", STAYS),
    case("206", answer(GOOD, "206 Partial Content"), "unexpected_status", 65, "206", STAYS),
    case("400", refused("400 Bad Request"), "unexpected_status", 65, "400", STAYS),
    case("304 unasked", refused("304 Not Modified"), "unexpected_status", 65, "304", STAYS),
    case("999", refused("999 What"), "server_error", 75, "999"),
]

BODIES: list[tuple[str, bytes, str, int]] = [
    ("a page", PAGE, "html_page", 65),
    ("a page after blanks", b"\r\n  <html>", "html_page", 65),
    ("nothing", b"", "empty_body", 65),
    ("blanks", b" \n", "empty_body", 65),
    ("half of it", GOOD[: len(GOOD) // 2], "not_json", 65),
    ("text", b"Service is being upgraded", "not_json", 65),
    ("two of it", GOOD + GOOD, "not_json", 65),
    ("no text", b"\xff\xfe\x00\xd8", "not_json", 65),
    ("deep nesting", b"[" * 200_000, "not_json", 65),
    ("deep and whole", b"[" * 200_000 + b"]" * 200_000, "not_json", 65),
    ("{}", b"{}", "unknown_shape", 65),
    ("null", b"null", "unknown_shape", 65),
    ("a number", b"0", "unknown_shape", 65),
    ("a text", b'"[]"', "unknown_shape", 65),
    ("true", b"true", "unknown_shape", 65),
    ("a list of lists", b"[[]]", "unknown_shape", 65),
    ("a list of texts", b'["ssh-ed25519 AAAA"]', "unknown_shape", 65),
    ("a list with a null", GOOD[:-1] + b", null]", "unknown_shape", 65),
    ("ssh_keys null", b'{"ssh_keys": null}', "unknown_shape", 65),
    ("ssh_keys a text", b'{"ssh_keys": "[]"}', "unknown_shape", 65),
    ("ssh_keys an object", b'{"ssh_keys": {}}', "unknown_shape", 65),
    ("keys under another name", b'{"keys": []}', "unknown_shape", 65),
    ("success alone", b'{"success": true}', "unknown_shape", 65),
    ("an error", error_body("oops", "Something is wrong"), "error_answer", 65),
    ("only success: false", b'{"success": false}', "error_answer", 65),
    ("success: false with a list", b'{"success": false, "ssh_keys": []}', "error_answer", 65),
    ("the refusal of the key", AUTH_ERROR, "credential_rejected", 77),
    (
        "two accounts",
        json.dumps([entry(1, key_line("a"), 1), entry(2, key_line("b"), 2)]).encode(),
        "several_accounts",
        65,
    ),
]


@pytest.mark.parametrize("case", CONNECTION, ids=names(CONNECTION))
def test_connection(machine: Machine, case: Case) -> None:
    """G1: a connection that breaks, or carries something else than HTTP, changes nothing."""
    with BadServer(case.script) as server:
        fails(machine, server.url, case.kind, case.code, *case.words)


@pytest.mark.parametrize("case", STATUS, ids=names(STATUS))
def test_status(machine: Machine, case: Case) -> None:
    """G1, §5: every status but 200 is a failure; the status counts, whatever its body is."""
    with BadServer(case.script) as server:
        fails(machine, server.url, case.kind, case.code, *case.words)


@pytest.mark.parametrize(
    ("body", "kind", "code"), [b[1:] for b in BODIES], ids=[b[0] for b in BODIES]
)
def test_body(machine: Machine, body: bytes, kind: str, code: int) -> None:
    """G1: a 200 whose body is not a whole list of one account's keys is never "no keys"."""
    with BadServer(answer(body)) as server:
        error = fails(
            machine, server.url, kind, code, "The " if kind == "several_accounts" else "200"
        )
    if code == 65:
        assert STAYS in error["hint"]


@pytest.mark.parametrize("case", SLOW, ids=names(SLOW))
def test_deadline(machine: Machine, case: Case) -> None:
    """§6: api.timeout bounds the whole request, however the server spreads its bytes."""
    machine.configure(timeout=f"{DEADLINE}s")
    with BadServer(case.script) as server:
        began = time.monotonic()
        fails(
            machine, server.url, "timeout", 75, "127.0.0.1", f"{DEADLINE} s", "api.timeout", STAYS
        )
        assert DEADLINE <= time.monotonic() - began < PATIENCE
        assert eventually(lambda: server.idle, PATIENCE), "the connection is still open"
        assert eventually(lambda: fetching() == [], 5.0)


def test_reset_at_once(machine: Machine) -> None:
    """G1: a reset is a failure, whether it comes during the connect or just after it."""
    before = machine.fixed
    with BadServer(script(reset, at_once=True)) as server:
        done = machine.here("sync", "--json", VAST_URL=server.url)
    assert done.json["error"]["kind"] in ("connection_lost", "connection_failed")
    assert (done.code, machine.fixed) == (75, before)


def test_every_cut(machine: Machine) -> None:
    """G1: an answer that is cut off after any of its bytes is a failure, never a shorter list."""
    before = machine.fixed
    whole = answer(GOOD)
    head = len(whole) - len(GOOD)
    with BadServer(b"") as server:
        for end in [*range(0, head, 9), head - 1, head, *range(head + 1, len(whole), 9)]:
            server.scripts = [script(whole[:end])]
            done = machine.here("sync", "--json", VAST_URL=server.url)
            expected = ("connection_lost", 75) if end < head else ("truncated", 65)
            assert (done.json["error"]["kind"], done.code) == expected, end
    assert machine.fixed == before


@pytest.mark.parametrize("length", [None, -1], ids=["until it closes", "as announced"])
def test_body_over_the_cap(machine: Machine, length: int | None) -> None:
    """G1: a body over the cap is refused, also one that would be a good list."""
    body = b" " * MAX_BODY_BYTES + GOOD
    with BadServer(answer(body, length=length)) as server:
        fails(machine, server.url, "too_large", 65, str(MAX_BODY_BYTES))


def test_body_at_the_cap(machine: Machine) -> None:
    """G1: the cap itself is still a good answer, so it is the size that the cap refuses."""
    before = machine.fixed
    body = b" " * (MAX_BODY_BYTES - len(GOOD)) + GOOD
    with BadServer(answer(body)) as server:
        done = machine.here("sync", "--json", VAST_URL=server.url)
    assert (done.code, done.json["result"]) == (0, "in_sync")
    assert machine.fixed == before


@pytest.mark.parametrize(
    "good",
    [
        answer(GOOD, version="HTTP/1.0", length=None),
        answer(GOOD, headers=["Content-Encoding: identity"]),
        answer(b'{"ssh_keys": ' + GOOD + b"}"),
        answer(b"\xef\xbb\xbf" + GOOD),
        answer(
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD),
            headers=["Transfer-Encoding: chunked"],
            length=None,
        ),
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(GOOD),
    ],
    ids=["HTTP/1.0", "identity", "wrapped", "byte order mark", "chunked", "early hints"],
)
def test_unusual_and_good(machine: Machine, good: bytes) -> None:
    """G1: a whole listing in an unusual form is accepted, so the failures are no accident."""
    before = machine.fixed
    with BadServer(good) as server:
        done = machine.here("sync", "--json", VAST_URL=server.url)
    assert (done.code, done.json["result"]) == (0, "in_sync"), done.stdout
    assert done.json["listing"]["keys"] == 2
    assert machine.fixed == before


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "gzip, gzip"])
def test_compressed_unasked(machine: Machine, encoding: str) -> None:
    """G1: identity was asked for, so a compressed answer is refused before it is unpacked."""
    bomb = script(
        answer(headers=[f"Content-Encoding: {encoding}"], length=None), endless(b"\x1f\x8b\x08")
    )
    with BadServer(bomb) as server:
        fails(machine, server.url, "unexpected_encoding", 65, encoding, STAYS, "proxy")
        assert header(server.heads[0], "Accept-Encoding") == "identity"


# Not reached at all


def test_refused(machine: Machine) -> None:
    """G1: nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        fails(machine, url, "connection_failed", 75, "127.0.0.1", "refused", "api.url", STAYS)


def test_name_unknown(machine: Machine) -> None:
    """G1: the name cannot be resolved (RFC 6761 section 6.4: .invalid never can)."""
    fails(
        machine,
        "https://console.keysync.invalid",
        "name_unknown",
        75,
        "console.keysync.invalid",
        "/etc/resolv.conf",
        STAYS,
        RES_OPTIONS="attempts:1 timeout:1",
    )


def test_connect_that_hangs(machine: Machine) -> None:
    """§6: the deadline covers the connect; a full backlog drops every new connection."""
    machine.configure(timeout=f"{DEADLINE}s")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        began = time.monotonic()
        fails(machine, f"http://127.0.0.1:{address[1]}", "timeout", 75, "api.timeout")
        assert time.monotonic() - began < PATIENCE


# TLS


@pytest.mark.parametrize(
    ("certificate", "trusted", "words"),
    [
        ({"address": "console.example"}, True, ("not valid for '127.0.0.1'",)),
        ({"address": "127.0.0.2"}, True, ("mismatch",)),
        ({"expired": True}, True, ("expired", "clock")),
        ({"self_signed": True}, True, ("self-signed", "ca-certificates")),
        ({}, False, ("unable to get local issuer", "ca-certificates")),
    ],
    ids=["another name", "another address", "expired", "self-signed", "unknown authority"],
)
def test_certificate(
    machine: Machine,
    authority: Authority,
    certificate: dict[str, object],
    trusted: bool,
    words: tuple[str, ...],
) -> None:
    """G1, §6: a certificate that does not prove the console's name ends it before any request."""
    context = authority.server(**certificate)  # type: ignore[arg-type]  # reason: the table above is right
    trust = {"SSL_CERT_FILE": str(authority.path)} if trusted else {}
    with BadServer(answer(GOOD), tls=context) as server:
        said = fails(machine, server.url, "tls_failed", 75, "127.0.0.1", STAYS, "api.url", **trust)
        assert any(word in said["message"] + said["hint"] for word in words), said
        assert server.heads == []


def test_certificate_of_an_address_in_capitals(authority: Authority) -> None:
    """G1, §6: HTTPS:// is https://, and its certificate is checked as well."""
    with BadServer(answer(GOOD), tls=authority.server(self_signed=True)) as server:
        console = Console(server.url.replace("https", "HTTPS"), 10.0)
        with pytest.raises(ApiUnreachable) as caught:
            console.fetch(Credential(API_KEY, "a test"))
        console.close()
        assert (caught.value.kind, server.heads) == ("tls_failed", [])


def test_good_certificate(machine: Machine, authority: Authority) -> None:
    """§6: with a certificate for its name the same server is believed."""
    with BadServer(answer(GOOD), tls=authority.server()) as server:
        done = machine.here(
            "sync", "--json", VAST_URL=server.url, SSL_CERT_FILE=str(authority.path)
        )
    assert (done.code, done.json["result"]) == (0, "in_sync"), done.stdout


def test_tls_to_a_server_without(machine: Machine) -> None:
    """G1: https to a port that speaks plain HTTP."""
    plain = script(b"HTTP/1.1 400 Bad Request\r\n\r\n", at_once=True)
    with BadServer(plain) as server:
        url = server.url.replace("http:", "https:")
        fails(machine, url, "tls_failed", 75, "127.0.0.1", "TLS", STAYS, "api.url")


def test_old_tls_only(machine: Machine, authority: Authority) -> None:
    """G1: a server that offers nothing newer than TLS 1.1 is not spoken to (RFC 8996)."""
    context = authority.server()
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    trust = {"SSL_CERT_FILE": str(authority.path)}
    with BadServer(answer(GOOD), tls=context) as server:
        fails(machine, server.url, "tls_failed", 75, "127.0.0.1", STAYS, **trust)
        assert server.heads == []


@pytest.mark.parametrize(
    ("steps", "tls"),
    [
        (script(hang, at_once=True), False),
        (script(drip(b"\x16\x03\x03\x00\x7a\x02" + b"\0" * 99, 0.1), at_once=True), False),
        (script(hang), True),
        (script(drip(answer(GOOD), 0.1)), True),
        (script(answer(length=len(GOOD)), drip(GOOD, 0.1)), True),
    ],
    ids=["no handshake", "slow handshake", "never answers", "slow headers", "slow body"],
)
def test_deadline_over_tls(
    machine: Machine, authority: Authority, steps: Script, tls: bool
) -> None:
    """§6: the deadline bounds a TLS connection as well, its handshake included, and ends it."""
    machine.configure(timeout=f"{DEADLINE}s")
    trust = {"SSL_CERT_FILE": str(authority.path)}
    with BadServer(steps, tls=authority.server() if tls else None) as server:
        url = server.url.replace("http:", "https:")
        began = time.monotonic()
        fails(machine, url, "timeout", 75, "api.timeout", **trust)
        assert time.monotonic() - began < PATIENCE
        assert eventually(lambda: server.idle, PATIENCE), "the connection is still open"


# Somewhere else


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirect(machine: Machine, status: int) -> None:
    """G1, §6: no redirect is followed, so the credential never reaches its target."""
    with BadServer(answer(GOOD)) as target:
        moved = refused(f"{status} Moved", b"", f"Location: {target.url}/api/v0/ssh/")
        with BadServer(moved) as server:
            fails(machine, server.url, "redirected", 65, str(status), "not followed", "api.url")
        assert target.connections == 0


def test_redirect_from_https_to_http(machine: Machine, authority: Authority) -> None:
    """G1, §6: not even to the same machine without TLS."""
    trust = {"SSL_CERT_FILE": str(authority.path)}
    with BadServer(answer(GOOD)) as target:
        moved = refused("301 Moved Permanently", PAGE, f"Location: {target.url}/api/v0/ssh/")
        with BadServer(moved, tls=authority.server()) as server:
            fails(machine, server.url, "redirected", 65, "301", "api.url", **trust)
        assert target.connections == 0


@pytest.mark.parametrize("location", ["https://[/", "http://a b/", "//", "\x7f", "https:///x:y:z"])
def test_redirect_to_nonsense(machine: Machine, location: str) -> None:
    """G1: an impossible Location is a redirect all the same, not an answer of another protocol."""
    with BadServer(refused("302 Found", b"", f"Location: {location}")) as server:
        fails(machine, server.url, "redirected", 65, "not followed", "api.url")


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_proxy_never_sees_loopback(machine: Machine, authority: Authority, secure: bool) -> None:
    """§6: a proxy in the environment is not asked for a server on this machine."""
    tls = authority.server() if secure else None
    with BadServer(refused("502 Bad Gateway")) as proxy, BadServer(answer(GOOD), tls=tls) as server:
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        proxies = {name: proxy.url for upper in names for name in (upper, upper.lower())}
        done = machine.here(
            "sync",
            "--json",
            VAST_URL=server.url,
            SSL_CERT_FILE=str(authority.path),
            **proxies,
        )
        assert (done.code, len(server.heads)) == (0, 1), done.stdout
        assert proxy.connections == 0


def test_proxy_sees_no_api_key(machine: Machine) -> None:
    """§6: a proxy for the world outside is told where to connect to, and nothing else."""
    with BadServer(refused("502 Bad Gateway")) as proxy:
        fails(
            machine,
            "https://console.keysync.invalid",
            "proxy_failed",
            75,
            "502 Bad Gateway",
            "HTTPS_PROXY",
            STAYS,
            HTTPS_PROXY=proxy.url,
        )
        assert [head.split("\r\n")[0] for head in proxy.heads] == [
            "CONNECT console.keysync.invalid:443 HTTP/1.1"
        ]
        assert API_KEY not in proxy.heads[0]


def test_proxy_that_is_down(machine: Machine) -> None:
    """G1: when it is the proxy that cannot be reached, the message does not blame the console."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        fails(
            machine,
            "https://console.keysync.invalid",
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
        "https://console.keysync.invalid",
        "proxy_unusable",
        75,
        "HTTPS_PROXY",
        "NO_PROXY",
        STAYS,
        ALL_PROXY=proxy,
    )


# Secrets, processes, people


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized", "404 Not Found", "500 Oh no"])
@pytest.mark.parametrize("padding", [0, 30, 60])
def test_an_answer_that_repeats_the_api_key(machine: Machine, status: str, padding: int) -> None:
    """G10: the API's own words are shown, but never the API key in them, nor a part of it."""
    body = error_body("oops", "x" * padding + f" Unknown key {API_KEY}, sorry")
    with BadServer(answer(body, status)) as server:
        done = machine.here("sync", "--log-level", "debug", VAST_URL=server.url)
    state = (machine.state / "state.json").read_text()
    status_text = machine.here("status", "--json").stdout
    for text in (done.stdout, done.stderr, state, status_text):
        assert "oops" in text
        assert API_KEY[:12] not in text


def test_as_a_process(machine: Machine) -> None:
    """§7, §9: results on stdout, logs on stderr, and the exit code, for people and for programs."""
    before = machine.fixed
    with BadServer(refused("401 Unauthorized")) as server:
        for_program = machine.process("sync", "--json", VAST_URL=server.url)
        for_people = machine.process("sync", VAST_URL=server.url)
    assert for_program.code == for_people.code == 77
    error = for_program.json["error"]
    assert for_people.stdout == f"failed: {error['message']}\n{error['hint']}\n"
    for done in (for_program, for_people):
        assert [event["event"] for event in done.events] == ["sync.failed"]
        assert API_KEY not in done.stdout + done.stderr
    assert machine.fixed == before


def test_a_process_ends_at_its_deadline(machine: Machine) -> None:
    """§6: a request that nobody answers keeps no process alive after its failure was told."""
    machine.configure(timeout=f"{DEADLINE}s")
    with BadServer(script(drip(answer(GOOD), 0.1))) as server:
        began = time.monotonic()
        done = machine.process("sync", "--json", VAST_URL=server.url)
        assert time.monotonic() - began < PATIENCE
    assert (done.code, done.json["error"]["kind"]) == (75, "timeout")
