"""What a killed run left of somebody's edit, and what others may put there instead (G7, G8)."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner
from agent.adapters.files.key_file import KeyFile, Snapshot
from agent.adapters.files.late_edit import found_edit, holds_edit, telling_name, with_edit
from sandbox.console import Console
from tests.adapters.support import (
    FOREIGN_KEY,
    MANAGED,
    SECRET,
    User,
    Victim,
    adding,
    leftovers,
    needs_root,
    target,
    update,
)
from tests.support.machine import TAG, Machine, key_line

ME = Owner(os.geteuid(), os.getegid())
PREFIX = ".authorized_keys.keysync-"
OLD, NEW = b"# one\nold\n", b"# one\nnew\n"
LATE = b"# late\n"
LATE_KEY = FOREIGN_KEY + b"\n"


def _plant(folder: Path, data: bytes, before: bytes = OLD, after: bytes = NEW) -> Path:
    path = folder / telling_name(PREFIX, before, after)
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def _keep(data: bytes) -> bytes:
    return data


def test_a_name_tells_an_edit_from_what_keysync_wrote() -> None:
    """G7: the old file, the new one, and anything under another name hold nobody's edit."""
    name = telling_name(PREFIX, OLD, NEW)
    assert holds_edit(name, OLD + LATE)
    assert not holds_edit(name, OLD)
    assert not holds_edit(name, NEW)
    assert not holds_edit(name + ".part", OLD + LATE)
    assert not holds_edit(PREFIX + "0123456789abcdef", OLD + LATE)
    assert len({telling_name(PREFIX, OLD, NEW) for _ in range(10)}) == 10


@pytest.mark.parametrize(
    ("theirs", "current", "merged"),
    [
        (b"# one\nold\n# late\n", NEW, b"# one\nold\n# late\n"),
        (b"old\n", NEW, b"old\n"),
        (b"# one\nold\n# late\n", NEW + b"# later\n", NEW + b"# later\n# late\n"),
        (b"# one\nold\n# late\n", b"", b"# late\n"),
        (b"# two\n", NEW + b"# later\n", NEW + b"# later\n# two\n"),
    ],
    ids=["appended", "taken out", "appended, both", "appended, file removed", "rewritten, both"],
)
def test_merging_what_was_left(theirs: bytes, current: bytes, merged: bytes) -> None:
    """G7: exact where nobody wrote since, or lines were appended; else without dropping a line."""
    late = found_edit(telling_name(PREFIX, OLD, NEW), theirs, current)
    assert with_edit(current, late.edit) == merged
    assert late.unmerged == ()


@pytest.mark.parametrize(
    ("before", "theirs"),
    [(b"", LATE_KEY), (b"old", b"old\n" + LATE_KEY), (b"old\n", b"old\n" + LATE_KEY)],
    ids=["to nothing", "to an unfinished line", "to a whole line"],
)
def test_a_key_that_was_appended_is_merged(before: bytes, theirs: bytes) -> None:
    """G7: also into a file that was changed since: nobody took that key out of it."""
    late = found_edit(telling_name(PREFIX, before, NEW), theirs, b"# two\n")
    assert with_edit(b"# two\n", late.edit) == b"# two\n" + LATE_KEY
    assert late.unmerged == ()


@needs_root
@pytest.mark.parametrize("first", [b"# edited", b"# mine"], ids=["first line", "later line"])
def test_a_key_that_its_owner_took_out_stays_out(
    machine: Machine, user: User, first: bytes
) -> None:
    """G7, G5: a killed run left an edit, and then the owner removed a key by hand. It does not come
    back with the edit; the journal keeps it, since it might as well have been added there.
    """
    before = b"# mine\n" + LATE_KEY + b"old\n"
    user.write_keys(b"# mine\n" + MANAGED)
    leftover = first + b"\n" + LATE_KEY + MANAGED + b"old, edited\n"
    planted = _plant(user.ssh, leftover, before, b"# mine\n" + LATE_KEY)
    user.give(planted)
    machine.configure(targets=target(user.name, user.keys))
    assert machine.here("sync", "--json").code == 0
    added = b"" if first == b"# mine" else first + b"\n"
    assert user.keys.read_bytes() == b"# mine\n" + MANAGED + added + b"old, edited\n"
    assert leftovers(user.ssh) == []
    assert _journalled(machine) == [LATE_KEY.rstrip()]
    assert machine.here("sync", "--json").json["result"] == "in_sync"
    assert _journalled(machine) == [LATE_KEY.rstrip()]


