"""Many polls on one connection: no answer is ever taken for the answer to another request."""

from __future__ import annotations

import signal
import ssl
import threading
from pathlib import Path

import pytest

from agent.errors import TemporaryFailure
from tests.network.support import (
    CHUNKED,
    GOOD,
    KEPT,
    KEY,
    OTHER,
    PAGE,
    accounts,
    chunked,
    client,
    error_body,
    listing_of,
    outcome,
    refused,
    synced_machine,
)
from tests.service.support import SLOW, Agent
from tests.support.bad_server import (
    BadServer,
    Connection,
    Script,
    answer,
    eventually,
    header,
    reset,
    script,
)
from tests.support.certificates import Authority
from tests.support.machine import key_line, listing

pytestmark = pytest.mark.attack

FORGED = listing(key_line("intruder"))
SMUGGLED = answer(FORGED)
IN_CHUNKS = chunked(GOOD)


def kept(*parts: bytes) -> Script:
    """An answer after which the server goes on with the connection."""
    return script(b"".join(parts), keep=True)


# Smuggling: more comes than the answer that was asked for

SURPLUS = {
    "an answer": SMUGGLED,
    "two answers": SMUGGLED * 2,
    "half an answer": SMUGGLED[:-9],
    "a head that swallows the next answer's": b"HTTP/1.1 200 OK\r\nX-A: ",
    "a line": b"\r\n",
    "hints": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "a 304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "noise": b"\0" * 300,
    "one byte": b"H",
}
FIRST: dict[str, tuple[bytes, bytes | str]] = {
    "a list": (answer(GOOD), GOOD),
    "chunks": (answer(IN_CHUNKS, headers=[CHUNKED], length=None), GOOD),
    "hints before": (b"HTTP/1.1 103 Hints\r\n\r\n" + answer(GOOD), GOOD),
    "401": (refused("401 No", b"{}"), "credential_rejected"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "unexpected_status"),
    "302": (refused("302 Found", b"", "Location: /"), "redirected"),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", "unexpected_status"),
    "500": (refused("500 No", b"", CHUNKED)[:-2] + b"\r\n0\r\n\r\n", "server_error"),
    "two ends": (answer(IN_CHUNKS, headers=[CHUNKED], length=len(GOOD)), "not_http"),
}


@pytest.mark.parametrize("surplus", SURPLUS)
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("apart", [False, True], ids=["one record", "two records"])
def test_smuggled_answer(tls: ssl.SSLContext, first: str, surplus: str, *, apart: bool) -> None:
    """G1: bytes behind an answer are not the answer to the next request (RFC 9112 section 6.3):
    that one goes to a new connection, and gets its own.
    """
    sent, expected = FIRST[first]
    more = SURPLUS[surplus]
    sneaky = script(sent, more, keep=True) if apart else kept(sent, more)
    with BadServer(sneaky, KEPT, tls=tls) as server, client(server.url) as console:
        assert [outcome(console) for _ in range(3)] == [expected, GOOD, GOOD]
        assert (server.connections, len(server.heads)) == (2, 3)


@pytest.mark.parametrize("first", FIRST)
def test_smuggled_answer_without_tls(first: str) -> None:
    """G1: where surplus bytes cannot be ruled out, every request has a connection of its own."""
    sent, expected = FIRST[first]
    with BadServer(kept(sent, SMUGGLED), KEPT) as server, client(server.url) as console:
        assert [outcome(console) for _ in range(3)] == [expected, GOOD, GOOD]
        assert (server.connections, len(server.heads)) == (3, 3)


@pytest.mark.parametrize("first", FIRST)
def test_without_surplus_the_connection_stays(tls: ssl.SSLContext, first: str) -> None:
    """Polling: it is the surplus that costs the connection, not the kind of answer."""
    sent, expected = FIRST[first]
    fails = expected in ("not_http", "unexpected_status") and first != "204"  # ends it in any case
    with BadServer(kept(sent), KEPT, tls=tls) as server, client(server.url) as console:
        assert [outcome(console) for _ in range(3)] == [expected, GOOD, GOOD]
        assert server.connections == 1 + fails


