"""The HTTP client over many polls: one connection, ETags, recovery, waiting."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

from agent import __version__
from agent.adapters.http_connection import TrackingSocket
from agent.core.secret import Credential
from agent.errors import KeysyncError, TemporaryFailure
from sandbox.console import Console as LocalConsole
from tests.network.support import (
    DEADLINE,
    GOOD,
    KEPT,
    KEY,
    OTHER,
    client,
    fetching,
    listing_of,
    outcome,
)
from tests.support.bad_server import (
    BadServer,
    Script,
    answer,
    drip,
    eventually,
    hang,
    header,
    reset,
    script,
)
from tests.support.certificates import Authority
from tests.support.machine import API_KEY, key_line, listing

LATER = listing(key_line("laptop"))
# Longer than httpx keeps an idle connection by itself (5 s), shorter than poll.interval.
BETWEEN_POLLS = 5.2


def etagged(body: bytes, etag: str) -> Script:
    return script(answer(body, headers=[f"ETag: {etag}"]), keep=True)


NOT_MODIFIED = script(b"HTTP/1.1 304 Not Modified\r\n\r\n", keep=True)


# The request


def test_request() -> None:
    """API: one GET of the list, the key as a bearer token, nothing compressed."""
    with BadServer(KEPT) as server, client(server.url + "/") as console:
        assert console.fetch(KEY).body == GOOD
        [head] = server.heads
    assert head.startswith("GET /api/v0/ssh/ HTTP/1.1\r\n")
    assert head.count(API_KEY) == 1
    sent = {
        name: header(head, name)
        for name in ("Authorization", "Accept", "Accept-Encoding", "User-Agent", "Cookie")
    }
    assert sent == {
        "Authorization": f"Bearer {API_KEY}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"keysync/{__version__}",
        "Cookie": None,
    }


def test_no_cookie_is_kept() -> None:
    """The API key alone says whose list it is, so no session of an earlier one lives on."""
    first = script(
        answer(GOOD, headers=["Set-Cookie: session=of-the-first-key; Path=/"]), keep=True
    )
    with BadServer(first) as server, client(server.url) as console:
        console.fetch(KEY)
        console.fetch(OTHER)
        assert header(server.heads[1], "Cookie") is None


# One connection


def test_connection_is_reused(tls: ssl.SSLContext) -> None:
    """Polling: the connection is kept alive between polls: a new one costs a TLS handshake."""
    with BadServer(KEPT, tls=tls) as server, client(server.url) as console:
        for _ in range(5):
            assert console.fetch(KEY).body == GOOD
        assert (server.connections, len(server.heads)) == (1, 5)


def test_connection_outlives_the_interval(tls: ssl.SSLContext) -> None:
    """Polling: kept alive between polls, which are many seconds apart."""
    with BadServer(KEPT, tls=tls) as server, client(server.url) as console:
        console.fetch(KEY)
        time.sleep(BETWEEN_POLLS)
        console.fetch(KEY)
        assert server.connections == 1


def test_server_that_closes_in_between() -> None:
    """A server may end an idle connection; the next poll opens another without a failure."""
    with BadServer(answer(GOOD)) as server, client(server.url) as console:
        console.fetch(KEY)
        assert eventually(lambda: server.idle)
        assert console.fetch(KEY).body == GOOD
        assert (server.connections, len(server.heads)) == (2, 2)


@pytest.mark.parametrize("death", [script(), script(reset)], ids=["closed", "reset"])
def test_kept_connection_that_dies_under_the_request(tls: ssl.SSLContext, death: Script) -> None:
    """Polling: what a kept connection swallowed is asked once more on a new one."""
    with BadServer(KEPT, death, KEPT, tls=tls) as server, client(server.url) as console:
        console.fetch(KEY)
        assert console.fetch(KEY).body == GOOD
        assert (server.connections, len(server.heads)) == (2, 3)


def test_new_connection_that_dies() -> None:
    """Polling: a connection that was never good is not asked twice; that is for the next poll."""
    with BadServer(script(), KEPT) as server, client(server.url) as console:
        with pytest.raises(TemporaryFailure) as caught:
            console.fetch(KEY)
        assert caught.value.kind == "connection_lost"
        assert (server.connections, len(server.heads)) == (1, 1)
        assert console.fetch(KEY).body == GOOD


def test_kept_connection_and_its_successor_die(tls: ssl.SSLContext) -> None:
    """Polling: the second try of a request is its last."""
    with BadServer(KEPT, script(), tls=tls) as server, client(server.url) as console:
        console.fetch(KEY)
        with pytest.raises(TemporaryFailure) as caught:
            console.fetch(KEY)
        assert caught.value.kind == "connection_lost"
        assert (server.connections, len(server.heads)) == (2, 3)


def test_failures_keep_nothing_open() -> None:
    """Polling: refused, limited and broken answers in a row leave one connection at most."""
    scripts = [
        script(answer(b"{}", "401 Unauthorized"), keep=True),
        script(answer(b"", "429 Too Many Requests"), keep=True),
        script(answer(b"", "302 Found", ["Location: /"]), keep=True),
        script(answer(GOOD)[:-1]),
        script(answer(b"x", headers=["Content-Encoding: gzip"]), keep=True),
        KEPT,
    ]
    with BadServer(*scripts) as server, client(server.url) as console:
        for _ in scripts[:-1]:
            with pytest.raises(KeysyncError):
                listing_of(console)
        assert console.fetch(KEY).body == GOOD
        console.close()
        assert eventually(lambda: server.idle)


def test_the_end_of_what_was_received(tls: ssl.SSLContext, authority: Authority) -> None:
    """G1: a socket with bytes that nobody has read is not drained, wherever they wait."""
    context = ssl.create_default_context(cafile=authority.path)
    context.sslsocket_class = TrackingSocket
    with (
        BadServer(script(b"abcd", hang), tls=tls) as server,
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as found,
    ):
        assert isinstance(found, TrackingSocket)
        found.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read = [(found.recv(size), found.is_drained) for size in (2, 9, 9, 9)]
    assert read == [(b"a", False), (b"b", False), (b"c", False), (b"d", True)]


# ETag


def test_etag_of_the_local_console() -> None:
    """Polling: with a server that offers ETags an unchanged list is confirmed by a 304."""
    with LocalConsole(etag=True) as server, client(server.url) as console:
        key = Credential(server.api_key, "a test")
        server.add_key(key_line("laptop"))
        first, second = console.fetch(key), console.fetch(key)
        server.add_key(key_line("desktop"))
        third, fourth = console.fetch(key), console.fetch(key)
    assert (first.not_modified, second.not_modified) == (False, True)
    assert second.body == first.body
    assert (third.not_modified, fourth.not_modified) == (False, True)
    assert third.body == fourth.body != first.body


def test_no_etag_no_condition() -> None:
    """Without an ETag nothing conditional is asked, also when an earlier answer had one."""
    with BadServer(etagged(GOOD, '"1"'), KEPT) as server, client(server.url) as console:
        for _ in range(3):
            console.fetch(KEY)
        asked = [header(head, "If-None-Match") for head in server.heads]
    assert asked == [None, '"1"', None]


def test_etag_survives_a_failure(tls: ssl.SSLContext) -> None:
    """Polling: an outage between two polls costs neither the list nor its ETag."""
    failing = script(answer(b"", "500 Internal Server Error"), keep=True)
    scripts = [etagged(GOOD, 'W/"a"'), script(), script(), failing, NOT_MODIFIED]
    with BadServer(*scripts, tls=tls) as server, client(server.url) as console:
        console.fetch(KEY)
        with pytest.raises(TemporaryFailure):
            console.fetch(KEY)
        assert console.fetch(KEY).status == 500
        again = console.fetch(KEY)
        assert (again.body, again.not_modified) == (GOOD, True)
        assert header(server.heads[-1], "If-None-Match") == 'W/"a"'


def test_etag_of_a_part_of_the_list_is_not_offered() -> None:
    """Polling: the other pages may go while the first one stays, and a 304 has no Link header."""
    part = answer(GOOD, headers=['ETag: "1"', 'Link: </ssh/?page=2>; rel="next"'])
    scripts = script(part, keep=True), etagged(GOOD, '"1"')
    with BadServer(*scripts) as server, client(server.url) as console:
        assert console.fetch(KEY).has_next_link
        assert not console.fetch(KEY).has_next_link
        assert header(server.heads[1], "If-None-Match") is None


def test_etag_belongs_to_the_api_key() -> None:
    """G4: an ETag of one account's list is never offered with another API key, so that a 304 can
    never pass the first account's list off as the second's.
    """
    with BadServer(etagged(GOOD, '"1"'), etagged(LATER, '"1"')) as server:
        with client(server.url) as console:
            console.fetch(KEY)
            second = console.fetch(OTHER)
        assert (second.body, second.not_modified) == (LATER, False)
        assert header(server.heads[1], "If-None-Match") is None


@pytest.mark.parametrize("etag", ['"é"', '"' + "x" * 5000 + '"', "", '"\t"'])
def test_etag_that_cannot_be_sent_back(etag: str) -> None:
    """G1: an odd ETag never makes the next poll fail."""
    with BadServer(etagged(GOOD, etag), KEPT) as server, client(server.url) as console:
        for _ in range(2):
            assert console.fetch(KEY).body == GOOD
        assert header(server.heads[1], "If-None-Match") is None


def test_answers_are_whole_again_after_a_304(tls: ssl.SSLContext) -> None:
    """Polling: a list that changes after a 304 is taken, with its new ETag."""
    scripts = [etagged(GOOD, '"1"'), NOT_MODIFIED, etagged(LATER, '"2"'), NOT_MODIFIED]
    with BadServer(*scripts, tls=tls) as server, client(server.url) as console:
        answers = [console.fetch(KEY) for _ in scripts]
        asked = [header(head, "If-None-Match") for head in server.heads]
        assert server.connections == 1
    assert [one.body for one in answers] == [GOOD, GOOD, LATER, LATER]
    assert [one.not_modified for one in answers] == [False, True, False, True]
    assert asked == [None, '"1"', '"1"', '"2"']


# Deadline and recovery


@pytest.mark.parametrize(
    "slow",
    [script(hang), script(drip(answer(LATER), 0.1)), script(answer(length=9), hang)],
    ids=["silent", "slow", "no body"],
)
def test_recovery_after_a_timeout(tls: ssl.SSLContext, slow: Script) -> None:
    """The client that ran out of time works at the next poll, on a connection of its own."""
    with BadServer(KEPT, slow, KEPT, tls=tls) as server, client(server.url, DEADLINE) as console:
        console.fetch(KEY)
        with pytest.raises(TemporaryFailure) as caught:
            console.fetch(KEY)
        assert caught.value.kind == "timeout"
        assert [console.fetch(KEY).body for _ in range(2)] == [GOOD, GOOD]
        assert server.connections == 2


def test_a_late_answer_is_never_taken() -> None:
    """G1: what arrives after its deadline is not the answer to the next request."""
    released = threading.Event()

    def late(connection: object) -> None:
        released.wait(10)

    scripts = [script(late, answer(LATER)), KEPT]
    with BadServer(*scripts) as server, client(server.url, DEADLINE) as console:
        with pytest.raises(TemporaryFailure):
            console.fetch(KEY)
        released.set()
        assert console.fetch(KEY).body == GOOD


def test_close_ends_a_waiting_request() -> None:
    """Polling: a daemon that stops does not wait for the network."""
    failed: list[KeysyncError] = []

    def fetch() -> None:
        try:
            console.fetch(KEY)
        except KeysyncError as error:
            failed.append(error)

    with BadServer(script(hang)) as server, client(server.url, 30.0) as console:
        waiting = threading.Thread(target=fetch)
        waiting.start()
        assert eventually(lambda: len(server.heads) == 1)
        console.close()
        waiting.join(5)
        assert not waiting.is_alive()
        assert [error.kind for error in failed] == ["connection_lost"]


def test_close_ends_a_request_that_still_connects() -> None:
    """Polling: also where nobody answers yet; and when somebody does, it is not waited for."""
    kinds: list[str | bytes] = []
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):  # a full backlog drops every new connection
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        console = stack.enter_context(client(f"http://127.0.0.1:{address[1]}", 60.0))
        waiting = threading.Thread(target=lambda: kinds.append(outcome(console)))
        waiting.start()
        assert eventually(lambda: fetching() != [])
        began = time.monotonic()
        console.close()
        waiting.join(5)
        assert time.monotonic() - began < 1
        assert kinds == ["connection_lost"]
        listener.settimeout(10)
        while fetching():  # until the request's own connection is accepted
            stack.enter_context(listener.accept()[0])
            eventually(lambda: fetching() == [], 0.5)


def test_a_closed_client_can_be_used_again() -> None:
    """Polling: closing ends the connection, not the client."""
    with BadServer(KEPT) as server, client(server.url) as console:
        console.fetch(KEY)
        console.close()
        assert eventually(lambda: server.idle)
        assert console.fetch(KEY).body == GOOD
        assert server.connections == 2


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("7", 7),
        (" 120 ", 120),
        ("999999999999999999999", 86400),
        ("%a, %d %b %Y %H:%M:%S GMT", 3600),
        ("%A, %d-%b-%y %H:%M:%S GMT", 3600),
        ("%a %b %d %H:%M:%S %Y", 3600),
        ("%a, %d %b %Y %H:%M:%S -0000", 3600),
        ("Thu, 01 Jan 2015 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        (", ,", None),
    ],
)
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_retry_after(
    monkeypatch: pytest.MonkeyPatch, status: str, value: str | None, seconds: int | None
) -> None:
    """Retry-After is honoured in all its forms (RFC 9110 sections 5.6.7 and 10.2.3), bounded by
    a day, and nonsense in it is as good as none. A date with a % is that form of the time to come.
    """
    if value is not None and "%" in value and seconds is not None:
        value = (datetime.now(timezone.utc) + timedelta(seconds=seconds)).strftime(value)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    headers = [] if value is None else [f"Retry-After: {value}"]
    with (
        BadServer(answer(b"", status, headers)) as server,
        client(server.url) as console,
        pytest.raises(TemporaryFailure) as caught,
    ):
        listing_of(console)
    monkeypatch.undo()
    time.tzset()
    found = caught.value.retry_after
    assert found == (None if seconds is None else pytest.approx(seconds, abs=60))
