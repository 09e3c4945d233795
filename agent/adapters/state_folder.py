"""The folder of keysync's own files: who may own it, how it is opened, made and locked.

It belongs to root, or to the account that the service runs as, and is closed to everybody else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from agent.adapters.files.atomic import Owner, remove_leftovers
from agent.adapters.files.locks import take_lock
from agent.adapters.files.os_errors import NO_ROOM_KINDS, failed, translate_os_errors
from agent.adapters.files.own_file import open_private
from agent.adapters.files.safe_path import open_directory
from agent.adapters.state_files import LOCK, SYNC_LEFTOVERS, is_own
from agent.adapters.users import SERVICE_ACCOUNT, find_user
from agent.core.text import printable
from agent.errors import Busy, TargetFailed

_CANNOT_WRITE = NO_ROOM_KINDS | {"read_only", "io_error"}


class StateFolder:
    """The folder at `path`, which need not exist yet."""

    def __init__(self, path: str) -> None:
        self.path = path

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the folder. Raises TargetFailed, also when the folder is missing."""
        with self.opened_if_present() as directory:
            if directory is None:
                error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                raise failed(error, "open the state folder", self.path)
            yield directory

    @contextlib.contextmanager
    def opened_if_present(self) -> Iterator[int | None]:
        """A descriptor of the folder, or None when it is missing.

        Raises TargetFailed for a folder that somebody else owns or could exchange (G8).
        """
        owner = _owner_of(self.path)
        try:
            directory = open_directory(self.path, owner)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise failed(error, "open the state folder", self.path) from error
        try:
            if (uid := os.fstat(directory).st_uid) != owner.uid:
                raise TargetFailed(
                    "wrong_owner",
                    f"The state folder {self.path} belongs to user id {uid}, and keysync runs as "
                    f"{os.geteuid()}.",
                    f"chown {os.geteuid()} {self.path}, or set state_dir to another folder.",
                )
            yield directory
        finally:
            os.close(directory)

    def make(self) -> None:
        """Makes the folder with mode 0700 unless it exists. Raises TargetFailed."""
        parent_path, _, name = self.path.rpartition("/")
        try:
            parent = open_directory(parent_path or "/", Owner(os.geteuid(), os.getegid()))
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
                os.fsync(parent)
            finally:
                os.close(parent)
        except FileExistsError:
            return
        except OSError as error:
            found = failed(error, "make the state folder", self.path)
            hint = found.hint + " As an ordinary user, set state_dir to a folder of your own."
            raise TargetFailed(found.kind, found.message, hint) from error

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Makes the folder if it is missing and holds its lock; see `StateDirectory.locked`."""
        fd = self._lock_file()
        try:
            if fd is not None:
                _take_lock(fd, seconds, self.path)
                self._remove_leftovers()
            yield
        finally:
            if fd is not None:
                os.close(fd)

    def _lock_file(self) -> int | None:
        """A descriptor to lock: the lock file, or the folder if no file can be made in it (G11)."""
        try:
            self.make()
        except TargetFailed as error:
            if error.kind not in _CANNOT_WRITE:
                raise
        with self.opened_if_present() as directory:
            if directory is None:
                return None
            try:
                self._close_to_others(directory)
                with translate_os_errors("lock", f"{self.path}/{LOCK}"):
                    return open_private(directory, LOCK, os.O_RDWR)
            except TargetFailed as error:
                if error.kind not in _CANNOT_WRITE:
                    raise
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)

    def _close_to_others(self, directory: int) -> None:
        """Sets mode 0700, unless the folder serves something else as well."""
        if stat.S_IMODE(os.fstat(directory).st_mode) == 0o700:
            return
        others = [name for name in os.listdir(directory) if not is_own(name)]
        if others:
            raise TargetFailed(
                "state_dir_shared",
                f"The folder {self.path} is open to other users and holds more than keysync's "
                f"state, such as {printable(min(others))!r}, so its mode is not changed.",
                "Set state_dir to a folder of keysync's own.",
            )
        with translate_os_errors("close", self.path):
            os.fchmod(directory, 0o700)

    def _remove_leftovers(self) -> None:
        with contextlib.suppress(OSError), self.opened() as directory:  # a read-only disk
            for prefix in SYNC_LEFTOVERS:
                remove_leftovers(directory, prefix)


def _owner_of(path: str) -> Owner:
    """Who must own the folder: keysync's user, or the service's account when root works by hand."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            uid = os.stat(path).st_uid
            service = find_user(SERVICE_ACCOUNT) if uid else None  # can cost milliseconds
            if service and uid == service.pw_uid:
                return Owner(service.pw_uid, service.pw_gid)
    return Owner(os.geteuid(), os.getegid())


def _take_lock(fd: int, seconds: float, path: str) -> None:
    with translate_os_errors("lock", f"{path}/{LOCK}"):
        if take_lock(fd, seconds):
            return
    raise Busy(
        "busy",
        f"Another keysync has been at work for more than {seconds:g} s (it holds {path}/{LOCK}).",
        f"Wait for it, or find it with: fuser -v {path}/{LOCK}",
    )
