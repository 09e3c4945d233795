"""The few ways in which keysync touches a disk: whole files, by directory descriptor, synced.

Nothing here knows what a file means. Names are opened relative to a directory that is held open,
never through a symlink, so that a path swapped in between leads nowhere else (open(2), openat).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from agent.errors import TargetFailed

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_TEMP_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20

_REASONS: dict[int, tuple[str, str, str]] = {
    errno.ENOSPC: ("disk_full", "the disk is full", "Free some space (df -h); nothing was lost."),
    errno.EDQUOT: (
        "quota_exceeded",
        "the disk quota is used up",
        "Free some space (quota); nothing was lost.",
    ),
    errno.EROFS: (
        "read_only",
        "the file system is read-only",
        "Remount it writable, or under systemd add the directory to ReadWritePaths=.",
    ),
    errno.EIO: ("io_error", "the disk reported an I/O error", "Look at dmesg; the old file stays."),
    errno.EACCES: (
        "permission_denied",
        "permission was denied",
        "Run keysync as root, or as the user who owns the file.",
    ),
    errno.EPERM: (
        "not_permitted",
        "the operation is not permitted",
        "Look for the immutable attribute (lsattr; chattr -i) and for missing capabilities.",
    ),
    errno.ENOENT: ("missing", "it does not exist", "Create it, or correct the path."),
    errno.ENOTDIR: ("not_a_directory", "a part of the path is no directory", "Correct the path."),
    errno.ELOOP: ("symlink", "it is a symbolic link", "Put a real file in its place."),
}


def failed(error: OSError, action: str, path: str) -> TargetFailed:
    """The OSError as a sentence: `action` ("write") on `path` failed, why, and what to do."""
    kind, why, hint = _REASONS.get(
        error.errno or 0,
        ("os_error", os.strerror(error.errno) if error.errno else str(error), "Look at the path."),
    )
    return TargetFailed(kind, f"Could not {action} {path}: {why}.", hint)


@contextlib.contextmanager
def naming(action: str, path: str) -> Iterator[None]:
    """Turns any OSError inside into TargetFailed with this action and path."""
    try:
        yield
    except OSError as error:
        raise failed(error, action, path) from error


def read_all(fd: int) -> bytes:
    """Everything from the start of the open file."""
    parts = []
    at = 0
    while part := os.pread(fd, _CHUNK, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`, also when the system takes it in pieces, and syncs it to the disk."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.fsync(fd)


@dataclass(frozen=True, slots=True)
class Owner:
    """To whom a new file belongs."""

    uid: int
    gid: int


@contextlib.contextmanager
def temporary_file(
    directory: int, prefix: str, owner: Owner, mode: int
) -> Iterator[tuple[str, int]]:
    """A new file with an unguessable name in `directory`, gone again unless renamed away.

    Gives its name and descriptor. Owner and mode are set on the descriptor, whatever the umask.
    """
    name = prefix + secrets.token_hex(8)
    fd = os.open(name, _TEMP_FLAGS, 0o600, dir_fd=directory)
    try:
        if (os.geteuid(), os.getegid()) != (owner.uid, owner.gid):
            os.fchown(fd, owner.uid, owner.gid)
        os.fchmod(fd, mode)
        yield name, fd
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(name, dir_fd=directory)


def remove_leftovers(directory: int, prefix: str) -> None:
    """Removes the temporary files of a run that was killed; links are removed, not followed."""
    for name in os.listdir(directory):
        if name.startswith(prefix):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                os.unlink(name, dir_fd=directory)


def write_private(directory: int, name: str, data: bytes) -> None:
    """Replaces a root-only file of keysync's own, whole or not at all."""
    owner = Owner(os.geteuid(), os.getegid())
    with temporary_file(directory, f".{name}.", owner, 0o600) as (temp, fd):
        write_all(fd, data)
        os.rename(temp, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


def read_private(directory: int, name: str) -> bytes | None:
    """The bytes of a file of keysync's own, or None when there is none."""
    try:
        fd = os.open(name, READ_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return read_all(fd)
    finally:
        os.close(fd)
