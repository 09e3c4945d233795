"""What a sync meets, from just before it to long after it, and what must hold in between."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from agent.adapters.files.atomic import Owner
from agent.adapters.state import StateDirectory
from sandbox.console import Console
from tests.support.disk_faults import RANDOM_NAME, End
from tests.support.machine import TAG, Machine, key_line

FOREIGN = key_line("foreign").encode() + b"\n"
STAYS = b"# by hand; half of the file shall end within a key \xff\r\n" + FOREIGN
GONE = f"{key_line('gone')} {TAG}\n".encode()
PLAIN_NEW = f"{key_line('new')}\n".encode()
NEW = f"{key_line('new')} {TAG}\n".encode()
LATE = key_line("late").encode() + b"\n"
_TIME = re.compile(r'"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"')
_CHANCE = re.compile(rb'"20\d\d-[0-9T:-]*Z"|"sync_id": "[0-9a-f]*"|"seconds": [0-9.]+')
_LONG_AGO = "2020-01-01T00:00:00Z"
_WELL = ("changed", "in_sync")


def _somebody() -> tuple[str, Owner]:
    """Whose files they are: as root, another user's, so that owners have to be set."""
    entry = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    return entry.pw_name, Owner(entry.pw_uid, entry.pw_gid)


USER, OWNER = _somebody()


