"""What a cycle remembers and says, across runs of the real command."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.support.machine import TAG, Machine, clean_environment, key_line, run

LAPTOP, DESKTOP = key_line("laptop"), key_line("desktop")


@pytest.mark.parametrize("end", [" # two\nlines", "%0a", " \u202e"])
def test_an_entry_refused_for_its_form_takes_no_key_away(
    machine: Machine, console: Console, end: str
) -> None:
    """G2, R2: the key is still on the console, so its line stays; the entry is rejected."""
    console.add_key(DESKTOP)
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.edit_key(key_id, LAPTOP + end)
    done = machine.here("sync", "--json")
    assert (done.code, len(done.json["rejected"])) == (0, 1)
    assert machine.lines == [f"{DESKTOP} {TAG}", f"{LAPTOP} {TAG}"]
    assert done.json["targets"][0]["kept"][1]["reason"] == "entry_rejected"
    console.delete_key(key_id)
    machine.here("sync")
    assert machine.lines == [f"{DESKTOP} {TAG}"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, to make a read fail")
def test_a_state_that_cannot_be_read_is_no_empty_state(
    machine: Machine, console: Console, tmp_path: Path
) -> None:
    """G1, G4: a read error ends the cycle; nothing is set aside and no other account gets in."""
    console.add_key(LAPTOP)
    machine.here("sync")
    before = machine.fixed
    console.fault = "another_account"
    state = tmp_path / "state" / "state.json"
    command = [sys.executable, "-m", "agent", "--config", str(machine.config), "sync", "--json"]
    inject = ["strace", "-f", "-qq", "-o", os.devnull, "-P", str(state)]
    done = run([*inject, "-e", "inject=pread64:error=EIO:when=1", *command], clean_environment())
    assert (done.returncode, json.loads(done.stdout)["error"]["kind"]) == (74, "io_error")
    assert machine.fixed == before
    assert json.loads(state.read_bytes())["account_id"] == console.user_id


def test_the_account_outlives_a_broken_state(
    machine: Machine, console: Console, tmp_path: Path
) -> None:
    """G4, state: what can still be read of a broken state pins the account."""
    console.add_key(LAPTOP)
    machine.here("sync")
    state = tmp_path / "state" / "state.json"
    state.write_bytes(state.read_bytes()[:-20])
    console.fault = "another_account"
    done = machine.here("sync", "--json")
    assert (done.code, done.json["error"]["kind"]) == (3, "account_changed")
    assert machine.lines == [f"{LAPTOP} {TAG}"]


def test_a_state_folder_that_serves_others_is_not_closed(
    machine: Machine, console: Console, tmp_path: Path
) -> None:
    """G8, G9: a wrong state_dir changes no folder of the machine's, and reading changes none."""
    machine.state.mkdir(mode=0o755)
    machine.state.chmod(0o755)
    (machine.state / "somebody's").touch()
    console.add_key(LAPTOP)
    machine.here("status")
    machine.here("sync", "--dry-run")
    done = machine.here("sync")
    assert machine.state.stat().st_mode & 0o777 == 0o755
    assert (done.code, machine.lines) == (74, [])
    assert "Set state_dir to a folder of keysync's own." in done.stdout


def test_accepting_an_account_holds_while_its_list_is_held(
    machine: Machine, console: Console
) -> None:
    """G3, G4: the operator accepts the account once, also when the lockout guard holds its list."""
    console.add_key(LAPTOP)
    machine.here("sync")
    for entry in list(console.stranger.stored()):
        console.stranger.edit_key(entry.id, "no key")
    console.fault = "another_account"
    stranger = str(console.user_id + 1)
    done = machine.here("sync", "--accept-account", stranger, "--json")
    assert (done.code, done.json["error"]["kind"]) == (3, "no_valid_entry")
    assert machine.here("sync", "--json").json["error"]["kind"] == "no_valid_entry"
    assert machine.here("sync", "--confirm-removals").code == 4
    assert machine.lines == []