@pytest.mark.parametrize("size", [1, 2, 16_383, 16_384, 16_385, 200_000])
def test_a_connection_is_kept_whatever_the_size_of_the_answer(
    tls: ssl.SSLContext, size: int
) -> None:
    """Polling: also where an answer fills one TLS record or several (RFC 8446 section 5.1)."""
    whole = kept(answer(GOOD + b" " * size))
    with BadServer(whole, tls=tls) as server, client(server.url) as console:
        assert [len(outcome(console)) for _ in range(3)] == [len(GOOD) + size] * 3
        assert server.connections == 1


def test_smuggled_behind_a_304(tls: ssl.SSLContext) -> None:
    """G1: a 304 has no body, so what stands in its place is surplus."""
    tagged = script(answer(GOOD, headers=['ETag: "1"']), keep=True)
    sneaky = kept(
        b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 300\r\n\r\n', SMUGGLED
    )
    with BadServer(tagged, sneaky, KEPT, tls=tls) as server, client(server.url) as console:
        answers = [console.fetch(KEY) for _ in range(3)]
    assert [one.body for one in answers] == [GOOD] * 3
    assert [one.not_modified for one in answers] == [False, True, False]


def test_smuggled_between_two_polls(tls: ssl.SSLContext) -> None:
    """G1: nor are bytes that come while nothing was asked."""
    asked = threading.Event()

    def later(connection: Connection) -> None:
        assert asked.wait(10)
        connection.send(SMUGGLED)
        sent.set()

    sent = threading.Event()
    with (
        BadServer(script(answer(GOOD), later, keep=True), KEPT, tls=tls) as server,
        client(server.url) as console,
    ):
        assert outcome(console) == GOOD
        asked.set()
        assert sent.wait(10)
        assert outcome(console) == GOOD
        assert server.connections == 2


def test_smuggled_for_another_key(tls: ssl.SSLContext) -> None:
    """G4: an answer that was prepared under one API key is never taken under the next."""
    sneaky = kept(answer(GOOD), answer(listing(key_line("stranger"), user_id=4712)))
    with BadServer(sneaky, KEPT, tls=tls) as server, client(server.url) as console:
        assert outcome(console, KEY) == GOOD
        assert outcome(console, OTHER) == GOOD
        assert header(server.heads[1], "Authorization") == f"Bearer {OTHER.value}"


def test_smuggled_list_never_reaches_a_machine(tmp_path: Path, authority: Authority) -> None:
    """G1: the daemon polls on one connection; the forged list that lies ready is not applied."""
    machine = synced_machine(tmp_path)
    trust = {"SSL_CERT_FILE": str(authority.path)}
    with BadServer(kept(answer(GOOD), SMUGGLED), tls=authority.server()) as server:
        machine.url, machine.options = server.url, SLOW
        machine.configure()
        before = machine.fixed
        with Agent(machine, trust) as agent:
            for polls in range(1, 4):
                agent.wait_for("sync.completed", times=polls)
                agent.send(signal.SIGUSR1)
            agent.wait_for("sync.completed", times=4)
            assert agent.said("sync.failed") == []
        assert machine.fixed == before


# ETags


@pytest.mark.parametrize(
    "etag",
    [
        '"a"\r\nX-Evil: 1',
        '"a"\nX-Evil: 1',
        '"\x00"',
        '"' + "a" * 70_000 + '"',
        '"a", "b"',
        "*",
        "no quotes",
        'W/"weak"',
        'w/"small"',
    ],
    ids=ascii,
)
def test_etag_splits_no_header(etag: str) -> None:
    """G1: whatever a server calls an ETag, it puts no header of its own into the next request, and
    no odd one makes the next poll fail.
    """
    tagged = script(answer(GOOD, headers=[f"ETag: {etag}"]), keep=True)
    with BadServer(tagged, KEPT) as server, client(server.url) as console:
        first, second = outcome(console), outcome(console)
        assert first in (GOOD, "not_http")
        assert second == GOOD
        for head in server.heads:
            assert header(head, "X-Evil") is None
            assert len(head) < 1000
            assert head.count("\r\n") == len(head.split("\n")) - 1


