"""One user's key file on disk: read it, replace it whole, lose nobody's edit (G7, G8, G9).

1. The directory is held open; every name is relative to it, and no link is followed.
2. Only a regular file with one name, the user's own, is read.
3. Who has the file open for writing is waited for, for a while.
4. The new file is complete and synced before it takes the name; the old one is exchanged out, not
   overwritten, and looked at once more: what somebody wrote at the last moment is merged back, and
   kept until it is, so that a killed run leaves it to the next one.
5. The work is done when a fresh read shows what was meant (R10).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from agent.adapters.files import renameat2
from agent.adapters.files.atomic import (
    Owner,
    complete_file,
    discard,
    holds,
    translate_os_errors,
    write_all,
)
from agent.adapters.files.file_mode import (
    OTHERS_WRITE,
    ModeChange,
    is_at_home,
    roots_attributes,
    stays_roots,
)
from agent.adapters.files.late_edit import LateEdit, telling_name, with_edit
from agent.adapters.files.left_edits import LeftEdits, forget
from agent.adapters.files.locks import locked, read_lease, wait_for_writers
from agent.adapters.files.own_file import open_own, read_keys, settled
from agent.adapters.files.safe_path import make_directory, open_directory
from agent.errors import TargetFailed

_LOCK_SECONDS = 3.0
_LATE_WRITER_SECONDS = 0.1  # and at least so long after each exchange

Transform = Callable[[bytes], bytes]


class Patience(NamedTuple):
    """How long one update gives way to others who write the file, in seconds and in attempts.

    After `attempts`, and no sooner than after `seconds`, it replaces the file although somebody is
    always faster: a busy writer must not keep a revoked key alive.
    """

    attempts: int = 10
    seconds: float = 1.0
    writers_seconds: float = 4.0  # waiting for those who have it open, all attempts together
    update_seconds: float = 6.0  # the whole update


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read: the bytes, whether there is a file, whether sshd would accept its mode.

    `unmerged` are lines of a killed run's edit that come into no file: what is shown here is all
    that is left of them.
    """

    data: bytes = b""
    exists: bool = False
    sound: bool = True
    unmerged: tuple[bytes, ...] = ()


BeforeWrite = Callable[[Snapshot], None]
AfterWrite = Callable[[], None]


def _nothing() -> None:
    pass


