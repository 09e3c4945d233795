"""keysync's own folder: what is kept, for whose eyes, and what a damaged one does not do."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.adapters.journal import MAX_JOURNAL_BYTES
from agent.adapters.ledger_file import decode, encode
from agent.adapters.reserve import RESERVE_BYTES
from agent.adapters.state import StateDirectory
from agent.adapters.state_files import is_own
from agent.core.known_keys import MAX_KNOWN_KEYS, MAX_REFUSED_KEYS, KnownKey
from agent.core.ledger import (
    MAX_REJECTED,
    Failure,
    Hold,
    Ledger,
    Retired,
    SkippedFile,
    TargetOutcome,
    WaitingKey,
)
from agent.core.listing import MAX_ENTRIES, RejectedEntry
from agent.core.times import Moment
from agent.errors import Busy, TargetFailed
from sandbox.console import Console
from tests.adapters.support import (
    MANAGED,
    SECRET,
    User,
    Victim,
    finish,
    leftovers,
    needs_root,
    open_files,
    python,
    umask,
    until,
)
from tests.support.machine import REPOSITORY, TAG, Machine, key_line
from tests.support.own_mounts import in_own_mounts, read_only, small_disk

NOW = "2024-05-01T10:00:00Z"
MOMENT = Moment(NOW, "3f2a", 1234.5)
LEDGER = Ledger(
    account_id=4711,
    keys={
        "SHA256:a": KnownKey("SHA256:a", "ssh-ed25519", "naïve", 7, NOW, NOW),
        "SHA256:b": KnownKey("SHA256:b", "ssh-rsa", "", None, NOW, None, NOW),
    },
    rejected=(RejectedEntry(8, "weak_key", "no \udcff", frozenset({"SHA256:b", "SHA256:c"})),),
    holds={
        "": Hold("empty_listing", 1, 3, 300.0, 30.5, NOW, MOMENT),
        "al": Hold("would_lock_out", 3, 3, 300.0, 300.0, NOW, MOMENT),
    },
    waiting=(WaitingKey("SHA256:d", "ssh-ed25519", "new", 9, NOW),),
    retired=(Retired("bo", "/home/bo/.ssh/authorized_keys", NOW),),
    skipped=(SkippedFile("cy", "/home/cy/.ssh/authorized_keys", "not_a_file"),),
    last_success=MOMENT,
    last_failure=Failure(MOMENT, NOW, "timeout", "It took too long.", "Wait."),
    targets=(TargetOutcome("root", "/root/.ssh/authorized_keys", "changed", NOW, "auto"),),
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
    """State: everything that outlives a cycle does."""
    assert fill(tmp_path / "state").load() == (LEDGER, None)
    empty = StateDirectory(str(tmp_path / "other"))
    with empty.locked(1):
        empty.save(Ledger())
    assert empty.load() == (Ledger(), None)


def test_the_largest_ledger_can_be_read_again(tmp_path: Path) -> None:
    """G12: every bound reached at once stays far below what is read of a file."""
    wide, kind = "\U0001f511" * 80, "x" * 64
    names = [f"SHA256:{at:043}" for at in range(MAX_KNOWN_KEYS + MAX_REFUSED_KEYS)]
    keys = {one: KnownKey(one, kind, wide, 10**18 - 1, NOW, NOW, NOW) for one in names}
    waiting = tuple(WaitingKey(one, kind, wide, 10**18 - 1, NOW) for one in names[:MAX_ENTRIES])
    rejected = tuple(
        RejectedEntry(10**18 - 1, "unsupported_by_sshd", wide) for _ in range(MAX_REJECTED)
    )
    largest = replace(LEDGER, keys=keys, waiting=waiting, rejected=rejected)
    state = StateDirectory(str(tmp_path / "state"))
    with state.locked(1):
        state.save(largest)
    assert (tmp_path / "state" / "state.json").stat().st_size < 64 << 20  # 256 MiB are read
    assert state.load() == (largest, None)


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


def test_a_folder_that_serves_something_else_is_not_closed(tmp_path: Path) -> None:
    """G9: a mode is changed only where it concerns keysync alone; the message names the rest."""
    folder = tmp_path / "state"
    fill(folder)
    (folder / "notes").touch()
    with StateDirectory(str(folder)).locked(1):  # closed already
        pass
    folder.chmod(0o755)
    with pytest.raises(TargetFailed, match="'notes'") as failure, fill(folder).locked(1):
        pytest.fail("the folder was taken")
    assert failure.value.kind == "state_dir_shared"
    assert modes(folder)["state"] == 0o755


@needs_root
def test_a_folder_of_somebody_else_is_refused() -> None:
    """G8: an ordinary user's agent believes no state that another user, or root, may write."""
    script = (
        "import os, sys; from agent.adapters.state import StateDirectory;"
        "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534);"
        "print(StateDirectory(sys.argv[1]).load())"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        done = subprocess.run(
            [sys.executable, "-c", script, folder],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            check=False,
        )
    assert done.returncode != 0
    assert (
        f"The state folder {folder} belongs to user id 0, and keysync runs as 65534" in done.stderr
    )


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


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("json", b"{", "is damaged"),
        ("json", b"[]", "is damaged: it is list, not dict"),
        ("json", b'{"user": "root", "path": "/a", "existed": 1}', "is damaged: existed: it is int"),
        ("bytes", None, "is missing"),
    ],
)
def test_an_original_that_is_damaged_is_a_failure_by_name(
    tmp_path: Path, name: str, data: bytes | None, why: str
) -> None:
    """G5: `uninstall --restore-original` gives back no other bytes, and says which file it is."""
    folder = tmp_path / "state"
    state = fill(folder)
    [path] = folder.glob(f"original-*.{name}")
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    with pytest.raises(TargetFailed, match=f"{path.name} {why}") as failure:
        state.originals()
    assert str(folder) in failure.value.message


