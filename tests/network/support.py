"""A network that fails or lies, and what a sync that must fail because of it says of itself."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.adapters.http import HttpClient
from agent.core.listing import Listing
from agent.core.secret import Credential
from agent.errors import KeysyncError
from agent.events import SyncFailed
from agent.providers import vast
from tests.support.bad_server import BadServer, Script, answer, script
from tests.support.machine import API_KEY, TAG, Machine, entry, key_line, listing
from tests.support.marks import leaks

GOOD = listing(key_line("laptop"), key_line("desktop"))
PAGE = b"<!doctype html><title>Log in</title><form></form>"
CHUNKED = "Transfer-Encoding: chunked"
NO_CONSOLE = "https://console.keysync.invalid"
KEY = Credential(API_KEY, "a test")
OTHER = Credential("ANOTHERKEY" + API_KEY, "a test")
KEPT = script(answer(GOOD), keep=True)
DEADLINE = 0.4
PATIENCE = 10 * DEADLINE
STAYS = "The keys on this machine stay as they are"
_NO_CHANGES = {"dry_run": False, "listed": None, "rejected": 0}
_NO_CHANGES |= dict.fromkeys(("added", "adopted", "removed"), 0)
_ORIGIN = {"service", "version", "host", "instance_id"}
_FIELDS = {
    *("timestamp", "level", "event"),
    *_ORIGIN,
    *SyncFailed.fields,
}


@dataclass(frozen=True)
class Case:
    """What the server does, and what keysync must make of it."""

    name: str
    script: Script | bytes
    kind: str
    code: int
    words: tuple[str, ...] = ()


def case(name: str, what: Script | bytes, kind: str, code: int, *words: str) -> Case:
    return Case(name, what, kind, code, words)


def names(cases: list[Case]) -> list[str]:
    """For pytest's ids."""
    return [one.name for one in cases]


def refused(status: str, body: bytes = b"", *headers: str) -> bytes:
    """An answer with another status than 200."""
    return answer(body, status, headers)


def chunked(*parts: bytes) -> bytes:
    """A body in these chunks (RFC 9112 section 7.1)."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def proxy_variables(url: str) -> dict[str, str]:
    """Every variable that names a proxy, in both spellings."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {name: url for upper in names for name in (upper, upper.lower())}


@contextlib.contextmanager
def client(url: str, timeout: float = 10.0) -> Iterator[HttpClient]:
    """A client of the key list whose connection ends with the test."""
    console = HttpClient(vast.list_url(url), timeout)
    try:
        yield console
    finally:
        console.close()


def listing_of(console: HttpClient, key: Credential = KEY) -> Listing:
    """What one poll makes of the answer; raises KeysyncError."""
    return vast.read_listing(console.fetch(key), 2048)


def outcome(console: HttpClient, key: Credential = KEY) -> bytes | str:
    """The body that a poll gets, or the kind of its failure."""
    try:
        answer = console.fetch(key)
        vast.read_listing(answer, 2048)
    except KeysyncError as error:
        return error.kind
    return answer.body


def error_body(error: str, msg: str) -> bytes:
    """The API's own way to say what is wrong."""
    return json.dumps({"success": False, "error": error, "msg": msg}).encode()


def accounts(*user_ids: object) -> bytes:
    """A list whose entries name these accounts."""
    entries = [
        entry(at, key_line(f"key {at}")) | {"user_id": user_id}
        for at, user_id in enumerate(user_ids, 1)
    ]
    return json.dumps(entries).encode()


def synced_machine(folder: Path) -> Machine:
    """A machine in sync with two keys, and with a line that somebody wrote by hand."""
    made = Machine(folder)
    made.key_file.write_text(f"# by hand\n{key_line('colleague')}\n")
    with BadServer(answer(GOOD)) as server:
        done = made.here("sync", VAST_URL=server.url)
    assert done.code == 0, done.stdout + done.stderr
    assert [TAG in line for line in made.lines] == [False, False, True, True]
    return made


def fails(
    machine: Machine, url: str, kind: str, code: int, *words: str, **environment: str
) -> dict[str, str]:
    """One sync that must fail so, say so in every place, and leave the key file alone."""
    before = machine.fixed
    done = machine.here("sync", "--json", "--log-level", "debug", VAST_URL=url, **environment)
    report = done.json
    error: dict[str, str] = report["error"]
    assert (error["kind"], done.code) == (kind, code), error
    assert report["result"] == "failed"
    assert report["listing"] is None
    assert report["targets"] == []
    [event] = done.events
    assert (event["event"], event["level"], event["sync_id"]) == (
        "sync.failed",
        "error",
        report["sync_id"],
    )
    assert event.keys() == _FIELDS
    assert event.items() >= (error | _NO_CHANGES).items()
    said = error["message"] + " " + error["hint"]
    for word in words:
        assert word in said
    assert error["message"].endswith("."), error
    assert len(error["hint"]) > 20
    assert machine.fixed == before
    for text in (done.stdout, done.stderr, (machine.state / "state.json").read_text()):
        assert leaks(text) == []
    return error


def fetching() -> list[str]:
    """The threads of the agent that still wait for an answer."""
    return [t.name for t in threading.enumerate() if t.name.startswith("keysync")]


def sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count
