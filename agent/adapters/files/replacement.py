"""Replaces one version of a key file by another without losing an edit (G7).

1. The new file is complete and synced before it takes the name.
2. It takes the name only when the old file is still the one that was read, and nobody has it open
   for writing. Whoever opens it meanwhile is blocked by a lease.
3. The two files are exchanged, so the old one still exists. It is read once more: when somebody was
   faster, the files are exchanged back, and the caller starts over with a fresh read.
4. What somebody did in between to the file that lost its name is returned, to be merged.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from agent.adapters.files import renameat2
from agent.adapters.files.atomic import Owner, discard, holds, temporary_file
from agent.adapters.files.file_mode import ModeChange, new_attributes
from agent.adapters.files.locks import read_lease
from agent.adapters.files.own_file import open_key_file, read_when_written
from agent.core.merge import Edit
from agent.errors import TargetFailed

_LATE_WRITER_SECONDS = 0.1  # how long at least writers are waited for after each exchange


class Entry(NamedTuple):
    """The name of a key file in a directory that is held open."""

    directory: int
    path: str
    owner: Owner
    at_home: bool

    @property
    def name(self) -> str:
        """The last component of the path."""
        return os.path.basename(self.path)

    @property
    def temporary_prefix(self) -> str:
        """What the names of temporary files begin with; the rest is random."""
        return f".{self.name}.keysync-"

    def open(self, name: str) -> int | None:
        """A descriptor of a file in the directory; raises TargetFailed unless it is the owner's."""
        return open_key_file(self.directory, name, self.path, self.owner)

    def holds(self, name: str, file: int, data: bytes) -> bool:
        """Whether the name still belongs to the open file, which holds exactly these bytes."""
        try:
            named = os.stat(name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(file)) and holds(file, data)

    def new_attributes(self, file: os.stat_result | None) -> tuple[Owner, int]:
        """Owner and mode of what replaces this file, or of the first one (G9)."""
        folder = os.fstat(self.directory)
        return new_attributes(folder, file, self.owner, at_home=self.at_home)


class Outcome(NamedTuple):
    """Whether the new file is in place; if not, somebody else changed the old one first.

    `late` is an edit that somebody made to the file that is not in place.
    """

    replaced: bool
    late: Edit | None = None
    mode_change: ModeChange | None = None


_CHANGED_MEANWHILE = Outcome(replaced=False)


def replace_file(entry: Entry, before: bytes | None, after: bytes, deadline: float) -> Outcome:
    """Replaces the bytes `before` by `after`; None when there was no file.

    Writers have until `deadline` (time.monotonic) to close the file. Raises TargetFailed, OSError.
    """
    old = entry.open(entry.name)
    if old is None:
        return _create(entry, after) if before is None else _CHANGED_MEANWHILE
    try:
        if before is None:
            return _CHANGED_MEANWHILE
        return _replace(entry, old, Edit(before, after), deadline)
    finally:
        os.close(old)


def _create(entry: Entry, data: bytes) -> Outcome:
    owner, mode = entry.new_attributes(None)
    prefix = entry.temporary_prefix
    with temporary_file(entry.directory, prefix, data, owner=owner, mode=mode) as made:
        try:
            renameat2.no_replace(entry.directory, made.name, entry.name)
        except FileExistsError:
            return _CHANGED_MEANWHILE
    os.fsync(entry.directory)
    return Outcome(replaced=True)


def _replace(entry: Entry, old: int, ours: Edit, deadline: float) -> Outcome:
    status = os.fstat(old)
    owner, mode = entry.new_attributes(status)
    with temporary_file(
        entry.directory, entry.temporary_prefix, ours.after, owner=owner, mode=mode, like=old
    ) as made:
        outcome = _exchange_and_check(entry, made.name, old, ours, deadline)
    if not outcome.replaced:
        return outcome
    os.fsync(entry.directory)
    return outcome._replace(mode_change=ModeChange.between(entry.path, status, made.status))


