"""What the model check found, each as a short story of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.support.machine import TAG, Machine, key_line
from tests.support.own_mounts import in_own_mounts, read_only

pytestmark = pytest.mark.attack

LAPTOP, DESKTOP = key_line("laptop"), key_line("desktop")
FORCED = f'command="backup" {LAPTOP}'


@pytest.fixture
def console() -> Iterator[Console]:
    with Console() as serving:
        yield serving


@pytest.fixture
def machine(tmp_path: Path, console: Console) -> Machine:
    made = Machine(tmp_path, console.url)
    made.set_api_key(console.api_key)
    return made


def test_accepting_an_account_with_an_empty_list_does_not_open_the_door_to_all(
    machine: Machine, console: Console
) -> None:
    """G4: an empty list names nobody; the account that the operator named is the one expected."""
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.delete_key(key_id)
    held = machine.here("sync", "--accept-account", str(console.user_id), "--json")
    assert (held.code, held.json["error"]["kind"]) == (3, "empty_listing")
    console.fault = "another_account"
    refused = machine.here("sync", "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (3, "account_changed")
    assert machine.lines == [f"{LAPTOP} {TAG}"]


def test_a_key_of_a_list_that_was_only_held_does_not_stay_when_it_is_deleted(
    machine: Machine, console: Console
) -> None:
    """R5: the platform wrote the key at creation; its only entry was refused for its quotes."""
    machine.key_file.write_text(LAPTOP + "\n")
    key_id = console.add_key(f'"{LAPTOP}"')
    assert machine.here("sync").code == 3
    console.delete_key(key_id)
    console.add_key(DESKTOP)
    assert machine.here("sync").code == 0
    assert machine.lines == [f"{DESKTOP} {TAG}"]


def test_the_owners_restriction_is_not_undercut_while_the_entry_is_refused(
    machine: Machine, console: Console
) -> None:
    """R4: keysync's own line goes, whether the entry is accepted or refused for its form."""
    console.add_key(DESKTOP)
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.edit_key(key_id, f'"{LAPTOP}"')
    with machine.key_file.open("a") as file:
        file.write(FORCED + "\n")
    assert machine.here("sync").code == 0
    assert machine.lines == [f"{DESKTOP} {TAG}", FORCED]


def test_a_key_taken_by_a_confirmed_listing_is_taken_at_once_when_it_is_put_back(
    machine: Machine, console: Console
) -> None:
    """R5, G3: on every cycle, and it is said each time that nobody has a way in."""
    console.add_key(LAPTOP)
    key_id = console.add_key(DESKTOP)
    machine.key_file.write_text(FORCED + "\n")
    machine.here("sync")
    console.delete_key(key_id)
    assert machine.here("sync").code == 3
    assert machine.here("sync", "--confirm-removals").code == 4
    assert machine.here("sync").code == 4
    machine.key_file.write_text(f"{FORCED}\n{DESKTOP}\n")
    assert machine.here("sync").code == 4
    assert machine.lines == [FORCED]


def test_a_key_put_back_for_ever_does_not_fill_the_disk(machine: Machine, console: Console) -> None:
    """R5, G5: removed in every cycle, journalled once."""
    console.add_key(LAPTOP)
    key_id = console.add_key(DESKTOP)
    machine.here("sync")
    console.delete_key(key_id)
    machine.here("sync")
    for _ in range(4):
        with machine.key_file.open("a") as file:
            file.write(DESKTOP + "\n")
        done = machine.here("sync", "--json")
        assert [one["comment"] for one in done.json["targets"][0]["removed"]] == ["desktop"]
    journal = (machine.state / "journal.jsonl").read_text().splitlines()
    assert len({json.loads(line)["removed"] for line in journal}) == len(journal) == 2


def test_a_slip_of_the_operators_beside_a_damaged_state_does_not_drop_the_account(
    machine: Machine, console: Console
) -> None:
    """G4: the account is saved again before anything else can end the cycle."""
    console.add_key(LAPTOP)
    assert machine.here("sync").code == 0
    state = machine.state / "state.json"
    state.write_bytes(state.read_bytes()[:-40])
    assert machine.here("sync", "--confirm-additions", "SHA256:nosuchkey").code == 2
    console.fault = "another_account"
    refused = machine.here("sync", "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (3, "account_changed")
    assert machine.lines == [f"{LAPTOP} {TAG}"]


def test_a_journal_that_cannot_be_written_locks_nobody_out(
    machine: Machine, console: Console
) -> None:
    """G3, G11: the old key goes and the new one comes, which the ledger knows already."""

    def work() -> None:
        key_id = console.add_key(LAPTOP)
        second = console.add_key(DESKTOP)
        assert machine.here("sync").code == 0
        console.delete_key(second)
        assert machine.here("sync").code == 0
        with read_only(machine.state):
            console.edit_key(key_id, DESKTOP)
            assert machine.here("sync").code == 74
            assert machine.lines == [f"{DESKTOP} {TAG}"]
        assert machine.here("sync").code == 0
        assert machine.lines == [f"{DESKTOP} {TAG}"]

    in_own_mounts(work)


def test_a_hold_that_was_let_pass_is_not_counted_for_ever(
    machine: Machine, console: Console
) -> None:
    """R7: the same listing again writes nothing, not the state either."""
    key_id = console.add_key(LAPTOP)
    machine.options = "poll: {interval: 1s}\n"
    machine.configure()
    machine.here("sync")
    console.delete_key(key_id)
    assert machine.here("sync", "--confirm-removals").code == 4
    assert machine.here("sync").code == 4
    before = (machine.state / "state.json").stat()
    time.sleep(1.1)  # no poll counts before an interval is over
    assert machine.here("sync").code == 4
    after = (machine.state / "state.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
