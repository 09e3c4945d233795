"""`keysync forget`: a retired target is released, its keys stay (R5)."""

from __future__ import annotations

import json

import pytest

from sandbox.console import Console
from sandbox.users import current_user
from tests.support.machine import TAG, Machine, fingerprint, key_line

LAPTOP, DESKTOP, COLLEAGUE = (key_line(name) for name in ("laptop", "desktop", "colleague"))


@pytest.fixture
def retired(machine: Machine, console: Console) -> Machine:
    """A machine whose first target was taken out of the configuration in favour of another."""
    machine.key_file.write_text(COLLEAGUE + "\n")
    console.add_key(LAPTOP)
    console.add_key(DESKTOP)
    assert machine.here("sync").code == 0
    other = machine.folder / "other"
    other.touch(mode=0o600)
    machine.configure(targets=f"  - {{user: {current_user()}, path: {other}}}")
    return machine


def laptop_id(machine: Machine) -> int:
    """The console's id of the key."""
    keys = json.loads((machine.state / "state.json").read_text())["keys"]
    [found] = [key["key_id"] for key in keys if key["fingerprint"] == fingerprint(LAPTOP)]
    return int(found)


@pytest.mark.parametrize("synced", [True, False])
def test_the_tag_goes_and_the_keys_stay(retired: Machine, console: Console, synced: bool) -> None:
    """Incident 9: after `forget`, keysync neither tags nor removes anything in the file, also
    where no sync has retired it yet.
    """
    if synced:
        assert retired.here("sync").code == 0
        [named] = retired.here("status", "--json").json["retired"]
        assert named["path"] == str(retired.key_file)
        assert (
            f"keysync --config {retired.config} forget {retired.key_file}"
            in retired.here("status").stdout
        )
    done = retired.here("forget", str(retired.key_file))
    assert (done.code, done.stderr) == (0, "")
    assert "2 lines without the tag" in done.stdout
    assert retired.lines == [COLLEAGUE, LAPTOP, DESKTOP]
    before = retired.fixed
    console.delete_key(laptop_id(retired))
    assert retired.here("sync").code == 0
    assert retired.fixed == before
    assert retired.here("status", "--json").json["retired"] == []


def test_until_then_deleted_keys_go(retired: Machine, console: Console) -> None:
    """R5: a retired file gets nothing new, and still loses what is deleted."""
    assert retired.here("sync").code == 0
    console.delete_key(laptop_id(retired))
    console.add_key(key_line("new"))
    assert retired.here("sync").code == 0
    assert retired.lines == [COLLEAGUE, f"{DESKTOP} {TAG}"]


def test_a_dry_run_changes_nothing(retired: Machine) -> None:
    """Commands: it shows what would be released."""
    retired.here("sync")
    before = retired.everything()
    done = retired.here("forget", "--dry-run", str(retired.key_file))
    assert done.stdout.startswith(f"would be released: {current_user()}  {retired.key_file}")
    assert retired.everything() == before


def test_a_target_is_not_released(retired: Machine) -> None:
    """It says to take it out of the configuration first."""
    retired.here("sync")
    before = retired.everything()
    done = retired.here("forget", str(retired.folder / "other"))
    assert done.code == 2
    assert "is still a target" in done.stderr
    assert "Remove it from targets in the configuration first." in done.stderr
    assert retired.everything() == before


def test_what_was_no_target_is_named(retired: Machine) -> None:
    """An unknown user or path is wrong usage; what can be released is listed."""
    done = retired.here("forget", "/etc/passwd")
    assert done.code == 2
    assert f"Files that can be released: {retired.key_file} ({current_user()})" in done.stderr
    assert json.loads((retired.state / "state.json").read_text())["targets"]


def test_by_user(retired: Machine) -> None:
    """A user's name releases all retired files of that user, and no file that is served."""
    retired.here("sync")
    assert retired.here("forget", current_user()).code == 0
    assert TAG not in retired.key_file.read_text()
    assert TAG in (retired.folder / "other").read_text()


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_state_that_cannot_be_read_is_told(retired: Machine, flags: tuple[str, ...]) -> None:
    """R11: nobody is told that a file was never a target when that is not known."""
    (retired.state / "state.json").write_text("{")
    before = retired.everything()
    done = retired.here("forget", *flags, str(retired.key_file))
    assert done.code == 74
    assert f"The state in {retired.state} could not be read" in done.stderr
    assert "never a target" not in done.stderr
    assert retired.everything() == before