def _exchange_and_check(entry: Entry, temp: str, old: int, ours: Edit, deadline: float) -> Outcome:
    with read_lease(old, deadline) as lease_holds:
        # From the last question to the answer after the exchange every microsecond counts.
        if not (entry.holds(entry.name, old, ours.before) and lease_holds()):
            return _CHANGED_MEANWHILE
        try:
            exchanged = _exchange(entry, temp)
        except FileNotFoundError:  # somebody has just removed it
            return _CHANGED_MEANWHILE
        was_edited = exchanged and not (lease_holds() and entry.holds(temp, old, ours.before))
        taken_back = was_edited and _exchange_back(entry, temp)
    if taken_back:
        return _edit_of_ours(entry, temp, ours.after, deadline)
    theirs = _written(entry, temp, old, deadline)
    if theirs == ours.before:
        return Outcome(replaced=True)
    if exchanged and _exchange_back(entry, temp):
        return _edit_of_ours(entry, temp, ours.after, deadline)
    return Outcome(replaced=True, late=Edit(ours.before, theirs))


def _exchange(entry: Entry, temp: str) -> bool:
    """Exchanges the two names; where that is unsupported the old file is overwritten: False."""
    if renameat2.exchange(entry.directory, temp, entry.name):
        return True
    os.rename(temp, entry.name, src_dir_fd=entry.directory, dst_dir_fd=entry.directory)
    return False


def _exchange_back(entry: Entry, temp: str) -> bool:
    """Gives the other file its name back; False when that fails, so that its edit is merged."""
    try:
        return renameat2.exchange(entry.directory, temp, entry.name)
    except OSError:
        return False


def _edit_of_ours(entry: Entry, temp: str, ours: bytes, deadline: float) -> Outcome:
    """The outcome after an exchange back: our file had the name briefly and may be edited too."""
    os.fsync(entry.directory)
    theirs = _content(entry, temp, deadline)
    if theirs is None or theirs == ours:
        return _CHANGED_MEANWHILE
    return Outcome(replaced=False, late=Edit(ours, theirs))


def _written(entry: Entry, temp: str, old: int, deadline: float) -> bytes:
    """What the displaced file holds when its writers are done."""
    data = _content(entry, temp, deadline)
    return _read_late(old, deadline) if data is None else data


def _content(entry: Entry, name: str, deadline: float) -> bytes | None:
    """What the file under a temporary name holds; None when it is not a file of the owner's."""
    try:
        fd = entry.open(name)
    except TargetFailed:
        return None
    if fd is None:
        return None
    try:
        return _read_late(fd, deadline)
    finally:
        os.close(fd)


def _read_late(fd: int, deadline: float) -> bytes:
    return read_when_written(fd, max(deadline, time.monotonic() + _LATE_WRITER_SECONDS))


def remove_file(entry: Entry, before: bytes, on_late_edit: Callable[[bytes], None]) -> None:
    """Removes the file; `on_late_edit` gets its bytes first if they are no longer `before`.

    The file is renamed before it is checked, and gets its name back when `on_late_edit` raises.
    """
    aside = entry.temporary_prefix + secrets.token_hex(8)
    try:
        renameat2.no_replace(entry.directory, entry.name, aside)
    except FileNotFoundError:
        return
    try:
        _check_removed(entry, aside, before, on_late_edit)
    except BaseException:
        with contextlib.suppress(OSError):  # somebody has made a new file
            renameat2.no_replace(entry.directory, aside, entry.name)
        raise
    discard(entry.directory, aside)
    os.fsync(entry.directory)


def _check_removed(
    entry: Entry, aside: str, before: bytes, on_late_edit: Callable[[bytes], None]
) -> None:
    fd = entry.open(aside)
    if fd is None:
        return
    try:
        data = _read_late(fd, 0.0)
    finally:
        os.close(fd)
    if data != before:
        on_late_edit(data)
