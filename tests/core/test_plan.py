"""The laws R1-R8, each said once more and apart from the code, for documents of every sort.

The documents hold a few keys in many spellings, so that lines collide. `read` below is the tests'
own small reader of such lines; it knows the keys by their text and shares nothing with the core.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.core.authorized_keys import AuthorizedKeys
from agent.core.desired_keys import DesiredKeys
from agent.core.listing import ListedKey
from agent.core.plan import Plan, Role, current_entries, make_plan, restricted_keys
from agent.core.public_key import PublicKey
from agent.core.results import CHANGES, STANDING
from tests.core.support import (
    TAG,
    by_blob,
    ed25519,
    ed25519_blob,
    examples,
    fields,
    joined,
    listed,
    rsa_blob,
    security_key_blob,
)

# ---- six keys, in every spelling that sshd reads as the same key ----

BLOBS = (*map(ed25519_blob, range(4)), rsa_blob(2048), security_key_blob(ed25519_blob(4)))
POOL = tuple(map(PublicKey.from_blob, BLOBS))
_RSA_NAME, _RSA_E, _RSA_N = fields(BLOBS[4])


def _spelling(name: bytes, blob: bytes) -> bytes:
    return name + b" " + base64.b64encode(blob)


SPELLINGS = {_spelling(fields(blob)[0], blob): at for at, blob in enumerate(BLOBS)} | {
    _spelling(b"rsa-sha2-512", BLOBS[4]): 4,
    _spelling(b"ssh-rsa", joined([b"rsa-sha2-256", b"\0" + _RSA_E, b"\0\0" + _RSA_N])): 4,
}
GARBAGE = frozenset(
    {
        *(
            b"",
            b" ",
            b"# a comment",
            b"# keysync:managed",
            b"words",
            b"\xff\xfe",
            "é\u2028".encode(),
        ),
        *(b"# " + spelling for spelling in SPELLINGS),
        *(spelling[:-2] for spelling in SPELLINGS),
        *(spelling + spelling for spelling in SPELLINGS),
        *(b"two words " + spelling for spelling in SPELLINGS),
        *(b'command="never closed ' + spelling for spelling in SPELLINGS),
        *(b"\0" + spelling for spelling in SPELLINGS),
    }
)


@dataclass(frozen=True)
class Read:
    """A line as the tests read it: its sort, and which key of the pool it holds."""

    raw: bytes
    sort: str  # managed, plain, restricted or other
    at: int | None = None

    @property
    def unrestricted(self) -> bool:
        return self.sort in ("managed", "plain")


def read_line(raw: bytes) -> Read:
    text = raw.split(b"\0")[0].strip(b" \t\r") if not raw.startswith(b"\0") else raw
    if text in GARBAGE:
        return Read(raw, "other")
    for spelling, at in SPELLINGS.items():
        front, found, comment = text.partition(spelling)
        if found and front.strip():
            return Read(raw, "restricted", at)
        if found:
            return Read(raw, "managed" if comment.split()[-1:] == [TAG] else "plain", at)
    return Read(raw, "other")


def read(data: bytes) -> list[Read]:
    return [read_line(raw) for raw in data.removesuffix(b"\n").split(b"\n")] if data else []


def holding(lines: Sequence[Read], at: int, *sorts: str) -> list[Read]:
    return [line for line in lines if line.at == at and line.sort in sorts]


# ---- cases ----

_COMMENTS = (b"", b" me@home", b" a b", b" \xff", b" keysync:managed me", " Zoë\u2028x".encode())
_OPTIONS = (b"restrict", b'command="echo hi"', b'from="10.0.0.0/8"', b"bad-option", b"restrict,")
_ENDS = (b"", b"", b"", b"\r", b" ", b"\0junk")

spellings = st.sampled_from(sorted(SPELLINGS))
unrestricted_lines = st.tuples(
    st.sampled_from((b"", b"", b" \t")),
    spellings,
    st.sampled_from(_COMMENTS),
    st.sampled_from((b"", b" " + TAG, b"\t" + TAG)),
    st.sampled_from(_ENDS),
).map(b"".join)
restricted_lines = st.tuples(
    st.sampled_from(_OPTIONS),
    st.just(b" "),
    spellings,
    st.sampled_from((*_COMMENTS, b" " + TAG)),
    st.sampled_from(_ENDS),
).map(b"".join)
lines = unrestricted_lines | restricted_lines | st.sampled_from(sorted(GARBAGE))


documents = st.builds(
    lambda drawn, end: b"\n".join(drawn) + (end if drawn else b""),
    st.lists(lines, max_size=10),
    st.sampled_from((b"", b"\n")),
)


@dataclass(frozen=True)
class Case:
    """One file, and all that is asked of it; keys are places in the pool."""

    data: bytes
    listed: tuple[int, ...]
    pins: tuple[int, ...]
    known: frozenset[int]  # once listed
    refused: frozenset[int]  # on the console, in an entry that is not accepted
    for_form: bool  # and that for its form alone, so that its keys are spared
    waits: frozenset[int]  # on the console, and not confirmed yet, unless listed or pinned
    elsewhere: frozenset[int]  # restricted in another file of the same user
    strict: bool
    role: Role

    @property
    def desired(self) -> DesiredKeys:
        present = {*self.listed, *self.refused, *self.waiting}
        return DesiredKeys(
            listed=by_blob(*(self._key(at) for at in self.listed)),
            pins=by_blob(*(listed(POOL[at], f"pin {at}") for at in self.pins)),
            previously_listed={POOL[at].fingerprint: 100 + at for at in self.known | present},
            present=frozenset(POOL[at].fingerprint for at in present),
            listed_but_malformed=frozenset(
                POOL[at].fingerprint for at in self.refused if self.for_form
            ),
            waiting=frozenset(POOL[at].fingerprint for at in self.waiting),
            strict=self.strict,
        )

    def _key(self, at: int) -> ListedKey:
        return listed(POOL[at], f"listed {at}", at)

    def plan(self, data: bytes | None = None) -> Plan:
        document = AuthorizedKeys.parse(self.data if data is None else data)
        elsewhere = frozenset(POOL[at].blob for at in self.elsewhere)
        return make_plan(document, self.desired, elsewhere, self.role)

    @property
    def before(self) -> list[Read]:
        return read(self.data)

    @property
    def after(self) -> list[Read]:
        return read(self.plan().after.render())

    # The words of the laws.

    @property
    def waiting(self) -> frozenset[int]:
        return self.waits - {*self.listed}

    @property
    def may_enter(self) -> bool:
        return self.role is not Role.REVOKE

    def is_desired(self, at: int) -> bool:
        return at in self.listed or at in self.pins

    def is_revoked(self, at: int) -> bool:
        """R5: once listed, not on the console any more, not pinned."""
        on_console = at in self.refused or at in self.waiting
        return at in self.known and not self.is_desired(at) and not on_console

    def stays_managed(self, at: int) -> bool:
        """G2, G14: on the console in an entry of bad form, or unconfirmed: it keeps its line.

        Where a restricted line speaks for the key, it alone does (R4).
        """
        listed_but_malformed = self.for_form and at in self.refused
        return (listed_but_malformed or at in self.waiting) and not (
            self.may_enter and self.is_restricted(at)
        )

    def restriction_stays(self, at: int) -> bool:
        """R8, G14: in strict mode only a pin's restricted line stays, or one whose key waits."""
        return not self.strict or at in self.pins or at in self.waiting

    def keeps_restricted(self, at: int) -> bool:
        """R5: where nothing may enter, the strict mode takes nothing either."""
        return self.restriction_stays(at) or not self.may_enter

    def is_restricted(self, at: int) -> bool:
        """R4: a line with options, here or in another file, speaks for this key."""
        here = bool(holding(self.before, at, "restricted")) and self.restriction_stays(at)
        return here or at in self.elsewhere