def test_an_edit_of_keys_alone_is_shown_before_it_goes(tmp_path: Path) -> None:
    """G5: also when nothing of it is merged, so that no file is written."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"# now\n")
    path.chmod(0o600)
    _plant(tmp_path, LATE_KEY)
    shown: list[Snapshot] = []
    with KeyFile.opened(str(path), ME, for_writing=True) as file:
        file.update(_keep, shown.append)
    assert path.read_bytes() == b"# now\n"
    assert shown == [Snapshot(b"# now\n", exists=True, unmerged=(LATE_KEY.rstrip(),))]
    assert leftovers(tmp_path) == []


def _journalled(machine: Machine) -> list[bytes]:
    path = machine.state / "journal.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [base64.b64decode(json.loads(line)["removed"]) for line in lines]


def test_a_left_edit_is_merged_and_cleared(tmp_path: Path) -> None:
    """G7: also when the transformation itself finds nothing to do."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(NEW)
    path.chmod(0o600)
    _plant(tmp_path, NEW + LATE)
    update(path, ME, _keep)
    assert path.read_bytes() == NEW + LATE
    assert os.listdir(tmp_path) == ["authorized_keys"]


def test_a_left_edit_waits_for_the_next_update(tmp_path: Path) -> None:
    """G3, G7: a run that writes nothing, since it is held, neither merges nor deletes it."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(NEW)
    planted = _plant(tmp_path, NEW + LATE)
    for for_writing in (True, False):
        with KeyFile.opened(str(path), ME, for_writing=for_writing) as file:
            assert file.read().data == NEW
        assert planted.read_bytes() == NEW + LATE


def test_a_left_edit_is_seen_before_the_file_is_removed(tmp_path: Path) -> None:
    """G5: an uninstall keeps a copy of it too."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(NEW)
    _plant(tmp_path, NEW + LATE)
    seen: list[bytes] = []

    def keep(found: Snapshot) -> None:
        seen.append(found.data)

    with KeyFile.opened(str(path), ME, for_writing=True) as file:
        file.remove(keep)
    assert seen == [NEW, NEW + LATE]
    assert os.listdir(tmp_path) == []


def test_an_edit_of_which_nothing_may_stay_is_shown_first(tmp_path: Path) -> None:
    """G5: a revoked line that came back at the last moment is journalled although it never was in
    the file that was read.
    """
    path = tmp_path / "authorized_keys"
    path.write_bytes(NEW)
    path.chmod(0o600)
    _plant(tmp_path, NEW + b"revoked\n")
    shown: list[Snapshot] = []
    with KeyFile.opened(str(path), ME, for_writing=True) as file:
        file.update(lambda data: data.replace(b"revoked\n", b""), shown.append)
    assert path.read_bytes() == NEW
    assert shown == [Snapshot(NEW, exists=True)]
    assert leftovers(tmp_path) == []


def test_few_are_read_in_one_run_and_none_is_lost(tmp_path: Path) -> None:
    """R11, G7: whoever fills their directory with such files delays nobody, and loses no edit."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(NEW)
    path.chmod(0o600)
    for number in range(20):
        _plant(tmp_path, NEW + b"line %d\n" % number)
    update(path, ME, _keep)
    assert 0 < len(leftovers(tmp_path)) < 20
    for _ in range(2):
        update(path, ME, _keep)
    assert leftovers(tmp_path) == []
    expected = [*NEW.splitlines(), *(b"line %d" % number for number in range(20))]
    assert sorted(path.read_bytes().splitlines()) == sorted(expected)


@needs_root
@pytest.mark.parametrize("plant", ["symlink", "hard_link", "foreign", "pipe"])
def test_what_is_not_the_users_own_is_no_edit(tmp_path: Path, user: User, plant: str) -> None:
    """G8: nobody else's file is read into the user's, whatever is planted under such a name."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    user.write_keys(NEW)
    planted = user.ssh / telling_name(PREFIX, OLD, NEW)
    if plant == "symlink":
        planted.symlink_to(secret)
    elif plant == "hard_link":
        os.link(secret, planted)
    elif plant == "foreign":
        planted.write_bytes(SECRET)
        planted.chmod(0o600)
    else:
        user.run("mkfifo", str(planted))
    victim = Victim.at(secret)
    update(user.keys, user.owner, adding(b"line"))
    assert user.keys.read_bytes() == NEW + b"line\n"
    assert leftovers(user.ssh) == []
    assert secret.read_bytes() == SECRET
    assert victim.is_untouched()


@needs_root
def test_a_planted_edit_is_judged_as_any_line_of_the_user(
    machine: Machine, console: Console, user: User
) -> None:
    """G8, R2, R6: the user's own lines come in, a line with keysync's tag does not."""
    tagged = f"{key_line('stranger')} {TAG}\n".encode()
    user.write_keys(MANAGED)
    user.give(_plant(user.ssh, MANAGED + LATE + tagged, b"?", MANAGED))
    machine.configure(targets=target(user.name, user.keys))
    done = machine.here("sync", "--json")
    assert done.code == 0, done
    assert user.keys.read_bytes() == MANAGED + LATE
    assert [one["comment"] for one in done.json["targets"][0]["removed"]] == ["stranger"]
    assert b"stranger" not in user.keys.read_bytes()
    assert leftovers(user.ssh) == []
    before = user.keys.stat()
    assert machine.here("sync", "--json").json["result"] == "in_sync"
    assert user.keys.stat().st_mtime_ns == before.st_mtime_ns
