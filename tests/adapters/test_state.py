"""keysync's own folder: what is kept, for whose eyes, and what a damaged one does not do (§10)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.adapters.state import StateDirectory
from agent.core.ledger import Failure, Hold, KnownKey, Ledger, TargetOutcome
from agent.core.listing import RejectedEntry
from agent.errors import ApiUnreachable, TargetFailed
from sandbox.console import Console
from tests.adapters.support import (
    MANAGED,
    SECRET,
    User,
    Victim,
    finish,
    leftovers,
    needs_root,
    python,
    umask,
)
from tests.support.machine import TAG, Machine, key_line

NOW = "2024-05-01T10:00:00Z"
LEDGER = Ledger(
    account_id=4711,
    keys={"SHA256:a": KnownKey("SHA256:a", "ssh-ed25519", "naïve", 7, NOW, NOW)},
    rejected=(RejectedEntry(8, "dsa", "no \udcff", frozenset({"SHA256:b", "SHA256:c"})),),
    hold=Hold("empty_listing", "0123", 1, 3),
    last_success=NOW,
    last_failure=Failure(NOW, "timeout", "It took too long.", "Wait."),
    targets=(TargetOutcome("root", "/root/.ssh/authorized_keys", "changed", NOW),),
)
FOREIGN = f"{key_line('foreign')}\n".encode()


def modes(folder: Path) -> dict[str, int]:
    return {
        path.name: stat.S_IMODE(path.lstat().st_mode)
        for path in [folder, *sorted(folder.iterdir())]
    }


def fill(folder: Path) -> StateDirectory:
    """A folder with one file of each kind."""
    state = StateDirectory(str(folder))
    with state.locked(1):
        state.save_original("root", "/root/.ssh/authorized_keys", b"one\n", NOW)
        state.journal("abcd", "/root/.ssh/authorized_keys", [b"one"], NOW)
        state.save(LEDGER)
    return state


# ---- what is kept ----


def test_a_ledger_comes_back_as_it_was(tmp_path: Path) -> None:
    """§10: everything that outlives a cycle does."""
    assert fill(tmp_path / "state").load() == (LEDGER, None)
    empty = StateDirectory(str(tmp_path / "other"))
    with empty.locked(1):
        empty.save(Ledger())
    assert empty.load() == (Ledger(), None)


@pytest.mark.parametrize("mask", [0o000, 0o027, 0o077, 0o777])
def test_nobody_else_can_look_in_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    """G5, G9: the folder is 0700 and everything in it 0600."""
    folder = tmp_path / "state"
    with umask(mask):
        fill(folder)
        fill(folder)
    found = modes(folder)
    assert found.pop("state") == 0o700
    assert len(found) == 5
    assert set(found.values()) == {0o600}


def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    """G5: one made by hand or by a package with 0755 does not stay so."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    fill(folder)
    assert modes(folder)["state"] == 0o700


def test_the_original_is_saved_once_and_byte_for_byte(tmp_path: Path) -> None:
    """G5: the first bytes ever seen; no later call changes them."""
    data = b"\xff\0\r\n no newline"
    state = StateDirectory(str(tmp_path / "state"))
    with state.locked(1):
        state.save_original("root", "/a", data, NOW)
        state.save_original("root", "/a", b"later", NOW)
        state.save_original("root", "/b", None, NOW)
        state.save_original("root", "/b", b"later", NOW)
    found = [(original.path, original.data, original.saved_at) for original in state.originals()]
    assert found == [("/a", data, NOW), ("/b", None, NOW)]


def test_an_original_that_was_half_saved_is_saved_anew(tmp_path: Path) -> None:
    """G5: killed between the bytes and the note about them, the bytes do not count."""
    folder = tmp_path / "state"
    state = fill(folder)
    [about] = folder.glob("original-*.json")
    about.unlink()
    with state.locked(1):
        state.save_original("root", "/root/.ssh/authorized_keys", b"two\n", NOW)
    assert [original.data for original in state.originals()] == [b"two\n"]


