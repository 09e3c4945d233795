"""`keysync sync` against a local console: its results, flags, guards and exit codes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from agent.adapters.state import StateDirectory
from agent.config_file import load
from agent.core.results import Result
from agent.errors import CredentialRejected, TemporaryFailure
from agent.events import Event
from agent.service.announce import MAX_EVENTS
from agent.service.boot import sync_until
from agent.service.cycle import Request, Syncer
from agent.service.report import Problem, SyncReport
from sandbox.console import Console
from sandbox.users import current_user, temporary_user
from tests.support.bad_server import BadServer, answer, eventually, hang, script
from tests.support.machine import (
    REPOSITORY,
    TAG,
    Done,
    Machine,
    clean_environment,
    entry,
    fingerprint,
    key_line,
)
from tests.support.own_mounts import in_own_mounts, mount, read_only

SSHD_CONFIG = "/etc/ssh/sshd_config"
_MAY_BREAK_SSHD = os.geteuid() == 0 and os.path.exists(SSHD_CONFIG)
LAPTOP, DESKTOP, PHONE = key_line("laptop"), key_line("desktop"), key_line("phone")


def managed(*lines: str) -> list[str]:
    return [f"{line} {TAG}" for line in lines]


def shown(line: str, key_id: int | None, reason: str | None = None) -> dict[str, object]:
    """The object that stands for a key in `--json`."""
    return {
        "fingerprint": fingerprint(line),
        "key_type": "ssh-ed25519",
        "comment": line.split()[2],
        "key_id": key_id,
        "reason": reason,
    }


# The contract of --json


def test_json_of_a_change(machine: Machine, console: Console) -> None:
    """Every key of the object for a sync that changed something, with one key of each sort."""
    restricted = f'from="10.0.0.1" {key_line("restricted")}'
    gone, foreign = key_line("gone"), key_line("foreign")
    machine.key_file.write_text(
        f"{DESKTOP}\n{gone} {TAG}\n{restricted}\n{foreign}\n{PHONE} {TAG}\n# a comment\n"
    )
    ids = [console.add_key(text) for text in (LAPTOP, DESKTOP, key_line("restricted"), PHONE)]
    bad = console.add_key("not a key")
    done = machine.here("sync", "--json")
    report = done.json
    assert re.fullmatch(r"[0-9a-f]{8}", report.pop("sync_id"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", report["listing"].pop("fetched_at"))
    assert report.pop("rejected") == [
        {
            "key_id": bad,
            "reason": "not_a_key",
            "detail": "it does not begin with a key type such as ssh-ed25519",
        }
    ]
    assert report == {
        "result": "changed",
        "dry_run": False,
        "listing": {"keys": 4, "account_id": console.user_id, "not_modified": False},
        "targets": [
            {
                "user": current_user(),
                "path": str(machine.key_file),
                "origin": "configured",
                "result": "changed",
                "added": [shown(LAPTOP, ids[0])],
                "adopted": [shown(DESKTOP, ids[1])],
                "removed": [shown(gone, None, "unlisted")],
                "kept": [shown(PHONE, ids[3])],
                "restricted": [shown(key_line("restricted"), ids[2])],
                "foreign": [shown(foreign, None)],
                "error": None,
            }
        ],
        "waiting": [],
        "no_way_in": [],
        "error": None,
    }
    assert done.code == 0
    assert machine.lines == [
        *managed(DESKTOP),
        restricted,
        foreign,
        *managed(PHONE),
        "# a comment",
        *managed(LAPTOP),
    ]


def test_json_in_sync(machine: Machine, console: Console) -> None:
    """Commands, R7: a sync with nothing to do says so, and leaves the same file."""
    console.add_key(LAPTOP)
    machine.here("sync")
    before = machine.fixed
    report = machine.here("sync", "--json").json
    assert (report["result"], report["error"], machine.fixed) == ("in_sync", None, before)
    [target] = report["targets"]
    assert target["result"] == "in_sync"
    assert [len(target[name]) for name in ("added", "adopted", "removed", "kept")] == [0, 0, 0, 1]


def test_json_of_a_hold(machine: Machine, console: Console) -> None:
    """Commands, G3: a held sync shows who can log in now, and what would go."""
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.delete_key(key_id)
    done = machine.here("sync", "--json")
    report = done.json
    assert (done.code, report["result"]) == (3, "held")
    assert set(report["error"]) == {"kind", "message", "hint"}
    assert report["error"]["kind"] == "empty_listing"
    assert "--confirm-removals" in report["error"]["hint"]
    assert report["listing"]["keys"] == 0
    [target] = report["targets"]
    assert target["result"] == "held"
    assert target["kept"] == [shown(LAPTOP, key_id, None)]
    assert target["would_remove"] == [shown(LAPTOP, key_id, "revoked")]
    assert target["removed"] == []


def test_json_of_a_failure(machine: Machine, console: Console) -> None:
    """Commands: a failed sync has the same keys, and its error says kind, message and hint."""
    console.fault = "error_500"
    done = machine.here("sync", "--json")
    report = done.json
    assert done.code == 75
    assert list(report) == [
        "result",
        "sync_id",
        "dry_run",
        "listing",
        "targets",
        "rejected",
        "waiting",
        "no_way_in",
        "error",
    ]
    assert (report["result"], report["listing"], report["targets"]) == ("failed", None, [])
    assert report["error"]["kind"] == "server_error"


def test_json_of_a_wrong_configuration(machine: Machine) -> None:
    """Commands: `--json` prints its object also when the configuration is wrong."""
    machine.config.write_text("apii: {}\n")
    done = machine.here("sync", "--json")
    assert done.code == 78
    assert (done.json["result"], done.json["error"]["kind"]) == ("failed", "config_invalid")
    assert "did you mean" in done.json["error"]["message"]
    assert "did you mean" in done.stderr


def test_account_of_the_listing(machine: Machine, console: Console) -> None:
    """An empty list names no account, and people are not told of an account without a name;
    they are told that nobody can log in, and exit code 4 says so too.
    """
    machine.options = "policy: {removal_confirmations: 1, removal_hold: 0s}\n"
    machine.configure()
    assert machine.here("sync", "--json").json["listing"]["account_id"] is None
    done = machine.here("sync")
    *_, result, shut, cure = done.stdout.splitlines()
    assert (done.code, result) == (4, "in sync, nothing to do (0 keys)")
    assert shut.startswith(f"nobody can log in as {current_user()}")
    assert "Add a usable key on the console's Keys page" in cure


# For people


def test_text(machine: Machine, console: Console) -> None:
    """Commands: without --json a person reads what happened to each key and why, in plain text."""
    machine.key_file.write_text(f"{DESKTOP}\n{key_line('gone')} {TAG}\n")
    console.add_key(LAPTOP)
    console.add_key(DESKTOP)
    bad = console.add_key("-----BEGIN OPENSSH PRIVATE KEY-----")
    out = machine.here("sync").stdout
    assert out.splitlines() == [
        f"{current_user()}  {machine.key_file}  changed",
        f"  +  added    {fingerprint(LAPTOP)}  laptop",
        f"  ~  adopted  {fingerprint(DESKTOP)}  desktop",
        f"  -  removed  {fingerprint(key_line('gone'))}  gone     not on the console",
        f"rejected: key {bad} on the console: this is a private key; delete it, make a new pair, "
        "paste the .pub file (private_key)",
        f"changed (2 keys of account {console.user_id})",
    ]
    assert "\033" not in out
    again = machine.here("sync").stdout.splitlines()
    assert again[0] == f"{current_user()}  {machine.key_file}  in sync  2 kept"
    assert again[-1] == f"in sync, nothing to do (2 keys of account {console.user_id})"


def test_text_of_a_revoked_restricted_key(machine: Machine, console: Console) -> None:
    """R4: a deleted key that a restricted line still lets in is said loudly."""
    restricted = f"restrict {LAPTOP}"
    machine.key_file.write_text(restricted + "\n")
    key_id = console.add_key(LAPTOP)
    console.add_key(DESKTOP)
    machine.here("sync")
    console.delete_key(key_id)
    done = machine.here("sync")
    assert "still authorized" in done.stdout
    assert "this restricted line still lets it in" in done.stdout
    event = done.event("key.still_authorized")
    assert (event["fingerprint"], event["key_id"], event["level"]) == (
        fingerprint(LAPTOP),
        key_id,
        "warning",
    )
    assert machine.lines[0] == restricted


def test_results_and_logs_apart(machine: Machine, console: Console) -> None:
    """Commands: results on stdout, logs on stderr; the level decides which."""
    console.add_key(LAPTOP)
    first = machine.process("sync", "--json")
    assert first.json["result"] == "changed"
    assert [event["event"] for event in first.events] == ["key.added", "sync.completed"]
    assert machine.here("sync", "--log-level", "warning").stderr == ""
    assert machine.here("--log-level", "warning", "sync").stderr == ""
    console.fault = "outage"
    assert machine.here("sync", "--log-level", "error").events != []
    line = machine.here("sync", "--log-format", "console").stderr
    assert "sync.failed" in line
    assert "kind=connection_lost" in line


# One bad entry never stops the good ones


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _line(name: str, *fields: bytes, comment: str = "") -> str:
    blob = b"".join(map(_string, (name.encode(), *fields)))
    return f"{name} {base64.b64encode(blob).decode()} {comment}".rstrip()


def _rsa(bits: int) -> str:
    modulus = (1 << (bits - 1)) | 1
    return _line("ssh-rsa", b"\1\0\1", modulus.to_bytes(bits // 8 + 1, "big"))


_POINT = bytes(range(32))
_BLOB = LAPTOP.split()[1]

BAD = {
    "newline inside": (f"{LAPTOP}\n{DESKTOP}", "newline"),
    "CR": (f"{LAPTOP}\rssh-ed25519 {_BLOB}", "newline"),
    "CRLF": (f"{LAPTOP}\r\n{DESKTOP}", "newline"),
    "U+2028": (f"{LAPTOP}\u2028ssh-ed25519 {_BLOB}", "newline"),
    "U+0085": (f"{LAPTOP}\u0085{DESKTOP}", "newline"),
    "form feed": (f"{LAPTOP}\f", "newline"),
    "%0A": (f"{LAPTOP}%0Assh-ed25519 {_BLOB}", "control_character"),
    "escape": (f"{LAPTOP}\x1b[2J", "control_character"),
    "tab": (f"ssh-ed25519\t{_BLOB}", "control_character"),
    "lone surrogate": (f"{LAPTOP}\ud800", "control_character"),
    "bidi mark": (f"{LAPTOP}\u202egnp.exe", "bidi_mark"),
    "9 kB comment": (f"{LAPTOP}{'x' * 9216}", "too_long"),
    "2 kB comment": (f"{LAPTOP}{'x' * 2048}", "too_long"),
    "private key": ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END", "private_key"),
    "PuTTY's private key": ("PuTTY-User-Key-File-3: ssh-ed25519", "private_key"),
    "RFC 4716": ("---- BEGIN SSH2 PUBLIC KEY ----", "not_openssh_format"),
    "quotes": (f'"{LAPTOP}"', "quoted"),
    "command in front": (f'command="/bin/sh" {LAPTOP}', "options"),
    "restrict in front": (f"restrict {LAPTOP}", "options"),
    "two keys": (f"{LAPTOP} {DESKTOP}", "several_keys"),
    "another type": (LAPTOP.replace("ssh-ed25519", "ssh-rsa", 1), "type_mismatch"),
    "no data": ("ssh-ed25519", "truncated_blob"),
    "truncated": (f"ssh-ed25519 {_BLOB[:40]} x", "truncated_blob"),
    "half a base64 group": (f"ssh-ed25519 {_BLOB[:-3]}", "not_base64"),
    "no base64": (f"ssh-ed25519 {_BLOB[:-4]}!?*= x", "not_base64"),
    "trailing bytes": (_line("ssh-ed25519", _POINT, b"more"), "trailing_bytes"),
    "Ed25519 of 31 bytes": (_line("ssh-ed25519", _POINT[1:]), "malformed_blob"),
    "off its curve": (
        _line("ecdsa-sha2-nistp256", b"nistp256", b"\4" + _POINT * 2),
        "malformed_blob",
    ),
    "RSA of 4 bits": (_rsa(4), "rsa_too_small"),
    "RSA of 1024 bits": (_rsa(1024), "rsa_too_small"),
    "RSA of 2047 bits": (_rsa(2047), "rsa_too_small"),
    "RSA with an even modulus": (
        _line("ssh-rsa", b"\1\0\1", b"\0\x80" + b"\0" * 255),
        "weak_key",
    ),
    "DSA": (_line("ssh-dss", b"\1", b"\1", b"\1", b"\1"), "unsupported_type"),
    "certificate": (
        _line("ssh-ed25519-cert-v01@openssh.com", b"nonce", _POINT),
        "certificate",
    ),
    "a path": ("/root/.ssh/id_ed25519.pub", "file_path"),
    "a path from home": ("~/.ssh/id_rsa.pub", "file_path"),
    "words": ("my laptop", "not_a_key"),
    "blanks": ("   ", "empty"),
}

GOOD = {
    "Ed25519": LAPTOP,
    "RSA of 2048 bits": _rsa(2048),
    "sk-ssh-ed25519": _line("sk-ssh-ed25519@openssh.com", _POINT, b"ssh:"),
    "no comment": " ".join(DESKTOP.split()[:2]),
    "comment with everything": PHONE + ' "quotes" # $(reboot) `id` ünïcode \\ ',
}


def test_bad_entries_beside_good_ones(machine: Machine, console: Console) -> None:
    """G2: each bad entry is rejected by its id with its reason, and every good one is applied."""
    expected = {}
    bad, good = iter(BAD.items()), iter(GOOD.items())
    for at in range(len(BAD) + len(GOOD)):  # good ones in between, not only at the front
        name, text = next(good, ("", "")) if at % 9 == 8 else ("", "")
        if text:
            console.add_key(text)
            continue
        name, (text, reason) = next(bad, ("", ("", "")))
        if text:
            expected[console.add_key(text)] = (name, reason)
    for _, text in good:
        console.add_key(text)
    done = machine.here("sync", "--json")
    found = {
        one["key_id"]: (expected[one["key_id"]][0], one["reason"]) for one in done.json["rejected"]
    }
    assert found == expected
    assert len(found) == len(BAD)
    assert (done.code, done.json["listing"]["keys"]) == (0, len(GOOD))
    lines = machine.key_file.read_bytes().split(b"\n")[:-1]
    assert [line.split()[:2] for line in lines] == [
        text.encode().split()[:2] for text in GOOD.values()
    ]
    assert all(line.endswith(TAG.encode()) for line in lines)
    events = [event for event in done.events if event["event"] == "key.rejected"]
    assert [(event["key_id"], event["reason"]) for event in events] == [
        (one["key_id"], one["reason"]) for one in done.json["rejected"][:MAX_EVENTS]
    ]
    omitted = done.event("events.omitted")
    assert omitted["omitted_event"] == "key.rejected"
    assert omitted["count"] == len(BAD) - MAX_EVENTS, "G12: one line stands for the rest"
    for one in done.json["rejected"]:
        assert one["detail"]
        assert one["detail"] == one["detail"].strip()
    again = machine.here("sync")
    assert [event["event"] for event in again.events] == ["sync.completed"], "said twice"


@pytest.mark.parametrize("bad", ["\0", "ssh\0", f"{LAPTOP}\0x"])
def test_nul_in_an_entry(machine: Machine, bad: str) -> None:
    """G2: a NUL, which no console stores but any answer can hold, is rejected."""
    body = json.dumps([entry(1, bad), entry(2, DESKTOP)]).encode()
    with BadServer(answer(body)) as server:
        done = machine.here("sync", "--json", VAST_URL=server.url)
    assert [(one["key_id"], one["reason"]) for one in done.json["rejected"]] == [
        (1, "control_character")
    ]
    assert machine.lines == managed(DESKTOP)


@pytest.mark.parametrize(
    "bad",
    [
        {"key": None},
        {"key": 7},
        {"key": ["ssh-ed25519"]},
        {},
        {"id": "seven", "key": "x"},
        {"id": None, "key": "x"},
        {"id": 1.5, "key": "x"},
    ],
)
def test_entry_of_the_wrong_types(machine: Machine, bad: dict[str, object]) -> None:
    """G2: an entry whose fields are not what they should be is rejected, and stops nobody."""
    body = json.dumps([{"id": 5, "user_id": 4711} | bad, entry(2, DESKTOP)]).encode()
    with BadServer(answer(body)) as server:
        done = machine.here("sync", "--json", VAST_URL=server.url)
    [rejected] = done.json["rejected"]
    assert rejected["reason"] in ("no_key_text", "not_a_key")
    assert rejected["key_id"] in (5, None)
    assert (done.code, machine.lines) == (0, managed(DESKTOP))


@pytest.mark.parametrize("name", ["key", "public_key", "ssh_key"])
def test_shapes_of_the_list(machine: Machine, name: str) -> None:
    """API: the list bare or under ssh_keys, the text under any of its three names, deleted
    entries left out.
    """
    entries = [{"id": 1, "user_id": 7, name: LAPTOP}, {"id": 2, "user_id": 7, name: DESKTOP}]
    entries[1]["deleted_at"] = "2024-05-01T10:00:00Z"
    for body in (entries, {"ssh_keys": entries}, {"success": True, "ssh_keys": entries}):
        with BadServer(answer(json.dumps(body).encode())) as server:
            done = machine.here("sync", "--json", VAST_URL=server.url)
        assert (done.code, done.json["listing"]["account_id"]) == (0, 7)
        assert machine.lines == managed(LAPTOP)


def test_same_key_under_two_ids(machine: Machine, console: Console) -> None:
    """R1: a key that is listed twice stands once; it stays while one of the two is listed."""
    first = console.add_key(LAPTOP)
    console.add_key(LAPTOP.replace("laptop", "the same"))
    assert machine.here("sync").code == 0
    assert len(machine.lines) == 1
    before = machine.fixed
    console.delete_key(first)
    assert machine.here("sync").code == 0
    assert machine.fixed == before


# Dry run


def test_dry_run_changes_nothing(machine: Machine, console: Console) -> None:
    """Commands: a dry run tells what would be done; no byte, time or folder on the disk changes."""
    machine.key_file.write_text(f"{DESKTOP}\n{key_line('gone')} {TAG}\n")
    console.add_key(LAPTOP)
    console.add_key(DESKTOP)
    before = machine.everything()
    done = machine.here("sync", "--dry-run", "--json")
    assert machine.everything() == before
    assert not machine.state.exists()
    assert (done.code, done.json["result"], done.json["dry_run"]) == (0, "changed", True)
    [target] = done.json["targets"]
    assert [one["comment"] for name in ("added", "adopted", "removed") for one in target[name]] == [
        "laptop",
        "desktop",
        "gone",
    ]
    text = machine.here("sync", "--dry-run").stdout
    for words in ("would change", "would be added", "would be adopted", "would be removed"):
        assert words in text
    assert text.splitlines()[-1].startswith("would be changed (2 keys")
    assert machine.everything() == before


def test_dry_run_logs_no_change(machine: Machine, console: Console) -> None:
    """Logs: the log never says that a key was added or removed when it was not."""
    machine.key_file.write_text(f"{key_line('gone')} {TAG}\n")
    console.add_key(LAPTOP)
    events = machine.here("sync", "--dry-run").events
    assert [(event["event"], event["dry_run"]) for event in events] == [("sync.completed", True)]


def test_dry_run_makes_no_folder(machine: Machine, console: Console) -> None:
    """Commands: also where the folder of the key file is missing."""
    path = machine.folder / "home" / ".ssh" / "authorized_keys"
    path.parent.parent.mkdir()
    machine.configure(targets=f"  - {{user: {current_user()}, path: {path}}}")
    console.add_key(LAPTOP)
    before = machine.everything()
    assert machine.here("sync", "--dry-run").code == 0
    assert machine.everything() == before
    assert machine.here("sync").code == 0
    assert path.read_text() == f"{LAPTOP} {TAG}\n"


def test_dry_run_after_syncs(machine: Machine, console: Console) -> None:
    """Commands, G3: a dry run counts as no poll, forgets nothing and needs no lock."""
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.delete_key(key_id)
    before = machine.everything()
    for _ in range(4):
        assert machine.here("sync", "--dry-run").code == 3
    with StateDirectory(str(machine.state)).locked(1):
        assert machine.here("sync", "--dry-run").code == 3
    console.fault = "outage"
    assert machine.here("sync", "--dry-run").code == 75
    after = machine.everything()
    lock = str(machine.state / "lock")
    assert {k: v for k, v in after.items() if k != lock} == {
        k: v for k, v in before.items() if k != lock
    }


# Guards


def test_empty_list_is_held(machine: Machine, console: Console) -> None:
    """G3: an empty list is applied when it was seen in three polls, an interval apart, and over
    policy.removal_hold; also across processes. Then nobody has a way in: exit code 4.
    """
    console.add_key(LAPTOP)
    machine.here("sync")
    before = machine.fixed
    console.fault = "empty_list"
    for seen in (1, 2):
        done = machine.process("sync", "--json")
        assert (done.code, done.json["error"]["kind"]) == (3, "empty_listing")
        assert f"Seen in {seen} of 3 polls" in done.json["error"]["hint"]
        assert done.event("sync.held")["level"] == "warning"
        assert machine.fixed == before
        machine.later(200)
    done = machine.process("sync", "--json")
    assert (done.code, done.json["result"], machine.lines) == (4, "changed", [])
    assert done.json["no_way_in"] == [current_user()]
    assert done.event("user.locked_out")["level"] == "error"
    assert machine.here("sync", "--json").json["result"] == "in_sync"


def test_quick_polls_do_not_count(machine: Machine, console: Console) -> None:
    """G3, incident 5: polls by hand in quick succession apply nothing, however many they are."""
    console.add_key(LAPTOP)
    machine.here("sync")
    console.fault = "empty_list"
    for _ in range(5):
        done = machine.here("sync", "--json")
        assert done.code == 3
        assert "Seen in 1 of 3 polls" in done.json["error"]["hint"]
    assert machine.lines == managed(LAPTOP)


def test_the_hold_lasts_removal_hold(machine: Machine, console: Console) -> None:
    """G3: enough polls alone do not end a hold before policy.removal_hold."""
    console.add_key(LAPTOP)
    machine.here("sync")
    console.fault = "empty_list"
    codes = []
    for _ in range(6):
        codes.append(machine.here("sync").code)
        machine.later(65)
    assert codes == [3, 3, 3, 3, 3, 4]


@pytest.mark.parametrize("fault", ["outage", "error_500", "html", "another_account"])
def test_a_failed_poll_between_empty_lists(machine: Machine, console: Console, fault: str) -> None:
    """G3, incident 5: a failed poll neither counts nor ends the count."""
    machine.options = "policy: {removal_hold: 0s}\n"
    machine.configure()
    console.add_key(LAPTOP)
    machine.here("sync")
    seen = []
    for now in ("empty_list", fault, "empty_list", fault):
        console.fault = now
        done = machine.here("sync", "--json")
        if now == "empty_list":
            seen.append(done.json["error"]["hint"].partition(" polls")[0])
        assert machine.lines == managed(LAPTOP)
        machine.later(40)
    console.fault = "empty_list"
    assert seen == ["Seen in 1 of 3", "Seen in 2 of 3"]
    assert (machine.here("sync").code, machine.lines) == (4, [])


def test_a_good_list_ends_the_hold(machine: Machine, console: Console) -> None:
    """G3: the same listing must be seen again; another one in between starts the count anew."""
    console.add_key(LAPTOP)
    machine.here("sync")
    hints = []
    for now in ("empty_list", "empty_list", None, "empty_list"):
        console.fault = now
        error = machine.here("sync", "--json").json["error"]
        hints.append(error and error["hint"].partition(" polls")[0])
        machine.later(40)
    assert hints == ["Seen in 1 of 3", "Seen in 2 of 3", None, "Seen in 1 of 3"]


def test_what_was_confirmed_outlives_an_outage(machine: Machine, console: Console) -> None:
    """G3: an empty list that was applied stays so; an outage in between asks for nothing anew."""
    machine.options = "policy: {removal_hold: 0s}\n"
    machine.configure()
    console.add_key(LAPTOP)
    machine.here("sync")
    codes = []
    for now in ("empty_list", "empty_list", "empty_list", "outage", "empty_list"):
        console.fault = now
        codes.append(machine.here("sync").code)
        machine.later(40)
    assert codes == [3, 3, 4, 75, 4]


def test_another_list_without_a_usable_key_goes_on_with_the_count(
    machine: Machine, console: Console
) -> None:
    """G3: else a list that changes at each poll keeps a deleted key for ever."""
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.edit_key(key_id, "no key")
    for seen in (1, 2):
        done = machine.here("sync", "--json")
        assert done.json["error"]["kind"] == "no_valid_entry"
        assert f"Seen in {seen} of 3" in done.json["error"]["hint"]
        machine.later(40)
    console.fault = "empty_list"
    done = machine.here("sync", "--json")
    assert done.json["error"]["kind"] == "empty_listing"
    assert "Seen in 3 of 3" in done.json["error"]["hint"]
    assert machine.lines == managed(LAPTOP)


def test_confirm_removals(machine: Machine, console: Console) -> None:
    """G3: the operator's word replaces the count, and only for what is there to confirm."""
    console.add_key(LAPTOP)
    machine.here("sync")
    console.fault = "empty_list"
    assert machine.here("sync").code == 3
    dry = machine.here("sync", "--dry-run", "--confirm-removals", "--json")
    assert (dry.code, dry.json["result"], machine.lines) == (4, "changed", managed(LAPTOP))
    done = machine.here("sync", "--confirm-removals", "--json")
    assert (done.code, done.json["result"], machine.lines) == (4, "changed", [])
    console.fault = "outage"
    assert machine.here("sync", "--confirm-removals").code == 75