EVERY = range(len(POOL))
NONE: frozenset[int] = frozenset()
some_keys = st.lists(st.sampled_from(EVERY), unique=True, max_size=3).map(tuple)
key_sets = st.frozensets(st.sampled_from(EVERY), max_size=3)
cases = st.builds(
    Case,
    data=documents,
    listed=some_keys,
    pins=some_keys,
    known=st.just(frozenset(EVERY)) | key_sets,
    refused=st.just(NONE) | key_sets,
    for_form=st.booleans(),
    waits=st.just(NONE) | key_sets,
    elsewhere=st.just(NONE) | key_sets,
    strict=st.booleans(),
    role=st.sampled_from((Role.MAIN, Role.MAIN, Role.OTHER, Role.REVOKE)),
)
laws = settings(max_examples=examples(150))


# ---- the laws ----


@given(documents)
def test_the_tests_read_these_lines_as_the_core_does(data: bytes) -> None:
    """Two readers that share nothing agree on managed, plain and restricted."""
    ours = [
        (line.raw, line.sort, None if line.at is None else POOL[line.at]) for line in read(data)
    ]
    theirs = [
        (raw, line.kind.value, line.key)
        for line in AuthorizedKeys.parse(data).lines
        for raw in line.raw.split(b"\n")  # several lines without a key may be one value
    ]
    assert ours == theirs


