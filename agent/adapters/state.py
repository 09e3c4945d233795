"""keysync's own state: the ledger between cycles, originals, journal, reserve and lock.

Everything in its folder is for its owner alone. A ledger that cannot be read is set aside and never
stops the agent: the tags in the key files and the next listing rebuild it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

from agent.adapters import ledger_store, originals, reserve
from agent.adapters.files.atomic import write_atomically
from agent.adapters.files.os_errors import failed, translate_os_errors
from agent.adapters.journal import JournalRecords
from agent.adapters.ledger_file import encode
from agent.adapters.originals import Original
from agent.adapters.reserve import Reserve
from agent.adapters.state_files import JOURNAL, LEDGER
from agent.adapters.state_folder import StateFolder
from agent.core.ledger import Ledger
from agent.core.times import Moment
from agent.errors import TargetFailed


class StateDirectory:
    """The state in the folder at `path`, which is made when something is saved.

    Methods that raise TargetFailed do so when the folder or a file in it cannot be read or
    written, and for a folder that somebody else owns or could exchange (G8).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = StateFolder(path)
        self._reserve = Reserve()

    def locked(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Makes the folder if it is missing and holds its lock: one sync at a time.

        On a full or read-only disk the folder itself is locked, or nothing when it is missing: a
        revocation outranks the lock (G11), and each key file has a lock of its own.

        Raises Busy when another sync holds the lock for longer than `seconds`, and TargetFailed.
        """
        return self._folder.locked(seconds)

    @contextlib.contextmanager
    def _opened(self, action: str, name: str) -> Iterator[int]:
        """A descriptor of the folder; an OSError becomes TargetFailed about its file `name`."""
        with (
            self._folder.opened() as directory,
            translate_os_errors(action, f"{self.path}/{name}"),
        ):
            yield directory

    # ---- the ledger ----

    def load(self) -> tuple[Ledger, str | None]:
        """The ledger, and what is wrong with it if a new one has to be started.

        Raises TargetFailed: a ledger that cannot be read now is not an empty one.
        """
        with (
            self._folder.opened_if_present() as directory,
            translate_os_errors("read", f"{self.path}/{LEDGER}"),
        ):
            return (Ledger(), None) if directory is None else ledger_store.load(directory)

    def set_aside(self, stamp: str) -> str:
        """Renames a ledger that cannot be read, and returns its new path. Raises TargetFailed.

        `stamp` is the time without colons and an id: it makes the new name.
        """
        with self._opened("set aside", LEDGER) as directory:
            return f"{self.path}/{ledger_store.set_aside(directory, stamp)}"

    def lost(self) -> tuple[tuple[str, str], ...]:
        """The ledgers that were set aside, the latest last: path, and when that was."""
        with contextlib.suppress(OSError, TargetFailed), self._folder.opened() as directory:
            found = ledger_store.lost(directory)
            return tuple((f"{self.path}/{name}", at) for name, at in found)
        return ()

    def save(self, ledger: Ledger) -> None:
        """Replaces the ledger on disk. Raises TargetFailed."""
        self._folder.make()
        with self._opened("write", LEDGER) as directory:
            data = encode(ledger)
            self._reserve.write(directory, lambda: write_atomically(directory, LEDGER, data))

    def mark_success(self, now: Moment, *, at_once: bool) -> None:
        """Writes the time of a cycle in which all was well, at most once a minute.

        `at_once` is for a success that ends a failure. The mark is a sign of life, not state: it is
        not synced, and failing to write it is no failure.
        """
        with contextlib.suppress(OSError, TargetFailed), self._folder.opened() as directory:
            ledger_store.mark_success(directory, now, at_once=at_once)

    def obstacle(self) -> TargetFailed | None:
        """Why the ledger could not be saved now, as far as that shows without writing.

        A quota does not show. What the reserve has room for can be saved (G11).
        """
        with contextlib.suppress(OSError, TargetFailed), self._folder.opened() as directory:
            needed = 1  # byte, without a ledger: it may have been set aside
            with contextlib.suppress(FileNotFoundError):
                needed = os.stat(LEDGER, dir_fd=directory, follow_symlinks=False).st_size
            why = 0
            if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
                why = errno.EROFS
            elif reserve.free_bytes(directory) < needed and not reserve.exists(directory):
                why = errno.ENOSPC
            if why:
                return failed(OSError(why, os.strerror(why)), "write", f"{self.path}/{LEDGER}")
        return None

    # ---- the reserve (G11) ----

    def keep_reserve(self) -> None:
        """Makes the reserve if it is missing, at the end of a cycle that did not release it."""
        with contextlib.suppress(OSError, TargetFailed), self._folder.opened() as directory:
            self._reserve.keep(directory)

    def release_reserve(self, device: int) -> bool:
        """Releases the reserve for a key file on the file system `device` (st_dev in stat(2)).

        Returns whether that made room there.
        """
        with contextlib.suppress(OSError, TargetFailed), self._folder.opened() as directory:
            return os.fstat(directory).st_dev == device and self._reserve.release(directory)
        return False

    # ---- originals and journal (G5) ----

    def save_original(self, user: str, path: str, data: bytes | None, now: str) -> None:
        """Keeps the first bytes ever seen of a key file (None: no file); later calls do nothing.

        Raises TargetFailed.
        """
        action = f"save the original of {path} in"
        with self._opened(action, originals.note_name(path)) as directory:
            if not originals.is_saved(directory, path):
                original = Original(user, path, data, now)
                self._reserve.write(directory, lambda: originals.save(directory, original))

    def originals(self) -> list[Original]:
        """Everything that `save_original` kept, by path. Raises TargetFailed."""
        with (
            self._folder.opened_if_present() as directory,
            translate_os_errors("read the originals in", self.path),
        ):
            return [] if directory is None else originals.saved(directory)

    def journal(self, sync_id: str, path: str, removed: Sequence[bytes], now: str) -> int:
        """Syncs a journal that holds the lines that are about to be removed from `path`.

        A line that it holds already is not written again. It keeps at most MAX_JOURNAL_BYTES for
        each key file, the newest records (G12). Returns how many lines found no room.

        Raises TargetFailed.
        """
        with self._opened("write", JOURNAL) as directory:
            records = JournalRecords(directory, path, sync_id, now)
            new, omitted = records.missing(removed)
            if new:
                self._reserve.write(directory, lambda: records.add(new))
            return omitted