def test_confirmations_of_the_configuration(machine: Machine, console: Console) -> None:
    """Removal_confirmations is the number of polls and removal_hold the least time; 1 and 0s
    hold nothing.
    """
    machine.options = "policy: {removal_confirmations: 1, removal_hold: 0s}\n"
    machine.configure()
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.delete_key(key_id)
    assert (machine.here("sync").code, machine.lines) == (4, [])


def test_a_key_that_waits_and_one_that_is_not_listed(machine: Machine, console: Console) -> None:
    """G14: with policy.additions: hold a key enters when it is confirmed by its fingerprint, and a
    fingerprint that the account does not list is an error of usage that changes nothing.
    """
    machine.options = "policy: {additions: hold}\n"
    machine.configure()
    console.add_key(LAPTOP)
    done = machine.here("sync", "--json")
    assert [one["fingerprint"] for one in done.json["waiting"]] == [fingerprint(LAPTOP)]
    assert (done.event("key.held")["fingerprint"], machine.lines) == (fingerprint(LAPTOP), [])
    wrong = machine.here("sync", "--json", "--confirm-additions", fingerprint(DESKTOP))
    assert (wrong.code, wrong.json["error"]["kind"]) == (2, "not_listed")
    assert machine.lines == []
    done = machine.here("sync", "--json", "--confirm-additions", fingerprint(LAPTOP))
    assert (done.code, done.json["waiting"], machine.lines) == (0, [], managed(LAPTOP))
    assert machine.here("sync", "--json").json["waiting"] == []