@laws
@given(cases)
def test_r1_every_wanted_key_can_log_in_and_is_there_once(case: Case) -> None:
    """R1: each listed key and each pin stands in one line, a listed one in a managed line.

    Where a restricted line speaks for the key (R4), that is its line. A second file of the same
    user gets no new lines.
    """
    assume(case.may_enter)
    for at in filter(case.is_desired, EVERY):
        found = holding(case.after, at, "managed", "plain")
        if case.is_restricted(at):
            assert holding(found, at, "managed") == []
        elif case.role is Role.MAIN or holding(case.before, at, "managed", "plain"):
            assert [line.sort for line in found] in (
                [["managed"]] if at in case.listed else [["managed"], ["plain"]]
            )
        else:
            assert found == []


@laws
@given(cases.map(lambda case: replace(case, role=Role.REVOKE)))
def test_r5_where_nothing_may_enter_only_unwanted_lines_go(case: Case) -> None:
    """R5, G11: a retired target, or a state that cannot be written: no line is put in or edited."""
    plan = case.plan()
    assert plan.added == plan.adopted == ()
    gone = [line for line in case.before if line not in case.after]
    assert [line.raw for line in case.before if line not in gone] == [
        line.raw for line in case.after
    ]
    for line in gone:
        assert line.at is not None
        assert not case.is_desired(line.at)
        assert line.sort == "managed" or (line.sort == "plain" and case.is_revoked(line.at))


@laws
@given(cases)
def test_r2_a_managed_line_of_no_wanted_key_is_removed(case: Case) -> None:
    """R2: what is neither listed nor pinned has no managed line.

    A key in an entry that is refused for its form alone (G2), and one that waits to be confirmed
    (G14), is still on the console, so it keeps the managed lines that it has, and gets no others.
    """
    for at in EVERY:
        before, after = (holding(lines, at, "managed") for lines in (case.before, case.after))
        if not case.is_desired(at):
            assert after == (before if case.stays_managed(at) else [])


@laws
@given(cases)
def test_r3_a_plain_line_of_a_listed_key_becomes_managed_in_place(case: Case) -> None:
    """R3: adopted where it stands, with the tag and no other byte added."""
    assume(case.may_enter)
    before, after = case.before, case.after
    for at in case.listed:
        if case.is_restricted(at):
            continue
        assert holding(after, at, "plain") == []
        plain = holding(before, at, "plain")
        if plain and not holding(before, at, "managed"):
            (line,) = holding(after, at, "managed")
            assert untagged(line.raw) == plain[0].raw
            assert following(after, line) == following(before, plain[0])


def following(lines: Sequence[Read], line: Read) -> list[bytes]:
    """The lines behind this one that no law ever touches: those that are no key."""
    return [other.raw for other in lines[lines.index(line) :] if other.at is None]


def untagged(raw: bytes) -> bytes:
    """The line without its last tag and the blank in front of it."""
    seen = raw.partition(b"\0")[0]
    at = seen.rindex(b" " + TAG)
    return raw[:at] + raw[at + 1 + len(TAG) :]


@laws
@given(cases)
def test_r4_a_restricted_line_is_its_owners_decision(case: Case) -> None:
    """R4: never edited, never adopted, never undercut by a managed line.

    Incident 31: a plain line beside it is the owner's as well, and stays as it is.
    """
    before, after = case.before, case.after
    kept = [line for line in before if line.sort == "restricted" and line.at is not None]
    kept = [line for line in kept if line.at is not None and case.keeps_restricted(line.at)]
    assert [line for line in after if line.sort == "restricted"] == kept
    for at in filter(case.is_desired, EVERY):
        if case.is_restricted(at):
            assert holding(after, at, "plain") == holding(before, at, "plain")
            if case.may_enter:
                assert holding(after, at, "managed") == []


@laws
@given(cases)
def test_r4_a_restricted_line_of_a_deleted_key_is_said_loudly(case: Case) -> None:
    """R4: it stays, and the report names the key as revoked."""
    reported = {entry.fingerprint: entry.reason for entry in case.plan().restricted}
    for line in case.after:
        if line.sort == "restricted" and line.at is not None:
            said = reported[POOL[line.at].fingerprint]
            assert (said == "revoked") == case.is_revoked(line.at)


@laws
@given(cases)
def test_r5_revocation_sticks(case: Case) -> None:
    """R5: no line without options for a key that the console let go of; a pin overrides."""
    for at in filter(case.is_revoked, EVERY):
        assert holding(case.after, at, "managed", "plain") == []


