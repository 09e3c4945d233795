"""keysync's own folder: the ledger between cycles, the saved originals, the journal, the lock.

Everything in it is for its owner alone: root, or the account that the service runs as. A ledger
that cannot be read is set aside and never stops the agent: the tags on disk and the next listing
rebuild it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pwd
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from agent.adapters.directory import open_directory
from agent.adapters.disk import (
    Owner,
    failed,
    naming,
    open_private,
    read_private,
    remove_leftovers,
    write_all,
    write_private,
)
from agent.core.authorized_keys import printable
from agent.core.ledger import Failure, Hold, KnownKey, Ledger, TargetOutcome
from agent.core.listing import RejectedEntry
from agent.errors import ApiUnreachable, TargetFailed

SCHEMA = 1
SERVICE_ACCOUNT = "keysync"  # User= of the units
_STATE = "state.json"
_LOCK = "lock"
_JOURNAL = "journal.jsonl"
_RECORD_END = b'"path": '  # of the journal: from here on, what makes two records say the same
_LOCK_PAUSE_SECONDS = 0.02
# Everything that keysync ever puts into its folder, leftovers of a killed run included.
OWN_NAMES = re.compile(
    r"lock|journal[.]jsonl|state[.]json([.]unreadable-.*)?|original-.*|[.](state[.]json|original-).*"
)
# What stands there is no file, or not one that keysync wrote.
_NO_FILE_OF_OURS = (errno.EINVAL, errno.ELOOP, errno.ENXIO, errno.EFBIG)
_ACCOUNT = re.compile(rb'"account_id": *([0-9]{1,18})[,\s}]')
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
                return Ledger(), str(error)
        if data is None:
            return Ledger(), None
        try:
            return _decode(data), None
        except _UNDECODABLE as error:
            why = f"{type(error).__name__}: {error}"[:200]
            return Ledger(account_id=_salvaged_account(data)), why

    def set_aside(self, stamp: str) -> str:
        """Renames a ledger that cannot be read, and gives its new path."""
        name = f"{_STATE}.unreadable-{stamp}"
        with self._opened() as directory, naming("set aside", f"{self.path}/{_STATE}"):
            os.rename(_STATE, name, src_dir_fd=directory, dst_dir_fd=directory)
        return f"{self.path}/{name}"

    def save(self, ledger: Ledger) -> None:
        """Replaces the ledger on disk. Raises TargetFailed."""
        with self._opened() as directory, naming("write", f"{self.path}/{_STATE}"):
            write_private(directory, _STATE, _encode(ledger))

    # ---- originals and journal (G5) ----

    def save_original(self, user: str, path: str, data: bytes | None, now: str) -> None:
        """Keeps the first bytes ever seen of a target (None: no file); later calls do nothing."""
        stem = "original-" + hashlib.sha256(path.encode()).hexdigest()[:24]
        about_file = f"{self.path}/{stem}.json"
        about = {"user": user, "path": path, "existed": data is not None, "saved_at": now}
        with self._opened() as directory, naming(f"save the original of {path} in", about_file):
            if read_private(directory, stem + ".json") is not None:
                return
            write_private(directory, stem + ".bytes", data or b"")
            write_private(directory, stem + ".json", _json(about))

    def originals(self) -> list[Original]:
        """Everything that `save_original` kept, by path. Raises TargetFailed."""
        with self._opened_if_there() as directory, naming("read the originals in", self.path):
            if directory is None:
                return []
            names = [name for name in os.listdir(directory) if _ABOUT_ORIGINAL.fullmatch(name)]
            found = [_read_original(directory, name.removesuffix(".json")) for name in names]
            return sorted(found, key=lambda original: original.path)

    def journal(self, sync_id: str, path: str, removed: Sequence[bytes], now: str) -> None:
        """Syncs a journal that holds the lines that are about to be removed from `path`.

        What it holds already is not written again: another tool may put a revoked key back for
        ever, and the journal shall not grow with every cycle.
        """
        with self._opened() as directory, naming("write", f"{self.path}/{_JOURNAL}"):
            fd = open_private(directory, _JOURNAL, os.O_RDWR | os.O_APPEND)
            try:
                size = os.fstat(fd).st_size
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"  # by a full disk or a crash
                head = json.dumps({"at": now, "sync_id": sync_id}).encode()[:-1] + b", "
                text = b"".join(head + end + b"\n" for end in _not_journalled(fd, path, removed))
                write_all(fd, b"\n" + text if torn else text)
                os.fsync(directory)
            finally:
                os.close(fd)

    # ---- the folder and its lock ----

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Makes the folder when missing and holds its lock: one sync at a time.

        Raises ApiUnreachable (`busy`) when another sync holds it for longer than `seconds`.
        """
        self._make()
        with self._opened() as directory, naming("lock", f"{self.path}/{_LOCK}"):
            self._make_private(directory)
            fd = open_private(directory, _LOCK, os.O_RDWR)
        try:
            _flock(fd, seconds, self.path)
            self._clear_leftovers()
            yield
        finally:
            os.close(fd)

    def _clear_leftovers(self) -> None:
        with self._opened() as directory, naming("clear", self.path):
            for prefix in (f".{_STATE}.", ".original-"):
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