def test_many_keys_that_wait_are_shown_within_a_bound(machine: Machine) -> None:
    """G12, G14: 1,100 new keys cause 1,000 lines of log and a screen or two of `sync` and `status`;
    JSON holds them all.
    """
    machine.key_file.write_text(PHONE + "\n")
    body = json.dumps([entry(at, key_line(f"new-{at}")) for at in range(1, 1101)]).encode()
    with BadServer(answer(body)) as server:
        machine.url = server.url
        machine.options = "policy: {additions: hold}\n"
        machine.configure()
        done = machine.here("sync")
    counts = Counter(event["event"] for event in done.events)
    assert counts == {"key.held": 1000, "events.omitted": 1, "sync.completed": 1}
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("waiting  SHA256:")]) == 100
    more = f"waiting: and 1000 more: keysync --config {machine.config} status --json"
    assert more in lines
    let_in = f"keysync --config {machine.config} sync --confirm-additions FINGERPRINT"
    assert f"To let it in: {let_in}" in lines
    assert len(lines) < 110
    told = machine.here("status").stdout
    assert "WARNING: waits for confirmation: 1000 more keys\n" in told
    assert len(told.splitlines()) < 220
    assert len(machine.here("status", "--json").json["waiting"]) == 1100


@pytest.mark.skipif(not _MAY_BREAK_SSHD, reason="needs root and sshd: it breaks sshd_config")
def test_a_cycle_that_could_not_ask_sshd_is_not_in_sync(machine: Machine, console: Console) -> None:
    """Incident 7: where it is not certain that sshd reads the file, `sync` and `status` end with
    74, and each says it once.
    """
    console.add_key(LAPTOP)
    broken = machine.folder / "sshd_config"
    broken.write_text("NoSuchKeyword yes\n")
    broken.chmod(0o644)

    def work() -> None:
        mount("--bind", str(broken), SSHD_CONFIG)
        done = machine.here("sync", "--json")
        assert done.event("target.defaulted")["user"] == user
        assert (done.code, done.json["result"]) == (74, "failed")
        assert done.json["error"]["kind"] == "sshd_not_asked"
        assert [one["result"] for one in done.json["targets"]] == ["in_sync"]
        code, seen = _on_a_terminal(machine, "sync", NO_COLOR="1")
        assert (code, seen.count("sshd -T failed")) == (74, 1)
        told = machine.here("status")
        assert (told.code, told.stdout.count("PROBLEM: ")) == (74, 1)

    with temporary_user() as user:
        machine.configure(targets=f"  - user: {user}")
        assert machine.here("sync").code == 0
        in_own_mounts(work)
        assert machine.here("sync").code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root mounts")
