"""What killed runs left beside a key file: which of it must stay, and what it says (G7)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable

from agent.adapters.files.atomic import discard, remove_leftovers, translate_os_errors
from agent.adapters.files.late_edit import LateEdit, found_edit, holds_edit, versions
from agent.adapters.files.locks import locked
from agent.adapters.files.own_file import MAX_DISPLACED_BYTES

_MOST = 8  # so many files of killed runs are read in one run,
_MOST_BYTES = 16 << 20  # and so much of them: what is more stays for somebody to look at
_WRITER_SECONDS = 0.1

# What a temporary name holds when its writers are done, or at a time (time.monotonic); None when it
# is no file of the user's own (any more).
Content = Callable[[str, float], bytes | None]


class LeftEdits:
    """The temporary files beside the key file at `path`, their names beginning with `prefix`."""

    def __init__(self, path: str, prefix: str, content: Content) -> None:
        self._path = path
        self._prefix = prefix
        self._content = content
        self._names: list[str] = []  # where a killed run left somebody's edit

    def clear(self, directory: int) -> None:
        """Removes all that holds nobody's edit; while another agent works, it may be that one's."""
        told: list[int] = []

        def keep(name: str) -> bool:
            return self._must_stay(directory, name, told)

        with (
            translate_os_errors("clear the directory of", self._path),
            locked(directory, 0.0) as alone,
        ):
            if alone:
                remove_leftovers(directory, self._prefix, keep)

    def _must_stay(self, directory: int, name: str, told: list[int]) -> bool:
        """Whether it holds an edit, or is one that this run does not look at."""
        if versions(name) is None:
            return False
        size = _size(directory, name)
        if size > MAX_DISPLACED_BYTES:  # no key file was ever so large
            return False
        told.append(size)
        if len(told) > _MOST or sum(told) > _MOST_BYTES:
            return True
        if self.keeps(name):
            self._names.append(name)
        return name in self._names

    def keeps(self, name: str) -> bool:
        """Whether somebody's edit is under a temporary name, and must stay until it is merged."""
        try:
            data = self._content(name, 0.0)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            return False
        return data is not None and holds_edit(name, data)

    def edits(self, current: Callable[[], bytes]) -> list[LateEdit]:
        """What somebody wrote at the last moment before a run was killed; `current` reads the key
        file as it is now.
        """
        found = []
        now = current() if self._names else b""
        for name in self._names:
            data = self._content(name, time.monotonic() + _WRITER_SECONDS)
            if data is not None and holds_edit(name, data):
                found.append(found_edit(name, data, now))
        return found


def forget(directory: int | None, late: Iterable[LateEdit]) -> None:
    """Removes what has been merged."""
    for one in late:
        if directory is not None and one.name is not None:
            discard(directory, one.name)


def _size(directory: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
