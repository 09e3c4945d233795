"""The ledger in the state folder: loaded, set aside when it is damaged, marked with successes.

Functions take a descriptor of the state folder and raise OSError unless they say otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from dataclasses import replace

from agent.adapters.files.atomic import write_atomically
from agent.adapters.files.own_file import read_private, read_private_head
from agent.adapters.ledger_file import decode, salvaged_account
from agent.adapters.state_files import LAST_SUCCESS, LEDGER, UNREADABLE_LEDGER
from agent.adapters.typed_json import from_json, json_bytes, json_object
from agent.core.ledger import Ledger
from agent.core.times import Moment, seconds_between

_MARK_SECONDS = 60.0  # how old the mark may become before it is written again
_ASIDE_TIME = re.compile(
    re.escape(UNREADABLE_LEDGER) + r"(\d{4}-\d\d-\d\dT\d\d)(\d\d)(\d\dZ)-[0-9a-f]+"
)
_HEAD_BYTES = 64 << 10
# What stands there is no file, not one that keysync wrote, or too large.
_NOT_OURS = (errno.EINVAL, errno.ELOOP, errno.ENXIO, errno.EFBIG)


def load(directory: int) -> tuple[Ledger, str | None]:
    """The ledger, and what is wrong with it if a new one has to be started.

    A new one keeps the account of the damaged one (G4).
    """
    try:
        data = read_private(directory, LEDGER)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        return Ledger(account_id=salvaged_account(_head(directory, LEDGER))), str(error)
    mark = _read_mark(directory)
    if data is None:
        return Ledger(last_success=mark), None
    try:
        ledger = decode(data)
    except ValueError as error:
        return Ledger(account_id=salvaged_account(data)), str(error)[:200]
    last = ledger.last_success
    newer = mark and (last is None or seconds_between(last, mark) is not None)
    return replace(ledger, last_success=mark if newer else last), None


def set_aside(directory: int, stamp: str) -> str:
    """Gives a ledger that cannot be read a second name, and returns it.

    The first name stays until the next ledger replaces it, so that the account can be read from it
    whatever happens in between (G4). Where hard links are unsupported it is renamed.
    """
    status = os.stat(LEDGER, dir_fd=directory, follow_symlinks=False)
    name = _second_name(directory, status)  # no new one in each cycle while nothing can be saved
    if name is None:
        name = UNREADABLE_LEDGER + stamp
        if not (stat.S_ISREG(status.st_mode) and _linked(directory, name)):
            os.rename(LEDGER, name, src_dir_fd=directory, dst_dir_fd=directory)
    return name


def _second_name(directory: int, status: os.stat_result) -> str | None:
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if entry.inode() == status.st_ino]
    return next((name for name in names if name.startswith(UNREADABLE_LEDGER)), None)


def _linked(directory: int, name: str) -> bool:
    try:
        os.link(LEDGER, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def lost(directory: int) -> list[tuple[str, str]]:
    """The ledgers that were set aside, the latest last: name, and when that was (RFC 3339)."""
    found = map(_ASIDE_TIME.fullmatch, sorted(os.listdir(directory)))
    return [(match[0], "{}:{}:{}".format(*match.groups())) for match in found if match]


def _head(directory: int, name: str) -> bytes:
    """The first bytes of a file of keysync's own; empty for any other (G8). Raises nothing."""
    with contextlib.suppress(OSError):
        return read_private_head(directory, name, _HEAD_BYTES) or b""
    return b""


# ---- the mark of the last success ----


def mark_success(directory: int, now: Moment, *, at_once: bool) -> None:
    """Writes the time of the last success, at most once a minute unless `at_once`."""
    last = _read_mark(directory)
    age = seconds_between(last, now) if last else None
    if at_once or age is None or age >= _MARK_SECONDS:
        write_atomically(directory, LAST_SUCCESS, json_bytes(now), sync=False)


def _read_mark(directory: int) -> Moment | None:
    """The last success; None when the mark is missing or cannot be read. Raises nothing."""
    try:
        return from_json(Moment, json_object(read_private(directory, LAST_SUCCESS) or b""))
    except (OSError, ValueError):
        return None
