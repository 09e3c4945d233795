"""TLS that proves nothing: no request is sent, and the sync fails by name (G1, polling)."""

from __future__ import annotations

import ssl
import time

import pytest

from agent.errors import TemporaryFailure
from tests.network.support import DEADLINE, GOOD, KEY, PATIENCE, STAYS, client, fails
from tests.support.bad_server import (
    BadServer,
    Script,
    answer,
    drip,
    eventually,
    hang,
    script,
    swallow,
)
from tests.support.certificates import Authority
from tests.support.machine import Machine

pytestmark = pytest.mark.attack


@pytest.mark.parametrize(
    ("certificate", "trusted", "words"),
    [
        ({"address": "console.example"}, True, ("not valid for '127.0.0.1'",)),
        ({"address": "127.0.0.2"}, True, ("mismatch",)),
        ({"expired": True}, True, ("expired", "clock")),
        ({"self_signed": True}, True, ("self-signed", "ca-certificates")),
        ({"not_yet": True}, True, ("not yet valid", "clock")),
        ({}, False, ("unable to get local issuer", "ca-certificates")),
    ],
    ids=[
        "another name",
        "another address",
        "expired",
        "self-signed",
        "not yet valid",
        "unknown authority",
    ],
)
def test_certificate(
    machine: Machine,
    authority: Authority,
    certificate: dict[str, object],
    trusted: bool,
    words: tuple[str, ...],
) -> None:
    """G1: a certificate that does not prove the console's name ends it before any request."""
    context = authority.server(**certificate)  # type: ignore[arg-type]  # reason: the table above is right
    trust = {"SSL_CERT_FILE": str(authority.path)} if trusted else {}
    with BadServer(answer(GOOD), tls=context) as server:
        words = ("127.0.0.1", STAYS, "api.url", *words)
        fails(machine, server.url, "tls_failed", 75, *words, **trust)
        assert server.heads == []


def test_certificate_of_an_address_in_capitals(authority: Authority) -> None:
    """G1, polling: HTTPS:// is https://, and its certificate is checked as well."""
    with BadServer(answer(GOOD), tls=authority.server(self_signed=True)) as server:
        with (
            client(server.url.replace("https", "HTTPS")) as console,
            pytest.raises(TemporaryFailure) as caught,
        ):
            console.fetch(KEY)
        assert (caught.value.kind, server.heads) == ("tls_failed", [])


def test_good_certificate(machine: Machine, authority: Authority) -> None:
    """Polling: with a certificate for its name the same server is believed."""
    with BadServer(answer(GOOD), tls=authority.server()) as server:
        done = machine.here(
            "sync", "--json", VAST_URL=server.url, SSL_CERT_FILE=str(authority.path)
        )
    assert (done.code, done.json["result"]) == (0, "in_sync"), done.stdout


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
    """The deadline bounds a TLS connection as well, its handshake included, and ends it."""
    machine.configure(timeout=f"{DEADLINE}s")
    trust = {"SSL_CERT_FILE": str(authority.path)}
    with BadServer(steps, tls=authority.server() if tls else None) as server:
        url = server.url.replace("http:", "https:")
        began = time.monotonic()
        fails(machine, url, "timeout", 75, "api.timeout", **trust)
        assert time.monotonic() - began < PATIENCE
        assert eventually(lambda: server.idle, PATIENCE), "the connection is still open"


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\xff\xff" + b"\0" * 0x4000,
        b"\x16\x03\x03\x00\x04\x02\xff\xff\xff",
        b"\0" * 4096,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        answer(GOOD),
    ],
    ids=["nothing", "alert", "long record", "long hello", "zeros", "SSH", "HTTP"],
)
def test_no_handshake(machine: Machine, greeting: bytes) -> None:
    """G1: what is no TLS handshake ends before any request, by name."""
    with BadServer(script(swallow, greeting, at_once=True)) as server:
        url = server.url.replace("http:", "https:")
        fails(machine, url, "tls_failed", 75, "127.0.0.1", "TLS", STAYS, "api.url")
        assert server.heads == []


def test_request_for_a_client_certificate(machine: Machine, authority: Authority) -> None:
    """G1: a server that wants to know who we are in another way than by the API key."""
    context = authority.server()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.path)
    with BadServer(answer(GOOD), tls=context) as server:
        before = machine.fixed
        done = machine.here(
            "sync", "--json", VAST_URL=server.url, SSL_CERT_FILE=str(authority.path)
        )
    assert done.code == 75
    assert done.json["error"]["kind"] in ("tls_failed", "connection_lost")
    assert machine.fixed == before
