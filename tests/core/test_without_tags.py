"""Taking keysync's tag off its lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.authorized_keys import (
    TAG,
    AuthorizedKeys,
    LineKind,
    adopted_line,
    parse_line,
    without_tags,
)

KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIM5pEY0lckaKt+/AvBSAJ558YvWU2JNpmIzvUkqfpAKQ"


def _untagged(data: bytes) -> bytes:
    return without_tags(AuthorizedKeys.parse(data)).render()


@given(
    st.text(alphabet='ab#"=, \t\r\0é', max_size=12).map(str.encode),
    st.sampled_from([b"", b" ", b"\t \r", b" \r\r", b"\0 rest", b" \0" + TAG]),
)
def test_adoption_is_undone(comment: bytes, end: bytes) -> None:
    """For every plain line, the tag that adoption put in comes off without any other trace."""
    line = parse_line(KEY + b" " + comment.replace(b"\0", b"") + end)
    if line.kind is LineKind.PLAIN:
        assert _untagged(adopted_line(line).raw + b"\n") == line.raw + b"\n"


@given(st.lists(st.sampled_from([KEY, KEY + b" me " + TAG, b"", b"# " + TAG, b"x\r"]), max_size=5))
def test_no_managed_line_stays_and_nothing_else_changes(lines: list[bytes]) -> None:
    """The result has as many lines, none of them managed, and is the same when done again."""
    before = AuthorizedKeys.parse(b"\n".join(lines))
    after = without_tags(before)
    for old, new in zip(before.lines, after.lines, strict=True):
        assert new.kind is not LineKind.MANAGED
        assert new.key == old.key
        assert old.kind is LineKind.MANAGED or new == old
    assert without_tags(after) == after


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (KEY + b" " + TAG, KEY),
        (KEY + b" me " + TAG + b" " + TAG + b"\n", KEY + b" me\n"),
        (b"restrict " + KEY + b" " + TAG + b"\n", b"restrict " + KEY + b" " + TAG + b"\n"),
    ],
)
def test_examples(data: bytes, result: bytes) -> None:
    """Without a comment, with two tags, and behind options, where the line is its owner's."""
    assert _untagged(data) == result