def test_a_state_that_cannot_be_written_is_said_once(machine: Machine, console: Console) -> None:
    """G11, Incident 2: on a terminal, and by `status` after a cycle that could still record it."""
    console.add_key(LAPTOP)
    machine.here("sync")
    console.add_key(DESKTOP)

    def work() -> None:
        with read_only(machine.state):
            code, seen = _on_a_terminal(machine, "sync", NO_COLOR="1")
            assert (code, seen.count("Could not write")) == (74, 1)
            told = machine.here("status")
            assert (told.code, told.stdout.count("Could not write")) == (74, 1)

    in_own_mounts(work)


def test_a_lockout_is_said_once_on_a_terminal(machine: Machine, console: Console) -> None:
    """Incident 4, commands: never the same fact twice."""
    console.add_key(LAPTOP)
    machine.here("sync")
    console.fault = "empty_list"
    code, seen = _on_a_terminal(machine, "sync", "--confirm-removals", NO_COLOR="1")
    assert (code, seen.count(f"log in as {current_user()}")) == (4, 1)


def test_removal_of_some_is_prompt(machine: Machine, console: Console) -> None:
    """G3: a deleted key goes at once while another stays; so does the old half of an edit."""
    first, second = console.add_key(LAPTOP), console.add_key(DESKTOP)
    machine.here("sync")
    console.delete_key(first)
    assert machine.here("sync").code == 0
    assert machine.lines == managed(DESKTOP)
    console.edit_key(second, PHONE)
    assert machine.here("sync").code == 0
    assert machine.lines == managed(PHONE)


