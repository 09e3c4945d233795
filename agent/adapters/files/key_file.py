"""One user's key file on disk: read, and replaced atomically without losing edits (G7, G8, G9).

1. The directory is held open; every name is relative to it, and no symlink is followed.
2. Only a regular file of the user's own, without another hard link, is read.
3. A replacement keeps the edits of others, as `replacement` describes. When somebody was faster,
   it is planned again from a fresh read.
4. The work is done when a fresh read shows what was meant (R10).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agent.adapters.files.atomic import Owner, remove_leftovers
from agent.adapters.files.file_mode import ModeChange, is_acceptable, is_at_home, mended_mode
from agent.adapters.files.locks import locked
from agent.adapters.files.os_errors import translate_os_errors
from agent.adapters.files.own_file import read_keys
from agent.adapters.files.replacement import Entry, Outcome, remove_file, replace_file
from agent.adapters.files.safe_path import make_directory, open_directory
from agent.core.merge import Edit, with_edits
from agent.errors import TargetFailed

_LOCK_SECONDS = 3.0

Transform = Callable[[bytes], bytes]


class Patience(NamedTuple):
    """How long one update waits for other programs that write the file."""

    writers_seconds: float = 4.0  # for those that have it open, in all attempts together
    update_seconds: float = 6.0  # for all attempts; then the update fails


class Snapshot(NamedTuple):
    """What was read: the bytes, whether the file exists, whether sshd would accept its mode."""

    data: bytes = b""
    exists: bool = False
    sound: bool = True


BeforeWrite = Callable[[Snapshot], None]
AfterWrite = Callable[[], None]


def _ignore(_: Snapshot) -> None:
    pass


def _nothing() -> None:
    pass


class KeyFile:
    """The key file at `path` for `owner`, its directory held open by `opened`.

    `mode_changes` are the modes and owners of existing files that `update` changed.
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

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, path: str, owner: Owner, *, for_writing: bool, patience: Patience | None = None
    ) -> Iterator[KeyFile]:
        """The file, for reading only or for `update`. A missing directory is an empty file.

        Raises TargetFailed when the path to it is not safe or not permitted.
        """
        with translate_os_errors("open the directory of", path):
            try:
                directory = open_directory(os.path.dirname(path), owner)
            except FileNotFoundError:
                directory = None
        file = cls(path, owner, directory, patience)
        try:
            if for_writing:
                file._remove_leftovers()
            yield file
        finally:
            if file._directory is not None:
                os.close(file._directory)

    def read(self) -> Snapshot:
        """The file as it is now. Raises TargetFailed when it is no regular file of the user's."""
        entry = self._entry()
        if entry is None:
            return Snapshot()
        with translate_os_errors("read", self.path):
            fd = entry.open(entry.name)
            if fd is None:
                return Snapshot()
            try:
                return Snapshot(read_keys(fd, self.path), True, self._is_acceptable(entry, fd))
            finally:
                os.close(fd)

    @property
    def device(self) -> int | None:
        """The file system that it is on (st_dev in stat(2)); None when its directory is missing."""
        return None if self._directory is None else os.fstat(self._directory).st_dev

    def update(
        self,
        transform: Transform,
        before_write: BeforeWrite = _ignore,
        after_write: AfterWrite = _nothing,
    ) -> None:
        """Replaces the bytes with what `transform` returns, until a fresh read needs no change.

        `transform` must be idempotent; it is called again with whatever others wrote meanwhile.
        `before_write` gets what is about to be replaced; when it raises, nothing is replaced.
        `after_write` is called after each replacement that stays in place (R10).
        Raises TargetFailed; its kind is "keeps_changing" when others are faster for too long.
        """
        with translate_os_errors("write", self.path), locked(self._directory, _LOCK_SECONDS):
            self._mend_directory()
            self._update(transform, before_write, after_write)

    def _update(
        self, transform: Transform, before_write: BeforeWrite, after_write: AfterWrite
    ) -> None:
        start = time.monotonic()
        late: list[Edit] = []  # made to a version that is gone, and not merged yet
        for attempt in itertools.count():
            on_disk = self.read()
            merged = with_edits(on_disk.data, late)
            desired = transform(merged)
            if desired == on_disk.data and on_disk.sound:
                if merged != desired:  # nothing of a late edit may stay: it is journalled too (G5)
                    before_write(on_disk)
                return
            # A machine that is merely slow gets its first attempt, whatever time it takes; an edit
            # that is only in memory gets as much time again.
            seconds = self._patience.update_seconds * (2 if late else 1)
            if attempt and time.monotonic() > start + seconds:
                break
            before_write(on_disk)
            outcome = self._replace(on_disk, desired, start + self._patience.writers_seconds)
            if outcome.replaced:
                after_write()
                late = []
            late += [outcome.late] if outcome.late else []
        raise _keeps_changing(self.path)

    def _replace(self, on_disk: Snapshot, desired: bytes, deadline: float) -> Outcome:
        before = on_disk.data if on_disk.exists else None
        outcome = replace_file(self._entry_to_write(), before, desired, deadline)
        self._note(outcome.mode_change)
        return outcome

    def remove(self, before_remove: BeforeWrite) -> None:
        """Removes the file after `before_remove` got every byte of it. Raises TargetFailed."""
        with locked(self._directory, _LOCK_SECONDS), translate_os_errors("remove", self.path):
            deadline = time.monotonic() + self._patience.update_seconds
            while (on_disk := self.read()).exists:
                if time.monotonic() > deadline:
                    raise _keeps_changing(self.path)
                before_remove(on_disk)
                remove_file(
                    self._entry_to_write(),
                    on_disk.data,
                    lambda data: before_remove(Snapshot(data, exists=True)),
                )

    # ---- the directory ----

    def _entry(self) -> Entry | None:
        if self._directory is None:
            return None
        return Entry(self._directory, self.path, self._owner, self._at_home)

    def _entry_to_write(self) -> Entry:
        """The same, but a missing directory is made."""
        if self._directory is None:
            self._directory = make_directory(os.path.dirname(self.path), self._owner)
        return Entry(self._directory, self.path, self._owner, self._at_home)

    def _is_acceptable(self, entry: Entry, fd: int) -> bool:
        folder = os.fstat(entry.directory)
        return is_acceptable(folder, os.fstat(fd), self._owner, at_home=self._at_home)

    def _remove_leftovers(self) -> None:
        """Removes those of killed runs, unless another agent that may use them has the lock."""
        entry = self._entry()
        if entry is None:
            return
        with (
            translate_os_errors("clear the directory of", self.path),
            locked(entry.directory, 0.0) as alone,
        ):
            if alone:
                remove_leftovers(entry.directory, entry.temporary_prefix)

    def _mend_directory(self) -> None:
        """Corrects a mode of the directory for which sshd would refuse every key."""
        if self._directory is None:
            return
        path = os.path.dirname(self.path)
        before = os.fstat(self._directory)
        mode = mended_mode(before, path, self._owner, at_home=self._at_home)
        if mode is None:
            return
        with translate_os_errors("set the mode of the directory of", self.path):
            os.fchmod(self._directory, mode)
        self._note(ModeChange.between(path, before, os.fstat(self._directory)))

    def _note(self, change: ModeChange | None) -> None:
        if change is not None and change.is_change:
            self.mode_changes.append(change)


def _keeps_changing(path: str) -> TargetFailed:
    return TargetFailed(
        "keeps_changing",
        f"{path} was changed by others again and again while keysync wrote it, so deleted keys in "
        "it may still log in.",
        "Find and stop who writes it (lsof, auditctl -w); the next cycle tries again.",
    )