@laws
@given(cases, st.lists(unrestricted_lines, min_size=2, max_size=5))
def test_r5_a_line_put_back_is_removed_again(case: Case, drawn: list[bytes]) -> None:
    """R5: also when another tool puts it back; the file is then as it was before that."""
    put_back = [raw for raw in drawn if case.is_revoked(read_line(raw).at or 0)]
    assume(put_back)
    after = case.plan().after.render()
    if after and not after.endswith(b"\n"):
        after += b"\n"
    again = case.plan(after + b"\n".join(put_back) + b"\n")
    assert again.after.render() == after
    assert {entry.reason for entry in again.removed} == {"revoked"}
    assert list(again.removed_lines) == put_back


@laws
@given(cases)
def test_r6_all_else_is_kept_byte_for_byte_and_in_order(case: Case) -> None:
    """R6: comments, blanks, what sshd would not understand, and keys that are nobody's business."""

    def concerns(line: Read) -> bool:
        if line.at is None:
            return False
        if line.sort == "restricted":
            return not case.keeps_restricted(line.at)
        if line.sort == "managed":
            return case.is_desired(line.at) or not case.stays_managed(line.at)
        return case.is_desired(line.at) or case.is_revoked(line.at) or case.strict

    untouched = [line.raw for line in case.before if not concerns(line)]
    assert [line.raw for line in case.after if not concerns(line)] == untouched


@laws
@given(cases)
def test_r6_lines_stay_in_order_and_new_ones_come_last(case: Case) -> None:
    """R6: the file is the old one with lines taken out, tags put on, and lines appended."""
    plan = case.plan()
    after = [line.raw for line in case.after]
    stayed = after[: len(after) - len(plan.added)]
    old = iter(line.raw for line in case.before)
    for raw in stayed:
        assert any(raw == other or (TAG in raw and _adopts(raw, other)) for other in old)
    written = [b" ".join(raw.split(b" ")[:2]) for raw in after[len(stayed) :]]
    assert written == [POOL[at].line() for at in _added(case)]


def _adopts(raw: bytes, other: bytes) -> bool:
    return read_line(raw).sort == "managed" and b" " + TAG in raw and untagged(raw) == other


def _added(case: Case) -> list[int]:
    """R1: who is missing, in the console's order, then the pins."""
    there = {line.at for line in case.before if line.unrestricted}
    order = dict.fromkeys((*case.listed, *case.pins)) if case.role is Role.MAIN else {}
    return [at for at in order if at not in there and not case.is_restricted(at)]


@laws
@given(cases)
def test_r6_a_missing_final_newline_stays_missing(case: Case) -> None:
    """R6: a newline is added only when a line is appended behind it."""
    plan = case.plan()
    after = plan.after.render()
    if not after.endswith(b"\n") and after:
        last, now = case.before[-1].raw, case.after[-1].raw
        assert not case.data.endswith(b"\n")
        assert now == last or _adopts(now, last)
    if after.endswith(b"\n") and case.data and not case.data.endswith(b"\n"):
        assert plan.added or plan.removed


@laws
@given(cases)
def test_r7_a_second_sync_changes_nothing(case: Case) -> None:
    """R7: planning the result again writes nothing and renders the same bytes."""
    first = case.plan()
    second = case.plan(first.after.render())
    assert not second.changes
    assert second.removed_lines == ()
    assert second.after.render() == first.after.render()


@laws
@given(cases)
def test_r7_a_plan_says_whether_it_changes_anything(case: Case) -> None:
    """R7: nothing is written unless there is something to do, and then something differs."""
    plan = case.plan()
    assert plan.before.render() == case.data
    assert plan.changes == (plan.after.render() != case.data)


@laws
@given(cases)
def test_r8_strict_mode_leaves_wanted_keys_only(case: Case) -> None:
    """R8: every foreign key line that is not a pin goes too; comments stay.

    What stands for a key that waits to be confirmed stays (G14).
    """
    assume(case.may_enter)
    strict = replace(case, strict=True)
    for line in strict.after:
        if line.at is None or line.at in case.waiting:
            continue
        if line.sort == "restricted":
            assert line.at in case.pins
        elif not case.is_desired(line.at):
            assert line.sort == "managed"
            assert strict.stays_managed(line.at)
    others = [line.raw for line in strict.before if line.sort == "other"]
    assert [line.raw for line in strict.after if line.sort == "other"] == others


@laws
@given(cases)
def test_the_report_accounts_for_every_key_line(case: Case) -> None:
    """R10 and commands: who was added, adopted and removed, and who stands there and why."""
    plan = case.plan()
    before = [line for line in case.before if line.at is not None]
    after = [line for line in case.after if line.at is not None]
    stay = (*plan.adopted, *plan.kept, *plan.restricted, *plan.foreign)
    assert set(plan.entries) == {*CHANGES, *STANDING}
    assert all(plan.entries[name] == getattr(plan, name) for name in plan.entries)
    assert len(stay) + len(plan.removed) == len(before)
    assert sorted(entry.fingerprint for entry in (*stay, *plan.added)) == sorted(
        POOL[line.at].fingerprint for line in after if line.at is not None
    )
    gone = [raw for raw in plan.removed_lines if read_line(raw).at is not None]
    assert len(gone) == len(plan.removed) == len(plan.removed_lines)
    assert all(entry.reason for entry in plan.removed)
    ids = {POOL[at].fingerprint: at for at in case.listed}
    known = case.desired.previously_listed
    for entry in (*stay, *plan.added, *plan.removed):
        assert entry.key_id == ids.get(entry.fingerprint, known.get(entry.fingerprint))


