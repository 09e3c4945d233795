"""Mounts that only one test sees: made in a thread that has left the mounts of everybody else."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_CLONE_NEWNS = 0x20000
_HELD: list[socket.socket] = []  # as long as the process lives


def in_own_mounts(work: Callable[[], None]) -> None:
    """Runs `work` where what it mounts is seen by it and its child processes alone.

    All of it is gone when the last of them has ended. Skips, with the reason, where this needs
    rights that are not there.
    """
    failures: list[BaseException] = []

    def enter() -> None:
        try:
            _leave_the_mounts_of_others()
            work()
        except BaseException as failure:  # noqa: BLE001  # reason: it is raised in the test's thread
            failures.append(failure)

    if os.geteuid() != 0:
        pytest.skip(reason="needs root: only root mounts file systems")
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def own_accounts() -> None:
    """Gives this process, and all that it starts, an /etc with users that no other process sees.

    keysync looks into the key files of every account (`targets: auto`, `status`), so the users that
    tests in another worker make are not to be there. Nor do two workers share a user id, whose
    processes one of them may end, also not where two runs are under way on this machine. All of it
    is gone with the process.
    """
    _leave_the_mounts_of_others()
    mount("-t", "tmpfs", "keysync-test", "/mnt")
    for name in ("upper", "work"):
        Path("/mnt", name).mkdir()
    layers = "lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work"
    mount("-t", "overlay", "-o", layers, "keysync-test", "/etc")
    least = 20_000 + 1_000 * _reserve_number()
    with Path("/etc/login.defs").open("a") as file:  # the last value counts (login.defs(5))
        for name in ("UID", "GID"):
            file.write(f"{name}_MIN {least}\n{name}_MAX {least + 999}\n")


def _reserve_number() -> int:
    """The least number that no other worker on this machine has, until this process ends."""
    for number in range(40):
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0keysync-tests-{number}")  # unix(7): abstract, so there is no file
        except OSError:
            holder.close()
            continue
        _HELD.append(holder)
        return number
    raise RuntimeError("40 workers have accounts of their own on this machine already")


def _leave_the_mounts_of_others() -> None:
    """For this thread alone, and those that it starts (unshare(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare")
    mount("--make-rprivate", "/")


def mount(*words: str) -> None:
    """Runs the command mount, which must succeed."""
    subprocess.run(["mount", *words], check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    """A tmpfs at `folder`, which is then as it was; mode and owner of the folder are kept."""
    status = folder.stat()
    mount("-t", "tmpfs", "-o", f"mode=0700,{options}", "keysync-test", str(folder))
    try:
        os.chown(folder, status.st_uid, status.st_gid)
        folder.chmod(status.st_mode & 0o7777)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """What is below `folder` cannot be written."""
    mount("--bind", str(folder), str(folder))
    try:
        mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
