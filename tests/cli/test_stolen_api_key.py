"""Somebody has the account's API key and writes to its list, to keep a deleted key on a machine.

Another tool, or a user, puts the deleted key's line back meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.adapters.state import StateDirectory
from agent.core.known_keys import MAX_KNOWN_KEYS, KnownKey
from sandbox.console import Console
from tests.support.machine import TAG, Machine, fingerprint, key_line

LAPTOP, DESKTOP, PHONE = key_line("laptop"), key_line("desktop"), key_line("phone")
JUNK = (
    f"{LAPTOP} {DESKTOP}",
    f'command="/bin/true" {LAPTOP}',
    f"{LAPTOP} # one\r\n{PHONE}",
    f'"{LAPTOP}"',
)


def managed(*lines: str) -> list[str]:
    return [f"{line} {TAG}" for line in lines]


def put_back(machine: Machine, line: str) -> None:
    with machine.key_file.open("a") as file:
        file.write(line + "\n")


def with_a_deleted_key(machine: Machine, console: Console) -> None:
    """The desktop's key is listed, and the laptop's was deleted and is gone from the file."""
    console.add_key(DESKTOP)
    key_id = console.add_key(LAPTOP)
    assert machine.here("sync", "--confirm-additions", "all").code == 0
    console.delete_key(key_id)
    assert machine.here("sync").code == 0
    assert machine.lines == managed(DESKTOP)


def writes_nothing(machine: Machine) -> bool:
    """Whether one more sync leaves key file and state as they are (R7)."""
    before = machine.fixed, (machine.state / "state.json").stat()
    machine.here("sync")
    after = machine.fixed, (machine.state / "state.json").stat()
    return before[0] == after[0] and before[1].st_mtime_ns == after[1].st_mtime_ns


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("line", [LAPTOP, f"{LAPTOP} {TAG}"])
def test_a_deleted_key_in_a_useless_entry_stays_deleted(
    machine: Machine, console: Console, junk: str, line: str
) -> None:
    """R5: only a valid entry brings a deleted key back."""
    with_a_deleted_key(machine, console)
    console.add_key(junk)
    for _ in range(2):
        put_back(machine, line)
        done = machine.here("sync", "--json")
        assert (done.code, machine.lines) == (0, managed(DESKTOP))
        assert done.event("key.reappeared")["fingerprint"] == fingerprint(LAPTOP)
    assert writes_nothing(machine)
    console.add_key(LAPTOP)
    assert machine.here("sync").code == 0
    assert machine.lines == managed(DESKTOP, LAPTOP)


def test_a_listed_key_whose_entry_is_spoilt_stays(machine: Machine, console: Console) -> None:
    """G2: that rule is for deleted keys alone."""
    console.add_key(DESKTOP)
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.edit_key(key_id, JUNK[1])
    assert machine.here("sync").code == 0
    assert machine.lines == managed(DESKTOP, LAPTOP)
    assert writes_nothing(machine)


@pytest.mark.parametrize("line", [LAPTOP, f"{LAPTOP} {TAG}"])
def test_a_deleted_key_that_waits_stays_deleted(
    machine: Machine, console: Console, line: str
) -> None:
    """G14, R5: listed again, it comes back when the operator confirms it, and not before."""
    machine.options = "policy: {additions: hold}\n"
    machine.configure()
    with_a_deleted_key(machine, console)
    for _ in range(2):  # the second time it was dropped and listed once more
        key_id = console.add_key(LAPTOP)
        put_back(machine, line)
        done = machine.here("sync", "--json")
        assert (done.code, machine.lines) == (0, managed(DESKTOP))
        assert [one["fingerprint"] for one in done.json["waiting"]] == [fingerprint(LAPTOP)]
        assert writes_nothing(machine)
        console.delete_key(key_id)
        assert machine.here("sync").code == 0
    console.add_key(LAPTOP)
    assert machine.here("sync", "--confirm-additions", fingerprint(LAPTOP)).code == 0
    assert machine.lines == managed(DESKTOP, LAPTOP)
    assert writes_nothing(machine)


def test_a_key_that_waits_and_was_never_deleted_keeps_its_line(
    machine: Machine, console: Console
) -> None:
    """G14: the platform may have written it at creation."""
    machine.options = "policy: {additions: hold}\n"
    machine.configure()
    put_back(machine, LAPTOP)
    console.add_key(LAPTOP)
    assert machine.here("sync").code == 0
    assert machine.lines == [LAPTOP]


def test_entries_that_change_at_each_poll_keep_no_deleted_key(
    machine: Machine, console: Console
) -> None:
    """G3: the last key is deleted, and its hold ends although the list changes for ever."""
    machine.options = "policy: {removal_confirmations: 4, removal_hold: 60s}\n"
    machine.configure()
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.delete_key(key_id)
    codes = []
    for number in range(6):
        for key in console.account.stored():
            console.delete_key(key.id)
        if number:
            console.add_key(f'"{key_line(f"junk {number}")}"')
        codes.append(machine.here("sync").code)
        machine.later(30)
        if number == 4:
            put_back(machine, LAPTOP)
    assert (codes, machine.lines) == ([3, 3, 3, 4, 4, 4], [])
    assert writes_nothing(machine)


def test_keys_that_change_at_each_poll_keep_no_deleted_key(
    machine: Machine, console: Console
) -> None:
    """G3: the same where the listed keys let nobody in as this user."""
    machine.options = "policy: {removal_hold: 60s}\n"
    machine.configure()
    shut = [f'command="/bin/true" {line}' for line in (DESKTOP, PHONE)]
    machine.key_file.write_text("\n".join([*shut, ""]))
    last, other = console.add_key(LAPTOP), console.add_key(DESKTOP)
    assert machine.here("sync").code == 0
    console.delete_key(last)
    codes = []
    for text in (PHONE, DESKTOP, PHONE, DESKTOP, PHONE):
        codes.append(machine.here("sync").code)
        console.edit_key(other, text)
        machine.later(30)
        if len(codes) == 4:
            put_back(machine, LAPTOP)
    assert (codes, machine.lines) == ([3, 3, 4, 4, 4], shut)
    machine.here("sync")
    assert writes_nothing(machine)


def test_a_hold_that_was_confirmed_is_no_word_about_the_next_key(
    machine: Machine, console: Console
) -> None:
    """G3: the operator let one key go; another that is listed and deleted later is held."""
    machine.key_file.write_text(f'command="/bin/true" {DESKTOP}\n')
    key_id = console.add_key(LAPTOP)
    console.add_key(DESKTOP)
    machine.here("sync")
    console.delete_key(key_id)
    assert machine.here("sync", "--confirm-removals").code == 4
    key_id = console.add_key(PHONE)
    assert machine.here("sync").code == 0
    console.delete_key(key_id)
    done = machine.here("sync", "--json")
    assert (done.code, done.json["error"]["kind"]) == (3, "would_lock_out")
    assert machine.lines[1:] == managed(PHONE)


def test_a_spoilt_entry_that_goes_too_is_held(machine: Machine, console: Console) -> None:
    """G3, G2: the list without a usable key was confirmed while the key stayed."""
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.edit_key(key_id, JUNK[3])
    assert machine.here("sync", "--confirm-removals").code == 0
    assert machine.lines == managed(LAPTOP)
    assert writes_nothing(machine)
    console.fault = "empty_list"
    done = machine.here("sync", "--json")
    assert (done.code, done.json["error"]["kind"]) == (3, "would_lock_out")
    assert machine.lines == managed(LAPTOP)


def test_a_forgotten_revocation_is_one_line(machine: Machine, console: Console) -> None:
    """G12: more deleted keys than are remembered; a dry run says nothing about it."""
    with_a_deleted_key(machine, console)
    state = StateDirectory(str(machine.state))
    ledger, _ = state.load()
    flood = (
        KnownKey(f"SHA256:{at}", "ssh-rsa", "", at, "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z")
        for at in range(MAX_KNOWN_KEYS)
    )
    state.save(replace(ledger, keys={**ledger.keys, **{key.fingerprint: key for key in flood}}))
    assert not [e for e in machine.here("sync", "--dry-run").events if "revocation" in e["event"]]
    done = machine.here("sync", "--json")
    assert (done.code, done.event("revocation.dropped")["count"]) == (0, 2)
    assert done.event("revocation.dropped")["level"] == "warning"
    assert not [e for e in machine.here("sync").events if "revocation" in e["event"]]