@laws
@given(cases)
def test_restricted_keys_of_one_file_are_heeded_in_the_other(case: Case) -> None:
    """R4: sshd reads all of a user's files, so a restriction must hold in each of them."""
    found = restricted_keys(AuthorizedKeys.parse(case.data), case.desired)
    expected = {
        POOL[line.at].blob
        for line in case.before
        if line.sort == "restricted" and line.at is not None and case.restriction_stays(line.at)
    }
    assert found == expected


@laws
@given(cases)
def test_standing_says_who_can_log_in_by_the_file_as_it_is(case: Case) -> None:
    """Commands, `status`: every key line, by its sort."""
    found = current_entries(AuthorizedKeys.parse(case.data), case.desired)
    for name, sort in zip(STANDING, ("managed", "restricted", "plain"), strict=True):
        assert [entry.fingerprint for entry in found[name]] == [
            POOL[line.at].fingerprint
            for line in case.before
            if line.sort == sort and line.at is not None
        ]


# ---- the same, in examples ----

A, B, C = (_spelling(b"ssh-ed25519", BLOBS[at]) for at in range(3))
MANAGED_A = A + b" " + TAG


def plan(data: bytes, *, strict: bool = False, revoked: Sequence[int] = (), **more: object) -> Plan:
    """The plan for a file while key 0 is listed and key 1 is pinned; key 2 is nobody's."""
    desired = DesiredKeys(
        listed=by_blob(listed(POOL[0], "laptop", 10)),
        pins=by_blob(listed(POOL[1], "break glass")),
        previously_listed={POOL[at].fingerprint: 10 + at for at in (0, *revoked)},
        present=frozenset({POOL[0].fingerprint}),
        strict=strict,
    )
    return make_plan(AuthorizedKeys.parse(data), desired, **more)  # type: ignore[arg-type]  # reason: keywords


def reasons(plan: Plan) -> list[tuple[str, str]]:
    """Why each line goes, by the key's number."""
    numbers = {key.fingerprint: str(at) for at, key in enumerate(POOL)}
    return [(numbers[entry.fingerprint], entry.reason) for entry in plan.removed]


def test_an_empty_file_gets_the_listed_keys_and_then_the_pins() -> None:
    """R1: the console's order, the comment of the console, the tag at the end."""
    made = plan(b"")
    assert made.after.render() == A + b" laptop " + TAG + b"\n" + B + b" break glass " + TAG + b"\n"
    assert [(entry.comment, entry.key_id, entry.reason) for entry in made.added] == [
        ("laptop", 10, ""),
        ("break glass", None, "pinned"),
    ]


def test_an_edited_key_is_old_out_new_in() -> None:
    """R2: editing a key on the console is: old blob out, new in."""
    made = plan(C + b" " + TAG + b"\n" + B + b"\n", revoked=[2])
    assert made.after.render() == B + b"\n" + A + b" laptop " + TAG + b"\n"
    assert reasons(made) == [("2", "revoked")]
    assert made.removed_lines == (C + b" " + TAG,)


def test_a_managed_line_of_an_unknown_key_goes_too() -> None:
    """R2 and R9: also when the state was lost; the tag in the line is enough."""
    assert reasons(plan(MANAGED_A + b"\n" + C + b" " + TAG + b"\n")) == [("2", "unlisted")]


@pytest.mark.parametrize("strict", [False, True])
def test_an_entry_of_bad_form_takes_no_key_from_the_machine(*, strict: bool) -> None:
    """G2 and R2: a line break behind a key on the console must not lock its owner out."""
    desired = DesiredKeys(
        {}, {}, {POOL[2].fingerprint: 12}, listed_but_malformed=frozenset({POOL[2].fingerprint})
    )
    document = AuthorizedKeys.parse(C + b" me " + TAG + b"\n")
    made = make_plan(
        document, replace(desired, present=desired.listed_but_malformed, strict=strict)
    )
    assert not made.changes
    assert [(entry.comment, entry.key_id, entry.reason) for entry in made.kept] == [
        ("me", 12, "entry_rejected")
    ]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_refused_entry_does_not_undercut_a_restricted_line(*, elsewhere: bool) -> None:
    """R4 before G2: what the owner restricted has no line of keysync's beside it."""
    desired = DesiredKeys({}, {}, listed_but_malformed=frozenset({POOL[2].fingerprint}))
    managed = C + b" me " + TAG + b"\n"
    owners = b"" if elsewhere else b'command="backup" ' + C + b"\n"
    restricted = frozenset({POOL[2].blob}) if elsewhere else frozenset()
    made = make_plan(AuthorizedKeys.parse(managed + owners), desired, restricted)
    assert made.after.render() == owners
    assert [entry.reason for entry in made.removed] == ["restricted_line_exists"]


