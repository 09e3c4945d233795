"""Mounts that only one test sees: made in a thread that has left the mounts of everybody else."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_CLONE_NEWNS = 0x20000


def in_own_mounts(work: Callable[[], None]) -> None:
    """Runs `work` where what it mounts is seen by it and its child processes alone.

    All of it is gone when the last of them has ended. Skips, with the reason, where this needs
    rights that are not there.
    """
    failures: list[BaseException] = []

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            if libc.unshare(_CLONE_NEWNS) != 0:  # for this thread alone (unshare(2))
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare")
            mount("--make-rprivate", "/")
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