def test_last_way_in_is_held(machine: Machine, console: Console) -> None:
    """G3: a listing whose only key cannot open a session here is held like an empty one."""
    machine.key_file.write_text(f'command="/bin/true",expiry-time="19990101" {DESKTOP}\n')
    first = console.add_key(LAPTOP)
    console.add_key(DESKTOP)
    assert machine.here("sync").code == 0
    before = machine.fixed
    console.delete_key(first)
    done = machine.here("sync", "--json")
    assert (done.code, done.json["error"]["kind"]) == (3, "would_lock_out")
    assert current_user() in done.json["error"]["message"]
    assert machine.fixed == before


def test_another_account(machine: Machine, console: Console) -> None:
    """G4: a list of another account is refused until the operator accepts it by its id."""
    console.add_key(LAPTOP)
    machine.here("sync")
    before = machine.fixed
    console.fault = "another_account"
    stranger = console.stranger.user_id
    for _ in range(4):
        done = machine.here("sync", "--json")
        assert (done.code, done.json["result"]) == (3, "held")
        assert done.json["error"]["kind"] == "account_changed"
        for number in (stranger, console.user_id):
            assert str(number) in done.json["error"]["message"]
        assert f"--accept-account {stranger}" in done.json["error"]["hint"]
    assert machine.here("sync", "--confirm-removals").code == 3
    assert machine.here("sync", "--accept-account", str(stranger + 1)).code == 3
    dry = machine.here("sync", "--dry-run", "--accept-account", str(stranger), "--json")
    assert (dry.code, dry.json["result"]) == (0, "changed")
    assert machine.here("sync").code == 3, "the dry run accepted it"
    assert machine.fixed == before
    done = machine.here("sync", "--accept-account", str(stranger), "--json")
    assert (done.code, done.json["result"]) == (0, "changed")
    assert [line.split()[2:] for line in machine.lines] == [["stranger", TAG]]
    assert machine.here("sync").code == 0
    console.fault = None
    assert machine.here("sync", "--json").json["error"]["kind"] == "account_changed"