def test_of_duplicates_the_managed_line_stays() -> None:
    """R1: once, and the line that keysync already keeps is not written again (R7)."""
    made = plan(A + b" first\n" + MANAGED_A + b"\n" + MANAGED_A + b" \n" + B + b"\n" + B + b" x\n")
    assert made.after.render() == MANAGED_A + b"\n" + B + b"\n"
    assert reasons(made) == [("0", "duplicate"), ("0", "duplicate"), ("1", "duplicate")]


def test_of_plain_duplicates_the_first_is_adopted() -> None:
    """R3: in place."""
    made = plan(A + b" first\n# x\n" + A + b" second\n" + B)
    assert made.after.render() == A + b" first " + TAG + b"\n# x\n" + B
    assert [entry.comment for entry in made.adopted] == ["first"]


def test_a_pinned_keys_plain_line_is_left_as_it_is() -> None:
    """R1 and R6: it can log in already, and it is not the console's."""
    made = plan(MANAGED_A + b"\n" + B + b" mine\n")
    assert not made.changes
    assert [(entry.comment, entry.reason) for entry in made.kept] == [("", ""), ("mine", "pinned")]


def test_a_changed_comment_on_the_console_rewrites_nothing() -> None:
    """Identity is never the comment."""
    assert not plan(A + b" old name " + TAG + b"\n" + B + b"\n").changes


RESTRICTED_A = b'command="backup" ' + A


def reported(made: Plan) -> list[tuple[str, str, str]]:
    """The sort, key and reason of everything that stays, restricted lines first."""
    numbers = {key.fingerprint: str(at) for at, key in enumerate(POOL)}
    return [
        (name, numbers[entry.fingerprint], entry.reason)
        for name in ("restricted", "foreign", "kept")
        for entry in getattr(made, name)
    ]


def test_a_plain_line_in_front_of_a_restricted_one_stays() -> None:
    """R4 and incident 31: taking it away would take the owner's shell; sshd uses the first."""
    made = plan(A + b"\n" + RESTRICTED_A + b"\n" + B)
    assert not made.changes
    assert reported(made)[:2] == [
        ("restricted", "0", "behind_plain"),
        ("foreign", "0", "used_beside_restricted"),
    ]


def test_a_plain_line_behind_a_restricted_one_stays() -> None:
    """R4 and incident 31: sshd never comes to it, and the report says so."""
    made = plan(RESTRICTED_A + b"\n" + A + b"\n" + B)
    assert not made.changes
    assert reported(made)[:2] == [("restricted", "0", ""), ("foreign", "0", "behind_restricted")]


def test_a_plain_line_behind_a_restricted_one_that_sshd_ignores() -> None:
    """R4 and incident 31: the plain one is what lets the key in."""
    made = plan(b"bad-option " + A + b"\n" + A + b"\n" + B)
    assert not made.changes
    assert reported(made)[:2] == [
        ("restricted", "0", "ignored_by_sshd"),
        ("foreign", "0", "used_beside_restricted"),
    ]


@pytest.mark.parametrize("plain_first", [False, True])
def test_of_a_plain_a_managed_and_a_restricted_line_the_managed_one_goes(
    *, plain_first: bool
) -> None:
    """R4: whatever stood in front of the other two, they are reported as they are afterwards."""
    first, second = (A, RESTRICTED_A) if plain_first else (RESTRICTED_A, A)
    made = plan(MANAGED_A + b"\n" + first + b"\n" + second + b"\n" + B)
    assert made.after.render() == first + b"\n" + second + b"\n" + B
    assert reasons(made) == [("0", "restricted_line_exists")]
    again = plan(made.after.render())
    assert reported(made) == reported(again)


@pytest.mark.parametrize(
    ("role", "reason"),
    [(Role.MAIN, "used_beside_restricted"), (Role.OTHER, "behind_restricted")],
)
def test_a_plain_line_beside_a_restricted_one_of_another_file(role: Role, reason: str) -> None:
    """R4 and incident 11: sshd reads the first file first."""
    made = plan(A + b"\n" + B, restricted_elsewhere=frozenset({BLOBS[0]}), role=role)
    assert not made.changes
    assert reported(made)[0] == ("foreign", "0", reason)