def read_journal(folder: Path) -> list[bytes]:
    lines = (folder / "journal.jsonl").read_bytes().split(b"\n")
    found = [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    return [base64.b64decode(entry["removed"]) for entry in found]


def test_the_journal_holds_every_removed_line(tmp_path: Path) -> None:
    """G5: byte for byte, in order, one JSON object a line."""
    folder = tmp_path / "state"
    state = fill(folder)
    with state.locked(1):
        state.journal("bcde", "/b", [b"\xff\r", b"", "é\u2028".encode()], NOW)
    assert read_journal(folder) == [b"one", b"\xff\r", b"", "é\u2028".encode()]


def test_a_torn_line_of_the_journal_does_not_swallow_the_next(tmp_path: Path) -> None:
    """G5: a full disk or a power cut leaves half a line; what follows stays readable."""
    folder = tmp_path / "state"
    state = fill(folder)
    os.truncate(folder / "journal.jsonl", (folder / "journal.jsonl").stat().st_size - 5)
    with state.locked(1):
        state.journal("bcde", "/b", [b"two"], NOW)
    assert read_journal(folder) == [b"two"]


def test_the_journal_does_not_grow_by_what_it_holds(tmp_path: Path) -> None:
    """G5, R5: a line that another tool puts back for ever is journalled once for each file."""
    folder = tmp_path / "state"
    state = fill(folder)
    with state.locked(1):
        for number in range(50):
            state.journal(f"{number:08x}", "/b", [b"again", b"again", b"\xff"], NOW)
        state.journal("bcde", "/c", [b"again", b"other"], NOW)
        state.journal("bcde", '/c", "path": "/b', [b"other"], NOW)
        state.journal("bcde", "/b", [b"other"], NOW)
    expected = [b"one", b"again", b"\xff", b"again", b"other", b"other", b"other"]
    assert read_journal(folder) == expected


def test_half_a_record_is_no_record(tmp_path: Path) -> None:
    """G5: a line whose record was torn is journalled again, whole."""
    folder = tmp_path / "state"
    state = fill(folder)
    journal = folder / "journal.jsonl"
    os.truncate(journal, journal.stat().st_size - 2)
    with state.locked(1):
        state.journal("bcde", "/root/.ssh/authorized_keys", [b"one"], NOW)
        state.journal("bcde", "/root/.ssh/authorized_keys", [b"one"], NOW)
    assert read_journal(folder) == [b"one"]


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    """G7: temporary files go, everything else stays."""
    folder = tmp_path / "state"
    state = fill(folder)
    (folder / ".state.json.0123456789abcdef").touch()
    (folder / ".original-00.bytes.0123456789abcdef").touch()
    (folder / "state.json.unreadable-1").touch()
    with state.locked(1):
        pass
    assert leftovers(folder) == []
    assert (folder / "state.json.unreadable-1").exists()


# ---- a ledger that cannot be read ----

_GOOD: dict[str, Any] = {
    "schema": 1,
    "account_id": 4711,
    "keys": [],
    "rejected": [],
    "hold": None,
    "last_success": None,
    "last_failure": None,
    "targets": [],
}
_BAD = {
    "empty": b"",
    "no JSON": b"{",
    "NUL after a crash": b"\0" * 4096,
    "no UTF-8": b'{"schema": "\xff"}',
    "a list": b"[]",
    "null": b"null",
    "a number": b"17",
    "nothing in it": b"{}",
    "from the future": json.dumps({**_GOOD, "schema": 2}).encode(),
    "no schema": json.dumps({**_GOOD, "schema": None}).encode(),
    "account as text": json.dumps({**_GOOD, "account_id": "4711"}).encode(),
    "account as truth": json.dumps({**_GOOD, "account_id": True}).encode(),
    "keys as an object": json.dumps({**_GOOD, "keys": {"a": 1}}).encode(),
    "keys as text": json.dumps({**_GOOD, "keys": ["SHA256:a"]}).encode(),
    "a time that is none": json.dumps({**_GOOD, "last_success": "yesterday"}).encode(),
    "a time without zone": json.dumps({**_GOOD, "last_success": "2024-05-01T10:00:00"}).encode(),
    "a date that is none": json.dumps({**_GOOD, "last_success": "2024-13-01T10:00:00Z"}).encode(),
    "nested too deep": b"[" * 100_000,
}


@pytest.fixture
def synced(machine: Machine) -> Machine:
    """A machine whose file holds a listed key and one that the console never had."""
    machine.key_file.write_bytes(FOREIGN)
    assert machine.here("sync").code == 0
    assert machine.key_file.read_bytes() == FOREIGN + MANAGED
    return machine


@pytest.mark.parametrize("name", _BAD)
def test_a_damaged_ledger_is_set_aside_and_stops_nothing(synced: Machine, name: str) -> None:
    """§10: its name is changed, it is said loudly, no line goes, the next sync is in order."""
    path = synced.state / "state.json"
    path.write_bytes(_BAD[name])
    before = synced.fixed
    done = synced.here("sync", "--json")
    assert (done.code, synced.fixed) == (0, before)
    aside = Path(done.event("state.set_aside")["path"])
    assert done.event("state.set_aside")["level"] in ("warning", "error")
    assert aside.read_bytes() == _BAD[name]
    assert aside.name.startswith("state.json.unreadable-")
    again = synced.here("sync", "--json")
    assert (again.code, synced.fixed) == (0, before)
    assert [event["event"] for event in again.events] == ["sync.completed"]


def test_a_damaged_ledger_and_no_api_change_nothing(synced: Machine, console: Console) -> None:
    """§10, G1: it is rebuilt from the next listing, not from nothing."""
    (synced.state / "state.json").write_bytes(b"{")
    before = synced.fixed
    console.fault = "outage"
    assert synced.here("sync").code == 75
    console.fault = "empty_list"
    assert synced.here("sync").code == 3
    assert synced.fixed == before


@pytest.mark.parametrize("what", ["directory", "symlink", "pipe"])
def test_a_ledger_that_is_no_file_is_set_aside(synced: Machine, tmp_path: Path, what: str) -> None:
    """§10: it never stops the agent, and what a link leads to is not read."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    path = synced.state / "state.json"
    path.unlink()
    if what == "directory":
        path.mkdir()
    elif what == "symlink":
        path.symlink_to(secret)
    else:
        os.mkfifo(path)
    done = synced.process("sync", "--json")
    assert done.code == 0, done.stderr
    assert SECRET.decode().strip() not in done.stdout + done.stderr
    assert os.path.lexists(done.event("state.set_aside")["path"])
    assert path.is_file()


def _leaves(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    yield path
    items: list[tuple[object, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for name, inner in items:
        yield from _leaves(inner, (*path, name))


def _with(value: Any, path: tuple[Any, ...], new: object) -> Any:
    if not path:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy


def test_any_wrong_value_is_found_out_or_harmless(machine: Machine) -> None:
    """§10: whatever stands in the ledger, it is refused or can be used, shown and saved again."""
    state = fill(machine.state)
    good = json.loads((machine.state / "state.json").read_bytes())
    values: list[object] = [None, True, -1, 1e400, "", "x", [], {}, [[]], [1, "a"], {"a": 1}]
    refused = 0
    for path in _leaves(good):
        for value in values:
            (machine.state / "state.json").write_text(json.dumps(_with(good, path, value)))
            ledger, problem = state.load()
            with state.locked(1):
                state.save(ledger)
            assert state.load() == (ledger, None), (path, value)
            refused += problem is not None
            if problem is None:
                done = machine.here("status", "--json")
                assert done.code == 0, (path, value, done.stderr)
    assert refused > 300


def test_without_its_state_the_managed_lines_follow_the_console(
    synced: Machine, console: Console
) -> None:
    """R2: the tag in the line is enough; a state that is lost costs no revocation of those."""
    console.add_key(key_line("another"))
    [listed, _] = console.account.stored()
    console.delete_key(listed.id)
    for path in synced.state.iterdir():
        path.unlink()
    synced.state.rmdir()
    assert synced.here("sync").code == 0
    assert synced.key_file.read_bytes() == FOREIGN + f"{key_line('another')} {TAG}\n".encode()


# ---- the folder and its lock ----


def _lock_of(folder: Path) -> str:
    return f"f = open({str(folder / 'lock')!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held')"


def test_a_second_sync_waits_for_the_first(synced: Machine) -> None:
    """§6: one sync at a time; the second one begins when the first has ended, and succeeds."""
    hold = _lock_of(synced.state) + "; time.sleep(1.0); print(time.monotonic())"
    with python(hold) as first:
        done = synced.process("sync", "--json")
        finish(first)
    assert done.code == 0, done.stderr
    assert done.events[-1]["duration_ms"] > 500


def test_a_lock_that_is_held_too_long_is_busy(tmp_path: Path) -> None:
    """§7: exit code 75, and the message says what holds it."""
    state = fill(tmp_path / "state")
    with (
        python(_lock_of(tmp_path / "state") + "; sys.stdin.read()"),
        pytest.raises(ApiUnreachable, match="lock") as failure,
        state.locked(0.1),
    ):
        pytest.fail("two at once")
    assert failure.value.kind == "busy"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """G7: kill -9 leaves no lock behind."""
    state = fill(tmp_path / "state")
    with python(_lock_of(tmp_path / "state") + "; sys.stdin.read()") as first:
        first.kill()
        first.wait()
        with state.locked(5):
            pass


@needs_root
@pytest.mark.parametrize("how", ["owned", "linked", "inside", "below"])
def test_a_folder_that_others_could_exchange_is_refused(
    machine: Machine, user: User, tmp_path: Path, how: str
) -> None:
    """G8: the state of root lies where only root can put it; nothing there is read or changed."""
    somebodys = tmp_path / "somebodys"
    somebodys.mkdir(mode=0o755)
    folder = user.home / "state"
    if how == "owned":
        user.run("mkdir", str(folder))
    elif how == "linked":
        user.run("ln", "-s", str(somebodys), str(folder))
    elif how == "inside":
        folder.mkdir(mode=0o755)
    else:
        folder = folder / "new"
        user.run("mkdir", str(folder.parent))
    config = machine.config.read_text().replace(json.dumps(str(machine.state)), str(folder))
    machine.config.write_text(config)
    untouched = [Victim.at(somebodys), Victim.at(user.home)]
    done = machine.process("sync", "--json")
    assert done.code == 74, done.stderr
    assert all(victim.is_untouched() for victim in untouched)
    assert str(folder.parent) in done.json["error"]["message"]
    assert done.json["error"]["hint"]
    assert machine.key_file.read_bytes() == b""


def test_a_link_of_roots_is_followed(machine: Machine, tmp_path: Path) -> None:
    """An administrator may put the state on another disk."""
    (tmp_path / "disk").mkdir(mode=0o700)
    machine.state.symlink_to(tmp_path / "disk")
    assert machine.here("sync").code == 0
    assert (tmp_path / "disk" / "state.json").exists()


@pytest.mark.parametrize("name", ["lock", "journal.jsonl"])
def test_a_pipe_in_the_folder_is_a_failure_by_name(tmp_path: Path, name: str) -> None:
    """G8: opening one never hangs."""
    folder = tmp_path / "state"
    state = fill(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(TargetFailed, match=f"{name}: not a regular file"), state.locked(1):
        state.journal("bcde", "/b", [b"two"], NOW)


def test_a_missing_parent_is_a_failure_by_name(tmp_path: Path) -> None:
    """Only the last part of the path is made."""
    state = StateDirectory(str(tmp_path / "no" / "state"))
    with pytest.raises(TargetFailed, match="does not exist") as failure, state.locked(1):
        pass
    assert failure.value.hint
    with contextlib.suppress(TargetFailed), state.locked(1):
        pass
    assert state.load() == (Ledger(), None)