def read_journal(folder: Path) -> list[bytes]:
    lines = (folder / "journal.jsonl").read_bytes().split(b"\n")
    found = [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    return [base64.b64decode(entry["removed"]) for entry in found if "removed" in entry]


def test_the_journal_holds_every_removed_line(tmp_path: Path) -> None:
    """G5: byte for byte, in order, one JSON object a line."""
    folder = tmp_path / "state"
    state = fill(folder)
    with state.locked(1):
        state.journal("bcde", "/b", [b"\xff\r", b"", "é\u2028".encode()], NOW)
    assert read_journal(folder) == [b"one", b"\xff\r", b"", "é\u2028".encode()]


def noted(folder: Path, path: str) -> list[dict[str, Any]]:
    """The journal's records about one key file."""
    lines = (folder / "journal.jsonl").read_bytes().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["path"] == path]


def test_the_journal_is_bounded_for_each_file_and_keeps_the_newest(tmp_path: Path) -> None:
    """G5, G12, incident 17: one user's file pushes out no line of another's."""
    folder = tmp_path / "state"
    state = fill(folder)
    lines = [b"%06d " % number + b"x" * 90 for number in range(2000)]
    with state.locked(1):
        for at in range(0, len(lines), 50):
            assert state.journal("bcde", "/b", lines[at : at + 50], NOW) == 0
            assert (folder / "journal.jsonl").stat().st_size < MAX_JOURNAL_BYTES + 1024
    assert read_journal(folder)[0] == b"one"
    kept = read_journal(folder)[1:]
    assert kept == lines[-len(kept) :]
    assert len(kept) > 200


def test_what_finds_no_room_in_the_journal_is_counted(tmp_path: Path) -> None:
    """G12, incident 17: 240,000 lines at once are one bounded write, and it says how many."""
    folder = tmp_path / "state"
    state = fill(folder)
    lines = [b"%06d" % number for number in range(50_000)]
    with state.locked(1):
        omitted = state.journal("bcde", "/b", lines, NOW)
    assert read_journal(folder) == [b"one", *lines[: len(lines) - omitted]]
    assert 0 < len(lines) - omitted < 1000
    assert noted(folder, "/b")[-1]["omitted"] == omitted
    assert (folder / "journal.jsonl").stat().st_size < MAX_JOURNAL_BYTES + 1024


