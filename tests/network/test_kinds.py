"""Every kind of failure of docs/events.md, through the real program; and none is left out."""

from __future__ import annotations

import ast
import itertools
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.network.support import (
    GOOD,
    NO_CONSOLE,
    PAGE,
    accounts,
    error_body,
    refused,
    synced_machine,
)
from tests.support.bad_server import BadServer, Script, answer, hang, script
from tests.support.machine import API_KEY, REPOSITORY, Machine, listing
from tests.support.marks import leaks

pytestmark = pytest.mark.attack

TRUNCATED = answer(GOOD)[:-9]
ANSWERS: dict[str, tuple[int, Script | bytes]] = {
    "account_changed": (3, answer(accounts(4712))),
    "account_unknown": (3, answer(accounts(None))),
    "empty_listing": (3, answer(b"[]")),
    "no_valid_entry": (3, answer(listing("no key"))),
    "empty_body": (65, answer()),
    "html_page": (65, answer(PAGE)),
    "not_json": (65, answer(b"no keys")),
    "unknown_shape": (65, answer(b"{}")),
    "error_answer": (65, answer(b'{"success": false}')),
    "partial_list": (65, answer(b'{"ssh_keys": [], "next": "?page=2"}')),
    "several_accounts": (65, answer(accounts(4711, 4712))),
    "malformed_account": (65, answer(accounts("me"))),
    "truncated": (65, TRUNCATED),
    "too_large": (65, answer(b"[" + b"{}," * 60_000 + b"{}]")),
    "unexpected_encoding": (65, answer(GOOD, headers=["Content-Encoding: br"])),
    "not_http": (65, b"220 mail\r\n\r\n"),
    "redirected": (65, refused("302 Found", b"", "Location: /login")),
    "not_found": (65, refused("404 Not Found")),
    "unexpected_status": (65, refused("418 Teapot")),
    "connection_lost": (75, script()),
    "timeout": (75, script(hang)),
    "rate_limited": (75, refused("429 Too Many Requests")),
    "server_error": (75, refused("500 Oh no")),
    "credential_rejected": (77, refused("401 No", error_body("auth_error", "no"))),
}


def without(machine: Machine) -> None:
    machine.api_key_file.unlink()


def exposed(machine: Machine) -> None:
    machine.api_key_file.chmod(0o644)


def unreadable(machine: Machine) -> None:
    machine.api_key_file.unlink()
    machine.api_key_file.mkdir()


def malformed(machine: Machine) -> None:
    machine.api_key_file.write_text(f"{API_KEY}\n{API_KEY}\n")


CREDENTIALS: dict[str, Callable[[Machine], None]] = {
    "credential_missing": without,
    "credential_exposed": exposed,
    "credential_unreadable": unreadable,
    "credential_malformed": malformed,
}
WAYS = {
    "connection_failed": {"VAST_URL": "http://127.0.0.1:{closed}"},
    "name_unknown": {"VAST_URL": NO_CONSOLE, "RES_OPTIONS": "attempts:1 timeout:1"},
    "tls_failed": {"VAST_URL": "https://127.0.0.1:{plain}"},
    "proxy_failed": {"VAST_URL": NO_CONSOLE, "HTTPS_PROXY": "http://127.0.0.1:{plain}"},
    "proxy_unusable": {"VAST_URL": NO_CONSOLE, "HTTPS_PROXY": "ftp://127.0.0.1:{plain}"},
}
# What no network and no credential brings about, and what proves it instead.
ELSEWHERE = {
    "would_lock_out": "tests/cli/test_sync.py",
    "busy": "tests/cli/test_sync.py",
    "credential_untrusted": "tests/attacks/test_paths_own.py",
    "not_listed": "tests/cli/test_sync.py",
    "sshd_not_asked": "tests/cli/test_sync.py",
}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return synced_machine(tmp_path)


def ends(machine: Machine, kind: str, code: int, **environment: str) -> None:
    """A sync of its own, for a person, with these words, this code, one log line, and no change."""
    before = machine.fixed
    done = machine.process("sync", "--log-level", "debug", **environment)
    event = done.events[-1]
    name, word = ("sync.held", "held") if code == 3 else ("sync.failed", "failed")
    assert (done.code, event["event"], event["kind"]) == (code, name, kind), done.stderr
    assert f"{word}: {event['message']}\n{event['hint']}\n" in done.stdout
    assert {one["event"] for one in done.events} <= {name, "key.rejected"}
    assert machine.fixed == before
    assert leaks(done.stdout + done.stderr + (machine.state / "state.json").read_text()) == []


@pytest.mark.parametrize("kind", ANSWERS)
def test_answer(machine: Machine, kind: str) -> None:
    """G1, G3, G4: `keysync sync` as a process: exit code, words, one log line, same keys."""
    code, sent = ANSWERS[kind]
    if kind == "timeout":
        machine.configure(timeout="300ms")
    with BadServer(sent) as server:
        ends(machine, kind, code, VAST_URL=server.url)


@pytest.mark.parametrize("kind", WAYS)
def test_way(machine: Machine, kind: str) -> None:
    """G1, commands: the same when nobody who is the console is reached."""
    with ExitStack() as stack:
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))
        nobody = script(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", at_once=True)
        plain = stack.enter_context(BadServer(nobody))
        ports = {"closed": closed.getsockname()[1], "plain": plain.port}
        environment = {name: value.format(**ports) for name, value in WAYS[kind].items()}
        ends(machine, kind, 75, **environment)


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_credential(machine: Machine, kind: str) -> None:
    """The same when there is no API key that may be used; nothing is asked then."""
    CREDENTIALS[kind](machine)
    with BadServer(answer(GOOD)) as server:
        ends(machine, kind, 77, VAST_URL=server.url)
        assert server.connections == 0


# Completeness


def documented() -> dict[str, int]:
    """The kinds of docs/events.md (tests/test_events.py holds that page and the code equal)."""
    page = (REPOSITORY / "docs" / "events.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", page.partition("\n## Kinds\n")[2], re.MULTILINE)
    return {kind: int(code) for kind, code in rows}


def rows_of(path: Path, kinds: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Each row of a table, and each call of `fails`, that names a kind with its exit code."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        values = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
        plain = [value.value for value in values if isinstance(value, ast.Constant)]
        for kind, code in itertools.pairwise(plain):
            if kind in kinds and isinstance(code, int):
                yield str(kind), code


def test_every_kind_is_attacked() -> None:
    """Each kind has its row in the attacks as a process, or the test that is named here."""
    kinds = documented()
    here = {kind: code for kind, (code, _) in ANSWERS.items()}
    here |= dict.fromkeys(WAYS, 75) | dict.fromkeys(CREDENTIALS, 77)
    assert here == {kind: code for kind, code in kinds.items() if kind not in ELSEWHERE}
    for kind, path in ELSEWHERE.items():
        assert f'"{kind}"' in (REPOSITORY / path).read_text("utf-8"), kind


def test_every_network_kind_has_rows_in_the_tables() -> None:
    """G1: each kind of 65 and 75 stands in the tables of forged answers, with its exit code."""
    kinds = documented()
    paths = (REPOSITORY / "tests/network").glob("test_*.py")
    rows = [row for path in paths for row in rows_of(path, kinds)]
    wrong = {row for row in rows if kinds[row[0]] != row[1]}
    assert wrong == set()
    assert {kind for kind, _ in rows} >= {
        kind for kind, code in kinds.items() if code in (65, 75) and kind not in ELSEWHERE
    }
    assert len(rows) > 100
