"""Disks that are full, read-only or locked, for real, and what is said about them (G7)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.adapters.files.atomic import Owner, holds, read_all, temporary_file, write_atomically
from agent.adapters.files.os_errors import failed
from sandbox.console import Console
from tests.adapters.support import MANAGED, leftovers, needs_root, target
from tests.support.machine import Done, Machine, key_line

FOREIGN = b"".join(f"{key_line(f'foreign {number}')}\n".encode() for number in range(200))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tried = " ".join(command)
        pytest.skip(reason=f"this machine does not let us: {tried}: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 128 KiB of its own."""
    if os.geteuid() != 0:
        pytest.skip(reason="needs root: only root mounts file systems")
    folder = tmp_path / "disk"
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "keysync-test", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Takes all space but so many bytes."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    ballast.write_bytes(b"x" * (free - leave))
    return ballast


def told(done: Done, *words: str) -> None:
    """Exit code 74, and the message has all the words and comes with advice."""
    assert done.code == 74, done
    error = done.json["error"]
    assert all(word in error["message"] for word in words), error
    assert error["hint"]


def test_a_full_disk_keeps_the_old_file(machine: Machine, disk: Path) -> None:
    """G7: the new file fits only in part; the old one stays, and it works again with some room."""
    path = disk / "authorized_keys"
    path.write_bytes(FOREIGN)
    path.chmod(0o600)
    before = path.stat().st_ino
    ballast = fill(disk, leave=8192)
    machine.configure(targets=target("root", path))
    told(machine.here("sync", "--json"), str(path), "the disk is full")
    assert (path.stat().st_ino, path.read_bytes()) == (before, FOREIGN)
    assert leftovers(disk) == []
    ballast.unlink()
    assert machine.here("sync").code == 0
    assert path.read_bytes() == FOREIGN + MANAGED


def test_no_room_for_the_original_means_no_change(machine: Machine, disk: Path) -> None:
    """G5: what cannot be saved first is not replaced, and the other way round it is."""
    path = machine.key_file
    path.write_bytes(FOREIGN)
    config = machine.config.read_text().replace(str(machine.state), str(disk / "state"))
    machine.config.write_text(config)
    ballast = fill(disk, leave=16384)
    before = machine.fixed
    told(machine.here("sync", "--json"), "save the original", "the disk is full")
    assert machine.fixed == before
    ballast.unlink()
    assert machine.here("sync").code == 0
    assert path.read_bytes() == FOREIGN + MANAGED


def test_no_inode_for_a_temporary_file(machine: Machine, disk: Path) -> None:
    """G7: running out of inodes is a full disk too."""
    path = disk / "authorized_keys"
    path.write_bytes(FOREIGN)
    _run("mount", "-o", "remount,nr_inodes=3", str(disk))
    machine.configure(targets=target("root", path))
    (disk / "last").touch()
    told(machine.here("sync", "--json"), str(path), "the disk is full")
    assert path.read_bytes() == FOREIGN