def test_a_torn_line_of_the_journal_does_not_swallow_the_next(tmp_path: Path) -> None:
    """G5: a full disk or a power cut leaves half a line; what follows stays readable."""
    folder = tmp_path / "state"
    state = fill(folder)
    os.truncate(folder / "journal.jsonl", (folder / "journal.jsonl").stat().st_size - 5)
    with state.locked(1):
        state.journal("bcde", "/b", [b"two"], NOW)
    assert read_journal(folder) == [b"two"]


def test_a_journal_of_a_version_without_a_bound_stops_no_removal(tmp_path: Path) -> None:
    """G11, incident 17: one that is too large to be read keeps its bytes under another name."""
    folder = tmp_path / "state"
    state = fill(folder)
    old = (folder / "journal.jsonl").read_bytes()
    os.truncate(folder / "journal.jsonl", (64 << 20) + 1)
    with state.locked(1):
        assert state.journal("bcde", "/b", [b"two"], NOW) == 0
    assert read_journal(folder) == [b"two"]
    (aside,) = folder.glob("journal.jsonl.large-*")
    with aside.open("rb") as file:
        assert file.read(len(old)) == old
    assert is_own(aside.name)


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


def test_everything_in_the_folder_is_known_as_its_own(tmp_path: Path) -> None:
    """G5: what `uninstall` removes, and what does not keep the folder from being closed."""
    folder = tmp_path / "state"
    state = fill(folder)
    with state.locked(1):
        state.keep_reserve()
        state.mark_success(MOMENT, at_once=True)
    for number in range(2):
        (folder / "state.json").write_bytes(b"{")
        state.set_aside(str(number))
    found = {path.name for path in folder.iterdir()}
    temporary = {f".{name}.0123456789abcdef" for name in found if name != "lock"}
    assert {"lock", "reserve", "success.json", "journal.jsonl"} < found
    assert [name for name in found | temporary if not is_own(name)] == []
    for strange in ("notes", "state.json.bak", "authorized_keys", "lock2", ".bashrc", "my-reserve"):
        assert not is_own(strange)


@pytest.mark.parametrize("size", [40, (256 << 20) + 1])
def test_a_kill_before_the_new_ledger_keeps_the_account_pin(tmp_path: Path, size: int) -> None:
    """G4: a damaged ledger stays readable for its account until the next one replaces it."""
    state = StateDirectory(str(tmp_path / "state"))
    path = aside = tmp_path / "state" / "state.json"
    for day in (1, 2):
        state.save(Ledger(account_id=day))
        os.truncate(path, size)
        aside = Path(state.set_aside(f"2024-05-0{day}T100000Z-0{9 - day}"))
        assert aside.samefile(path)
        assert state.load()[0].account_id == day
        assert state.set_aside("2024-05-09T100000Z-00") == str(aside)  # no new name in each cycle
        assert state.lost()[-1] == (str(aside), f"2024-05-0{day}T10:00:00Z")
    state.save(Ledger(account_id=3))
    assert state.load() == (Ledger(account_id=3), None)
    assert aside.exists()


def test_a_ledger_that_is_deleted_pins_nothing(tmp_path: Path) -> None:
    """G4: one that was set aside before is no memory of an account any more."""
    state = StateDirectory(str(tmp_path / "state"))
    path = tmp_path / "state" / "state.json"
    state.save(Ledger(account_id=7))
    os.truncate(path, 40)
    state.set_aside("2024-05-01T100000Z-0a")
    state.save(Ledger(account_id=8))
    path.unlink()
    assert state.load() == (Ledger(), None)


# ---- the mark of the last success ----


