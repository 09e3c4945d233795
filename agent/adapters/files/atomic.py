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
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.errors import TargetFailed

OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_TEMP_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_UNFINISHED = ".part"
_SELINUX = "security.selinux"
_ACL = "system.posix_acl_access"
_ACL_HEADER = struct.Struct("<I")  # version 2, and then the entries: acl_ea_entry in
_ACL_ENTRY = struct.Struct("<HHI")  # linux/posix_acl_xattr.h: whom, permissions, user or group id
_ACL_USER_OBJ, _ACL_GROUP_OBJ, _ACL_OTHER = 0x01, 0x04, 0x20
_ACL_WRITE = 2
_MOST_PRIVATE = 256 << 20

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
    errno.EIO: (
        "io_error",
        "the disk reported an I/O error",
        "Look at dmesg; the file is the old one or the new one, whole.",
    ),
    errno.EFBIG: (
        "too_large",
        "it is larger than it may be",
        "Look at what fills it, and at the limit of file sizes (ulimit -f).",
    ),
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
    errno.EINTR: (
        "interrupted",
        "a signal interrupted it",
        "The file is the old one or the new one, whole; the next sync does it again.",
    ),
    errno.ENOENT: ("missing", "it does not exist", "Create it, or correct the path."),
    errno.ENOTDIR: ("not_a_directory", "a part of the path is no directory", "Correct the path."),
    errno.ELOOP: ("symlink", "it is a symbolic link", "Put a real file in its place."),
}

NO_ROOM = frozenset({"disk_full", "quota_exceeded"})  # the kinds that more room mends


def failed(error: OSError, action: str, path: str) -> TargetFailed:
    """The OSError as a sentence: `action` ("write") on `path` failed, why, and what to do."""
    kind, why, hint = _REASONS.get(
        error.errno or 0,
        ("os_error", error.strerror or str(error), "Look at the path."),
    )
    return TargetFailed(kind, f"Could not {action} {path}: {why}.", hint)


@contextlib.contextmanager
def translate_os_errors(action: str, path: str) -> Iterator[None]:
    """Turns any OSError inside into TargetFailed with this action and path."""
    try:
        yield
    except OSError as error:
        raise failed(error, action, path) from error


def read_all(fd: int, most: int) -> bytes:
    """Everything from the start of the open file; an OSError (EFBIG) beyond `most` bytes."""
    parts = []
    at = 0
    while part := os.pread(fd, _CHUNK, at):
        parts.append(part)
        at += len(part)
        if at > most:  # counted while reading: the file may grow meanwhile
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return b"".join(parts)


