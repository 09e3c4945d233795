"""A server that lies: every odd answer is a failure by name, or is what it says; never fewer keys.

Every case runs the real command against a real socket on a machine that was in sync before. Its key
file must stay the same file, and the API key must not be seen anywhere.
"""

from __future__ import annotations

import functools
import json
import zlib
from typing import Any

import pytest

from agent.adapters.http import MAX_BODY_BYTES
from tests.network.support import (
    CHUNKED,
    GOOD,
    PAGE,
    STAYS,
    Case,
    accounts,
    case,
    chunked,
    error_body,
    fails,
    names,
    refused,
    synced_machine,
)
from tests.support.bad_server import BadServer, answer, endless, header, script
from tests.support.machine import API_KEY, Machine, key_line, listing

pytestmark = pytest.mark.attack

# Frames: the answer is no answer


def framed(*headers: str, body: bytes = GOOD) -> bytes:
    return answer(body, headers=headers, length=None)


FRAMES = [
    case("negative length", framed("Content-Length: -5"), "not_http", 65, STAYS),
    case("signed length", framed(f"Content-Length: +{len(GOOD)}"), "not_http", 65),
    case("length in hex", framed(f"Content-Length: {len(GOOD):#x}"), "not_http", 65),
    case("length with a fraction", framed("Content-Length: 5.0"), "not_http", 65),
    case("length that is no number", framed("Content-Length: all"), "not_http", 65),
    case("length of 30 digits", framed("Content-Length: " + "9" * 30), "not_http", 65),
    case("length of 9000 digits", framed("Content-Length: " + "9" * 9000), "not_http", 65),
    case("two lengths in one", framed(f"Content-Length: {len(GOOD)}, 7"), "not_http", 65),
    case("an empty length", framed("Content-Length: "), "not_http", 65),
    case(
        "chunks and a length",
        answer(chunked(GOOD), headers=[CHUNKED], length=len(GOOD)),
        "not_http",
        65,
        "both Content-Length and Transfer-Encoding",
        "proxy",
        STAYS,
    ),
    case("gzip as a transfer", framed("Transfer-Encoding: gzip, chunked"), "not_http", 65),
    case("an unknown transfer", framed("Transfer-Encoding: xchunked"), "not_http", 65),
    case("chunked twice", framed(CHUNKED, CHUNKED, body=chunked(GOOD)), "not_http", 65),
    case("a chunk size that is none", framed(CHUNKED, body=b"zz\r\n[]\r\n"), "not_http", 65),
    case("a negative chunk", framed(CHUNKED, body=b"-2\r\n[]\r\n0\r\n\r\n"), "not_http", 65),
    case("a chunk of 2^80", framed(CHUNKED, body=b"1" + b"0" * 20 + b"\r\n[]"), "not_http", 65),
    case("a chunk of 2^76", framed(CHUNKED, body=b"1" + b"0" * 19 + b"\r\n[]"), "truncated", 65),
    case("a chunk too long", framed(CHUNKED, body=b"2\r\n[]]\r\n0\r\n\r\n"), "not_http", 65),
    case("no last chunk", framed(CHUNKED, body=chunked(GOOD)[:-5]), "truncated", 65, STAYS),
    case("half a last chunk", framed(CHUNKED, body=chunked(GOOD)[:-2]), "truncated", 65, STAYS),
    case(
        "endless trailers",
        script(framed(CHUNKED, body=chunked(GOOD)[:-2]), endless(b"X-More: and more\r\n")),
        "not_http",
        65,
    ),
    case("HTTP/0.9", GOOD, "connection_lost", 75, "without an answer", STAYS),
    case("HTTP/0.9, a page", PAGE + b"\r\n\r\n", "not_http", 65),
    case("HTTP/2", b"HTTP/2 200 OK\r\n\r\n" + GOOD, "not_http", 65),
    case("HTTP/2 frames", b"\0\0\x12\x04\0\0\0\0\0" + b"\0" * 30, "not_http", 65),
    case("two lengths", answer(GOOD, headers=["Content-Length: 7"]), "not_http", 65, "HTTP"),
    case("SMTP", b"220 mail ESMTP\r\n502 what?\r\n\r\n", "not_http", 65, "api.url"),
    case("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not_http", 65),
    case("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n", "not_http", 65),
    case("nothing but line ends", b"\r\n" * 200, "not_http", 65),
    case("a status that is none", b"HTTP/1.1 2000 OK\r\n\r\n" + GOOD, "not_http", 65),
    case("a status of letters", b"HTTP/1.1 abc OK\r\n\r\n" + GOOD, "not_http", 65),
    case("a NUL in a header", framed("X-A: a\0b"), "not_http", 65),
    case("a lone CR in a header", framed("X-A: a\rX-B: b"), "not_http", 65),
    case("a folded first header", b"HTTP/1.1 200 OK\r\n folded\r\n\r\n[]", "not_http", 65),
    case("a header without a colon", framed("no colon here"), "not_http", 65),
    case("a blank before the colon", framed("Content-Length : 2", body=b"[]"), "not_http", 65),
    case("a header of 200 kB", framed("X-A: " + "a" * 200_000), "not_http", 65),
    # Beyond h11's 100 KiB plus one read of 64 KiB, however the network cuts the answer up.
    case("25,000 headers", framed(*["X-A: a"] * 25_000), "not_http", 65),
    case("101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + GOOD, "not_http", 65),
    case(
        "1000 hints and then nothing",
        script(b"HTTP/1.1 100 Continue\r\n\r\n" * 500 + b"HTTP/1.1 103 Hints\r\n\r\n" * 500),
        "connection_lost",
        75,
    ),
]

AUTH_ERROR = error_body("auth_error", "Invalid user key")
TOO_OFTEN = b"API requests too frequent: endpoint threshold=1.0"
SCOPE = "user_read"

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
        "500 cut short",
        answer(b"{", "500 Internal Server Error", length=99),
        "server_error",
        75,
        "500",
        STAYS,
    ),
    case("204 without a body", refused("204 No Content"), "unexpected_status", 65, "204", STAYS),
    case(
        "206 with the list",
        answer(GOOD, "206 Partial Content"),
        "unexpected_status",
        65,
        "206",
        STAYS,
    ),
    case("400 without a body", refused("400 Bad Request"), "unexpected_status", 65, "400", STAYS),
    case("304 unasked", refused("304 Not Modified"), "unexpected_status", 65, "304", STAYS),
    case("999", refused("999 What"), "server_error", 75, "999"),
    case("201 with the list", answer(GOOD, "201 Created"), "unexpected_status", 65, "201"),
    case("202 with the list", answer(GOOD, "202 Accepted"), "unexpected_status", 65, "202"),
    case("203 with the list", answer(GOOD, "203 Changed"), "unexpected_status", 65, "203"),
    case("204 with the list", answer(GOOD, "204 No Content"), "unexpected_status", 65, "204"),
    case("205 with the list", answer(GOOD, "205 Reset"), "unexpected_status", 65, "205"),
    case("226 with the list", answer(GOOD, "226 IM Used"), "unexpected_status", 65, "226"),
    case(
        "206 with half of it",
        answer(GOOD[:9], "206 Partial Content", ["Content-Range: bytes 0-8/400"]),
        "unexpected_status",
        65,
        "206",
    ),
    case("304 with the list", answer(GOOD, "304 Not Modified"), "unexpected_status", 65, "304"),
    case("402", refused("402 Payment Required"), "unexpected_status", 65, "402"),
    case("407", refused("407 Proxy Authentication Required"), "unexpected_status", 65, "407"),
    case("410", refused("410 Gone", b"[]"), "unexpected_status", 65, "410"),
    case("418", refused("418 Teapot", b"[]"), "unexpected_status", 65, "418"),
    case("404 with an empty list", refused("404 Not Found", b"[]"), "not_found", 65),
    case("401 with the list", refused("401 No", GOOD), "credential_rejected", 77),
    case("403 with the list", refused("403 No", GOOD), "credential_rejected", 77),
    case("500 with the list", refused("500 No", GOOD), "server_error", 75),
    case("502 with an empty list", refused("502 No", b"[]"), "server_error", 75),
    case("504", refused("504 Gateway Timeout", PAGE), "server_error", 75),
    case("511, a login page", refused("511 Log in first", PAGE), "server_error", 75, "511"),
    case("429 with the list", refused("429 Slow down", GOOD), "rate_limited", 75),
    case(
        "400 as documented",
        refused("400 Bad Request", error_body("no_ssh_key", "no key")),
        "unexpected_status",
        65,
        "no_ssh_key; no key",
    ),
]