def test_account_that_is_not_named(machine: Machine, console: Console) -> None:
    """G4: once an account is known, a list that does not say whose it is changes nothing."""
    console.add_key(LAPTOP)
    machine.here("sync")
    nameless = json.dumps([{"id": 1, "key": DESKTOP}]).encode()
    with BadServer(answer(nameless)) as server:
        done = machine.here("sync", "--json", VAST_URL=server.url)
    assert (done.code, done.json["error"]["kind"]) == (3, "account_unknown")
    assert machine.lines == managed(LAPTOP)


def test_first_account_may_be_accepted_in_advance(machine: Machine, console: Console) -> None:
    """G4: with --accept-account a first sync follows no other account than the named one."""
    console.add_key(LAPTOP)
    assert machine.here("sync", "--accept-account", "1").code == 3
    assert machine.lines == []
    assert machine.here("sync", "--accept-account", str(console.user_id)).code == 0
    assert machine.lines == managed(LAPTOP)


# Waiting for the API


def test_wait_for_a_console_that_comes_up(tmp_path: Path) -> None:
    """Commands: with --wait a sync at boot succeeds when the API can be reached in time."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    machine = Machine(tmp_path, f"http://127.0.0.1:{port}")
    log = tmp_path / "log"
    command = [sys.executable, "-m", "agent", "--config", str(machine.config)]
    with log.open("w") as stderr:
        waiting = subprocess.Popen(
            [*command, "sync", "--wait", "50", "--json"],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert eventually(lambda: "connection_failed" in log.read_text(), 30)
        with Console(port=port) as console:
            machine.set_api_key(console.api_key)
            console.add_key(LAPTOP)
            out, _ = waiting.communicate(timeout=50)
    finally:
        waiting.kill()
        waiting.wait()
    assert (waiting.returncode, json.loads(out)["result"]) == (0, "changed")
    assert machine.lines == managed(LAPTOP)


def test_wait_has_an_end(machine: Machine) -> None:
    """Commands: when the API does not come, the last failure is the result, at the deadline."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        began = time.monotonic()
        done = machine.here("sync", "--wait", "0.5", "--json", VAST_URL=url)
        assert 0.5 <= time.monotonic() - began < 5
    assert (done.code, done.json["error"]["kind"]) == (75, "connection_failed")


