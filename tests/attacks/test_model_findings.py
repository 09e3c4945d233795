"""What the model check found, each as a short story of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.support.machine import TAG, Machine, key_line

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
    """R5: the platform wrote the key at creation; its only entry was refused for a line break."""
    machine.key_file.write_text(LAPTOP + "\n")
    key_id = console.add_key(LAPTOP + "\n")
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
    console.edit_key(key_id, LAPTOP + "\n")
    with machine.key_file.open("a") as file:
        file.write(FORCED + "\n")
    assert machine.here("sync").code == 0
    assert machine.lines == [f"{DESKTOP} {TAG}", FORCED]


def test_a_key_taken_by_a_confirmed_listing_is_taken_at_once_when_it_is_put_back(
    machine: Machine, console: Console
) -> None:
    """R5, G3: on every cycle; the listing has been seen in more than N polls in a row."""
    console.add_key(LAPTOP)
    key_id = console.add_key(DESKTOP)
    machine.key_file.write_text(FORCED + "\n")
    machine.here("sync")
    console.delete_key(key_id)
    assert [machine.here("sync").code for _ in range(3)] == [3, 3, 0]
    assert machine.here("sync").code == 0
    machine.key_file.write_text(f"{FORCED}\n{DESKTOP}\n")
    assert machine.here("sync").code == 0
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