def test_lines_behind_a_file_of_several_users() -> None:
    """R4: a restricted line restricts nobody while sshd comes to an unrestricted one before, in a
    file that is not this user's alone; the report says so of both lines, and worse comes first.
    """
    shared = frozenset({BLOBS[0]})
    text = RESTRICTED_A + b"\n" + A + b"\n" + B
    made = plan(text, unrestricted_before=shared, role=Role.OTHER)
    assert not made.changes
    assert reported(made)[:2] == [
        ("restricted", "0", "behind_shared"),
        ("foreign", "0", "behind_shared"),
    ]
    ignored = plan(b"bad-option " + A, unrestricted_before=shared, role=Role.OTHER)
    assert reported(ignored)[0] == ("restricted", "0", "ignored_by_sshd")


def test_a_key_that_is_restricted_in_another_file_is_not_added() -> None:
    """R4 and incident 11: `command=` in one file, and no shell by the other."""
    made = plan(B + b"\n", restricted_elsewhere=frozenset({BLOBS[0]}))
    assert not made.changes


def test_of_a_plain_and_a_restricted_line_of_a_deleted_key_the_plain_one_goes() -> None:
    """R4 and R5: the restricted one stays and is said loudly."""
    restricted = b'command="backup" ' + C
    made = plan(C + b"\n" + restricted + b"\n" + MANAGED_A + b"\n" + B, revoked=[2])
    assert made.after.render() == restricted + b"\n" + MANAGED_A + b"\n" + B
    assert reasons(made) == [("2", "revoked")]
    assert reported(made)[0] == ("restricted", "2", "revoked")


def waiting(data: bytes, *, strict: bool = False, **more: object) -> Plan:
    """The plan for a file while key 2 is listed and waits to be confirmed."""
    fingerprint = frozenset({POOL[2].fingerprint})
    desired = DesiredKeys({}, {}, {POOL[2].fingerprint: 12}, fingerprint, waiting=fingerprint)
    document = AuthorizedKeys.parse(data)
    return make_plan(document, replace(desired, strict=strict), **more)  # type: ignore[arg-type]  # reason: keywords


def test_a_key_that_waits_does_not_enter_and_is_not_adopted() -> None:
    """G14: no line of its own, no tag on another's; the report says that it waits."""
    assert not waiting(b"").changes
    made = waiting(C + b"\n")
    assert not made.changes
    assert reported(made) == [("foreign", "2", "waiting")]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("role", Role)
def test_a_key_that_waits_keeps_the_managed_line_that_it_has(role: Role, *, strict: bool) -> None:
    """G14: to switch to `additions: hold` takes nobody's key away."""
    made = waiting(C + b" " + TAG + b"\n", strict=strict, role=role)
    assert not made.changes
    assert reported(made) == [("kept", "2", "waiting")]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("tag", [b"", b" " + TAG])
def test_a_revoked_key_that_waits_or_is_quoted_keeps_no_line(role: Role, tag: bytes) -> None:
    """R5, G14: it is not present, so neither its list entry nor a refused one spares a line."""
    desired = DesiredKeys({}, {}, {POOL[2].fingerprint: 12})
    made = make_plan(AuthorizedKeys.parse(C + tag + b"\n"), desired, role=role)
    assert reasons(made) == [("2", "revoked")]


def test_a_key_that_waits_does_not_undercut_a_restricted_line() -> None:
    """R4 before G14."""
    made = waiting(C + b" " + TAG + b"\nrestrict " + C + b"\n")
    assert reasons(made) == [("2", "restricted_line_exists")]


@pytest.mark.parametrize("line", [C, b"restrict " + C])
def test_the_strict_mode_takes_no_line_of_a_key_that_waits(line: bytes) -> None:
    """R8 and G14: the console lists it; to take it would shut out who has not confirmed it yet."""
    made = waiting(line + b"\n", strict=True)
    assert not made.changes


def test_the_strict_mode_takes_the_lines_of_keys_that_do_not_wait() -> None:
    """R8: beside a key that waits."""
    assert reasons(waiting(C + b"\n" + A + b"\n", strict=True)) == [("0", "unmanaged")]


@pytest.mark.parametrize("strict", [False, True])
def test_where_nothing_may_enter_revocations_go_on(*, strict: bool) -> None:
    """R5 and G11: a retired target and a full disk take the deleted key, and nothing else."""
    stays = A + b"\nrestrict " + B + b"\n" + POOL[3].line() + b"\n"
    text = C + b" " + TAG + b"\n" + C + b"\n" + stays
    made = plan(text, revoked=[2], role=Role.REVOKE, strict=strict)
    assert made.after.render() == stays
    assert reasons(made) == [("2", "revoked"), ("2", "revoked")]
    assert [(name, key) for name, key, _ in reported(made)] == [
        ("restricted", "1"),
        ("foreign", "0"),
        ("foreign", "3"),
    ]