def _flock(fd: int, seconds: float, path: str) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise failed(error, "lock", f"{path}/{_LOCK}") from error
        else:
            return
        if time.monotonic() >= deadline:
            raise ApiUnreachable(
                "busy",
                f"Another keysync has been at work for more than {seconds:g} s "
                f"(it holds {path}/{_LOCK}).",
                f"Wait for it, or find it with: fuser -v {path}/{_LOCK}",
            )
        time.sleep(_LOCK_PAUSE_SECONDS)


def _not_journalled(fd: int, path: str, removed: Sequence[bytes]) -> list[bytes]:
    """How the records of those lines of `path` end that the open journal does not hold yet."""
    missing = dict.fromkeys(
        json.dumps({"path": path, "removed": base64.b64encode(line).decode("ascii")}).encode()[1:]
        for line in removed
    )
    with open(fd, "rb", closefd=False) as records:
        for record in records:
            missing.pop(record[record.find(_RECORD_END) :].rstrip(b"\n"), None)
    return list(missing)


# ---- state.json ----


def _read_original(directory: int, stem: str) -> Original:
    """Raises OSError, also when what is there is not what `save_original` wrote."""
    try:
        about = json.loads(read_private(directory, stem + ".json") or b"")
        data = read_private(directory, stem + ".bytes") if about["existed"] else None
        if about["existed"] and data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return Original(str(about["user"]), str(about["path"]), data, str(about["saved_at"]))
    except _UNDECODABLE as error:
        raise OSError(errno.EIO, f"{stem}.json is damaged: {error}") from error


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def _encode(ledger: Ledger) -> bytes:
    rejected = [
        {**dataclasses.asdict(entry), "fingerprints": sorted(entry.fingerprints)}
        for entry in ledger.rejected
    ]
    return _json(
        {
            "schema": SCHEMA,
            "account_id": ledger.account_id,
            "keys": [dataclasses.asdict(key) for key in ledger.keys.values()],
            "rejected": rejected,
            "hold": ledger.hold and dataclasses.asdict(ledger.hold),
            "last_success": ledger.last_success,
            "last_failure": ledger.last_failure and dataclasses.asdict(ledger.last_failure),
            "targets": [dataclasses.asdict(target) for target in ledger.targets],
        }
    )


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "frozenset[str]": (list,),
}
_T = TypeVar("_T")
_UNDECODABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def _decode(data: bytes) -> Ledger:
    """Raises one of _UNDECODABLE when the text is not what `_encode` writes."""
    raw = json.loads(data)
    if raw["schema"] != SCHEMA:
        raise ValueError(f"schema {raw['schema']!r} is not {SCHEMA}")
    keys = [_typed(KnownKey, key) for key in raw["keys"]]
    rejected = [_typed(RejectedEntry, entry) for entry in raw["rejected"]]
    for name in ("account_id", "last_success"):
        _check_type(name, raw[name], "int | None" if name == "account_id" else "str | None")
    if raw["last_success"] is not None:
        _check_time(raw["last_success"])
    return Ledger(
        account_id=raw["account_id"],
        keys={key.fingerprint: key for key in keys},
        rejected=tuple(
            dataclasses.replace(entry, fingerprints=frozenset(entry.fingerprints))
            for entry in rejected
        ),
        hold=_typed(Hold, raw["hold"]) if raw["hold"] else None,
        last_success=raw["last_success"],
        last_failure=_typed(Failure, raw["last_failure"]) if raw["last_failure"] else None,
        targets=tuple(_typed(TargetOutcome, target) for target in raw["targets"]),
    )


def _salvaged_account(data: bytes) -> int | None:
    """Whose machine it was, from a ledger that is otherwise of no use: the pin must hold (G4)."""
    found = _ACCOUNT.search(data)
    return int(found[1]) if found else None


def _typed(kind: type[_T], raw: dict[str, object]) -> _T:
    """An instance of the dataclass `kind` from JSON, each field of the type it declares."""
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # reason: always a dataclass
        _check_type(field.name, raw[field.name], str(field.type))
    return kind(**raw)


def _check_type(name: str, value: object, declared: str) -> None:
    items = value if isinstance(value, list) else ()
    if (
        isinstance(value, bool)
        or not isinstance(value, _TYPES[declared])
        or not all(isinstance(item, str) for item in items)
    ):
        raise TypeError(f"{name} is no {declared}")


def _check_time(text: str) -> None:
    """Raises ValueError unless ages can be computed from it: RFC 3339, UTC, whole seconds."""
    if len(text) != len("2000-01-01T00:00:00Z") or text[-1] != "Z":
        raise ValueError(f"{text!r} is no time")
    datetime.fromisoformat(text[:-1] + "+00:00")