def test_the_mark_of_the_last_success_is_what_is_read(tmp_path: Path) -> None:
    """R7: an unchanged cycle leaves the ledger alone, and the age of what is known is right."""
    state = fill(tmp_path / "state")
    before = (tmp_path / "state" / "state.json").stat()
    later = MOMENT.after(300.0)
    state.mark_success(later, at_once=False)
    assert state.load() == (replace(LEDGER, last_success=later), None)
    after = (tmp_path / "state" / "state.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_mark_is_written_at_most_once_a_minute(tmp_path: Path) -> None:
    """R7: and at once where a failure ended."""
    state = fill(tmp_path / "state")
    marks = []
    for seconds, at_once in ((0, False), (30, False), (59, False), (60, False), (70, True)):
        state.mark_success(MOMENT.after(seconds), at_once=at_once)
        ledger, _ = state.load()
        assert ledger.last_success
        marks.append(ledger.last_success.seconds - MOMENT.seconds)
    assert marks == [0, 0, 0, 60, 70]


def test_a_mark_from_the_future_is_replaced(tmp_path: Path) -> None:
    """Incident 26: a clock that was set back leaves no success that is still to come."""
    state = fill(tmp_path / "state")
    state.mark_success(MOMENT._replace(at="2036-01-01T00:00:00Z", boot=""), at_once=False)
    state.mark_success(MOMENT, at_once=False)
    assert state.load()[0].last_success == MOMENT


def test_a_mark_from_before_the_ledger_is_not_used(tmp_path: Path) -> None:
    """R7: a power loss may bring an older mark back; the ledger's own time is the later one."""
    state = fill(tmp_path / "state")
    state.mark_success(MOMENT.after(-300.0), at_once=True)
    assert state.load() == (LEDGER, None)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b'{"at": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_mark_is_none(tmp_path: Path, data: bytes) -> None:
    """State: the ledger's own time is used, and the next success marks anew."""
    state = fill(tmp_path / "state")
    (tmp_path / "state" / "success.json").write_bytes(data)
    assert state.load() == (LEDGER, None)
    state.mark_success(MOMENT.after(1.0), at_once=False)
    assert state.load()[0].last_success == MOMENT.after(1.0)


def test_a_mark_needs_no_folder(tmp_path: Path) -> None:
    """State: that it cannot be left is no failure."""
    state = StateDirectory(str(tmp_path / "state"))
    state.mark_success(MOMENT, at_once=True)
    state.keep_reserve()
    assert not (tmp_path / "state").exists()


# ---- disks that take nothing (G11) ----


def fill_up(folder: Path) -> None:
    """Writes until the disk has no room, by ever smaller pieces."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (65536, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


@needs_root
def test_the_reserve_lets_a_revocation_be_recorded_on_a_full_disk(tmp_path: Path) -> None:
    """G11, incident 2: it is released when there is no room, and made anew when there is."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)

    def work() -> None:
        with small_disk(folder, "size=1m"):
            state = fill(folder)
            state.keep_reserve()
            fill_up(folder)
            with state.locked(1):
                state.keep_reserve()
                state.save(replace(LEDGER, account_id=1))
            assert state.load() == (replace(LEDGER, account_id=1), None)
            assert not (folder / "reserve").exists()
            fill_up(folder)
            with pytest.raises(TargetFailed) as failure, state.locked(1):
                state.save(replace(LEDGER, account_id=2))
            assert failure.value.kind == "disk_full"
            state.keep_reserve()
            assert leftovers(folder) == []
            assert state.load()[0].account_id == 1
            (folder / "ballast").unlink()
            state.keep_reserve()
            assert (folder / "reserve").stat().st_size == RESERVE_BYTES

    in_own_mounts(work)


@needs_root
def test_the_reserve_is_not_made_of_the_last_room(tmp_path: Path) -> None:
    """G11: after its release it comes back when the disk has room again, not at once."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    reserve = folder / "reserve"

    def work() -> None:
        with small_disk(folder, "size=1m"):
            state = fill(folder)
            state.keep_reserve()
            fill_up(folder)
            assert state.release_reserve(folder.stat().st_dev)
            for _ in range(2):  # at the end of this cycle, and of the next one
                state.keep_reserve()
                assert not reserve.exists()
            os.truncate(folder / "ballast", (folder / "ballast").stat().st_size - RESERVE_BYTES)
            state.keep_reserve()
            assert reserve.exists()

    in_own_mounts(work)


def test_the_reserve_is_not_made_in_the_cycle_that_released_it(tmp_path: Path) -> None:
    """G11: also where a quota hides how much room there is."""
    state = fill(tmp_path / "state")
    state.keep_reserve()
    assert state.release_reserve((tmp_path / "state").stat().st_dev)
    state.keep_reserve()
    assert not (tmp_path / "state" / "reserve").exists()
    state.keep_reserve()
    assert (tmp_path / "state" / "reserve").exists()


def test_the_reserve_is_not_released_where_that_makes_no_room(tmp_path: Path) -> None:
    """G11: a full disk elsewhere, no reserve, no folder."""
    state = StateDirectory(str(tmp_path / "state"))
    assert not state.release_reserve(tmp_path.stat().st_dev)
    fill(tmp_path / "state")
    assert not state.release_reserve(tmp_path.stat().st_dev)
    state.keep_reserve()
    assert not state.release_reserve(tmp_path.stat().st_dev + 1)
    assert (tmp_path / "state" / "reserve").exists()


@needs_root
@pytest.mark.parametrize("reserve", [True, False])
def test_the_journal_on_a_full_disk(tmp_path: Path, *, reserve: bool) -> None:
    """G5, G11: with the reserve every removed line is in it, whole; else the failure has a name."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    lines = [b"%06d " % number + b"x" * 900 for number in range(30)]

    def work() -> None:
        with small_disk(folder, "size=1m"):
            state = fill(folder)
            if reserve:
                state.keep_reserve()
            fill_up(folder)
            if reserve:
                assert state.journal("bcde", "/b", lines, NOW) == 0
                state.save_original("al", "/al", b"x" * 10_000, NOW)
            else:
                with pytest.raises(TargetFailed) as failure:
                    state.journal("bcde", "/b", lines, NOW)
                assert failure.value.kind == "disk_full"
                (folder / "ballast").unlink()
                assert state.journal("bcde", "/b", lines, NOW) == 0
            assert read_journal(folder) == [b"one", *lines]

    in_own_mounts(work)


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o755])
@pytest.mark.parametrize("there", [True, False])
def test_the_lock_on_a_read_only_disk(tmp_path: Path, mode: int, *, there: bool) -> None:
    """G11: a revocation outranks the bookkeeping; two syncs still keep out of each other's way."""
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o700)
    folder = disk / "state"
    if there:
        fill(folder)
        (folder / "lock").unlink()
        folder.chmod(mode)

    def work() -> None:
        with read_only(disk):
            state = StateDirectory(str(folder))
            with state.locked(1):
                state.keep_reserve()
                state.mark_success(MOMENT, at_once=True)
                if there:
                    with pytest.raises(Busy), state.locked(0.05):
                        pytest.fail("two at once")
                with pytest.raises(TargetFailed) as failure:
                    state.save(LEDGER)
                assert failure.value.kind == "read_only"
            assert state.load() == (LEDGER if there else Ledger(), None)

    in_own_mounts(work)