def test_where_nothing_may_enter_managed_lines_of_keys_on_the_console_stay() -> None:
    """G11: also of a listed key, of one in a bad entry, and twice, or beside a restricted line."""
    listed_twice = plan(MANAGED_A + b"\n" + MANAGED_A + b"\n" + RESTRICTED_A, role=Role.REVOKE)
    assert not listed_twice.changes
    assert [name for name, _, _ in reported(listed_twice)] == ["restricted", "kept", "kept"]
    text = C + b" " + TAG + b"\nrestrict " + C + b"\n"
    assert not waiting(text, role=Role.REVOKE).changes


def test_two_restricted_lines_for_one_key_both_stay() -> None:
    """R4: the same blob with different options twice is two decisions of the owner."""
    text = (
        b"restrict " + A + b"\n" + b'from="10.0.0.1" ' + A + b"\n" + MANAGED_A + b"\n" + B + b"\n"
    )
    made = plan(text)
    assert made.after.render() == text.replace(MANAGED_A + b"\n", b"")
    assert reasons(made) == [("0", "restricted_line_exists")]


def test_a_restricted_line_that_sshd_ignores_is_named() -> None:
    """R4: it is still its owner's, and the report says why nobody gets in by it."""
    made = plan(b"bad-option " + A + b"\n" + b"restrict " + C + b"\n" + B)
    assert [entry.reason for entry in made.restricted] == ["ignored_by_sshd", ""]
    assert made.added == ()


def test_a_restricted_line_of_a_deleted_key_stays() -> None:
    """R4: it stays although its key is revoked, and the reason says so."""
    made = plan(b"restrict " + C + b"\n" + C + b"\n" + MANAGED_A + b"\n" + B, revoked=[2])
    assert made.after.render() == b"restrict " + C + b"\n" + MANAGED_A + b"\n" + B
    assert [(entry.reason, entry.key_id) for entry in made.restricted] == [("revoked", 12)]
    assert reasons(made) == [("2", "revoked")]


def test_a_restriction_in_another_file_is_not_undercut() -> None:
    """R4: for one key an unrestricted line opens the door, in whichever file it stands."""
    made = plan(MANAGED_A + b"\n" + B, restricted_elsewhere=frozenset({BLOBS[0]}))
    assert made.after.render() == B
    assert reasons(made) == [("0", "restricted_line_exists")]


def test_a_second_file_only_loses_and_adopts_lines() -> None:
    """R1: the keys are added to one file of the user; R2, R3 and R5 hold in all of them."""
    made = plan(A + b"\n" + C + b"\n", revoked=[2], role=Role.OTHER)
    assert made.after.render() == MANAGED_A + b"\n"
    assert (len(made.added), len(made.adopted), len(made.removed)) == (0, 1, 1)


def test_a_pin_overrides_a_revocation() -> None:
    """R5: a pin is always authorized and never removed."""
    made = plan(MANAGED_A + b"\n" + B + b" " + TAG + b"\n", revoked=[1])
    assert not made.changes
    assert [entry.reason for entry in made.kept] == ["", "pinned"]


def test_strict_mode_takes_foreign_keys_and_leaves_comments() -> None:
    """R8: every foreign key line that is not a pin goes too."""
    text = b"# mine\n" + C + b"\nrestrict " + C + b"\nrestrict " + B + b"\n\n" + MANAGED_A + b"\n"
    made = plan(text, strict=True)
    assert made.after.render() == b"# mine\nrestrict " + B + b"\n\n" + MANAGED_A + b"\n"
    assert reasons(made) == [("2", "unmanaged"), ("2", "unmanaged")]


def test_strict_mode_replaces_a_restricted_line_of_a_listed_key() -> None:
    """R8 before R4: only a pin keeps its options, and the listed key still gets in (R1)."""
    made = plan(b"restrict " + A + b"\n" + B + b"\n", strict=True)
    assert made.after.render() == B + b"\n" + A + b" laptop " + TAG + b"\n"


def test_without_any_listed_key_yet_nothing_is_revoked() -> None:
    """R5: only what a verified listing once held can be revoked."""
    desired = DesiredKeys({}, {})
    assert not desired.revoked(ed25519(0))
    made = make_plan(AuthorizedKeys.parse(A + b"\n"), desired)
    assert [entry.key_id for entry in made.foreign] == [None]
    assert not made.changes