def test_wait_obeys_retry_after(machine: Machine) -> None:
    """Polling, commands: the pause is at least what the API asks for."""
    limited = answer(b"", "429 Too Many Requests", ["Retry-After: 1"])
    good = answer(json.dumps([entry(1, LAPTOP)]).encode())
    with BadServer(limited, good) as server:
        began = time.monotonic()
        done = machine.here("sync", "--wait", "20", VAST_URL=server.url)
        assert time.monotonic() - began >= 1
    assert (done.code, len(server.heads)) == (0, 2)


def test_log_while_waiting(machine: Machine) -> None:
    """Logs: a row of failures logs its first one, its change of kind and its end."""
    busy = answer(b"", "503 Service Unavailable", ["Retry-After: 0"])
    limited = answer(b"", "429 Too Many Requests", ["Retry-After: 0"])
    good = answer(json.dumps([entry(1, LAPTOP)]).encode())
    with BadServer(busy, busy, limited, good) as server:
        done = machine.here("sync", "--wait", "30", VAST_URL=server.url)
        assert (done.code, len(server.heads)) == (0, 4)
    assert [(event["event"], event.get("kind")) for event in done.events] == [
        ("sync.failed", "server_error"),
        ("sync.failed", "rate_limited"),
        ("key.added", None),
        ("sync.recovered", "rate_limited"),
        ("sync.completed", None),
    ]
    recovered = done.event("sync.recovered")
    assert (recovered["failures"], 0 <= recovered["lasted_s"] < 30) == (3, True)


@pytest.mark.parametrize(
    ("fault", "code"), [("html", 65), ("truncated", 65), ("empty_list", 3), (None, 77)]
)
def test_wait_is_for_the_network_only(
    machine: Machine, console: Console, fault: str | None, code: int
) -> None:
    """Commands: an answer that waiting cannot mend is the result at once."""
    console.fault = fault
    if fault is None:
        machine.set_api_key("another-key-0123456789")
    done = machine.here("sync", "--wait", "60")
    assert (done.code, len(console.requests)) == (code, 1)


def _failed(retry_after: float | None = None) -> SyncReport:
    error = TemporaryFailure("timeout", "m", "h", retry_after)
    return SyncReport(Result.FAILED, "id", False, problem=Problem.of(error))


def test_pauses_of_waiting() -> None:
    """Polling: the pauses are random up to a bound that doubles, and stay within the deadline."""
    pauses: list[float] = []

    def run() -> SyncReport:
        return _failed() if len(pauses) < 40 else SyncReport(Result.IN_SYNC, "id", False)

    assert sync_until(run, 3600.0, pauses.append).exit_code == 0
    bounds = [min(2.0**at, 15.0) for at in range(40)]
    assert all(0 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
    assert max(pauses) > 7, "40 draws of at most 15 s, all of them short"
    assert min(pauses[4:]) < 7, "36 draws of at most 15 s, none of them short"


@pytest.mark.parametrize(("asked", "paused"), [(5.0, [5.0]), (60.0, []), (None, [])])
def test_retry_after_while_waiting(asked: float | None, paused: list[float]) -> None:
    """A Retry-After within the deadline is waited for; beyond it nothing is asked in vain."""
    pauses: list[float] = []

    def run() -> SyncReport:
        if asked is None:
            error = CredentialRejected("credential_rejected", "m", "h")
            return SyncReport(Result.FAILED, "id", False, problem=Problem.of(error))
        return SyncReport(Result.IN_SYNC, "id", False) if pauses else _failed(asked)

    report = sync_until(run, 30.0, pauses.append)
    assert pauses == paused
    assert report.result == ("in_sync" if paused else "failed")


# Targets and state that fail


def test_one_target_failing(machine: Machine, console: Console) -> None:
    """R11: a target that cannot be served is an error of its own; all others are served."""
    folder = machine.folder / "a folder"
    folder.mkdir()
    second = machine.folder / "second"
    user = current_user()
    machine.configure(
        targets=f"  - {{user: {user}, path: {json.dumps(str(folder))}}}\n"
        f"  - {{user: {user}, path: {machine.key_file}}}\n"
        f"  - {{user: nobody-of-this-name}}\n"
        f"  - {{user: {user}, path: {machine.folder}/missing/folder/file}}\n"
        f"  - {{user: {user}, path: {second}}}"
    )
    console.add_key(LAPTOP)
    done = machine.here("sync", "--json")
    assert (done.code, done.json["result"]) == (74, "failed")
    assert [(one["result"], (one["error"] or {}).get("kind")) for one in done.json["targets"]] == [
        ("failed", "not_a_file"),
        ("changed", None),
        ("failed", "unknown_user"),
        ("failed", "missing"),
        ("changed", None),
    ]
    assert machine.lines == second.read_text().splitlines() == managed(LAPTOP)
    failed = [event for event in done.events if event["event"] == "target.failed"]
    assert [event["kind"] for event in failed] == ["not_a_file", "unknown_user", "missing"]
    whole = done.event("sync.failed")
    assert (whole["listed"], whole["added"], whole["kind"]) == (1, 2, "not_a_file")
    folder.rmdir()
    again = machine.here("sync", "--json")
    assert [one["result"] for one in again.json["targets"]] == [
        "changed",
        "in_sync",
        "failed",
        "failed",
        "in_sync",
    ]


def test_text_of_a_failing_target(machine: Machine, console: Console) -> None:
    """R11: the person reads which target failed, why, and what to do."""
    machine.configure(targets="  - user: nobody-of-this-name")
    console.add_key(LAPTOP)
    done = machine.here("sync")
    assert done.code == 74
    assert "nobody-of-this-name" in done.stdout
    assert "create the user" in done.stdout


def test_state_that_cannot_be_written(machine: Machine, console: Console) -> None:
    """G5: without a place for the original nothing is written, and the exit code is 74."""
    machine.state.write_text("a file in the folder's place")
    console.add_key(LAPTOP)
    before = machine.everything()
    done = machine.here("sync", "--json")
    assert (done.code, done.json["result"]) == (74, "failed")
    assert str(machine.state) in done.json["error"]["message"]
    assert machine.everything() == before


def test_another_sync_at_work(machine: Machine, console: Console) -> None:
    """Polling: one sync at a time; one that waited too long for another says who has the lock."""
    events: list[Event] = []
    config = load(str(machine.config), {})
    second = Syncer(config, {}, events.append, lock_seconds=0.1)
    with StateDirectory(config.state_dir).locked(1):
        report = second.sync(Request())
    assert (report.exit_code, report.problem and report.problem.kind) == (75, "busy")
    assert "fuser" in (report.problem.hint if report.problem else "")
    assert console.requests == []
    assert [event.name for event in events] == ["sync.failed"]


# Usage, streams and terminals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["sink"], "invalid choice"),
        (["sync", "--wait"], "expected one argument"),
        (["sync", "--wait", "soon"], "'soon' is not a number of seconds from 0 to 86400"),
        (["sync", "--wait", "-1"], "'-1' is not a number of seconds from 0 to 86400"),
        (["sync", "--wait", "nan"], "'nan' is not a number of seconds from 0 to 86400"),
        (["sync", "--accept-account", "me"], "invalid int value: 'me'"),
        (["sync", "now"], "unrecognized arguments"),
        (["sync", "--log-level", "loud"], "invalid choice"),
        (["config"], "ACTION"),
    ],
)
def test_wrong_usage(machine: Machine, arguments: list[str], words: str) -> None:
    """Commands: wrong usage ends with 2, says what is wrong on stderr, and does nothing."""
    before = machine.everything()
    done = machine.here(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert "usage: keysync" in done.stderr
    assert words in done.stderr
    assert machine.everything() == before


def test_interrupted(machine: Machine) -> None:
    """Ctrl-C ends a waiting sync at once, without a traceback and with nothing changed."""
    before = machine.fixed
    # A run in the background of a script ignores the signal, and so would what it starts.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "agent"]
    command += ["--config", str(machine.config), "sync"]
    with BadServer(script(hang)) as server:
        environment = clean_environment() | {"VAST_URL": server.url}
        running = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
        )
        assert eventually(lambda: len(server.heads) == 1)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=5)
    assert (running.returncode, err) == (130, "")
    assert machine.fixed == before