def holds(fd: int, data: bytes) -> bool:
    """Whether the open file is exactly `data`; it is compared piece by piece, not kept."""
    at = 0
    while part := os.pread(fd, _CHUNK, at):
        if not data.startswith(part, at):
            return False
        at += len(part)
    return at == len(data)


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`, also when the system takes it in pieces, and syncs it to the disk."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.fsync(fd)


@dataclass(frozen=True, slots=True)
class Owner:
    """To whom a new file belongs; `home` is the user's home directory, "" when unknown."""

    uid: int
    gid: int
    home: str = ""

    @property
    def is_oneself(self) -> bool:
        """Whether an ordinary user works on files of their own, with no power that is worth
        borrowing; otherwise, as root or as the service account, keysync acts for somebody (G8).
        """
        return self.uid == os.geteuid() != 0


@contextlib.contextmanager
def temporary_file(
    directory: int, prefix: str, owner: Owner, mode: int
) -> Iterator[tuple[str, int]]:
    """A new file with an unguessable name in `directory`, gone again unless renamed away.

    Gives its name and descriptor. Owner and mode are set on the descriptor, whatever the umask.
    """
    name = prefix + secrets.token_hex(8)
    fd = os.open(name, _TEMP_FLAGS, 0o600, dir_fd=directory)
    with _gone_afterwards(directory, name):
        try:
            _give_away(fd, owner, mode)
            yield name, fd
        finally:
            os.close(fd)


def complete_file(
    directory: int, name: str, owner: Owner, mode: int, data: bytes, like: int | None
) -> os.stat_result:
    """Makes a file that is whole, synced and closed when it gets its name; gives its status.

    It gets the SELinux label and the access list of the file `like` (G9).
    """
    unfinished = name + _UNFINISHED
    fd = os.open(unfinished, _TEMP_FLAGS, 0o600, dir_fd=directory)
    try:
        try:
            _give_away(fd, owner, mode)
            if like is not None:
                _copy_attribute(_SELINUX, like, fd, lambda label: label)
                _copy_attribute(_ACL, like, fd, lambda acl: _safe_acl(acl, mode))
            made = os.fstat(fd)
            write_all(fd, data)
            if not holds(fd, data):  # nothing may take the name that is not whole
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        finally:
            os.close(fd)
        os.rename(unfinished, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        discard(directory, unfinished)
        raise
    return made


@contextlib.contextmanager
def _gone_afterwards(directory: int, name: str) -> Iterator[None]:
    try:
        yield
    finally:
        discard(directory, name)


def discard(directory: int, name: str) -> None:
    """Removes a temporary file, unless somebody has done so, or has put a directory there."""
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(name, dir_fd=directory)


def _give_away(fd: int, owner: Owner, mode: int) -> None:
    made = os.fstat(fd)  # its group may be the directory's (S_ISGID, inode(7))
    if (made.st_uid, made.st_gid) != (owner.uid, owner.gid):
        os.fchown(fd, owner.uid, owner.gid)
    os.fchmod(fd, mode)


def _copy_attribute(name: str, source: int, target: int, adapted: Callable[[bytes], bytes]) -> None:
    """Carries an extended attribute over, where there is one; those of other names stay behind."""
    try:
        value = adapted(os.getxattr(source, name))
        if value != _attribute(target, name):
            os.setxattr(target, name, value)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise failed(error, f"set {name} of", "the new key file") from error


def _attribute(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError:
        return None


def _safe_acl(acl: bytes, mode: int) -> bytes:
    """The access list (acl(5)) for a file of this mode: who is named in it keeps everything but the
    permission to write, for which sshd would refuse the file (StrictModes in sshd_config(5)).
    """
    limits = {
        _ACL_USER_OBJ: mode >> 6 & 7,
        _ACL_GROUP_OBJ: mode >> 3 & 7 & ~_ACL_WRITE,
        _ACL_OTHER: mode & 7 & ~_ACL_WRITE,
    }
    entries = [
        (tag, limits[tag] if tag == _ACL_USER_OBJ else granted & limits.get(tag, ~_ACL_WRITE), who)
        for tag, granted, who in _ACL_ENTRY.iter_unpack(acl[_ACL_HEADER.size :])
    ]
    return acl[: _ACL_HEADER.size] + b"".join(_ACL_ENTRY.pack(*entry) for entry in entries)


def remove_leftovers(
    directory: int, prefix: str, keep: Callable[[str], object] = lambda _: False
) -> None:
    """Removes the temporary files of a run that was killed; links are removed, not followed."""
    for name in sorted(os.listdir(directory)):
        if name.startswith(prefix) and not keep(name):
            with contextlib.suppress(PermissionError):
                discard(directory, name)


def write_private(directory: int, name: str, data: bytes) -> None:
    """Replaces a private file of keysync's own, whole or not at all."""
    with temporary_file(directory, f".{name}.", _keeper(directory), 0o600) as (temp, fd):
        write_all(fd, data)
        os.rename(temp, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


def _keeper(directory: int) -> Owner:
    """Who owns keysync's own files: the process, or the account whose folder root works in."""
    folder = os.fstat(directory)
    if folder.st_uid == os.geteuid():
        return Owner(os.geteuid(), os.getegid())
    return Owner(folder.st_uid, folder.st_gid)


def _refuse_planted(status: os.stat_result, keeper: Owner) -> None:
    """What somebody put into keysync's folder while it was open to others is not used (G8)."""
    is_own = status.st_uid in (0, os.geteuid(), keeper.uid)
    if not is_own or not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file of keysync's own; remove it")


def open_private(directory: int, name: str, flags: int) -> int:
    """Opens or makes a file of keysync's own that is kept open; mode 0600, whatever the umask."""
    keeper = _keeper(directory)
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        status = os.fstat(fd)
        _refuse_planted(status, keeper)
        if status.st_nlink > 1:  # to write to it would write to another file of root's
            raise OSError(errno.EMLINK, "it is another file's name as well; remove it")
        if status.st_uid != keeper.uid:
            os.fchown(fd, keeper.uid, keeper.gid)
        if stat.S_IMODE(status.st_mode) != 0o600:
            os.fchmod(fd, 0o600)
    except OSError:
        os.close(fd)
        raise
    return fd


def read_private(directory: int, name: str) -> bytes | None:
    """The bytes of a file of keysync's own, or None when there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | OPEN_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        _refuse_planted(os.fstat(fd), _keeper(directory))
        return read_all(fd, _MOST_PRIVATE)
    finally:
        os.close(fd)
