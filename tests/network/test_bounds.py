"""What a hostile answer can cost: bounded memory and bounded time, whatever it sends."""

from __future__ import annotations

import json
import sys
import time
import zlib
from pathlib import Path

import pytest

from agent.core.listing import MAX_ENTRIES
from tests.network.support import CHUNKED, GOOD, synced_machine
from tests.support.bad_server import BadServer, Script, answer, endless, script
from tests.support.machine import Machine, clean_environment, key_line, listing, run

pytestmark = pytest.mark.attack

MOST_MB = 256  # a quiet sync takes about 35; the largest good list, 16 MB, may take more
# The peak is asked for inside, since the parent's own would count in wait4(2).
MEASURED = """\
import sys
from agent.cli.main import main
code = main(sys.argv[1:])
peak = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]
print("peak", peak, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return synced_machine(tmp_path)


def synced(machine: Machine, url: str, *arguments: str) -> tuple[int, str, float]:
    """Runs a sync of its own; gives exit code, output, and the most memory that it had in MB."""
    environment = clean_environment() | {"HOME": str(machine.folder), "VAST_URL": url}
    command = [sys.executable, "-c", MEASURED, "--config", str(machine.config)]
    done = run([*command, "--log-level", "error", "sync", *arguments], environment)
    return done.returncode, done.stdout, int(done.stderr.rpartition("peak ")[2]) / 1024


def filled(unit: bytes, size: int = 16_000_000) -> bytes:
    """A list of that size."""
    return b"[" + b",".join([unit] * (size // (len(unit) + 1))) + b"]"


def members(count: int) -> bytes:
    """An object with so many names."""
    return b"{" + b",".join(b'"%x":0' % at for at in range(count)) + b"}"


HUNDRED_MB = zlib.compress(bytes(100 << 20), 9)
COSTS: dict[str, tuple[Script | bytes, str, str]] = {
    "a quiet one": (answer(GOOD), "in_sync", "in sync"),
    "an endless body": (
        script(answer(length=None), endless(b" " * 1024)),
        "too_large",
        "larger than",
    ),
    "an endless list": (
        script(answer(b"[", length=None), endless(b'{"a":1},')),
        "too_large",
        "larger than",
    ),
    "endless chunks": (
        script(answer(headers=[CHUNKED], length=None), endless(b"400\r\n" + b" " * 1024 + b"\r\n")),
        "too_large",
        "larger than",
    ),
    "an endless chunk": (
        script(answer(b"fffffff\r\n", headers=[CHUNKED], length=None), endless(b" ")),
        "too_large",
        "larger than",
    ),
    "endless headers": (
        script(b"HTTP/1.1 200 OK\r\n", endless(b"X-A: more\r\n")),
        "not_http",
        "not HTTP",
    ),
    "an endless header": (
        script(b"HTTP/1.1 200 OK\r\nX-A: ", endless(b"more")),
        "not_http",
        "not HTTP",
    ),
    "an endless line": (script(endless(b"more")), "not_http", "not HTTP"),
    "an endless refusal": (
        script(answer(b"", "401 No", length=None), endless(b" ")),
        "credential_rejected",
        "refused the API key",
    ),
    "zip": (
        answer(zlib.compress(HUNDRED_MB), headers=["Content-Encoding: deflate"]),
        "unexpected_encoding",
        "compressed",
    ),
    "five million objects": (answer(filled(b"{}")), "too_large", "more than 1000000 names"),
    "five million lists": (answer(filled(b"[]")), "too_large", "more than 1000000 names"),
    "four million fractions": (answer(filled(b"1.5")), "too_large", "more than 1000000 names"),
    "as many objects as are read": (
        answer(filled(b'{"a":{}}', 1_900_000)),
        "too_large",
        "more than 10000 keys",
    ),
    "as many names as are read": (answer(members(490_000)), "unknown_shape", "not a list"),
    "a wide text of 16 MB": (
        answer('"☃🔑'.encode() + b"a" * 16_000_000 + b'"'),
        "unknown_shape",
        "not a list",
    ),
    "a million objects": (answer(filled(b'{"a":{"b":0}}')), "too_large", "more than 1000000 names"),
    "a million names": (answer(members(1_500_000)), "too_large", "more than 1000000 names"),
    "arrays, 900,000 deep": (answer(b"[" * 900_000), "not_json", "not complete JSON"),
    "objects, 490,000 deep": (answer(b'{"a":' * 490_000), "not_json", "not complete JSON"),
    "one text of 16 MB": (
        answer(b'"' + b"\\u2603" * 2_700_000 + b'"'),
        "unknown_shape",
        "not a list",
    ),
}


@pytest.mark.parametrize("name", COSTS)
def test_memory(machine: Machine, name: str) -> None:
    """G1: no answer makes a sync take more than 256 MB; it fails by name, and the keys stay."""
    before = machine.fixed
    sent, kind, words = COSTS[name]
    with BadServer(sent) as server:
        code, said, megabytes = synced(machine, server.url, "--json")
    report = json.loads(said)
    error = report["error"] or {"kind": report["result"], "message": "in sync"}
    assert (error["kind"], words in error["message"]) == (kind, True), said
    assert code == {"in_sync": 0, "credential_rejected": 77}.get(kind, 65)
    assert megabytes < MOST_MB, f"{megabytes:.0f} MB"
    assert machine.fixed == before


def test_ten_thousand_keys(machine: Machine) -> None:
    """R1, R7: 10,000 keys are no attack: all are there after one sync, and once."""
    keys = [key_line(f"key{number}") for number in range(9_999)]
    with BadServer(answer(listing(*keys, key_line("laptop")))) as server:
        code, said, megabytes = synced(machine, server.url)
        assert (code, "10000 keys" in said) == (0, True), said[-300:]
        before = machine.fixed
        assert len(machine.lines) == 10_002
        assert synced(machine, server.url)[0] == 0
        assert machine.fixed == before
    assert megabytes < MOST_MB


def test_as_many_bad_entries_as_may_be(machine: Machine) -> None:
    """G2: as many refused entries as a list may hold stop neither the good key nor the disk."""
    texts = [f"no key {number}" for number in range(MAX_ENTRIES - 1)]
    with BadServer(answer(listing(key_line("laptop"), *texts))) as server:
        code, _, megabytes = synced(machine, server.url)
        assert code == 0
        again, _, _ = synced(machine, server.url)  # what was remembered can be read again
    assert again == 0
    assert not list(machine.state.glob("state.json.unreadable*"))
    # The entry of the desktop's key is refused for its form now, so the key stays.
    names = [line.split()[2] for line in machine.lines]
    assert names == ["hand", "colleague", "laptop", "desktop"]
    assert megabytes < MOST_MB


@pytest.mark.parametrize(
    "text",
    [
        "A" * (10 << 20),
        "ssh-ed25519 " + "A" * (10 << 20),
        key_line("long") + " " + "c" * (10 << 20),
        'command="' + "x" * (10 << 20) + '" ' + key_line("long"),
        "," * 900_000,
        "ssh-rsa " * 1_000_000,
    ],
    ids=["a word", "a blob", "a comment", "an option", "commas", "words"],
)
def test_one_entry_of_10_mb(machine: Machine, text: str) -> None:
    """G2: it is refused by name within the usual time, and the other keys are served."""
    began = time.monotonic()
    with BadServer(answer(listing(key_line("laptop"), key_line("new"), text))) as server:
        done = machine.here("sync", "--json", "--log-level", "error", VAST_URL=server.url)
    assert done.code == 0, done.stdout
    assert [one["key_id"] for one in done.json["rejected"]] == [3]
    assert len(done.stdout) < 10_000
    assert machine.lines[-1].split()[2] == "new"
    assert time.monotonic() - began < 20