class KeyFile:
    """The key file at `path` for `owner`, its directory held open by `opened`.

    `mode_changes` are the modes and owners that `update` has changed of what was there before.
    """

    def __init__(
        self, path: str, owner: Owner, directory: int | None, patience: Patience | None = None
    ) -> None:
        self.path = path
        self.mode_changes: list[ModeChange] = []
        self._owner = owner
        self._directory = directory
        self._patience = patience or Patience()
        self._at_home = is_at_home(path, owner)
        self._name = os.path.basename(path)
        self._prefix = f".{self._name}.keysync-"
        self._left = LeftEdits(path, self._prefix, self._content)

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, path: str, owner: Owner, *, for_writing: bool, patience: Patience | None = None
    ) -> Iterator[KeyFile]:
        """The file, for reading only or for `update`. A missing directory is an empty file.

        Raises TargetFailed when the way to it is not safe or not permitted.
        """
        with translate_os_errors("open the directory of", path):
            try:
                directory = open_directory(os.path.dirname(path), owner)
            except FileNotFoundError:
                directory = None
        file = cls(path, owner, directory, patience)
        try:
            if for_writing and directory is not None:
                file._left.clear(directory)
            yield file
        finally:
            if file._directory is not None:
                os.close(file._directory)

    def read(self) -> Snapshot:
        """The file as it is now. Raises TargetFailed when it is not a plain file of the user's."""
        if self._directory is None:
            return Snapshot()
        with translate_os_errors("read", self.path):
            fd = self._open(self._name)
            if fd is None:
                return Snapshot()
            try:
                return self._snapshot(fd)
            finally:
                os.close(fd)

    @property
    def device(self) -> int | None:
        """The file system that it is on (st_dev in stat(2)); None when its directory is missing."""
        return None if self._directory is None else os.fstat(self._directory).st_dev

    def update(
        self, transform: Transform, before_write: BeforeWrite, after_write: AfterWrite = _nothing
    ) -> None:
        """Makes the file what `transform` makes of it, until a fresh read shows nothing to do.

        `transform` must be idempotent; it is called again with whatever others wrote meanwhile.
        `before_write` gets what is about to be replaced; when it raises, nothing is.
        `after_write` is called when that has been replaced, and not when somebody was faster (R10).
        Raises TargetFailed.
        """
        with translate_os_errors("write", self.path), locked(self._directory, _LOCK_SECONDS):
            self._mend_directory()
            self._update(transform, before_write, after_write)

    def _update(
        self, transform: Transform, before_write: BeforeWrite, after_write: AfterWrite
    ) -> None:
        start = time.monotonic()
        late = self._left.edits(lambda: self.read().data)
        for attempt in itertools.count():
            on_disk = self.read()
            merged = _merged(on_disk.data, late)
            shown = replace(on_disk, unmerged=tuple(line for one in late for line in one.unmerged))
            desired = transform(merged)
            if desired == on_disk.data and on_disk.sound:
                # An edit of which nothing may stay is journalled too (G5).
                if merged != desired or shown.unmerged:
                    before_write(shown)
                forget(self._directory, late)
                return
            spent = time.monotonic() - start
            if attempt and spent > self._patience.update_seconds:  # else the machine is slow
                break
            before_write(shown)
            patient = attempt < self._patience.attempts or spent < self._patience.seconds
            deadline = start + self._patience.writers_seconds
            done, found = self._replace(on_disk, desired, deadline, patient=patient)
            if done:
                after_write()
                forget(self._directory, late)
                late = []
            late += found
            if not patient:
                self._append(found)
        raise _keeps_changing(self.path)

    def remove(self, before_remove: BeforeWrite) -> None:
        """Takes the file away; `before_remove` has seen every byte of it. Raises TargetFailed."""
        with locked(self._directory, _LOCK_SECONDS), translate_os_errors("remove", self.path):
            deadline = time.monotonic() + self._patience.update_seconds
            while (on_disk := self.read()).exists:
                if time.monotonic() > deadline:
                    raise _keeps_changing(self.path)
                before_remove(on_disk)
                self._take_away(on_disk, before_remove)
            for late in self._left.edits(lambda: self.read().data):
                before_remove(Snapshot(late.edit[1], exists=True))
                forget(self._directory, [late])

    # ---- reading ----

    def _open(self, name: str, flags: int = os.O_RDONLY) -> int | None:
        """A descriptor of a file that is certainly the user's own, or None when there is none."""
        return open_own(self._directory, name, self.path, self._owner, flags)

    def _snapshot(self, fd: int) -> Snapshot:
        status = os.fstat(fd)
        return Snapshot(read_keys(fd, self.path), True, self._is_sound(status))

    def _is_sound(self, status: os.stat_result) -> bool:
        """Whether owner and mode are such that sshd reads the file (StrictModes)."""
        if self._stays_roots(status):
            return not status.st_mode & OTHERS_WRITE
        closed = status.st_mode & (OTHERS_WRITE | stat.S_IRUSR) == stat.S_IRUSR
        return status.st_uid == self._owner.uid and closed

    def _attributes(self, file: os.stat_result | None) -> tuple[Owner, int]:
        """Owner and mode of what replaces the file, or of the first one (G9)."""
        return roots_attributes(file) if self._stays_roots(file) else (self._owner, 0o600)

    def _stays_roots(self, file: os.stat_result | None) -> bool:
        folder = os.fstat(self._writable_directory())
        return stays_roots(folder, file, self._owner, at_home=self._at_home)

    # ---- writing ----

    def _replace(
        self, expected: Snapshot, data: bytes, deadline: float, *, patient: bool
    ) -> tuple[bool, list[LateEdit]]:
        """Puts `data` in the place of what is `expected` there; writers have until `deadline`.

        When something else is there, a `patient` call leaves it there. Gives whether it was done,
        and what others did at the last moment to the file that is now gone.
        """
        directory = self._writable_directory()
        with contextlib.ExitStack() as stack:
            old = self._open(self._name)
            status = None
            if old is not None:
                stack.callback(os.close, old)
                status = os.fstat(old)
            temp = telling_name(self._prefix, expected.data, data)
            stack.callback(self._discard, directory, temp)
            made = complete_file(directory, temp, *self._attributes(status), data, like=old)
            if old is None or status is None:
                gone = patient and expected.exists
                return not gone and self._create(directory, temp), []
            taken = self._take_name(temp, old, expected, deadline, patient=patient)
            if taken is None:
                return False, []
            done, name = taken
            if done:
                self._note_change(self.path, status, made)
            os.fsync(directory)
            before = expected.data if done else data
            theirs = self._displaced(name, old, deadline)
            if theirs != before:
                return done, [LateEdit(name, (before, theirs))]
            discard(directory, temp)  # no need to read it once more
            return done, []

    def _discard(self, directory: int, temp: str) -> None:
        """Removes a temporary file, unless it holds somebody's edit."""
        if not self._left.keeps(temp):
            discard(directory, temp)

    def _take_name(
        self, temp: str, old: int, expected: Snapshot, deadline: float, *, patient: bool
    ) -> tuple[bool, str | None] | None:
        """Exchanges the two files while nobody writes the old one.

        Gives whether it was done, or done and taken back since somebody was faster, and the name
        of the displaced file where it has one; None when nothing was done.
        """
        with read_lease(old, deadline) as calm:
            if patient and not (calm() and self._still(self._name, old, expected)):
                return None
            try:
                exchanged = self._exchange(temp)
            except FileNotFoundError:  # somebody has just removed it
                return None
            done = not (patient and exchanged) or (calm() and self._still(temp, old, expected))
            if not done:
                self._exchange(temp)  # theirs comes back, ours is displaced
        return done, temp if exchanged else None

    def _still(self, name: str, old: int, expected: Snapshot) -> bool:
        """The lost-update check: the name and the bytes are those that the plan was made for."""
        try:
            named = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        same = os.path.samestat(named, os.fstat(old))
        return same and expected.exists and holds(old, expected.data)

    def _create(self, directory: int, temp: str) -> bool:
        """Gives the name to a file where there was none; False when somebody was faster."""
        try:
            renameat2.no_replace(directory, temp, self._name)
        except FileExistsError:
            return False
        os.fsync(directory)
        return True

    def _exchange(self, temp: str) -> bool:
        """Swaps the two names; where that is not to be had, the old file is overwritten: False."""
        directory = self._writable_directory()
        if renameat2.exchange(directory, temp, self._name):
            return True
        os.rename(temp, self._name, src_dir_fd=directory, dst_dir_fd=directory)
        return False

    def _displaced(self, name: str | None, old: int, deadline: float) -> bytes:
        """What the displaced file holds when its writers are done."""
        deadline = max(deadline, time.monotonic() + _LATE_WRITER_SECONDS)
        data = None if name is None else self._content(name, deadline)
        return settled(old, deadline) if data is None else data

    def _content(self, name: str, deadline: float) -> bytes | None:
        """The same of a temporary name; None when it is no file of the user's own (any more)."""
        try:
            fd = self._open(name)
        except TargetFailed:
            return None
        if fd is None:
            return None
        try:
            return None if self._is_users_beside_roots(fd) else settled(fd, deadline)
        finally:
            os.close(fd)

    def _is_users_beside_roots(self, fd: int) -> bool:
        """G8: what the user wrote is not merged into a file that is root's."""
        try:
            named = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return self._stays_roots(named) and os.fstat(fd).st_uid != named.st_uid

    def _append(self, edits: list[LateEdit]) -> None:
        """Adds the lines that a busy writer added to the displaced file in the same way as they.

        Against somebody who appends all the time another exchange would come too late again.
        """
        fd = self._open(self._name)
        if fd is None:
            return
        try:
            with read_lease(fd, time.monotonic() + _LATE_WRITER_SECONDS):
                data = read_keys(fd, self.path)
            merged = _merged(data, edits)
            if merged != data and merged.startswith(data):
                self._append_to(fd, merged[len(data) :])
        finally:
            os.close(fd)

    def _append_to(self, same: int, lines: bytes) -> None:
        fd = self._open(self._name, os.O_WRONLY | os.O_APPEND)
        if fd is None:
            return
        try:
            status = os.fstat(fd)
            # Never into a file of root's, nor into one that has just taken the other's place.
            if status.st_uid == self._owner.uid and os.path.samestat(status, os.fstat(same)):
                write_all(fd, lines)
        finally:
            os.close(fd)

    def _take_away(self, expected: Snapshot, before_remove: BeforeWrite) -> None:
        """Renames the file to an unguessable name first, and looks at it once more under that."""
        directory = self._writable_directory()
        aside = telling_name(self._prefix, expected.data, b"")
        with contextlib.suppress(FileNotFoundError):
            renameat2.no_replace(directory, self._name, aside)
        moved = self._open(aside)
        if moved is None:
            return
        try:
            wait_for_writers(moved, time.monotonic() + _LATE_WRITER_SECONDS)
            data = read_keys(moved, self.path)
            if data != expected.data:
                before_remove(Snapshot(data, exists=True))
        finally:
            os.close(moved)
        os.unlink(aside, dir_fd=directory)
        os.fsync(directory)

    def _writable_directory(self) -> int:
        """The directory, made when missing."""
        if self._directory is None:
            self._directory = make_directory(os.path.dirname(self.path), self._owner)
        return self._directory

    def _mend_directory(self) -> None:
        """Mends a mode for which sshd would refuse every key; ~/.ssh is then the user's alone."""
        if self._directory is None:
            return
        status = os.fstat(self._directory)
        mode = stat.S_IMODE(status.st_mode)
        good = mode & ~OTHERS_WRITE | stat.S_IRWXU
        if status.st_uid != self._owner.uid or mode == good or mode & stat.S_ISVTX:
            return
        path = os.path.dirname(self.path)
        users = self._at_home or self._owner.uid != 0
        private = os.path.basename(path) == ".ssh" and users
        with translate_os_errors("set the mode of the directory of", self.path):
            os.fchmod(self._directory, 0o700 if private else good)
        self._note_change(path, status, os.fstat(self._directory))

    def _note_change(self, path: str, before: os.stat_result, after: os.stat_result) -> None:
        change = ModeChange.between(path, before, after)
        if change.is_change:
            self.mode_changes.append(change)


def _keeps_changing(path: str) -> TargetFailed:
    return TargetFailed(
        "keeps_changing",
        f"{path} was changed by others again and again while keysync wrote it.",
        "Find who writes it (lsof, auditctl -w); the next cycle tries again.",
    )


def _merged(data: bytes, late: Iterable[LateEdit]) -> bytes:
    return functools.reduce(with_edit, (one.edit for one in late), data)
