"""What holds for any bytes that stand in a key file, and for what a sync makes of them."""

from __future__ import annotations

from agent.core.authorized_keys import (
    TAG,
    AuthorizedKeys,
    Line,
    LineKind,
    adopted_line,
    shown_comment,
    without_tags,
)
from agent.core.desired_keys import DesiredKeys
from agent.core.listing import ListedKey
from agent.core.plan import Plan, current_entries, make_plan
from agent.core.public_key import PublicKey, without_sshd
from fuzz import oracle


def document(data: bytes) -> None:
    """R6: the bytes come out as they went in; a line holds a key or is left alone."""
    read = AuthorizedKeys.parse(data)
    assert read.render() == data
    assert b"\n".join(line.raw for line in read.lines) == data.removesuffix(b"\n")
    assert read.edited({}, ()).render() == data
    assert AuthorizedKeys.parse(read.render()) == read
    for line in read.lines:
        _line(line)
    untagged = without_tags(read)
    assert without_tags(untagged) == untagged
    assert not any(line.kind is LineKind.MANAGED for line in untagged.lines)
    assert AuthorizedKeys.parse(untagged.render()) == untagged
    everybody = current_entries(read, DesiredKeys({}, {}))
    assert sum(map(len, everybody.values())) == sum(line.key is not None for line in read.lines)


def _line(line: Line) -> None:
    assert b"\n" not in line.raw or line.key is None
    assert (line.key is None) == (line.kind is LineKind.OTHER)
    assert (line.options is None) == (line.kind is not LineKind.RESTRICTED)
    if line.key is None:
        assert not line.opens_session_for(without_sshd)
        return
    assert line.key.fingerprint == oracle.fingerprint(line.key.blob)
    assert shown_comment(line).isprintable()
    if line.kind is LineKind.PLAIN:
        adopted = adopted_line(line)
        assert (adopted.kind, adopted.key) == (LineKind.MANAGED, line.key)
        assert adopted.raw.replace(b" " + TAG, b"") == line.raw.replace(b" " + TAG, b"")
        restored = without_tags(AuthorizedKeys((adopted,))).lines[0]
        assert restored.raw == line.raw


def sync(data: bytes) -> None:
    """R1 to R8 for a file and a listing made of its own keys; the first bytes choose."""
    choice, read = data[:4], AuthorizedKeys.parse(data[4:])
    desired = _desired(choice, read)
    plan = make_plan(read, desired)
    after = plan.after
    assert plan.changes or after.render() == data[4:]
    assert _keys(AuthorizedKeys.parse(after.render())) == _keys(after)
    again = make_plan(after, desired)
    assert not again.changes
    assert again.after.render() == after.render()
    _keeps_what_is_not_its_own(read, plan, desired)
    _lets_in_whom_it_should(after, desired)


def _keys(document: AuthorizedKeys) -> list[Line]:
    """The lines with keys; those without may be one value or several."""
    return [line for line in document.lines if line.key]


def _desired(choice: bytes, read: AuthorizedKeys) -> DesiredKeys:
    """Two bits for each key of the file: unknown, listed, pinned or revoked; a bit for strict."""
    bits = int.from_bytes(choice, "big")
    strict, bits = bool(bits & 1), bits >> 1
    keys = dict.fromkeys(line.key for line in read.lines if line.key)
    keys[PublicKey.from_blob(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"\7" * 32)] = None
    groups: list[dict[bytes, ListedKey]] = [{}, {}, {}, {}]
    for at, key in enumerate(keys):
        groups[bits >> 2 * at & 3][key.blob] = ListedKey(key, "from the account", at)
    _, listed, pins, revoked = groups
    known = {one.key.fingerprint: one.key_id for one in revoked.values()}
    return DesiredKeys(listed, pins, known, strict=strict)


def _stays(line: Line, desired: DesiredKeys) -> bool:
    """Whether a line must not be touched whatever the account says."""
    if line.key is None:
        return True
    pinned = line.key.blob in desired.pins
    return line.kind is LineKind.RESTRICTED and (not desired.strict or pinned)


def _keeps_what_is_not_its_own(read: AuthorizedKeys, plan: Plan, desired: DesiredKeys) -> None:
    """R4 and R6: restricted and other lines stay, in order; what goes is in `removed_lines`."""
    kept = [line.raw for line in read.lines if _stays(line, desired)]
    assert [line.raw for line in plan.after.lines if _stays(line, desired)] == kept
    tagless = [line.raw for line in without_tags(plan.after).lines]
    for line in without_tags(read).lines:
        assert line.raw in tagless or line.key is not None
    gone = len(read.lines) - len(plan.removed_lines)
    assert len(plan.after.lines) == gone + len(plan.added)
    assert len(plan.removed_lines) == len(plan.removed)


def _lets_in_whom_it_should(after: AuthorizedKeys, desired: DesiredKeys) -> None:
    """R1, R2, R4, R5, R8: whose key stands in the file afterwards, and how often.

    Beside a restricted line for the same key there is no managed one; plain ones are the owner's.
    """
    limited = {line.key.blob for line in after.lines if line.key and line.options is not None}
    free = [line for line in after.lines if line.key and line.options is None]
    blobs = [line.key.blob for line in free if line.key]
    managed = {line.key.blob for line in free if line.key and line.kind is LineKind.MANAGED}
    for blob in {*desired.listed, *desired.pins}:
        assert blob not in managed if blob in limited else blobs.count(blob) == 1
    for line in free:
        assert line.key is not None
        wants = desired.wants(line.key)
        assert wants or line.kind is not LineKind.MANAGED
        assert wants or not desired.strict
        assert not desired.revoked(line.key)
