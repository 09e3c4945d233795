"""Merging what somebody else wrote while the file was replaced (G7)."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.merge import Edit, with_edit, with_edits

texts = st.lists(st.sampled_from((b"a", b"b", b"c", b"d")), unique=True).map(
    lambda lines: b"".join(line + b"\n" for line in lines)
)


def _lines(text: bytes) -> Counter[bytes]:
    return Counter(text.splitlines())


@pytest.mark.parametrize(
    ("ancestor", "ours", "theirs", "merged"),
    [
        (b"a\n", b"a\nX\n", b"a\n", b"a\nX\n"),
        (b"a\n", b"a\n", b"b", b"b"),
        (b"a\n", b"a\nX\n", b"a\nb\n", b"a\nX\nb\n"),
        (b"a\nb\n", b"a\nb\nX\n", b"b\n", b"b\nX\n"),
        (b"a\n", b"a\nX", b"a\nb", b"a\nX\nb\n"),
        (b"a\n", b"a\nX\nb\n", b"a\nb\n", b"a\nX\nb\n"),
        (b"a\na\n", b"a\na\nX\n", b"a\n", b"a\nX\n"),
        (b"", b"X\n", b"a\n\n# c\n", b"X\na\n# c\n"),
        (b"a\n", b"", b"a\nb\n", b"b\n"),
        (b"a\n\nb\n", b"a\n\nX\nb\n", b"a\nb\n", b"a\n\nX\nb\n"),
        (b"a\nb\n", b"a\nb\nX\n", b"a\nb", b"a\nb\nX\n"),
        (b"a\nb\n", b"a\nb\nX\n", b"a\n\nb\nc\n", b"a\nb\nX\nc\n"),
    ],
)
def test_merging_lines(ancestor: bytes, ours: bytes, theirs: bytes, merged: bytes) -> None:
    """G7: lines that others took out go, lines they added come once, none is glued.

    Blank lines stay as they are: they are neither taken out nor added.
    """
    assert with_edit(ours, Edit(ancestor, theirs)) == merged


def test_too_many_lines_are_not_compared() -> None:
    """G12: of millions of lines those that are there last stay, and keysync's edit is made anew."""
    theirs = b"\n" * 1_000_001 + b"theirs\n"
    assert with_edit(b"ours\n", Edit(b"before\n", theirs)) == theirs


def test_merging_is_linear() -> None:
    """R11: a user who exchanges one huge file for another does not stop the agent for hours."""
    sides = [b"".join(b"%d %d\n" % (side, at) for at in range(100_000)) for side in range(3)]
    start = time.process_time()
    with_edit(sides[0], Edit(sides[1], sides[2]))
    assert time.process_time() - start < 5


@given(texts, texts, texts)
def test_an_edit_is_made_once_and_nothing_else_is(ours: bytes, before: bytes, after: bytes) -> None:
    """G7, R6: whatever the three versions are, no line of ours goes that they did not take out."""
    edit = Edit(before, after)
    merged = with_edit(ours, edit)
    if ours not in (before, after):
        removed, added = _lines(before) - _lines(after), _lines(after) - _lines(before)
        assert _lines(merged) == (_lines(ours) - removed) | added
    assert with_edit(merged, Edit(after, after)) == merged


def test_edits_are_made_in_their_order() -> None:
    """G7: a line that somebody added and took out again is not in the result."""
    edits = [Edit(b"a\n", b"a\nb\n"), Edit(b"a\nb\n", b"a\nc\n")]
    assert with_edits(b"X\n", edits) == b"X\nc\n"
    assert with_edits(b"X\n", []) == b"X\n"