def _shell(machine: Machine, command: str, **environment: str) -> Done:
    """A command line of the shell, in which `keysync` is the real one."""
    keysync = shlex.join([sys.executable, "-m", "agent", "--config", str(machine.config)])
    script = f'keysync() {{ {keysync} "$@"; }}; {command}'
    environment |= {"HOME": str(machine.folder), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        ("2>&-", 0),
        (">&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 1),
        ("| true", None),
    ],
)
def test_streams_that_take_nothing(
    machine: Machine, console: Console, redirection: str, code: int | None
) -> None:
    """G7, commands: a closed or full stream stops no sync, and no output ends up in a key file."""
    console.add_key(LAPTOP)
    done = _shell(machine, f"keysync sync {redirection}")
    assert code is None or done.code == code, done.stderr
    assert "Traceback" not in done.stderr
    assert machine.lines == managed(LAPTOP)
    assert json.loads((machine.state / "state.json").read_text())["last_success"]


def test_terminal_without_unicode(machine: Machine, console: Console) -> None:
    """A comment that the terminal's encoding cannot show is escaped, and stops nothing."""
    console.add_key(LAPTOP + "-ключ")
    done = _shell(machine, "keysync sync", PYTHONIOENCODING="ascii")
    assert done.code == 0, done.stderr
    assert "laptop-\\u043a\\u043b\\u044e\\u0447" in done.stdout


def _on_a_terminal(machine: Machine, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code and what a person sees: stdout and stderr on one terminal (pty(7))."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "agent", "--config", str(machine.config), *arguments]
    running = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={"HOME": str(machine.folder), **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the last one on the other side has gone
        while part := os.read(ours, 4096):
            seen += part
    os.close(ours)
    return running.wait(), seen.decode()


def test_colour_on_a_terminal(machine: Machine, console: Console) -> None:
    """Colour for a person on a terminal, none with NO_COLOR; what went wrong is said once."""
    console.add_key(LAPTOP)
    code, seen = _on_a_terminal(machine, "sync")
    assert code == 0
    assert f"\033[32m+  added  {fingerprint(LAPTOP)}  laptop\033[0m" in seen
    assert "sync.completed" not in seen
    code, seen = _on_a_terminal(machine, "sync", NO_COLOR="1")
    assert (code, "\033[3" in seen) == (0, False)
    console.fault = "error_500"
    code, seen = _on_a_terminal(machine, "sync", NO_COLOR="1")
    assert code == 75
    assert seen.count("The API failed (status 500") == 1
    code, seen = _on_a_terminal(machine, "--log-level", "error", "sync", NO_COLOR="1")
    assert re.search(r"\[error +\] sync\.failed .*kind=server_error", seen)


def test_progress_on_a_terminal(machine: Machine) -> None:
    """A person sees that something is going on while it lasts, and nothing of it stays."""
    machine.configure(timeout="0.9s")
    with BadServer(script(hang)) as server:
        code, seen = _on_a_terminal(machine, "sync", VAST_URL=server.url)
    assert code == 75
    before, _, after = seen.partition("\r\033[K")
    assert "asking the console for the account's SSH keys" in before
    assert "asking" not in after
    assert "failed" in after