@needs_root
@pytest.mark.parametrize("broken", [False, True])
def test_a_disk_that_cannot_be_written_shows_without_a_ledger(
    tmp_path: Path, *, broken: bool
) -> None:
    """G11: also where the ledger has just been set aside, or was never written."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    state = StateDirectory(str(folder))

    def kind() -> str | None:
        obstacle = state.obstacle()
        return obstacle.kind if obstacle else None

    def work() -> None:
        with small_disk(folder, "size=64k"):
            if broken:
                (folder / "state.json").write_text("{")
                state.set_aside("2024-05-01T100000Z-1")
            assert kind() is None
            fill_up(folder)
            assert kind() == "disk_full"
        with read_only(folder):
            assert kind() == "read_only"

    in_own_mounts(work)


# ---- a ledger of the first schema ----


_FIRST: dict[str, Any] = {
    "account_id": 4711,
    "hold": {"digest": "01", "needed": 3, "reason": "empty_listing", "seen": 2},
    "keys": [
        {
            "comment": "laptop",
            "fingerprint": "SHA256:a",
            "first_listed": NOW,
            "key_id": 7,
            "key_type": "ssh-ed25519",
            "revoked_at": None,
        },
        {
            "comment": "old",
            "fingerprint": "SHA256:b",
            "first_listed": NOW,
            "key_id": 8,
            "key_type": "ssh-rsa",
            "revoked_at": "2024-05-02T10:00:00Z",
        },
        {
            "comment": "",
            "fingerprint": "SHA256:c",
            "first_listed": NOW,
            "key_id": 9,
            "key_type": "",
            "revoked_at": None,
        },
    ],
    "last_failure": {
        "at": NOW,
        "hint": "Wait.",
        "kind": "timeout",
        "message": "It took too long.",
        "solved_at": None,
    },
    "last_success": NOW,
    "rejected": [
        {"detail": "no", "fingerprints": ["SHA256:c"], "key_id": 9, "reason": "options"},
    ],
    "schema": 1,
    "targets": [{"at": NOW, "path": "/a", "result": "in_sync", "user": "root"}],
}


def as_before(**changed: Any) -> bytes:
    """The bytes that a keysync of the first schema wrote."""
    return json.dumps({**_FIRST, **changed}, indent=1, sort_keys=True).encode() + b"\n"


def test_a_ledger_of_the_first_schema_is_read(tmp_path: Path) -> None:
    """State: an upgrade forgets neither the account nor a key; a hold that ran starts over."""
    state = fill(tmp_path / "state")
    (tmp_path / "state" / "state.json").write_bytes(as_before())
    ledger, problem = state.load()
    past = Moment(NOW, "", 0.0)
    assert problem is None
    assert ledger == Ledger(
        account_id=4711,
        keys={
            "SHA256:a": KnownKey("SHA256:a", "ssh-ed25519", "laptop", 7, NOW, None, NOW),
            "SHA256:b": KnownKey("SHA256:b", "ssh-rsa", "old", 8, NOW, "2024-05-02T10:00:00Z"),
            "SHA256:c": KnownKey("SHA256:c", "", "", 9, NOW),
        },
        rejected=(RejectedEntry(9, "options", "no", frozenset({"SHA256:c"})),),
        last_success=past,
        last_failure=Failure(past, NOW, "timeout", "It took too long.", "Wait."),
        targets=(TargetOutcome("root", "/a", "in_sync", NOW, "configured"),),
    )
    state.save(ledger)
    assert state.load() == (ledger, None)


def test_an_empty_ledger_of_the_first_schema_is_read() -> None:
    """State: one that was made and never filled."""
    nothing: dict[str, Any] = {
        "hold": None,
        "keys": [],
        "last_failure": None,
        "last_success": None,
        "targets": [],
    }
    assert decode(as_before(account_id=None, rejected=[], **nothing)) == Ledger()


@pytest.mark.parametrize(
    "changed",
    [
        {"keys": {"a": 1}},
        {"keys": ["SHA256:a"]},
        {"keys": None},
        {"targets": [7]},
        {"last_success": "yesterday"},
        {"last_success": 7},
        {"last_failure": {}},
        {"last_failure": {**_FIRST["last_failure"], "at": 7}},
        {"account_id": "4711"},
    ],
)
def test_a_damaged_ledger_of_the_first_schema(tmp_path: Path, changed: dict[str, Any]) -> None:
    """State: it is started anew, for the account whose machine it was (G4)."""
    state = fill(tmp_path / "state")
    (tmp_path / "state" / "state.json").write_bytes(as_before(**changed))
    ledger, problem = state.load()
    assert problem
    assert ledger == Ledger(account_id=None if "account_id" in changed else 4711)


def test_a_ledger_from_before_files_were_skipped(tmp_path: Path) -> None:
    """State: what the schema got later may be missing."""
    state = fill(tmp_path / "state")
    path = tmp_path / "state" / "state.json"
    raw = json.loads(path.read_bytes())
    del raw["skipped"]
    path.write_text(json.dumps(raw))
    assert state.load() == (replace(LEDGER, skipped=()), None)


# ---- a ledger that cannot be read ----


@pytest.mark.parametrize("of", ["this schema", "the first schema", "a later schema"])
def test_the_account_of_a_ledger_that_is_too_large_is_kept(tmp_path: Path, of: str) -> None:
    """G4, incident 10: a file over 256 MB never drops the pin."""
    state = fill(tmp_path / "state")
    path = tmp_path / "state" / "state.json"
    if of == "the first schema":
        path.write_bytes(as_before())
    elif of == "a later schema":
        path.write_bytes(path.read_bytes().replace(b'"schema": 2', b'"schema": 3'))
    assert b'"account_id": 4711' in path.read_bytes()
    os.truncate(path, (256 << 20) + 1)
    ledger, problem = state.load()
    assert problem
    assert ledger == Ledger(account_id=4711)


@pytest.mark.parametrize("end", [30, 200, 1000])
def test_the_account_of_a_ledger_that_was_cut_is_kept(tmp_path: Path, end: int) -> None:
    """G4: it stands in front of everything that can be lost."""
    state = fill(tmp_path / "state")
    os.truncate(tmp_path / "state" / "state.json", end)
    ledger, problem = state.load()
    assert problem
    assert ledger == Ledger(account_id=4711)


def test_a_comment_is_not_taken_for_the_account(tmp_path: Path) -> None:
    """G4: what a key is called on the console pins nothing."""
    key = KnownKey("SHA256:a", "ssh-rsa", '"account_id": 666, ', None, NOW)
    data = encode(replace(LEDGER, account_id=None, keys={"SHA256:a": key}))
    state = fill(tmp_path / "state")
    (tmp_path / "state" / "state.json").write_bytes(data[:-5])
    ledger, problem = state.load()
    assert problem
    assert ledger == Ledger()


_GOOD: dict[str, Any] = {
    "schema": 2,
    "account_id": 4711,
    "keys": [],
    "rejected": [],
    "holds": {},
    "waiting": [],
    "retired": [],
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
    "from the future": json.dumps({**_GOOD, "schema": 3}).encode(),
    "no schema": json.dumps({**_GOOD, "schema": None}).encode(),
    "account as text": json.dumps({**_GOOD, "account_id": "4711"}).encode(),
    "account as truth": json.dumps({**_GOOD, "account_id": True}).encode(),
    "keys as an object": json.dumps({**_GOOD, "keys": {"a": 1}}).encode(),
    "keys as text": json.dumps({**_GOOD, "keys": ["SHA256:a"]}).encode(),
    "holds as a list": json.dumps({**_GOOD, "holds": [1]}).encode(),
    "a time that is none": json.dumps({**_GOOD, "last_success": "yesterday"}).encode(),
    "a time without zone": json.dumps(
        {**_GOOD, "last_success": {**MOMENT._asdict(), "at": "2024-05-01T10:00:00"}}
    ).encode(),
    "a date that is none": json.dumps(
        {**_GOOD, "last_success": {**MOMENT._asdict(), "at": "2024-13-01T10:00:00Z"}}
    ).encode(),
    "endless seconds": json.dumps(
        {**_GOOD, "last_success": {**MOMENT._asdict(), "seconds": 10**400}}
    ).encode(),
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
    """State: its name is changed, it is said loudly, no line goes, the next sync is in order."""
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
    """State, G1: it is rebuilt from the next listing, not from nothing."""
    (synced.state / "state.json").write_bytes(b"{")
    before = synced.fixed
    console.fault = "outage"
    assert synced.here("sync").code == 75
    console.fault = "empty_list"
    assert synced.here("sync").code == 3
    assert synced.fixed == before


@pytest.mark.parametrize("what", ["directory", "symlink", "pipe"])
def test_a_ledger_that_is_no_file_is_set_aside(synced: Machine, tmp_path: Path, what: str) -> None:
    """State: it never stops the agent, and what a link leads to is not read."""
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
    copy[path[0]] = _with(value[path[0]] if path[1:] else None, path[1:], new)
    return copy


def _without(value: Any, path: tuple[Any, ...]) -> Any:
    if len(path) == 1:
        return {name: inner for name, inner in value.items() if name != path[0]}
    return _with(value, path[:1], _without(value[path[0]], path[1:]))


VALUES: list[object] = [None, True, -1, float("nan"), 1e400, -1e400, 10**400, "", "x", [], {}]
VALUES += [[[]], [1, "a"], {"a": 1}, 10**17, -(10**17)]


def damaged() -> Iterator[tuple[object, str]]:
    """Ledgers with one wrong value each, and where it stands."""
    good = json.loads(encode(LEDGER))
    for path in _leaves(good):
        for value in VALUES:
            yield (path, value), json.dumps(_with(good, path, value))


def test_any_wrong_value_is_found_out_or_harmless(tmp_path: Path) -> None:
    """State: whatever stands in the ledger, it is refused or can be used and saved again."""
    state = fill(tmp_path / "state")
    refused = 0
    for where, text in damaged():
        (tmp_path / "state" / "state.json").write_text(text)
        ledger, problem = state.load()
        refused += problem is not None
        for hold in ledger.holds.values():
            assert round(hold.remaining(30.0)) >= 0, where
        assert decode(encode(ledger)) == ledger, where
    assert refused > 700


def test_any_missing_field_is_found_out(tmp_path: Path) -> None:
    """State, G4: what is missing is not taken for empty: neither an account nor a revocation."""
    state = fill(tmp_path / "state")
    good = json.loads(encode(LEDGER))
    paths = [path for path in _leaves(good) if path and isinstance(path[-1], str)]
    for path in paths:
        if path in (("skipped",), ("holds", ""), ("holds", "al")):  # the last two name users
            continue
        (tmp_path / "state" / "state.json").write_text(json.dumps(_without(good, path)))
        assert state.load()[1], path
    assert len(paths) > 60


def test_fields_of_a_newer_version_are_ignored(tmp_path: Path) -> None:
    """State: within one schema a version may add fields; going back to an older one loses none."""
    state = fill(tmp_path / "state")
    good = json.loads(encode(LEDGER))
    places = [path for path in _leaves(good) if path and path[-1] in ("at", "user", "comment")]
    for path in places:
        more = _with(good, (*path[:-1], "new"), {"a": [1]})
        (tmp_path / "state" / "state.json").write_text(json.dumps({**more, "new": None}))
        assert state.load() == (LEDGER, None), path
    assert len(places) > 8


def test_any_value_that_is_not_found_out_can_be_shown(machine: Machine) -> None:
    """State: `status` answers from any ledger that is taken for a good one."""
    state = fill(machine.state)
    for where, text in damaged():
        (machine.state / "state.json").write_text(text)
        if state.load()[1] is None:
            done = machine.here("status", "--json")
            assert done.code != 1, (where, done.stderr)


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
    """Polling: one sync at a time; the second one begins when the first has ended, and succeeds."""
    lock = str(synced.state / "lock")
    with (
        python(_lock_of(synced.state) + "; sys.stdin.read()") as first,
        synced.started("sync", "--json") as second,
    ):
        until(lambda: lock in open_files(second.pid), "the second one waits")
        time.sleep(0.6)
        assert second.poll() is None
        finish(first)
        out, err = second.communicate(timeout=30)
    assert second.returncode == 0, out + err
    assert json.loads(err.splitlines()[-1])["duration_ms"] > 500


def test_a_lock_that_is_held_too_long_is_busy(tmp_path: Path) -> None:
    """Commands: exit code 75, and the message says what holds it."""
    state = fill(tmp_path / "state")
    with (
        python(_lock_of(tmp_path / "state") + "; sys.stdin.read()"),
        pytest.raises(Busy, match="lock") as failure,
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
    with pytest.raises(TargetFailed, match=f"{name}: it is a named pipe"), state.locked(1):
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