@pytest.mark.parametrize("status", ["304 Not Modified", "304 "])
def test_304_after_the_key_was_reset(status: str) -> None:
    """API key, G4: a 304 to another API key confirms nothing: the list was not asked about."""
    tagged = script(answer(GOOD, headers=['ETag: "1"']), keep=True)
    unchanged = kept(f'HTTP/1.1 {status}\r\nETag: "1"\r\n\r\n'.encode())
    with BadServer(tagged, unchanged) as server, client(server.url) as console:
        assert outcome(console, KEY) == GOOD
        assert outcome(console, OTHER) == "unexpected_status"
        assert header(server.heads[1], "If-None-Match") is None
        assert outcome(console, KEY) == "unexpected_status"  # the first list is forgotten too


def test_304_when_there_was_no_list_yet() -> None:
    """G1: after a failure there is nothing that a 304 could confirm."""
    scripts = [kept(refused("500 No", b"", 'ETag: "1"')), kept(b"HTTP/1.1 304 N\r\n\r\n")]
    with BadServer(*scripts) as server, client(server.url) as console:
        assert [outcome(console) for _ in range(2)] == ["server_error", "unexpected_status"]


def test_etag_of_a_failure_is_none_of_the_list() -> None:
    """G1: the ETag of a page, of an error or of an unusable list is never offered as a list's."""
    tag = 'ETag: "page"'
    bad = [refused("401 No", PAGE, tag), refused("500 No", b"", tag), refused("302 F", b"", tag)]
    with BadServer(*map(kept, bad), KEPT) as server, client(server.url) as console:
        for _ in range(4):
            outcome(console)
        assert [header(head, "If-None-Match") for head in server.heads] == [None] * 4


# Retry-After


@pytest.mark.parametrize(
    "value",
    [
        "-1",
        "-999999999999",
        "9" * 5000,
        "1e9",
        "NaN",
        "Infinity",
        "0x10",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 0000 00:00:00 GMT",
        "Mon, 32 Foo 2026 99:99:99 GMT",
        "Fri, 31 Dec 2100 23:59:60 +9999",
        "later",
        "\xff",
        "7, 9",
    ],
)
def test_retry_after_is_bounded(value: str) -> None:
    """Polling: no Retry-After stops the polls for longer than a day, or makes them come at once."""
    busy = refused("429 Too Many Requests", b"", f"Retry-After: {value}")
    with (
        BadServer(busy) as server,
        client(server.url) as console,
        pytest.raises(TemporaryFailure) as caught,
    ):
        listing_of(console)
    assert caught.value.kind == "rate_limited"
    assert caught.value.retry_after is None or 0 <= caught.value.retry_after <= 86_400


# One daemon through all of it


def test_a_bad_day_of_the_daemon(tmp_path: Path) -> None:
    """G1, logs: over one run the failures come in a row: each change of kind is said once, the keys
    stay the very same file, and the end is said with what it took.
    """
    machine = synced_machine(tmp_path)
    bad: list[tuple[str, Script | bytes]] = [
        ("server_error", refused("500 No")),
        ("server_error", refused("503 No", PAGE)),
        ("html_page", answer(PAGE)),
        ("truncated", answer(GOOD)[:-1]),
        ("connection_lost", script(reset)),
        ("not_json", answer(b"[" * 100_000)),
        ("empty_listing", answer(b"[]")),
        ("account_changed", answer(accounts(4712))),
        ("several_accounts", answer(accounts(4711, 4712))),
        ("unexpected_encoding", answer(GOOD, headers=["Content-Encoding: gzip"])),
        ("credential_rejected", refused("404 Not Found", error_body("auth_error", "no"))),
    ]
    with BadServer(KEPT, *(one for _, one in bad), KEPT) as server:
        machine.url, machine.options = server.url, SLOW
        machine.configure()
        before = machine.fixed
        with Agent(machine) as agent:
            agent.wait_for("sync.completed")
            for polls in range(2, len(bad) + 3):
                agent.send(signal.SIGUSR1)
                asked = eventually(lambda desired=polls: len(server.heads) >= desired)  # type: ignore[misc]  # reason: mypy cannot type a lambda's default
                assert asked
                assert machine.fixed == before
            end = agent.wait_for("sync.recovered")
            agent.wait_for("sync.completed", times=2)
            said = [e["kind"] for e in agent.events if e["event"] in ("sync.failed", "sync.held")]
            # Two of one kind with different messages are two lines.
            assert said == [kind for kind, _ in bad]
            assert (end["kind"], end["failures"]) == (bad[-1][0], len(bad))
            assert agent.said("agent.failed") == []
        assert machine.fixed == before