def test_a_read_only_file_system(machine: Machine, console: Console, disk: Path) -> None:
    """G7: said by name when there is something to do, and no reason to complain when not."""
    path = disk / "authorized_keys"
    machine.configure(targets=target("root", path))
    assert machine.here("sync").code == 0
    _run("mount", "-o", "remount,ro", str(disk))
    assert machine.here("sync").code == 0
    console.add_key(key_line("another"))
    told(machine.here("sync", "--json"), str(path), "read-only")
    assert path.read_bytes() == MANAGED


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder in which attributes can be set, and are taken away again."""
    if os.geteuid() != 0:
        pytest.skip(reason="needs root: only root sets the immutable attribute")
    if shutil.which("chattr") is None:
        pytest.skip(reason="needs chattr (e2fsprogs)")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o700)
    yield folder
    subprocess.run(["chattr", "-R", "-i", "-a", str(folder)], check=False)


@pytest.mark.parametrize("attribute", ["+i", "+a"])
@pytest.mark.parametrize("where", ["file", "directory"])
def test_an_immutable_file(machine: Machine, locked: Path, attribute: str, where: str) -> None:
    """G7: chattr +i and +a, which people set on key files, are named with the way out."""
    path = locked / "authorized_keys"
    path.write_bytes(FOREIGN)
    path.chmod(0o600)
    _run("chattr", attribute, str(path if where == "file" else locked))
    machine.configure(targets=target("root", path))
    done = machine.here("sync", "--json")
    told(done, str(path), "not permitted")
    assert "chattr -i" in done.json["error"]["hint"]
    assert path.read_bytes() == FOREIGN
    _run("chattr", "-R", "-i", "-a", str(locked))
    assert machine.here("sync").code == 0
    assert os.listdir(locked) == ["authorized_keys"]


@needs_root
def test_where_nothing_can_be_written_for_somebody_else(machine: Machine, tmp_path: Path) -> None:
    """R11: the target on a broken disk fails by name, the other one is served."""
    machine.configure(
        targets=target("root", Path("/proc/keysync/authorized_keys"))
        + target("root", machine.key_file)
    )
    done = machine.here("sync", "--json")
    told(done, "/proc/keysync")
    assert [found["result"] for found in done.json["targets"]] == ["failed", "changed"]


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_every_error_is_a_sentence(code: int) -> None:
    """Commands: which path, what was tried, why it failed, and what to do."""
    failure = failed(OSError(code, os.strerror(code)), "write", "/a/b")
    assert failure.message.startswith("Could not write /a/b: ")
    assert failure.hint.endswith((".", ")"))
    assert failure.exit_code == 74


def test_a_temporary_file_is_gone_whatever_happens(tmp_path: Path) -> None:
    """G7: it is removed when the block fails, and when somebody removed it first."""
    directory = os.open(tmp_path, os.O_RDONLY)
    owner = Owner(os.geteuid(), os.getegid())
    try:
        with (
            contextlib.suppress(ZeroDivisionError),
            temporary_file(directory, ".x", b"x", owner=owner, mode=0o640) as made,
        ):
            assert (tmp_path / made.name).read_bytes() == b"x"
            assert (tmp_path / made.name).stat().st_mode & 0o7777 == 0o640
            raise ZeroDivisionError
        assert os.listdir(tmp_path) == []
        with temporary_file(directory, ".x", b"x") as made:
            (tmp_path / made.name).unlink()
    finally:
        os.close(directory)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("sync", [True, False])
def test_a_private_file_is_replaced_whole(tmp_path: Path, sync: bool) -> None:
    """State: a symlink in its place is replaced, not followed."""
    directory = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "victim").write_bytes(b"theirs")
    (tmp_path / "state.json").symlink_to(tmp_path / "victim")
    try:
        write_atomically(directory, "state.json", b"ours", sync=sync)
    finally:
        os.close(directory)
    assert (tmp_path / "victim").read_bytes() == b"theirs"
    assert (tmp_path / "state.json").read_bytes() == b"ours"
    assert not (tmp_path / "state.json").is_symlink()


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    """G8: a file that grows while it is read cannot fill the memory."""
    (tmp_path / "file").write_bytes(b"x" * 100)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert read_all(fd, 100) == b"x" * 100
        with pytest.raises(OSError, match="too large"):
            read_all(fd, 99)
    finally:
        os.close(fd)


@pytest.mark.parametrize("data", [b"", b"ssh-rsa AAAB", b"ssh-rsa AAA", b"ssh-rsa AAAAA"])
def test_a_file_with_other_bytes_is_not_the_written_one(tmp_path: Path, data: bytes) -> None:
    """G7: what a disk gives back is compared byte by byte, not by its length alone."""
    (tmp_path / "file").write_bytes(data)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert holds(fd, data)
        assert not holds(fd, b"ssh-rsa AAAA")
    finally:
        os.close(fd)
