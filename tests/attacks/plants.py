"""What a hostile user puts where keysync expects a file or a folder, and whom that could hit."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.adapters.support import SECRET, User, finish
from tests.support.machine import key_line

OTHER_UID = 12345  # another ordinary user, who needs no account
_LONG_AGO = 1_000_000_000 * 10**9  # a read sets a time of access that lies before the last change


class Victims:
    """Files and folders of others, outside the attacker's own; they must stay as they are."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o711)
        self.roots = self._file(folder / "roots", 0, 0o600)
        self.readable = self._file(folder / "readable", 0, 0o644)
        self.others = self._file(folder / "others", OTHER_UID, 0o600)
        self.folder = self._folder(folder / "folder", 0)
        self.others_folder = self._folder(folder / "others-folder", OTHER_UID)
        self._top = folder
        self._before: dict[Path, tuple[int, ...]] = {}
        self._bytes: dict[Path, bytes] = {}

    def _file(self, path: Path, uid: int, mode: int) -> Path:
        path.write_bytes(SECRET)
        path.chmod(mode)
        os.chown(path, uid, uid)
        return path

    def _folder(self, path: Path, uid: int) -> Path:
        """It can stand for a home, and for the folder of a key file."""
        for folder in (path, path / ".ssh"):
            folder.mkdir(mode=0o700)
            self._file(folder / "authorized_keys", uid, 0o600)
            os.chown(folder, uid, uid)
        return path

    def begin(self) -> None:
        """From now on nothing of it may change, nor be read by keysync."""
        paths = [self._top, *self._top.rglob("*")]
        self._bytes = {path: path.read_bytes() for path in paths if path.is_file()}
        for path in paths:
            os.utime(path, ns=(_LONG_AGO, path.stat().st_mtime_ns))
        self._before = {path: _seen(path) for path in paths}

    def check(self, *, may_read: bool = False) -> None:
        """Content, owner, mode and times are the same, and nobody has read or listed anything."""
        end = -1 if may_read else None
        now = {path: _seen(path)[:end] for path in self._before}
        assert now == {path: seen[:end] for path, seen in self._before.items()}
        assert {path: path.read_bytes() for path in self._bytes} == self._bytes
        assert {self._top, *self._top.rglob("*")} == self._before.keys()
        self.begin()

    def disclosed(self, *folders: Path) -> dict[int, Path]:
        """Files elsewhere that hold their content, by inode; other names of theirs do not count."""
        own = {path.stat().st_ino for path in self._before if path.is_file()}
        found = {}
        for path in (path for folder in folders for path in folder.rglob("*")):
            status = path.lstat()
            small = stat.S_ISREG(status.st_mode) and status.st_size < 1 << 30
            if small and status.st_ino not in own and SECRET.strip() in path.read_bytes():
                found[status.st_ino] = path
        return found


def _seen(path: Path) -> tuple[int, ...]:
    """Not its links nor its time of status change: who may make a hard link changes both."""
    at = path.lstat()
    owner = (at.st_ino, at.st_uid, at.st_gid, at.st_mode)
    return (*owner, at.st_size, at.st_mtime_ns, at.st_atime_ns)


@dataclass
class Planted:
    """What is to be planted: by the user, in one process of theirs, and by root."""

    user: User
    victims: Victims
    aside: Path | None = None  # where something is made that the user moves, if not beside
    by_user: list[tuple[str, ...]] = field(default_factory=list)

    def folder(self, path: Path) -> None:
        """Makes a folder of the user's, with those above it that are missing."""
        if not path.exists():
            self.folder(path.parent)
            path.mkdir(mode=0o700)
            self.user.give(path)

    def do(self) -> None:
        """Lets the user do their part."""
        with self.user.python(_AS_USER, json.dumps(self.by_user)) as process:
            finish(process)
        self.by_user.clear()


_AS_USER = """
print("begun")
for what, *words in json.loads(sys.argv[1]):
    if what == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            os.chdir(os.path.dirname(words[0]))
            listening.bind("s")  # the address of a socket is short
            os.rename("s", words[0])
    elif what == "sparse":
        with open(words[0], "wb") as file:
            file.truncate(1 << 40)
        os.chmod(words[0], 0o600)
    elif what == "mkdir":
        os.makedirs(words[0] + "/full", 0o700)
    else:
        getattr(os, what)(*words)
"""

