"""keysync's own folder: the ledger between cycles, the saved originals, the reserve, the lock.

Everything in it is for its owner alone: root, or the account that the service runs as. A ledger
that cannot be read is set aside and never stops the agent: the tags on disk and the next listing
rebuild it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from agent.adapters.files.atomic import (
    Owner,
    failed,
    remove_leftovers,
    translate_os_errors,
    write_atomically,
)
from agent.adapters.files.locks import take_lock
from agent.adapters.files.own_file import open_private, read_private, read_private_head
from agent.adapters.files.safe_path import open_directory
from agent.adapters.journal import JOURNAL, JournalRecords
from agent.adapters.ledger_file import (
    UNDECODABLE,
    decode,
    encode,
    json_bytes,
    salvaged_account,
)
from agent.adapters.users import SERVICE_ACCOUNT
from agent.core.authorized_keys import printable
from agent.core.ledger import Ledger
from agent.core.times import Moment, seconds_between
from agent.errors import Busy, TargetFailed

_STATE = "state.json"
_LOCK = "lock"
_SUCCESS = "success.json"
_RESERVE = "reserve"
RESERVE_BYTES = 128 << 10  # released when the disk is full, so that a revocation can be recorded
_MARK_SECONDS = 60.0  # how old the mark of the last success may become before it is written again
_HEAD_BYTES = 64 << 10
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_CANNOT_WRITE = frozenset({"disk_full", "quota_exceeded", "read_only", "io_error"})
# Everything that keysync ever puts into its folder, leftovers of a killed run included.
OWN_NAMES = re.compile(
    r"lock|reserve|journal[.]jsonl([.]large-.*)?|agent[.]json|success[.]json"
    r"|state[.]json([.]unreadable-.*)?"
    r"|original-.*|[.](state[.]json|agent[.]json|success[.]json|journal[.]jsonl|reserve|original-).*"
)
# What stands there is no file, or not one that keysync wrote.
_NO_FILE_OF_OURS = (errno.EINVAL, errno.ELOOP, errno.ENXIO, errno.EFBIG)
_SET_ASIDE = re.compile(
    re.escape(_STATE) + r"[.]unreadable-(\d{4}-\d\d-\d\dT\d\d)(\d\d)(\d\dZ)-[0-9a-f]+"
)
_ABOUT_ORIGINAL = re.compile("original-[0-9a-f]+[.]json")


@dataclass(frozen=True, slots=True)
class Original:
    """A key file as it was before keysync's first change; `data` is None when there was none."""

    user: str
    path: str
    data: bytes | None
    saved_at: str


