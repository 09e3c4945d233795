"""Opening and reading a file that is certainly the user's own (G8), up to what it may hold."""

from __future__ import annotations

import errno
import os
import stat

from agent.adapters.files.atomic import OPEN_FLAGS, Owner, read_all
from agent.adapters.files.locks import wait_for_writers
from agent.core.authorized_keys import may_hold_more_keys
from agent.errors import TargetFailed

MAX_DISPLACED_BYTES = 128 << 20  # an edit too many must not be lost either
_MAX_BYTES = 64 << 20
_MAX_KEYS = 250_000  # each costs memory, and the user decides how many


def open_own(
    directory: int | None, name: str, path: str, owner: Owner, flags: int = os.O_RDONLY
) -> int | None:
    """A descriptor of the file `name` of `owner`, or None when there is none.

    Raises TargetFailed, in which `path` is named, for whatever is not a plain file of the owner's.
    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    _check(status, path, owner)  # before the open: opening a device can have effects
    try:
        fd = os.open(name, flags | OPEN_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        _check(os.fstat(fd), path, owner)
    except TargetFailed:
        os.close(fd)
        raise
    return fd


def _check(status: os.stat_result, path: str, owner: Owner) -> None:
    """Refuses whatever could be somebody else's file under this name (G8)."""
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        what = _KINDS.get(kind, "something else")
        raise TargetFailed(
            "not_a_file",
            f"{path} is {what}, not a regular file, so it is not touched.",
            "Put a regular file in its place, or remove it.",
        )
    if status.st_nlink > 1:
        raise TargetFailed(
            "hard_link",
            f"{path} has another hard link, so it is not touched.",
            "Make it a file of its own: cp -p it to a new name and mv that over it.",
        )
    if not (owner.is_oneself or _is_users_own(status, owner)):
        raise TargetFailed(
            "wrong_owner",
            f"{path} belongs to user id {status.st_uid}, not {owner.uid}, so its contents are not "
            "touched.",
            f"If it is the user's file: chown {owner.uid} {path}",
        )


def _is_users_own(status: os.stat_result, owner: Owner) -> bool:
    """Root's files count when the user may read them: keeping or rewriting discloses nothing."""
    if status.st_uid == owner.uid:
        return True
    readable = stat.S_IROTH | (stat.S_IRGRP if status.st_gid == owner.gid else 0)
    return status.st_uid == 0 and bool(status.st_mode & readable)


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_keys(fd: int, path: str) -> bytes:
    """A whole key file; raises TargetFailed, in which `path` is named, for one out of all bounds.

    Blank lines and comments count as bytes alone.
    """
    try:
        data = read_all(fd, _MAX_BYTES)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise _too_large(path, f"{_MAX_BYTES >> 20} MiB") from error
    if may_hold_more_keys(data, _MAX_KEYS):
        raise _too_large(path, f"{_MAX_KEYS:,} lines that may hold a key")
    return data


def _too_large(path: str, bound: str) -> TargetFailed:
    return TargetFailed(
        "key_file_too_large",
        f"{path} has more than {bound}, so it is not touched: deleted keys in it may still log in.",
        f"See what fills it (wc {path}), and take that out; the next cycle serves it again.",
    )


def settled(fd: int, deadline: float) -> bytes:
    """What the file holds when its writers are done, or at `deadline` (time.monotonic)."""
    wait_for_writers(fd, deadline)
    return read_all(fd, MAX_DISPLACED_BYTES)
