"""Merging what somebody else wrote to a key file while it was replaced (G7)."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

_MAX_LINES = 1_000_000  # compared line by line; each costs memory, and the user decides how many


class Edit(NamedTuple):
    """A file before and after somebody edited it."""

    before: bytes
    after: bytes


def with_edits(ours: bytes, edits: Iterable[Edit]) -> bytes:
    """`ours` with each edit made to it, in this order."""
    return functools.reduce(with_edit, edits, ours)


def with_edit(ours: bytes, edit: Edit) -> bytes:
    """`ours` with the same edit that somebody made to another version of the file.

    Lines they removed are dropped; lines they added are appended, unless `ours` has them too. With
    more than a million lines on any side the result is `edit.after`.
    """
    if edit.before == ours:
        return edit.after
    if edit.before == edit.after:
        return ours
    if any(text.count(b"\n") > _MAX_LINES for text in (*edit, ours)):
        return edit.after
    before, after, own = (Counter(text.split(b"\n")) for text in (*edit, ours))
    kept = _without(ours, removed=before - after)
    return _appended(kept, (after - before - (own - before)).elements())


def _without(text: bytes, removed: Counter[bytes]) -> bytes:
    """The text without these lines, so many of each; blank lines stay."""
    kept = []
    for line in text.split(b"\n"):
        if line and removed[line]:
            removed[line] -= 1
        else:
            kept.append(line)
    return b"\n".join(kept)


def _appended(text: bytes, lines: Iterable[bytes]) -> bytes:
    """The text with these lines at its end; blank lines are not added."""
    new = [line for line in lines if line]
    if new and text and not text.endswith(b"\n"):
        text += b"\n"
    return text + b"".join(line + b"\n" for line in new)
