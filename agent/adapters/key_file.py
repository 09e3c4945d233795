"""One user's key file on disk: read it, replace it whole, lose nobody's edit (G7, G8, G9).

1. The directory is held open; every name is relative to it, and no link is followed.
2. Only a regular file with one name, the user's own, is read.
3. The new file is complete and synced before it takes the name; the old one is exchanged out, not
   overwritten, and looked at once more: what somebody wrote at the last moment is merged back.
4. The work is done when a fresh read shows what was meant (R10).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.adapters import renameat2
from agent.adapters.directory import make_directory, open_directory
from agent.adapters.disk import (
    READ_FLAGS,
    Owner,
    failed,
    naming,
    read_all,
    remove_leftovers,
    temporary_file,
    write_all,
)
from agent.core.authorized_keys import merge_lines
from agent.errors import TargetFailed

_MODE = 0o600
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ATTEMPTS = 50
_PATIENT_ATTEMPTS = 10  # a busy writer must not keep a revoked key alive
_MAX_BYTES = 256 << 20
_LOCK_SECONDS = 5.0
_WRITER_SECONDS = 1.0
_PAUSE_SECONDS = 0.005
_SELINUX = "security.selinux"

Transform = Callable[[bytes], bytes]
BeforeWrite = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read: the bytes, whether there is a file, whether sshd would accept its mode."""

    data: bytes = b""
    exists: bool = False
    sound: bool = True