class StateDirectory:
    """The folder at `path`, made with mode 0700 when missing and writing is asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._reserve_released = False  # since `keep_reserve` was last called

    # ---- the ledger ----

    def load(self) -> tuple[Ledger, str | None]:
        """The ledger, and what was wrong with it when it has to be started anew.

        Raises TargetFailed when the folder or the file cannot be read: that is no empty ledger.
        """
        with self._opened_if_there() as directory:
            if directory is None:
                return Ledger(), None
            try:
                data = read_private(directory, _STATE)
            except OSError as error:
                if error.errno not in _NO_FILE_OF_OURS:
                    raise failed(error, "read", f"{self.path}/{_STATE}") from error
                head = _head(directory, _STATE) if error.errno == errno.EFBIG else b""
                return Ledger(account_id=salvaged_account(head)), str(error)
            mark = _read_mark(directory)
        if data is None:
            return Ledger(last_success=mark), None
        try:
            ledger = decode(data)
        except UNDECODABLE as error:
            why = f"{type(error).__name__}: {error}"[:200]
            return Ledger(account_id=salvaged_account(data)), why
        last = ledger.last_success
        newer = mark and (last is None or seconds_between(last, mark) is not None)
        return replace(ledger, last_success=mark if newer else last), None

    def set_aside(self, stamp: str) -> str:
        """Gives a ledger that cannot be read a second name, and returns that path.

        The first name stays until the next ledger replaces it, so that the account pin can be read
        from it whatever happens in between (G4).
        """
        new = f"{_STATE}.unreadable-{stamp}"
        with self._opened() as directory, translate_os_errors("set aside", f"{self.path}/{_STATE}"):
            name = _other_name(directory) or _linked(directory, new)
            if name is None:
                name = new
                os.rename(_STATE, name, src_dir_fd=directory, dst_dir_fd=directory)
        return f"{self.path}/{name}"

    def lost(self) -> tuple[tuple[str, str], ...]:
        """The ledgers that were set aside, the latest last: path, and when that was."""
        with contextlib.suppress(OSError, TargetFailed), self._opened_if_there() as directory:
            names = sorted(os.listdir(directory)) if directory is not None else []
            found = ((name, _SET_ASIDE.fullmatch(name)) for name in names)
            return tuple(
                (f"{self.path}/{name}", "{}:{}:{}".format(*match.groups()))
                for name, match in found
                if match
            )
        return ()

    def save(self, ledger: Ledger) -> None:
        """Replaces the ledger on disk. Raises TargetFailed."""
        self._make()
        with self._opened() as directory, translate_os_errors("write", f"{self.path}/{_STATE}"):
            data = encode(ledger)
            self._with_reserve(directory, lambda: write_atomically(directory, _STATE, data))

    def mark_success(self, now: Moment, *, at_once: bool) -> None:
        """Leaves the time of a cycle in which all was well; no more often than once a minute.

        It is a mark of life and not state: it is not synced, and that it cannot be written is no
        failure. `at_once` is for a success that ends a failure.
        """
        with contextlib.suppress(OSError, TargetFailed), self._opened_if_there() as directory:
            if directory is None:
                return
            last = _read_mark(directory)
            age = seconds_between(last, now) if last else None
            if at_once or age is None or age >= _MARK_SECONDS:
                write_atomically(directory, _SUCCESS, json_bytes(now._asdict()), sync=False)

    # ---- the reserve (G11) ----

    def keep_reserve(self) -> None:
        """Makes the reserve when it is missing, at the end of a cycle that did not release it.

        As much room must be left: on a disk that is still full it would take the last of it.
        """
        released, self._reserve_released = self._reserve_released, False
        with contextlib.suppress(OSError, TargetFailed), self._opened_if_there() as directory:
            if directory is None or released or _exists(directory, _RESERVE):
                return
            if _free_bytes(directory) >= 2 * RESERVE_BYTES:
                write_atomically(directory, _RESERVE, bytes(RESERVE_BYTES), sync=False)

    def release_reserve(self, device: int) -> bool:
        """Makes room for a key file on the same file system (st_dev in stat(2)); whether it did."""
        with contextlib.suppress(OSError, TargetFailed), self._opened_if_there() as directory:
            if directory is not None and os.fstat(directory).st_dev == device:
                return self._release(directory)
        return False

    def _release(self, directory: int) -> bool:
        """Raises OSError."""
        if not _exists(directory, _RESERVE):
            return False
        os.unlink(_RESERVE, dir_fd=directory)
        self._reserve_released = True
        return True

    def _with_reserve(self, directory: int, write: Callable[[], None]) -> None:
        """Writes; on a full disk once more after the reserve was released."""
        try:
            write()
        except OSError as error:
            if error.errno not in _NO_ROOM or not self._release(directory):
                raise
            write()

    # ---- whether the state can be written ----

    def obstacle(self) -> TargetFailed | None:
        """Why the ledger could not be saved now, as far as that shows without writing.

        A quota does not show. What the reserve has room for can be saved (G11).
        """
        path = f"{self.path}/{_STATE}"
        with contextlib.suppress(OSError, TargetFailed), self._opened_if_there() as directory:
            if directory is None:
                return None
            if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
                return failed(OSError(errno.EROFS, os.strerror(errno.EROFS)), "write", path)
            size = os.stat(_STATE, dir_fd=directory, follow_symlinks=False).st_size
            if _free_bytes(directory) < size and not _exists(directory, _RESERVE):
                return failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "write", path)
        return None

    # ---- originals and journal (G5) ----

    def save_original(self, user: str, path: str, data: bytes | None, now: str) -> None:
        """Keeps the first bytes ever seen of a target (None: no file); later calls do nothing."""
        stem = "original-" + hashlib.sha256(path.encode()).hexdigest()[:24]
        about_file = f"{self.path}/{stem}.json"
        about = {"user": user, "path": path, "existed": data is not None, "saved_at": now}
        with (
            self._opened() as directory,
            translate_os_errors(f"save the original of {path} in", about_file),
        ):
            if read_private(directory, stem + ".json") is not None:
                return

            def write() -> None:
                write_atomically(directory, stem + ".bytes", data or b"")
                write_atomically(directory, stem + ".json", json_bytes(about))

            self._with_reserve(directory, write)

    def originals(self) -> list[Original]:
        """Everything that `save_original` kept, by path. Raises TargetFailed."""
        with (
            self._opened_if_there() as directory,
            translate_os_errors("read the originals in", self.path),
        ):
            if directory is None:
                return []
            names = [name for name in os.listdir(directory) if _ABOUT_ORIGINAL.fullmatch(name)]
            found = [_read_original(directory, name.removesuffix(".json")) for name in names]
            return sorted(found, key=lambda original: original.path)

    def journal(self, sync_id: str, path: str, removed: Sequence[bytes], now: str) -> int:
        """Syncs a journal that holds the lines that are about to be removed from `path`.

        What it holds already is not written again, and it keeps at most MAX_JOURNAL_BYTES for one
        key file, the newest ones (G12). Gives how many lines found no room.
        """
        with self._opened() as directory, translate_os_errors("write", f"{self.path}/{JOURNAL}"):
            head = json.dumps({"at": now, "sync_id": sync_id}).encode()[:-1] + b", "
            records = JournalRecords(directory, path, now)
            new, omitted = records.missing(removed, head)
            if omitted:
                about = {"path": path, "omitted": omitted}
                new.append(head + json.dumps(about).encode()[1:] + b"\n")
            if new:
                self._with_reserve(directory, lambda: records.add(new))
            return omitted

    # ---- the folder and its lock ----

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Makes the folder when missing and holds its lock: one sync at a time.

        Where the disk is full or read-only the lock is taken as far as it can be: a revocation
        outranks it (G11), and each key file has a lock of its own. Raises Busy
        when another sync holds it for longer than `seconds`, TargetFailed for a folder that others
        control.
        """
        fd = self._lock_file()
        try:
            if fd is not None:
                _take_lock(fd, seconds, self.path)
                self._clear_leftovers()
            yield
        finally:
            if fd is not None:
                os.close(fd)

    def _lock_file(self) -> int | None:
        """A descriptor to lock: of the lock file, or of the folder where that cannot be made."""
        try:
            self._make()
        except TargetFailed as error:
            if error.kind not in _CANNOT_WRITE:
                raise
        with self._opened_if_there() as directory:
            if directory is None:
                return None
            try:
                self._make_private(directory)
                with translate_os_errors("lock", f"{self.path}/{_LOCK}"):
                    return open_private(directory, _LOCK, os.O_RDWR)
            except TargetFailed as error:
                if error.kind not in _CANNOT_WRITE:
                    raise
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)

    def _clear_leftovers(self) -> None:
        names = (_STATE, JOURNAL, _SUCCESS, _RESERVE)
        with contextlib.suppress(OSError), self._opened() as directory:  # a read-only disk
            for prefix in (*(f".{name}." for name in names), ".original-"):
                remove_leftovers(directory, prefix)

    def _make(self) -> None:
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
    def _opened(self) -> Iterator[int]:
        with self._opened_if_there() as directory:
            if directory is None:
                error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                raise failed(error, "open the state folder", self.path)
            yield directory

    @contextlib.contextmanager
    def _opened_if_there(self) -> Iterator[int | None]:
        """A descriptor of the folder, or None when there is none; refuses one that others own."""
        try:
            directory = open_directory(self.path, _keeper(self.path))
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise failed(error, "open the state folder", self.path) from error
        try:
            self._check_owner(os.fstat(directory))
            yield directory
        finally:
            os.close(directory)

    def _make_private(self, directory: int) -> None:
        """Closes the folder to others, unless it serves something else as well."""
        if stat.S_IMODE(os.fstat(directory).st_mode) == 0o700:
            return
        strange = [name for name in os.listdir(directory) if not OWN_NAMES.fullmatch(name)]
        if strange:
            raise TargetFailed(
                "state_dir_shared",
                f"The folder {self.path} is open to others and holds other things than keysync's "
                f"state, such as {printable(min(strange))!r}, so it is not closed to them.",
                "Set state_dir to a folder of keysync's own.",
            )
        with translate_os_errors("close", self.path):
            os.fchmod(directory, 0o700)

    def _check_owner(self, status: os.stat_result) -> None:
        if status.st_uid != _keeper(self.path).uid:
            raise TargetFailed(
                "wrong_owner",
                f"The state folder {self.path} belongs to user id {status.st_uid}, and keysync "
                f"runs as {os.geteuid()}.",
                f"chown {os.geteuid()} {self.path}, or set state_dir to another folder.",
            )


