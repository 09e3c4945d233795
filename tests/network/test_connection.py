"""A connection that breaks, hangs or never comes about: a failure with its own name (G1).

Every case runs the real command against a real socket on a machine that was in sync before. Its key
file must stay the same file, and the API key must not be seen anywhere.
"""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from tests.network.support import (
    DEADLINE,
    GOOD,
    NO_CONSOLE,
    PATIENCE,
    STAYS,
    Case,
    case,
    fails,
    fetching,
    names,
    refused,
)
from tests.support.bad_server import BadServer, answer, drip, eventually, hang, reset, script
from tests.support.machine import API_KEY, Machine

pytestmark = pytest.mark.attack


CONNECTION = [
    case("closes at once", script(at_once=True), "connection_lost", 75, "127.0.0.1", STAYS),
    case("closes after the request", script(), "connection_lost", 75, "without an answer", STAYS),
    case("resets after the request", script(reset), "connection_lost", 75, "127.0.0.1", STAYS),
    case("resets in the headers", script(answer(GOOD)[:20], reset), "connection_lost", 75, STAYS),
    case(
        "truncated chunks",
        answer(b"10\r\n[ ", headers=["Transfer-Encoding: chunked"], length=None),
        "truncated",
        65,
        STAYS,
    ),
    case("says less than it sends", answer(GOOD, length=len(GOOD) - 9), "not_json", 65, "JSON"),
    case(
        "HTTP/1.0 cut short",
        answer(GOOD[:-9], version="HTTP/1.0", length=None),
        "not_json",
        65,
        "not complete JSON",
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


@pytest.mark.parametrize("case", CONNECTION, ids=names(CONNECTION))
def test_connection(machine: Machine, case: Case) -> None:
    """G1: a connection that breaks, or carries something else than HTTP, changes nothing."""
    with BadServer(case.script) as server:
        fails(machine, server.url, case.kind, case.code, *case.words)


@pytest.mark.parametrize("case", SLOW, ids=names(SLOW))
def test_deadline(machine: Machine, case: Case) -> None:
    """Polling: api.timeout bounds the whole request, however the server spreads its bytes."""
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
        NO_CONSOLE,
        "name_unknown",
        75,
        "console.keysync.invalid",
        "/etc/resolv.conf",
        STAYS,
        RES_OPTIONS="attempts:1 timeout:1",
    )


def test_connect_that_hangs(machine: Machine) -> None:
    """Polling: the deadline covers the connect; a full backlog drops every new connection."""
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


# As a process


def test_as_a_process(machine: Machine) -> None:
    """Results on stdout, logs on stderr, and the exit code, for people and for programs."""
    before = machine.fixed
    with BadServer(refused("401 Unauthorized")) as server:
        for_program = machine.process("sync", "--json", VAST_URL=server.url)
        for_people = machine.process("sync", VAST_URL=server.url)
    assert for_program.code == for_people.code == 77
    error = for_program.json["error"]
    result = f"failed: {error['message']}\n{error['hint']}\n"
    again = f"No agent runs here: run keysync --config {machine.config} sync again.\n"
    assert for_people.stdout == result + again
    for done in (for_program, for_people):
        assert [event["event"] for event in done.events] == ["sync.failed"]
        assert API_KEY not in done.stdout + done.stderr
    assert machine.fixed == before


def test_a_process_ends_at_its_deadline(machine: Machine) -> None:
    """Polling: a request that nobody answers keeps no process alive after its failure was told."""
    machine.configure(timeout=f"{DEADLINE}s")
    with BadServer(script(drip(answer(GOOD), 0.1))) as server:
        began = time.monotonic()
        done = machine.process("sync", "--json", VAST_URL=server.url)
        assert time.monotonic() - began < PATIENCE
    assert (done.code, done.json["error"]["kind"]) == (75, "timeout")