@pytest.mark.parametrize("text", ["no key", "ssh-ed25519 AAAA", '"quoted'])
def test_an_entry_without_a_key_keeps_what_its_id_held(
    machine: Machine, console: Console, text: str
) -> None:
    """G2: an entry refused for its form does not revoke the key that its id held before."""
    console.add_key(DESKTOP)
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    console.edit_key(key_id, text)
    assert machine.here("sync").code == 0
    assert machine.lines == [f"{DESKTOP} {TAG}", f"{LAPTOP} {TAG}"]
    console.edit_key(key_id, key_line("new"))
    machine.here("sync")
    assert machine.lines == [f"{DESKTOP} {TAG}", f"{key_line('new')} {TAG}"]


def test_only_what_was_put_back_is_called_so(machine: Machine, console: Console) -> None:
    """R5, logs: a line that could not be removed at once was not put back by anybody."""
    console.add_key(DESKTOP)
    key_id = console.add_key(LAPTOP)
    machine.here("sync")
    other = machine.folder / "another name"
    os.link(machine.key_file, other)
    console.delete_key(key_id)
    assert machine.here("sync").code == 74
    other.unlink()
    done = machine.here("sync", "--log-level", "info")
    assert done.event("key.removed")["comment"] == "laptop"
    with machine.key_file.open("a") as file:
        file.write(LAPTOP + "\n")
    done = machine.here("sync", "--log-level", "info")
    assert done.event("key.reappeared")["comment"] == "laptop"


def test_a_failure_is_solved_by_a_success_only(machine: Machine, console: Console) -> None:
    """G6: whether it is failing does not hang on a clock's resolution."""
    console.add_key(LAPTOP)
    machine.here("sync")
    console.fault = "outage"
    machine.here("sync")
    assert machine.here("status", "--json").json["failing"] is True
    console.fault = None
    machine.here("sync")
    assert machine.here("status", "--json").json["failing"] is False


def test_a_success_in_the_future_is_stale(
    machine: Machine, console: Console, tmp_path: Path
) -> None:
    """G6: a clock that was once ahead must not switch the health check off."""
    machine.options = "policy: {max_staleness: 60s}\n"
    machine.configure()
    console.add_key(LAPTOP)
    machine.here("sync")
    assert machine.here("status").code == 0
    mark = tmp_path / "state" / "success.json"
    later = {"at": "2099-01-01T00:00:00Z", "boot": "another boot", "seconds": 1.0}
    mark.write_text(json.dumps(later))
    assert machine.here("status").code == 75


def test_a_second_key_on_the_line_is_not_shown(machine: Machine, console: Console) -> None:
    """G10: two lines that were glued into one show no key in full."""
    console.add_key(LAPTOP)
    second = DESKTOP.split()[1]
    machine.key_file.write_text(f"{LAPTOP}{DESKTOP}\n")
    for command in (["sync", "--json"], ["status"], ["status", "--json"]):
        done = machine.here(*command)
        assert done.code == 0
        assert second not in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, to make a call fail")
def test_the_same_failure_is_recorded_once(
    machine: Machine, console: Console, tmp_path: Path
) -> None:
    """R7, G12: an access list that cannot be set fails each cycle in the same words (G9)."""
    console.add_key(LAPTOP)
    machine.key_file.write_bytes(b"# mine\n")
    grant(machine.key_file)
    command = [sys.executable, "-m", "agent", "--config", str(machine.config), "sync", "--json"]
    inject = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "inject=fsetxattr:error=EPERM"]
    states = []
    for _ in range(2):
        done = run([*inject, *command], clean_environment())
        assert (done.returncode, json.loads(done.stdout)["error"]["kind"]) == (74, "not_permitted")
        states.append((tmp_path / "state" / "state.json").read_bytes())
    assert states[0] == states[1]


def grant(path: Path) -> None:
    """An access list (linux/posix_acl_xattr.h) by which one more user may read."""
    nobody = 0xFFFFFFFF
    entries = [(1, 6, nobody), (2, 4, 54321), (4, 0, nobody), (0x10, 4, nobody), (0x20, 0, nobody)]
    packed = b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + packed)
    except OSError as error:
        pytest.skip(reason=f"this file system has no access lists: {error}")