LOGIN = "Content-Type: text/html; charset=utf-8"
PORTALS = [
    case("a login page", answer(PAGE, headers=[LOGIN]), "html_page", 65, "login page"),
    case(
        "a login page that claims to be JSON",
        answer(PAGE),
        "html_page",
        65,
        "200",
        "login page",
        STAYS,
    ),
    case("with a byte order mark", answer(b"\xef\xbb\xbf" + PAGE), "not_json", 65),
    case("in UTF-16", answer(PAGE.decode().encode("utf-16")), "not_json", 65),
    case("XML", answer(b'<?xml version="1.0"?><keys/>'), "html_page", 65),
    case("a script", answer(b"/**/callback([])"), "not_json", 65),
    case("JSON for a browser", answer(b")]}',\n" + GOOD), "not_json", 65),
    case("200 with the words of a limit", answer(b"API requests too frequent"), "not_json", 65),
]


def body(value: object) -> bytes:
    return answer(json.dumps(value).encode())


def wrapped(**more: object) -> bytes:
    return body({"ssh_keys": json.loads(GOOD), **more})


DEEP = 200_000
BODIES = [
    case("a page after blanks", answer(b"\r\n  <html>"), "html_page", 65, "200", STAYS),
    case("nothing", answer(b""), "empty_body", 65, "200", STAYS),
    case("blanks", answer(b" \n"), "empty_body", 65, "200", STAYS),
    case("half of it", answer(GOOD[: len(GOOD) // 2]), "not_json", 65, "200", STAYS),
    case("text", answer(b"Service is being upgraded"), "not_json", 65, "200", STAYS),
    case("two of it", answer(GOOD + GOOD), "not_json", 65, "200", STAYS),
    case("no text", answer(b"\xff\xfe\x00\xd8"), "not_json", 65, "200", STAYS),
    case("{}", answer(b"{}"), "unknown_shape", 65, "200", STAYS),
    case("null", answer(b"null"), "unknown_shape", 65, "200", STAYS),
    case("a number", answer(b"0"), "unknown_shape", 65, "200", STAYS),
    case("a text", answer(b'"[]"'), "unknown_shape", 65, "200", STAYS),
    case("true", answer(b"true"), "unknown_shape", 65, "200", STAYS),
    case("a list of lists", answer(b"[[]]"), "unknown_shape", 65, "200", STAYS),
    case("a list of texts", answer(b'["ssh-ed25519 AAAA"]'), "unknown_shape", 65, "200", STAYS),
    case("a list with a null", answer(GOOD[:-1] + b", null]"), "unknown_shape", 65, "200", STAYS),
    case("ssh_keys null", answer(b'{"ssh_keys": null}'), "unknown_shape", 65, "200", STAYS),
    case("ssh_keys an object", answer(b'{"ssh_keys": {}}'), "unknown_shape", 65, "200", STAYS),
    case("keys under another name", answer(b'{"keys": []}'), "unknown_shape", 65, "200", STAYS),
    case("success alone", answer(b'{"success": true}'), "unknown_shape", 65, "200", STAYS),
    case(
        "an error",
        answer(error_body("oops", "Something is wrong")),
        "error_answer",
        65,
        "200",
        STAYS,
    ),
    case("only success: false", answer(b'{"success": false}'), "error_answer", 65, "200", STAYS),
    case(
        "success: false with a list",
        answer(b'{"success": false, "ssh_keys": []}'),
        "error_answer",
        65,
        "200",
        STAYS,
    ),
    case("arrays, 200,000 deep", answer(b"[" * DEEP + b"]" * DEEP), "not_json", 65, "200", STAYS),
    case("objects, 200,000 deep", answer(b'{"a":' * DEEP + b"1" + b"}" * DEEP), "not_json", 65),
    case("deep within an entry", answer(b'[{"a":' + b"[" * DEEP), "not_json", 65),
    case("a name twice", answer(b'{"ssh_keys": %s, "ssh_keys": []}' % GOOD), "unknown_shape", 65),
    case(
        "a name twice in an entry",
        answer(GOOD.replace(b'"id"', b'"key": "ssh-ed25519 AAAA", "id"')),
        "unknown_shape",
        65,
        "two values",
    ),
    case("NaN", answer(GOOD.replace(b"4711", b"NaN")), "not_json", 65),
    case("Infinity", answer(GOOD.replace(b"4711", b"-Infinity")), "not_json", 65),
    case("a number of 10,000 digits", answer(GOOD.replace(b"4711", b"1" * 10_000)), "not_json", 65),
    case("single quotes", answer(GOOD.replace(b'"', b"'")), "not_json", 65),
    case("a comma too many", answer(GOOD[:-1] + b",]"), "not_json", 65),
    case("a comment", answer(b"/* all */" + GOOD), "not_json", 65),
    case("a NUL behind it", answer(GOOD + b"\0"), "not_json", 65),
    case("a list behind it", answer(GOOD + b"[]"), "not_json", 65),
    case("Latin-1", answer(GOOD.replace(b"laptop", b"k\xe4the")), "not_json", 65),
    case("the empty text", answer(b'""'), "unknown_shape", 65),
    case("the list as text", body(GOOD.decode()), "unknown_shape", 65),
    case(
        "ssh_keys as text",
        body({"success": True, "ssh_keys": "[]"}),
        "unknown_shape",
        65,
        "200",
        STAYS,
    ),
    case("200 with auth_error", answer(AUTH_ERROR), "credential_rejected", 77, "200"),
    case("200 with no_ssh_key", answer(error_body("no_ssh_key", "no")), "error_answer", 65),
    case("200 with msg alone", body({"msg": "something"}), "unknown_shape", 65),
    case("200 with detail alone", body({"detail": "threshold=1.0"}), "unknown_shape", 65),
    case("an error beside the list", wrapped(error="half of it"), "error_answer", 65),
    case("of two accounts", answer(accounts(4711, 4712)), "several_accounts", 65, "The ", STAYS),
    case("of two other accounts", answer(accounts(1, 2)), "several_accounts", 65, "The ", STAYS),
    case("of an unreadable account", answer(accounts("me")), "malformed_account", 65),
    case("of account 7.0", answer(accounts(7.0)), "malformed_account", 65),
    case("of account true", answer(accounts(True)), "malformed_account", 65),
    case("of an account in a list", answer(accounts([7])), "malformed_account", 65),
    case("of a negative account", answer(accounts(-4711)), "malformed_account", 65),
    case("of account 0", answer(accounts(0)), "malformed_account", 65),
    case("of account 4711x", answer(accounts("4711x")), "malformed_account", 65),
    case("of an account of 19 digits", answer(accounts(10**18)), "malformed_account", 65),
    case("of an account that is no number", answer(accounts(4711, "me")), "several_accounts", 65),
    case("of a fraction of an account", answer(accounts(4711, 4711.5)), "several_accounts", 65),
    case("of everybody", answer(accounts(4711, True)), "several_accounts", 65),
    case("with a next page", wrapped(next="/api/v0/ssh/?page=2"), "partial_list", 65, "next"),
    case("with a next token", wrapped(next_token="abc"), "partial_list", 65, "next_token"),
    case("with more to come", wrapped(has_more=True), "partial_list", 65, "has_more"),
    case("with a greater total", wrapped(total=3), "partial_list", 65, "total is 3, 2 came"),
    case("with a greater count as text", wrapped(count="3"), "partial_list", 65),
    case("with pages beside it", wrapped(meta={"next": "?page=2"}), "partial_list", 65),
    case("empty, with a total", body({"ssh_keys": [], "total": 9}), "partial_list", 65),
    case(
        "with a link to the next page",
        answer(GOOD, headers=['Link: </?page=1>; rel="first", </?page=2>; rel="next"']),
        "partial_list",
        65,
        "Link",
        STAYS,
    ),
    case("10,001 entries", answer(b"[" + b"{}," * 10_000 + b"{}]"), "too_large", 65, "10000"),
    case("five million values", answer(b"[" + b"{}," * 5_000_000 + b"{}]"), "too_large", 65),
]


@pytest.mark.parametrize("case", FRAMES, ids=names(FRAMES))
def test_frame(machine: Machine, case: Case) -> None:
    """G1: what is not one whole HTTP/1.x answer is a failure, whatever stands in it."""
    with BadServer(case.script) as server:
        fails(machine, server.url, case.kind, case.code, *case.words)


@pytest.mark.parametrize("case", STATUS, ids=names(STATUS))
def test_status(machine: Machine, case: Case) -> None:
    """G1: only a 200 is a listing; with any other status its body is none, also a good or an
    empty one.
    """
    with BadServer(case.script) as server:
        fails(machine, server.url, case.kind, case.code, *case.words)


@pytest.mark.parametrize("case", PORTALS, ids=names(PORTALS))
def test_captive_portal(machine: Machine, case: Case) -> None:
    """G1: somebody else's page with status 200 is no empty list."""
    with BadServer(case.script) as server:
        fails(machine, server.url, case.kind, case.code, *case.words)


@pytest.mark.parametrize("case", BODIES, ids=names(BODIES))
def test_body(machine: Machine, case: Case) -> None:
    """G1: what is not certainly the whole list of one account changes nothing."""
    with BadServer(case.script) as server:
        fails(machine, server.url, case.kind, case.code, *case.words)


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


# Held: a listing that a guard stops


@pytest.mark.parametrize(
    ("stranger", "kind"),
    [
        (listing(key_line("intruder"), user_id=4712), "account_changed"),
        (accounts("4712"), "account_changed"),
        (accounts(None), "account_unknown"),
        (b"[]", "empty_listing"),
        (b'{"ssh_keys": [], "success": true}', "empty_listing"),
        (listing("no key"), "no_valid_entry"),
        (listing(""), "no_valid_entry"),
        (json.dumps([{}]).encode(), "account_unknown"),
    ],
)
def test_held(machine: Machine, stranger: bytes, kind: str) -> None:
    """G3, G4: a whole list that is another account's, nobody's, or empty is held by its name."""
    before = machine.fixed
    with BadServer(answer(stranger)) as server:
        done = machine.here("sync", "--json", VAST_URL=server.url)
        assert (done.json["error"]["kind"], done.code) == (kind, 3), done.stdout
        assert (done.event("sync.held")["kind"], done.event("sync.held")["level"]) == (
            kind,
            "warning",
        )
        assert machine.fixed == before
        server.scripts = [script(answer(GOOD))]  # ends the row of polls that would confirm it
        assert machine.here("sync", VAST_URL=server.url).code == 0
    assert machine.fixed == before


# Odd, and right all the same


def odd(**changes: object) -> bytes:
    """The good list, each entry with these members."""
    return json.dumps([one | changes for one in json.loads(GOOD)]).encode()


def reversed_twice() -> bytes:
    """The same keys, each under two ids."""
    twice = [one | {"id": one["id"] + 100} for one in json.loads(GOOD)]
    return json.dumps(json.loads(GOOD) + twice).encode()


ODD: dict[str, bytes] = {
    "HTTP/1.0": answer(GOOD, version="HTTP/1.0", length=None),
    "identity": answer(GOOD, headers=["Content-Encoding: identity"]),
    "wrapped": answer(b'{"ssh_keys": ' + GOOD + b"}"),
    "a byte order mark": answer(b"\xef\xbb\xbf" + GOOD),
    "one chunk": answer(chunked(GOOD), headers=[CHUNKED], length=None),
    "early hints": b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(GOOD),
    "ids as text": answer(odd(id="12")),
    "ids of 0": answer(odd(id=0)),
    "negative ids": answer(odd(id=-1)),
    "ids of 2^63": answer(odd(id=2**63)),
    "ids that are fractions": answer(odd(id=1.5)),
    "ids that are lists": answer(odd(id=[1])),
    "no ids": answer(odd(id=None)),
    "numbers that overflow": answer(odd(id=1).replace(b'"id": 1', b'"id": 1e999')),
    "the account as text": answer(odd(user_id="4711")),
    "deleted_at 0": answer(odd(deleted_at=0)),
    "deleted_at empty": answer(odd(deleted_at="")),
    "deleted_at false": answer(odd(deleted_at=False)),
    "deleted_at an empty object": answer(odd(deleted_at={})),
    "names in no language": answer(odd(**{"\u202e\0": "\ud800"})),
    "the same keys under two ids": answer(reversed_twice()),
    "a total that fits": wrapped(total=2, next=None, has_more=False, count=0),
    "UTF-16 with its mark": answer(GOOD.decode().encode("utf-16")),
    "another charset's name": answer(GOOD, headers=["Content-Type: text/plain; charset=utf-7"]),
    "headers twice": answer(GOOD, headers=["Date: a", "Date: b", "ETag: x", "ETag: y"]),
    "the same length twice": answer(GOOD, headers=[f"Content-Length: {len(GOOD)}"]),
    "60 kB of headers": answer(GOOD, headers=["X-A: " + "a" * 60_000]),
    "chunk extensions": answer(
        b"%x;a=b;c\r\n%s\r\n0;z\r\nTrailer: x\r\n\r\n" % (len(GOOD), GOOD),
        headers=[CHUNKED],
        length=None,
    ),
    "one byte in a chunk": answer(
        chunked(*(GOOD[at : at + 1] for at in range(len(GOOD)))), headers=[CHUNKED], length=None
    ),
    "200 hints before": b"HTTP/1.1 100 Continue\r\n\r\n" * 200 + answer(GOOD),
    "a link to a first page": answer(GOOD, headers=['Link: </>; rel="prev", nonsense <']),
    "cookies": answer(GOOD, headers=["Set-Cookie: " + "a=b; Domain=evil; Path=/", "Set-Cookie: ;"]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_and_right(machine: Machine, name: str) -> None:
    """G1, R7: a whole list of the account's keys in an odd form is that list, so that the failures
    above are no accident; it changes nothing.
    """
    before = machine.fixed
    with BadServer(ODD[name]) as server:
        done = machine.here("sync", "--json", VAST_URL=server.url)
    assert (done.code, done.json["result"], done.json["listing"]["keys"]) == (0, "in_sync", 2)
    assert machine.fixed == before


DELETED: list[object] = ["2026-01-01T00:00:00Z", "0000-00-00", "null", 1, -1.5, True, [0], {"a": 1}]


@pytest.mark.parametrize("value", DELETED, ids=repr)
def test_deleted_at_in_any_shape(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """R2: an entry whose deleted_at is set is deleted, however it is written; the other stays."""
    machine = synced_machine(tmp_path_factory.mktemp("machine"))
    entries = json.loads(GOOD)
    entries[0]["deleted_at"] = value
    with BadServer(body(entries)) as server:
        done = machine.here("sync", "--json", VAST_URL=server.url)
    assert (done.code, done.json["result"]) == (0, "changed")
    assert [line.split()[2] for line in machine.lines] == ["hand", "colleague", "desktop"]


# Bombs: what is compressed is never unpacked


@functools.cache
def gzip_bomb(size: int) -> bytes:
    """gzip of so many zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(bytes(size)) + packer.flush()


@pytest.mark.parametrize(
    "encoding",
    [
        "gzip",
        "x-gzip",
        "deflate",
        "br",
        "zstd",
        "compress",
        "gzip, identity",
        "gzip, gzip",
        "x, br",
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "401 No", "404 No", "429 No", "500 No", "304 No"])
def test_bomb(machine: Machine, encoding: str, status: str) -> None:
    """G1: identity was asked for, so nothing is unpacked, whatever the status; 100 MB of zeros,
    packed twice, and no good list either.
    """
    bomb = zlib.compress(gzip_bomb(100 << 20), 9)
    words = {"200": (encoding, "proxy", STAYS), "500": ("500", STAYS)}
    expected = {
        "200": ("unexpected_encoding", 65),
        "304": ("unexpected_status", 65),
        "401": ("credential_rejected", 77),
        "404": ("not_found", 65),
        "429": ("rate_limited", 75),
        "500": ("server_error", 75),
    }
    with BadServer(answer(bomb, status, [f"Content-Encoding: {encoding}"])) as server:
        fails(machine, server.url, *expected[status[:3]], *words.get(status[:3], (status[:3],)))
        assert header(server.heads[0], "Accept-Encoding") == "identity"


def test_endless_and_compressed(machine: Machine) -> None:
    """G1: the encoding is refused before the body is read, so its end is not waited for."""
    bomb = script(answer(headers=["Content-Encoding: gzip"], length=None), endless(b"\x1f\x8b\x08"))
    with BadServer(bomb) as server:
        fails(machine, server.url, "unexpected_encoding", 65, "gzip", STAYS, "proxy")


def test_good_list_in_gzip(machine: Machine) -> None:
    """G1: not even a good list is unpacked, so that it is the encoding which is refused."""
    packed = zlib.compressobj(9, zlib.DEFLATED, 31)
    packet = answer(packed.compress(GOOD) + packed.flush(), headers=["Content-Encoding: gzip"])
    with BadServer(packet) as server:
        fails(machine, server.url, "unexpected_encoding", 65, "gzip", "proxy")


def test_bomb_below_the_declared_encoding(machine: Machine) -> None:
    """G1: packed data that is not declared so is no JSON."""
    with BadServer(answer(gzip_bomb(1 << 20))) as server:
        fails(machine, server.url, "not_json", 65)


# Answers that repeat a secret


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
