"""Reading and replacing whole files, by directory descriptor: the one atomic writer.

Nothing here knows what a file means. Names are opened relative to a directory that is held open,
never through a symlink, so that a path swapped in between leads nowhere else (open(2), openat).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from agent.adapters.files.attributes import copy_attributes
from agent.adapters.files.os_errors import translate_os_errors

OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_TEMP_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


def read_all(fd: int, limit: int) -> bytes:
    """The whole open file. Raises OSError, with EFBIG for more than `limit` bytes."""
    parts = []
    at = 0
    while part := os.pread(fd, _CHUNK, at):
        parts.append(part)
        at += len(part)
        if at > limit:  # counted while reading: the file may grow meanwhile
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return b"".join(parts)


def holds(fd: int, data: bytes) -> bool:
    """Whether the open file is exactly `data`; read in pieces, to save memory. Raises OSError."""
    at = 0
    while part := os.pread(fd, _CHUNK, at):
        if not data.startswith(part, at):
            return False
        at += len(part)
    return at == len(data)


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`, also when write(2) writes less at a time; no fsync. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose file it is; `home` is the user's home directory, "" when unknown."""

    uid: int
    gid: int
    home: str = ""

    @property
    def is_oneself(self) -> bool:
        """Whether an ordinary user works on their own files. Otherwise, as root or as the service
        account, keysync has more rights than the owner, and must not lend them (G8).
        """
        return self.uid == os.geteuid() != 0


def directory_owner(directory: int) -> Owner:
    """The owner for keysync's own files in the folder: its account if root works in it."""
    folder = os.fstat(directory)
    if folder.st_uid == os.geteuid():
        return Owner(os.geteuid(), os.getegid())
    return Owner(folder.st_uid, folder.st_gid)


class TemporaryFile(NamedTuple):
    """A complete file under a temporary name; `status` is its fstat(2)."""

    name: str
    status: os.stat_result


@contextlib.contextmanager
def temporary_file(
    directory: int,
    prefix: str,
    data: bytes,
    *,
    owner: Owner | None = None,
    mode: int = 0o600,
    like: int | None = None,
    sync: bool = True,
) -> Iterator[TemporaryFile]:
    """Makes a file that holds `data` under an unguessable name; removes the name at the end.

    Owner (by default the directory's) and mode are set whatever the umask. The file gets the
    SELinux label and the access list of the open file `like` (G9). With `sync` it is on the disk
    before the block begins. Raises OSError, and TargetFailed when label or list cannot be set.
    """
    name = prefix + secrets.token_hex(8)
    fd = os.open(name, _TEMP_FLAGS, 0o600, dir_fd=directory)
    try:
        try:
            set_owner_and_mode(fd, owner or directory_owner(directory), mode)
            if like is not None:
                # Without the random name, so that a failure has the same message each time (R7).
                action = "set the SELinux label and access list of"
                with translate_os_errors(action, "the new file"):
                    copy_attributes(like, fd, mode)
            status = os.fstat(fd)
            write_all(fd, data)
            if sync:
                os.fsync(fd)
            if not holds(fd, data):  # an incomplete file must not get the name
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        finally:
            os.close(fd)
        yield TemporaryFile(name, status)
    finally:
        discard(directory, name)


def write_atomically(
    directory: int,
    name: str,
    data: bytes,
    *,
    owner: Owner | None = None,
    mode: int = 0o600,
    sync: bool = True,
) -> None:
    """Replaces the file `name` atomically; a symlink there is replaced, not followed.

    Without `sync` the earlier file may be back after a power loss. Owner and mode as in
    `temporary_file`. Raises OSError.
    """
    prefix = f".{name}."
    with temporary_file(directory, prefix, data, owner=owner, mode=mode, sync=sync) as made:
        os.rename(made.name, name, src_dir_fd=directory, dst_dir_fd=directory)
        if sync:
            os.fsync(directory)


def set_owner_and_mode(fd: int, owner: Owner, mode: int) -> None:
    """Sets both on the open file. Raises OSError."""
    made = os.fstat(fd)  # its group may be the directory's (S_ISGID, inode(7))
    if (made.st_uid, made.st_gid) != (owner.uid, owner.gid):
        os.fchown(fd, owner.uid, owner.gid)
    os.fchmod(fd, mode)


def discard(directory: int, name: str) -> None:
    """Removes a temporary file; nothing happens when it is gone or is a directory."""
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(name, dir_fd=directory)


def remove_leftovers(directory: int, prefix: str) -> None:
    """Removes the temporary files of a run that was killed; symlinks are not followed."""
    for name in sorted(os.listdir(directory)):
        if name.startswith(prefix):
            with contextlib.suppress(PermissionError):
                discard(directory, name)