Act = Callable[[Planted, Path, bool], None]
"""Plants at the path, where a folder is expected or not."""


def link(to: Callable[[Victims, bool], object]) -> Act:
    """A symbolic link of the user's."""

    def act(planted: Planted, path: Path, folder: bool) -> None:
        planted.by_user.append(("symlink", str(to(planted.victims, folder)), str(path)))

    return act


def _relative(planted: Planted, path: Path, folder: bool) -> None:
    victims = planted.victims
    to = os.path.relpath(victims.folder if folder else victims.roots, path.parent)
    planted.by_user.append(("symlink", f"./{to}", str(path)))


def _loop(planted: Planted, path: Path, folder: bool) -> None:
    planted.by_user.append(("symlink", path.name, str(path)))


def _own(planted: Planted, path: Path, folder: bool) -> None:
    """What is the user's own is no reason to follow: it may be another thing a moment later."""
    real = path.with_name(f"real-{path.name}")
    planted.by_user += [("mkdir", str(real)), ("symlink", real.name, str(path))]


def _roots_link(planted: Planted, path: Path, folder: bool) -> None:
    """Made by root for another purpose; the user renames it."""
    made = (planted.aside or path.parent) / f"roots-link-{len(planted.by_user)}"
    made.symlink_to(planted.victims.folder if folder else planted.victims.roots)
    planted.by_user.append(("rename", str(made), str(path)))


def hard_link(of: Callable[[Victims], Path]) -> Act:
    """As where fs.protected_hardlinks is off."""

    def act(planted: Planted, path: Path, folder: bool) -> None:
        os.link(of(planted.victims), path)

    return act


def simple(what: str) -> Act:
    """One call of the user's."""
    return lambda planted, path, _: planted.by_user.append((what, str(path)))


def device(kind: int, major: int, minor: int) -> Act:
    """Only root can make one; it lies in the user's folder, and is theirs."""

    def act(planted: Planted, path: Path, folder: bool) -> None:
        os.mknod(path, kind | 0o666, os.makedev(major, minor))
        planted.user.give(path)

    return act


def somebodys(uid: int) -> Act:
    """A whole file or folder of another's, made beside it and moved into place by the user."""

    def act(planted: Planted, path: Path, folder: bool) -> None:
        aside = path.with_name(f"aside-{path.name}")
        if folder:
            shutil.copytree(planted.victims.folder, aside)
        else:
            aside.write_bytes(SECRET)
        for found in (aside, *aside.rglob("*")):
            os.chown(found, uid, uid)
            found.chmod(0o755 if found.is_dir() else 0o600)
        planted.by_user.append(("rename", str(aside), str(path)))

    return act


PLANTS: dict[str, Act] = {
    "link to root's": link(lambda v, folder: v.folder if folder else v.roots),
    "link to another's": link(lambda v, folder: v.others_folder if folder else v.others),
    "dangling link": link(lambda v, _: v.folder / "not-there"),
    "link through /proc": link(lambda _, folder: f"/proc/self/{'cwd' if folder else 'environ'}"),
    "link to a device": link(lambda _, __: "/dev/zero"),
    "relative link": _relative,
    "loop": _loop,
    "link to one's own": _own,
    "link of root's": _roots_link,
    "hard link": hard_link(lambda v: v.roots),
    "hard link to another's": hard_link(lambda v: v.others),
    "hard link to a readable file": hard_link(lambda v: v.readable),
    "pipe": simple("mkfifo"),
    "socket": simple("socket"),
    "character device": device(stat.S_IFCHR, 1, 5),  # /dev/zero: endless
    "block device": device(stat.S_IFBLK, 7, 99),
    "directory": simple("mkdir"),
    "huge file": simple("sparse"),
    "root's own": somebodys(0),
    "another's own": somebodys(OTHER_UID),
}

GOOD_LINE = key_line("by hand").encode() + b"\n"