def _keeper(path: str) -> Owner:
    """Who owns the folder at `path`: the process; when root works by hand, the service may."""
    if os.geteuid() == 0:
        with contextlib.suppress(KeyError, OSError):
            uid = os.stat(path).st_uid
            service = pwd.getpwnam(SERVICE_ACCOUNT) if uid else None  # can cost milliseconds
            if service and uid == service.pw_uid:
                return Owner(service.pw_uid, service.pw_gid)
    return Owner(os.geteuid(), os.getegid())


def _take_lock(fd: int, seconds: float, path: str) -> None:
    with translate_os_errors("lock", f"{path}/{_LOCK}"):
        if take_lock(fd, seconds):
            return
    raise Busy(
        "busy",
        f"Another keysync has been at work for more than {seconds:g} s (it holds {path}/{_LOCK}).",
        f"Wait for it, or find it with: fuser -v {path}/{_LOCK}",
    )


def _free_bytes(directory: int) -> int:
    """The room for the folder's owner: root may use more than others. A quota does not show."""
    disk = os.fstatvfs(directory)
    blocks = disk.f_bavail if os.fstat(directory).st_uid else disk.f_bfree
    return blocks * disk.f_frsize


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _other_name(directory: int) -> str | None:
    """The name under which the same ledger was set aside before, when no new one could be saved."""
    status = os.stat(_STATE, dir_fd=directory, follow_symlinks=False)
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if entry.inode() == status.st_ino]
    return next((name for name in names if name != _STATE), None)


def _linked(directory: int, name: str) -> str | None:
    """A second name of the ledger; None when it is no plain file, or hard links cannot be had."""
    status = os.stat(_STATE, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        return None
    try:
        os.link(_STATE, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None
    return name


def _read_mark(directory: int) -> Moment | None:
    """The last success; a mark that cannot be read is none."""
    try:
        return Moment.from_json(json.loads(read_private(directory, _SUCCESS) or b"null"))
    except (OSError, *UNDECODABLE):
        return None


def _head(directory: int, name: str) -> bytes:
    """The first bytes of a file of keysync's own that is too large; empty for any other (G8)."""
    with contextlib.suppress(OSError):
        return read_private_head(directory, name, _HEAD_BYTES) or b""
    return b""


def _read_original(directory: int, stem: str) -> Original:
    """Raises OSError, also when what is there is not what `save_original` wrote."""
    try:
        about = json.loads(read_private(directory, stem + ".json") or b"")
        data = read_private(directory, stem + ".bytes") if about["existed"] else None
        if about["existed"] and data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return Original(str(about["user"]), str(about["path"]), data, str(about["saved_at"]))
    except UNDECODABLE as error:
        raise OSError(errno.EIO, f"{stem}.json is damaged: {error}") from error