class KeyFile:
    """The key file at `path` for `owner`, its directory held open and locked by `opened`."""

    def __init__(self, path: str, owner: Owner, directory: int | None) -> None:
        self.path = path
        self._owner = owner
        self._directory = directory
        self._name = os.path.basename(path)
        self._prefix = f".{self._name}.keysync-"

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: str, owner: Owner, *, for_writing: bool) -> Iterator[KeyFile]:
        """The file, for reading only or for `update`. A missing directory is an empty file.

        Raises TargetFailed when the way to it is not safe or not permitted.
        """
        with naming("open the directory of", path):
            try:
                directory = open_directory(os.path.dirname(path), owner)
            except FileNotFoundError:
                directory = None
        file = cls(path, owner, directory)
        try:
            if for_writing and directory is not None:
                file._prepare(directory)
            yield file
        finally:
            if file._directory is not None:
                os.close(file._directory)

    def read(self) -> Snapshot:
        """The file as it is now. Raises TargetFailed when it is not a plain file of the user's."""
        if self._directory is None:
            return Snapshot()
        with naming("read", self.path):
            fd = self._open(self._name)
            if fd is None:
                return Snapshot()
            try:
                return self._snapshot(fd)
            finally:
                os.close(fd)

    def update(self, transform: Transform, before_write: BeforeWrite) -> None:
        """Makes the file what `transform` makes of it, until a fresh read shows nothing to do.

        `transform` must be idempotent; it is called again with whatever others wrote meanwhile.
        `before_write` gets the bytes that are about to be replaced. Raises TargetFailed.
        """
        on_disk = self.read()
        base = on_disk.data
        for attempt in range(_ATTEMPTS):
            wanted = transform(base)
            if wanted == on_disk.data and on_disk.sound:
                return
            before_write(on_disk.data)
            with naming("write", self.path):
                patient = attempt < _PATIENT_ATTEMPTS
                written, displaced = self._replace(on_disk, wanted, patient=patient)
            expected, before = on_disk.data, base
            if written:
                expected = wanted
                base = wanted
                if displaced is not None:
                    base = merge_lines(on_disk.data, before, displaced)
            on_disk = self.read()
            base = merge_lines(expected, base, on_disk.data)
        raise TargetFailed(
            "keeps_changing",
            f"{self.path} was changed by others {_ATTEMPTS} times while keysync wrote it.",
            "Find who writes it (lsof, auditctl -w); the next cycle tries again.",
        )

    # ---- reading ----

    def _open(self, name: str) -> int | None:
        """A descriptor of a file that is certainly the user's own, or None when there is none."""
        try:
            status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        self._check(status)  # before the open: opening a device can have effects
        try:
            fd = os.open(name, READ_FLAGS, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        try:
            self._check(os.fstat(fd))
        except TargetFailed:
            os.close(fd)
            raise
        return fd

    def _check(self, status: os.stat_result) -> None:
        """Refuses whatever could be somebody else's file under this name (G8)."""
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFREG:
            what = _KINDS.get(kind, "something else")
            raise TargetFailed(
                "not_a_file",
                f"{self.path} is {what}, not a regular file, so it is not touched.",
                "Put a regular file in its place, or remove it.",
            )
        if status.st_nlink > 1:
            raise TargetFailed(
                "hard_link",
                f"{self.path} is one of {status.st_nlink} names of the same file, so it is not "
                "touched.",
                "Make it a file of its own: cp -p it to a new name and mv that over it.",
            )
        if status.st_size > _MAX_BYTES:
            raise TargetFailed(
                "too_large",
                f"{self.path} has {status.st_size} bytes, more than {_MAX_BYTES}.",
                "Look at what fills it; no key file needs to be that large.",
            )
        if os.geteuid() == 0 and not self._is_users_own(status):
            raise TargetFailed(
                "wrong_owner",
                f"{self.path} belongs to user id {status.st_uid}, not {self._owner.uid}, so its "
                "contents are not touched.",
                f"If it is the user's file: chown {self._owner.uid} {self.path}",
            )

    def _is_users_own(self, status: os.stat_result) -> bool:
        """Root's files count when anybody may read them: rewriting one discloses nothing."""
        if status.st_uid == self._owner.uid:
            return True
        return status.st_uid == 0 and bool(status.st_mode & stat.S_IROTH)

    def _snapshot(self, fd: int) -> Snapshot:
        status = os.fstat(fd)
        sound = status.st_uid == self._owner.uid and not status.st_mode & _OTHERS_WRITE
        return Snapshot(read_all(fd), True, sound)

    # ---- writing ----

    def _replace(
        self, expected: Snapshot, data: bytes, *, patient: bool
    ) -> tuple[bool, bytes | None]:
        """Puts `data` in the place of what is `expected` there.

        When something else is there, a `patient` call does nothing. Gives whether it was written,
        and the bytes that it displaced where they were others.
        """
        directory = self._writable_directory()
        with temporary_file(directory, self._prefix, self._owner, _MODE) as (temp, fd):
            old = self._open(self._name)
            try:
                if old is not None:
                    _copy_label(old, fd)
                write_all(fd, data)
                if patient and not self._still(old, expected):
                    return False, None
                if old is None:
                    return self._create(directory, temp), None
                return True, self._exchange(directory, temp, old, expected)
            finally:
                if old is not None:
                    os.close(old)

    def _still(self, old: int | None, expected: Snapshot) -> bool:
        """The lost-update check: the name and the bytes are those that the plan was made for."""
        if old is None:
            return not expected.exists
        try:
            named = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        same = os.path.samestat(named, os.fstat(old))
        return same and expected.exists and read_all(old) == expected.data

    def _create(self, directory: int, temp: str) -> bool:
        """Gives the name to a file where there was none; False when somebody was faster."""
        try:
            renameat2.no_replace(directory, temp, self._name)
        except FileExistsError:
            return False
        os.fsync(directory)
        return True

    def _exchange(self, directory: int, temp: str, old: int, expected: Snapshot) -> bytes | None:
        """Swaps the two names, and gives what was displaced when it is not what was expected."""
        if renameat2.exchange(directory, temp, self._name):
            os.fsync(directory)
            displaced = self._open(temp)
        else:  # a file system without the exchange: only the file that was open can be looked at
            os.rename(temp, self._name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
            displaced = os.dup(old)
        if displaced is None:
            return None
        try:
            _wait_for_writers(displaced)
            data = read_all(displaced)
        finally:
            os.close(displaced)
        return None if data == expected.data else data

    def _writable_directory(self) -> int:
        """The directory, made when missing."""
        if self._directory is None:
            self._directory = make_directory(os.path.dirname(self.path), self._owner)
            self._prepare(self._directory)
        return self._directory

    def _prepare(self, directory: int) -> None:
        """Locks it, clears what a killed run left, and mends a mode that sshd would refuse."""
        _lock(directory)
        remove_leftovers(directory, self._prefix)
        status = os.fstat(directory)
        shared = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
        if shared and status.st_uid == self._owner.uid:
            with naming("set the mode of the directory of", self.path):
                os.fchmod(directory, 0o700)


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _lock(directory: int) -> None:
    """Waits a while for another agent on the same directory, then goes on without the lock.

    The user can hold this lock for ever, so it may only be a courtesy; the exchange is what keeps
    edits from being lost.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                return
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _wait_for_writers(fd: int) -> None:
    """Returns when nobody has the file open for writing, or after a second.

    A read lease is granted only then (fcntl(2), F_SETLEASE). Where leases are not to be had the
    wait is one short pause.
    """
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # SIGIO, the default, would end the process
    deadline = time.monotonic() + _WRITER_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            time.sleep(_PAUSE_SECONDS)
            if error.errno != errno.EAGAIN:
                return
        else:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            return


def _copy_label(source: int, target: int) -> None:
    """Keeps the SELinux label (G9); other labels and access lists are left behind on purpose."""
    try:
        label = os.getxattr(source, _SELINUX)
        if label != _label(target):
            os.setxattr(target, _SELINUX, label)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise failed(error, "set the SELinux label of", "the new key file") from error


def _label(fd: int) -> bytes | None:
    try:
        return os.getxattr(fd, _SELINUX)
    except OSError:
        return None
