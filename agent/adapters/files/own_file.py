"""Opens files whose names other users may have put there: key files and keysync's own (G8)."""

from __future__ import annotations

import errno
import os
import stat
from typing import Literal, NamedTuple

from agent.adapters.files.atomic import (
    OPEN_FLAGS,
    Owner,
    directory_owner,
    read_all,
    set_owner_and_mode,
)
from agent.adapters.files.locks import wait_for_writers
from agent.core.authorized_keys import may_hold_more_keys
from agent.errors import TargetFailed

_MAX_KEY_FILE_BYTES = 64 << 20
_MAX_KEYS = 250_000  # each costs memory, and the user decides how many
_MAX_LATE_BYTES = 128 << 20  # an edit that makes the file too large must not be lost either
_MAX_PRIVATE_BYTES = 256 << 20
_PRIVATE_MODE = 0o600

Reason = Literal["not_a_file", "hard_link", "wrong_owner"]  # kinds of TargetFailed


class Rules(NamedTuple):
    """What a regular file must be, besides, to be opened.

    `uids` may own it, None stands for everybody; root may own it too when `readable_by` could read
    it, since rewriting it then discloses nothing. `one_name`: another hard link is refused, since
    writing to it would change another file.
    """

    uids: frozenset[int] | None
    one_name: bool = True
    readable_by: Owner | None = None

    def reason_against(self, status: os.stat_result) -> Reason | None:
        """Why a file of this status is refused; None for a good one."""
        if not stat.S_ISREG(status.st_mode):
            return "not_a_file"
        if self.one_name and status.st_nlink > 1:
            return "hard_link"
        if not self._may_own(status):
            return "wrong_owner"
        return None

    def _may_own(self, status: os.stat_result) -> bool:
        if self.uids is None or status.st_uid in self.uids:
            return True
        if self.readable_by is None or status.st_uid != 0:
            return False
        same_group = status.st_gid == self.readable_by.gid
        readable = stat.S_IROTH | (stat.S_IRGRP if same_group else 0)
        return bool(status.st_mode & readable)


class RefusedFile(OSError):
    """A file that breaks the rules; `reason` and `status` say which and how."""

    def __init__(self, reason: Reason, status: os.stat_result) -> None:
        problem = _PROBLEMS.get(reason) or f"it is {_kind(status)}, not a regular file"
        super().__init__(errno.EINVAL, problem)
        self.reason = reason
        self.status = status


_PROBLEMS: dict[Reason, str] = {
    "hard_link": "it has another hard link",
    "wrong_owner": "it belongs to another user",
}


def _kind(status: os.stat_result) -> str:
    """What is there instead of a regular file, for a message."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something else")


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_checked(
    directory: int | None, name: str, rules: Rules, flags: int = os.O_RDONLY
) -> int | None:
    """A descriptor of the file `name`; None when it is missing and `flags` do not make it.

    Raises RefusedFile for one that breaks the rules, OSError.
    """
    try:  # before the open, since opening a device can have effects
        _check(os.stat(name, dir_fd=directory, follow_symlinks=False), rules)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            return None
    try:
        fd = os.open(name, flags | OPEN_FLAGS, _PRIVATE_MODE, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        _check(os.fstat(fd), rules)
    except OSError:
        os.close(fd)
        raise
    return fd


def _check(status: os.stat_result, rules: Rules) -> None:
    reason = rules.reason_against(status)
    if reason is not None:
        raise RefusedFile(reason, status)


# ---- key files ----


def open_key_file(directory: int | None, name: str, path: str, owner: Owner) -> int | None:
    """A descriptor of a key file for reading, or None when there is none.

    Raises TargetFailed, which names `path`, for what is not a regular file of the owner's.
    """
    uids = None if owner.is_oneself else frozenset((owner.uid,))
    try:
        return open_checked(directory, name, Rules(uids, readable_by=owner))
    except RefusedFile as refused:
        raise _not_the_owners(refused, path, owner) from refused


def _not_the_owners(refused: RefusedFile, path: str, owner: Owner) -> TargetFailed:
    if refused.reason == "not_a_file":
        message = f"{path} is {_kind(refused.status)}, not a regular file, so it is not touched."
        hint = "Put a regular file in its place, or remove it."
    elif refused.reason == "hard_link":
        message = f"{path} has another hard link, so it is not touched."
        hint = "Make it a file of its own: cp -p it to a new name and mv that over it."
    else:
        uid = refused.status.st_uid
        message = (
            f"{path} belongs to user id {uid}, not {owner.uid}, so its contents are not touched."
        )
        hint = f"If it is the user's file: chown {owner.uid} {path}"
    return TargetFailed(refused.reason, message, hint)


def read_keys(fd: int, path: str) -> bytes:
    """A whole key file of at most 64 MiB, with at most 250,000 lines that may hold a key.

    Blank lines and comments count as bytes alone. Raises TargetFailed, which names `path`, for a
    larger one, OSError.
    """
    try:
        data = read_all(fd, _MAX_KEY_FILE_BYTES)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise _too_large(path, f"{_MAX_KEY_FILE_BYTES >> 20} MiB") from error
    if may_hold_more_keys(data, _MAX_KEYS):
        raise _too_large(path, f"{_MAX_KEYS:,} lines that may hold a key")
    return data


def _too_large(path: str, limit: str) -> TargetFailed:
    return TargetFailed(
        "key_file_too_large",
        f"{path} has more than {limit}, so it is not touched: deleted keys in it may still log in.",
        f"See what fills it (wc {path}), and take that out; the next cycle serves it again.",
    )


def read_when_written(fd: int, deadline: float) -> bytes:
    """The whole file when its writers have closed it, or at `deadline` (time.monotonic)."""
    wait_for_writers(fd, deadline)
    return read_all(fd, _MAX_LATE_BYTES)


# ---- keysync's own files ----


def open_private(directory: int, name: str, flags: int) -> int:
    """A descriptor of a file of keysync's own, made if missing, with mode 0600 whatever the umask.

    Raises RefusedFile for what others may have put there while the folder was open to them (G8),
    OSError.
    """
    owner = directory_owner(directory)
    fd = open_checked(directory, name, _private_rules(owner), flags | os.O_CREAT)
    if fd is None:  # removed between stat and open
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    try:
        status = os.fstat(fd)
        if status.st_uid != owner.uid or stat.S_IMODE(status.st_mode) != _PRIVATE_MODE:
            set_owner_and_mode(fd, owner, _PRIVATE_MODE)
    except OSError:
        os.close(fd)
        raise
    return fd


def read_private(directory: int, name: str) -> bytes | None:
    """The bytes of a file of keysync's own, or None when there is none.

    Raises RefusedFile as `open_private`, OSError (EFBIG) beyond 256 MiB.
    """
    return _read_private(directory, name, None)


def read_private_head(directory: int, name: str, size: int) -> bytes | None:
    """The same for the first `size` bytes of a file, however large it is."""
    return _read_private(directory, name, size)


def _read_private(directory: int, name: str, size: int | None) -> bytes | None:
    # A second hard link does not harm a reader.
    fd = open_checked(directory, name, _private_rules(directory_owner(directory), one_name=False))
    if fd is None:
        return None
    try:
        return read_all(fd, _MAX_PRIVATE_BYTES) if size is None else os.read(fd, size)
    finally:
        os.close(fd)


def _private_rules(owner: Owner, *, one_name: bool = True) -> Rules:
    return Rules(frozenset((0, os.geteuid(), owner.uid)), one_name)
