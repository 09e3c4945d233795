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

_TELLING = re.compile(r"-[0-9a-f]{16}[.]([0-9a-f]{32})[.]([0-9a-f]{32})\Z")

Edit = tuple[bytes, bytes]  # a file before and after what somebody changed in it


@dataclass(frozen=True, slots=True)
class LateEdit:
    """An edit that is not merged yet, and the temporary name that keeps it until it is.

    Where files cannot be exchanged there is no name, and it is in memory alone.
    """

    name: str | None
    edit: Edit


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


def found_edit(name: str, data: bytes, current: bytes) -> Edit:
    """The edit that a killed run left under `name`; `current` is the key file as it is now.

    When the key file is still what that run made of it, `data` simply takes its place. Otherwise
    it is merged, line by line where lines were appended, and else without dropping a line.
    """
    before, after = versions(name) or ("", "")
    return current if _digest(current) == after else _beginning(data, before), data


def _beginning(data: bytes, digest: str) -> bytes:
    """The first lines of `data` that have this digest, or nothing."""
    seen, hashed = 0, hashlib.sha256()
    for line in data.split(b"\n")[:-1]:
        hashed.update(line + b"\n")
        seen += len(line) + 1
        if hashed.hexdigest()[:32] == digest:
            return data[:seen]
    return b""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def with_edit(ours: bytes, edit: Edit) -> bytes:
    """`ours` with what somebody else did to another version of the file done to it as well.

    Lines they took out are dropped; lines they added are appended, unless `ours` has them too.
    """
    ancestor, theirs = edit
    if ancestor in (ours, theirs):
        return theirs if ancestor == ours else ours
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