@dataclass
class Target:
    """A key file before and after the sync; `original` is what it was before the first one."""

    path: Path
    before: bytes | None = None
    after: bytes | None = None
    original: bytes | None = None

    @property
    def on_disk(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None

    @property
    def revoked(self) -> bytes | None:
        """The file before, without the keys that go: nothing has entered it (G11)."""
        gone = _keys(self.before) - _keys(self.after)
        if self.before is None:
            return None
        lines = self.before.splitlines(keepends=True)
        return b"".join(line for line in lines if not gone & _keys(line))

    @property
    def lost_only_revoked(self) -> bool:
        """Whether nothing has entered, and what is gone should be gone (G11)."""
        return _keys(self.on_disk) == _keys(self.revoked)

    @property
    def identity(self) -> tuple[int, ...]:
        """What changes when the file is written."""
        status = self.path.stat()
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


Saved = dict[Path, tuple[os.stat_result, bytes | None]]
Disk: TypeAlias = frozenset[tuple[str, int, int, int, bytes]]


@dataclass
class Scene:
    """A machine whose every file is known before a sync, which ends with `code`."""

    machine: Machine
    console: Console
    targets: list[Target]
    code: int = 0
    exchange: bool = True
    _saved: Saved = field(default_factory=dict)
    _unkept: bool = False  # a sync could not keep what it removed

    @property
    def home(self) -> Path:
        return self.machine.folder / "home"

    @property
    def target(self) -> Target:
        return self.targets[0]

    @property
    def ssh(self) -> Path:
        return self.target.path.parent

    # ---- making it, and putting it back ----

    def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """A file of the user's, with its folder."""
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700)
            os.chown(path.parent, OWNER.uid, OWNER.gid)
        path.write_bytes(data)
        path.chmod(mode)
        os.chown(path, OWNER.uid, OWNER.gid)

    def synced(self) -> None:
        """A sync was here, long ago."""
        assert self.machine.here("sync").code == 0
        for name in ("state.json", "success.json"):
            path = self.machine.state / name
            path.write_text(_TIME.sub(f'"{_LONG_AGO}"', path.read_text()))

    def save(self) -> None:
        """This is how it is before the sync."""
        roots = [root for root in (self.home, self.machine.state) if root.exists()]
        for path in [below for root in roots for below in (root, *sorted(root.rglob("*")))]:
            data = path.read_bytes() if path.is_file() else None
            self._saved[path] = (path.stat(), data)

    def reset(self) -> None:
        """Everything as it was before the sync, also where a folder is the root of a mount."""
        self._unkept = False
        for root in (self.home, self.machine.state):
            for path in root.iterdir() if root.exists() else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if root not in self._saved and root.exists():
                root.rmdir()
        for path, (status, data) in self._saved.items():
            if data is None:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(data)
            os.chown(path, status.st_uid, status.st_gid)
            path.chmod(stat.S_IMODE(status.st_mode))

    def names_before(self, folder: Path) -> set[str]:
        """What was in a folder before the sync."""
        return {path.name for path in self._saved if path.parent == folder}

    # ---- what must hold ----

    def check_whole(self, end: End | None = None) -> None:
        """At any moment: each file is the old or the new one, nothing is lost, nothing claimed.

        Where the bookkeeping failed in a sync that came to an `end`, lines may have gone without
        a copy, and nothing may have entered (G11).
        """
        if end is not None and end.code == 74 and "state.write_failed" in end.stderr:
            self._unkept = True
        for target in self.targets:
            whole = target.on_disk in (target.before, target.after)
            assert whole or (self._unkept and target.lost_only_revoked), target.on_disk
            for path in (target.path, target.path.parent):
                self._check_access(path)
            if not self._unkept:
                self._check_kept(target)
        self._check_state()

    def _check_access(self, path: Path) -> None:
        """Mode and owner are as they were, or right (G9)."""
        if not path.exists():
            return
        right = (0o700 if path.is_dir() else 0o600, OWNER.uid, OWNER.gid)
        found = _access(path)
        assert found == right or (path in self._saved and found == self._access_before(path))

    def _access_before(self, path: Path) -> tuple[int, int, int]:
        status, _ = self._saved[path]
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid

    def _check_kept(self, target: Target) -> None:
        """G5: the original is kept before anything changes, each line before it goes."""
        if target.on_disk == target.before:
            return
        state = StateDirectory(str(self.machine.state))
        [original] = [one for one in state.originals() if one.path == str(target.path)]
        assert original.data == target.original
        gone = _keys(target.before) - _keys(target.on_disk)
        assert gone <= self._journalled, "a line is neither on the disk nor in the journal"

    @property
    def _journalled(self) -> set[bytes]:
        path = self.machine.state / "journal.jsonl"
        found = set()
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):  # torn by the fault; written again when needed
                found |= _keys(base64.b64decode(json.loads(line)["removed"]))
        return found

    def _check_state(self) -> None:
        """State: state.json is the earlier one or a whole new one, and claims only what is so."""
        path = self.machine.state / "state.json"
        if not path.exists() or path.read_bytes() == self._saved.get(path, (None, None))[1]:
            return
        ledger, problem = StateDirectory(str(self.machine.state)).load()
        assert problem is None
        done = all(target.on_disk == target.after for target in self.targets)
        if ledger.last_success and ledger.last_success.at != _LONG_AGO:
            assert done, "the state says success, and the disk does not"
        for outcome in ledger.targets:
            if outcome.result in _WELL and outcome.at != _LONG_AGO:
                [target] = [one for one in self.targets if str(one.path) == outcome.path]
                assert target.on_disk == target.after, "the state is ahead of the disk"

    def check_done(self, end: End) -> None:
        """A sync that nothing disturbed: all is as it shall be, and no trace of an earlier one."""
        assert end.code == self.code, end.stdout + end.stderr
        self.check_whole()
        for target in self.targets:
            assert target.on_disk == target.after, target.on_disk
            assert os.listdir(target.path.parent) == [target.path.name]
        assert [name for name in os.listdir(self.home) if ".keysync-" in name] == []
        assert [name for name in os.listdir(self.machine.state) if name.startswith(".")] == []
        for path in self.machine.state.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    @property
    def disk(self) -> Disk:
        """Everything below the machine's folder that a sync may find or leave, but for the times,
        numbers and random names of single syncs. Two syncs that find the same do the same.
        """
        roots = [root for root in (self.home, self.machine.state) if root.exists()]
        return frozenset(
            (RANDOM_NAME.sub("*", str(path)), *_access(path), _CHANCE.sub(b"*", _data(path)))
            for root in roots
            for path in (root, *root.rglob("*"))
        )

    def check_idle(self, sync: Callable[[], End]) -> None:
        """R7: another sync writes no key file."""
        before = [target.identity for target in self.targets]
        end = sync()
        self.check_done(end)
        assert [target.identity for target in self.targets] == before
        assert not self.code or end.json["result"] in ("held", "failed")
        assert self.code or end.json["result"] == "in_sync"


