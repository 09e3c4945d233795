"""What somebody wrote to a key file at the very moment when it was replaced (G7).

The replaced file keeps a temporary name for a moment. That name says which two versions it may
hold, the one before and the one after; anything else under it is somebody's edit. So the next run
can tell, should this one be killed in between, and merges the edit instead of deleting it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter
from dataclasses import dataclass

from agent.core.authorized_keys import LineKind, parse_line

_MAX_LINES = 1_000_000  # to compare line by line; each costs memory, and the user decides how many
_SHORTEST_KEY = 32  # a type and some base64; millions of shorter lines need no closer look
_TELLING = re.compile(r"-[0-9a-f]{16}[.]([0-9a-f]{32})[.]([0-9a-f]{32})\Z")

Edit = tuple[bytes, bytes]  # a file before and after what somebody changed in it


@dataclass(frozen=True, slots=True)
class LateEdit:
    """An edit that is not merged yet, and the temporary name that keeps it until it is.

    Where files cannot be exchanged there is no name, and it is in memory alone. `unmerged` are
    lines of it that must not come into the key file any more.
    """

    name: str | None
    edit: Edit
    unmerged: tuple[bytes, ...] = ()


def telling_name(prefix: str, before: bytes, after: bytes) -> str:
    """An unguessable name for a file that is about to hold `after`, and then `before`."""
    return f"{prefix}{secrets.token_hex(8)}.{_digest(before)}.{_digest(after)}"


def versions(name: str) -> tuple[str, str] | None:
    """The digests of before and after that a name tells; None when it is no such name."""
    told = _TELLING.search(name)
    return (told[1], told[2]) if told else None


def holds_edit(name: str, data: bytes) -> bool:
    """Whether `data`, found under `name`, is neither of the two versions that the name tells of.

    Not so under any other name: a file has such a name only when it was complete once.
    """
    told = versions(name)
    return told is not None and _digest(data) not in told


def found_edit(name: str, data: bytes, current: bytes) -> LateEdit:
    """The edit that a killed run left under `name`; `current` is the key file as it is now.

    When the key file is still what that run made of it, `data` simply takes its place. Otherwise
    it is merged: lines that were appended exactly, and of a file that was rewritten whatever is no
    key. Its keys may be those that somebody has taken out of the key file since (R2, R5).
    """
    before, after = versions(name) or ("", "")
    if _digest(current) == after:
        return LateEdit(name, (current, data))
    start = _beginning(data, before)
    if start is not None:
        return LateEdit(name, (start, data))
    keys = [line for line in data.split(b"\n") if _is_key(line)]
    lost = Counter(keys) - Counter(current.split(b"\n"))
    return LateEdit(name, (b"\n".join(keys), data), tuple(lost.elements()))


def _is_key(line: bytes) -> bool:
    return len(line) >= _SHORTEST_KEY and parse_line(line).kind is not LineKind.OTHER


def _beginning(data: bytes, digest: str) -> bytes | None:
    """The first lines of `data` that have this digest; the last may have lacked its newline."""
    seen, hashed = 0, hashlib.sha256()
    if digest == _digest(b""):
        return b""
    for line in data.split(b"\n"):
        for part in (line, b"\n") if line else (b"\n",):
            hashed.update(part)
            seen += len(part)
            if hashed.hexdigest()[:32] == digest:
                return data[:seen]
    return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def with_edit(ours: bytes, edit: Edit) -> bytes:
    """`ours` with what somebody else did to another version of the file done to it as well.

    Lines they took out are dropped; lines they added are appended, unless `ours` has them too. Of
    too many lines theirs are the result: what keysync did to the others it does once more to them.
    """
    ancestor, theirs = edit
    if ancestor in (ours, theirs):
        return theirs if ancestor == ours else ours
    if any(text.count(b"\n") > _MAX_LINES for text in (ancestor, theirs, ours)):
        return theirs
    before, after, own = (Counter(text.split(b"\n")) for text in (ancestor, theirs, ours))
    gone, added = before - after, after - before - (own - before)
    kept = []
    for raw in ours.split(b"\n"):
        if raw and gone[raw]:
            gone[raw] -= 1
        else:
            kept.append(raw)
    text = b"\n".join(kept)
    new = [raw for raw in added.elements() if raw]
    if new and text and not text.endswith(b"\n"):
        text += b"\n"
    return text + b"".join(raw + b"\n" for raw in new)
