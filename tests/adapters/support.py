"""What the tests of the file side share: a user, what runs as that user, and what must stay."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner
from agent.adapters.files.key_file import KeyFile, Transform
from sandbox.console import Console
from tests.support.machine import Machine, key_line

_ROOT = "needs root: only root serves other users and is worth attacking"
_STRACE = "needs strace (apt-get install strace): it stops the process at each system call"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason=_ROOT)
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason=_STRACE)
KEY = key_line("listed").encode()
MANAGED = KEY + b" keysync:managed\n"
FOREIGN_KEY = key_line("foreign").encode()
SECRET = b"secret-of-somebody-else\n"


@dataclass(frozen=True, slots=True)
class User:
    """An ordinary user of this machine."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def owner(self) -> Owner:
        return Owner(self.uid, self.gid)

    @property
    def ssh(self) -> Path:
        return self.home / ".ssh"

    @property
    def keys(self) -> Path:
        return self.ssh / "authorized_keys"

    def make_ssh(self, mode: int = 0o700) -> None:
        """The directory as the user would make it."""
        self.ssh.mkdir()
        self.ssh.chmod(mode)
        self.give(self.ssh)

    def write_keys(self, data: bytes, mode: int = 0o600) -> None:
        """The directory and the file as the user would make them."""
        if not self.ssh.exists():
            self.make_ssh()
        self.keys.write_bytes(data)
        self.keys.chmod(mode)
        self.give(self.keys)

    def give(self, path: Path) -> None:
        """Makes the user its owner; a link itself, not what it leads to."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def run(self, *command: str) -> None:
        """Runs a program as the user; it must succeed."""
        subprocess.run(
            command, check=True, user=self.uid, group=self.gid, extra_groups=[], cwd=self.home
        )

    @contextlib.contextmanager
    def python(self, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A Python script that runs as the user, with these imports, until the block ends.

        The block begins when the script has printed a line.
        """
        with python(_BECOME.format(uid=self.uid, gid=self.gid) + script, *arguments) as process:
            yield process


_IMPORTS = """\
import ctypes, fcntl, itertools, json, os, select, signal, socket, stat, struct, sys, time
"""
_BECOME = """\
os.setgroups([]); os.setresgid({gid}, {gid}, {gid}); os.setresuid({uid}, {uid}, {uid})
"""


@contextlib.contextmanager
def python(
    script: str, *arguments: str, under: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A Python script in a process of its own; begun when it has printed, killed at the end."""
    with subprocess.Popen(
        [*under, sys.executable, "-I", "-u", "-c", _IMPORTS + script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "the script ended without a word"
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Tells a script to stop (its standard input ends) and gives the lines it still printed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    # Not communicate(): it does not see what readline() has read ahead.
    lines = process.stdout.read().splitlines()
    assert process.wait(timeout=30) == 0
    return lines


def remove(path: Path) -> None:
    """Whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def new_machine(folder: Path, console: Console) -> Machine:
    """A machine in its own folder that follows the console."""
    folder.mkdir()
    made = Machine(folder, console.url)
    made.set_api_key(console.api_key)
    return made


def target(user: str, path: Path | None = None) -> str:
    """One entry of `targets`."""
    where = "" if path is None else f", path: {json.dumps(str(path))}"
    return f"  - {{user: {user}{where}}}\n"


@dataclass(frozen=True, slots=True)
class Victim:
    """Something of somebody else's that must stay as it is, and be shown to nobody."""

    path: Path
    before: tuple[int, ...]

    @classmethod
    def at(cls, path: Path) -> Victim:
        """From now on it may not change."""
        return cls(path, state_of(path))

    def is_untouched(self) -> bool:
        return state_of(self.path) == self.before


def state_of(path: Path) -> tuple[int, ...]:
    """Inode, owner, mode, size, times and, of a directory, the names in it; () of nothing."""
    if not os.path.lexists(path):
        return ()
    status = path.lstat()
    inside = hash(tuple(sorted(os.listdir(path)))) if stat.S_ISDIR(status.st_mode) else 0
    return (
        status.st_ino,
        status.st_uid,
        status.st_gid,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        inside,
    )


def is_below(text: bytes, folder: Path) -> bool:
    """Whether any regular file below the folder holds the text."""
    return any(
        path.is_file() and not path.is_symlink() and text in path.read_bytes()
        for path in folder.rglob("*")
    )


def adding(*lines: bytes) -> Transform:
    """Appends each line that is not there yet."""

    def transform(data: bytes) -> bytes:
        new = [line for line in lines if line not in data.split(b"\n")]
        if new and data and not data.endswith(b"\n"):
            data += b"\n"
        return data + b"".join(line + b"\n" for line in new)

    return transform


def without(line: bytes) -> Transform:
    """Drops every copy of the line."""
    return lambda data: b"".join(
        part for part in data.splitlines(keepends=True) if part.rstrip(b"\n") != line
    )


def update(path: Path, owner: Owner, transform: Transform) -> None:
    """One whole update of a key file, as a sync does it."""
    with KeyFile.opened(str(path), owner, for_writing=True) as file:
        file.update(transform, lambda _: None)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    earlier = os.umask(mask)
    try:
        yield
    finally:
        os.umask(earlier)


def leftovers(directory: Path) -> list[str]:
    """Names in the directory that a killed or failed run left."""
    return sorted(name for name in os.listdir(directory) if name.startswith("."))


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process lead to; nothing when it is gone."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.append(os.readlink(path))
    return found


def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Waits for a condition of another process; fails by name when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.002)