def _access(path: Path) -> tuple[int, int, int]:
    """Mode, owner and group."""
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def _data(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _keys(text: bytes | None) -> set[bytes]:
    """The base64 of every key in the text."""
    return {word for word in (text or b"").split() if word.startswith(b"AAAA")}


# ---- the scenes ----


def first_sync(scene: Scene) -> None:
    """The file is there, keysync has never run: the original must be saved."""
    scene.write(scene.target.path, STAYS)
    scene.target.original = scene.target.before = STAYS
    scene.target.after = STAYS + NEW
    scene.console.add_key(key_line("new"))


def add_and_remove(scene: Scene) -> None:
    """A key that an earlier sync wrote was replaced by another one on the console."""
    scene.write(scene.target.path, STAYS)
    key_id = scene.console.add_key(key_line("gone"))
    scene.synced()
    scene.console.edit_key(key_id, key_line("new"))
    scene.target.original = STAYS
    scene.target.before, scene.target.after = STAYS + GONE, STAYS + NEW


def adopt(scene: Scene) -> None:
    """The platform wrote the key as a plain line when it made the machine."""
    scene.write(scene.target.path, PLAIN_NEW + STAYS)
    scene.target.original = scene.target.before = PLAIN_NEW + STAYS
    scene.target.after = NEW + STAYS
    scene.console.add_key(key_line("new"))


def nothing_to_do(scene: Scene) -> None:
    """All is as the console says."""
    first_sync(scene)
    scene.synced()
    scene.target.before = scene.target.after


def file_absent(scene: Scene) -> None:
    """There is a folder and no file in it."""
    scene.write(scene.target.path, b"")
    scene.target.path.unlink()
    scene.target.after = NEW
    scene.console.add_key(key_line("new"))


def new_directory(scene: Scene) -> None:
    """Neither the folder nor the state folder exists."""
    scene.target.after = NEW
    scene.console.add_key(key_line("new"))


def held_listing(scene: Scene) -> None:
    """G3: the list is empty; nothing may go yet."""
    add_and_remove(scene)
    [key] = scene.console.account.stored()
    scene.console.delete_key(key.id)
    scene.target.after = scene.target.before
    scene.code = 3


def revoked_again(scene: Scene) -> None:
    """R5: another tool has put back a key that the console deleted long ago."""
    add_and_remove(scene)
    scene.synced()
    scene.write(scene.target.path, STAYS + NEW + key_line("gone").encode() + b"\n")
    scene.target.before = scene.target.path.read_bytes()
    scene.target.after = STAYS + NEW


def unreadable_state(scene: Scene) -> None:
    """State: the ledger is no JSON any more and is set aside."""
    add_and_remove(scene)
    (scene.machine.state / "state.json").write_bytes(b'{"schema": 1, "account_id": 4711, "ke')


def torn_journal(scene: Scene) -> None:
    """G5: an earlier run was killed while it wrote the journal."""
    add_and_remove(scene)
    (scene.machine.state / "journal.jsonl").touch(mode=0o600)
    (scene.machine.state / "journal.jsonl").write_bytes(b'{"at": "2020-01-01T00:0')


def loose_modes(scene: Scene) -> None:
    """G9: the right bytes, with modes for which sshd would refuse every key."""
    nothing_to_do(scene)
    scene.target.path.chmod(0o666)
    scene.ssh.chmod(0o777)


def unreachable(scene: Scene) -> None:
    """G1: the console fails; keys stay, and only the state says so."""
    add_and_remove(scene)
    scene.console.fault = "error_500"
    scene.target.after = scene.target.before
    scene.code = 75


def two_targets(scene: Scene) -> None:
    """R11: one's failure does not stop the other."""
    add_and_remove(scene)
    other = Target(scene.home / "other" / "authorized_keys", FOREIGN, FOREIGN + NEW, FOREIGN)
    scene.write(other.path, FOREIGN)
    scene.targets.append(other)
    _configure(scene)


def killed_before(scene: Scene) -> None:
    """G7: killed runs left an unfinished file, a complete one, and one that was replaced."""
    add_and_remove(scene)
    old, new = STAYS + GONE, STAYS + NEW
    for number, data in enumerate((new[:-5], new, old + LATE)):
        scene.write(scene.ssh / f".authorized_keys.keysync-{number:016x}", data)
    scene.write(scene.machine.state / ".state.json.0123456789abcdef", b"{")


def without_exchange(scene: Scene) -> None:
    """An old kernel: rename(2) instead of renameat2(2)."""
    add_and_remove(scene)
    scene.exchange = False


def absent_without_exchange(scene: Scene) -> None:
    """The same, with link(2) and unlink(2)."""
    file_absent(scene)
    scene.exchange = False


SCENES: tuple[Callable[[Scene], None], ...] = (
    first_sync,
    add_and_remove,
    adopt,
    nothing_to_do,
    file_absent,
    new_directory,
    held_listing,
    revoked_again,
    unreadable_state,
    torn_journal,
    loose_modes,
    unreachable,
    two_targets,
    killed_before,
    without_exchange,
    absent_without_exchange,
)


@contextlib.contextmanager
def staged(plot: Callable[[Scene], None], folder: Path) -> Iterator[Scene]:
    """The scene on a machine below `folder`, with a console of its own."""
    with Console() as console:
        folder.mkdir()
        machine = Machine(folder, console.url)
        machine.set_api_key(console.api_key)
        machine.options = "policy: {removal_confirmations: 100}\n"
        path = folder / "home" / ".ssh" / "authorized_keys"
        scene = Scene(machine, console, [Target(path)])
        scene.home.mkdir()
        os.chown(scene.home, OWNER.uid, OWNER.gid)
        _configure(scene)
        plot(scene)
        scene.save()
        yield scene


def _configure(scene: Scene) -> None:
    entries = (
        f"  - {{user: {USER}, path: {json.dumps(str(one.path))}}}\n" for one in scene.targets
    )
    scene.machine.configure(targets="".join(entries))
