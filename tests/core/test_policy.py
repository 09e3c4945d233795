"""The guards G3 and G4: what is held back, for how long, and how an operator lets it pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.authorized_keys import AuthorizedKeys
from agent.core.ledger import Hold, Ledger
from agent.core.listing import Listing, RejectedEntry
from agent.core.plan import Plan, Wanted, make_plan
from agent.core.policy import Held, judge_account, judge_lockout
from tests.core.support import TAG, by_blob, ed25519, joined, listed, text_of

KEYS = tuple(map(ed25519, range(4)))
FINGERPRINTS = tuple(key.fingerprint for key in KEYS)
EMPTY = Listing((), (), None)


def listing(*numbers: int, account: int | None = 7, bad: Sequence[int] = ()) -> Listing:
    """A listing of some keys, and of some entries that are refused."""
    keys = tuple(listed(KEYS[at], f"key {at}", at) for at in numbers)
    rejected = tuple(RejectedEntry(at, "options", "…", frozenset({FINGERPRINTS[at]})) for at in bad)
    return Listing(keys, rejected, account)


def line(at: int, *, managed: bool = True, options: str = "") -> bytes:
    text = f"{options} {KEYS[at].line().decode()}".strip()
    return text.encode() + (b" " + TAG if managed else b"") + b"\n"


def plan(data: bytes, wanted: Listing, known: Sequence[int] = (), *, strict: bool = False) -> Plan:
    return make_plan(
        AuthorizedKeys.parse(data),
        Wanted(
            listed=by_blob(*wanted.keys),
            pins={},
            known={FINGERPRINTS[at]: at for at in known},
            present=wanted.present,
            strict=strict,
        ),
    )


@dataclass
class Machine:
    """What the guards remember between polls; `files` are the key files of each user."""

    confirmations: int = 3
    ledger: Ledger = field(default_factory=Ledger)
    files: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    known: Sequence[int] = ()

    def poll(self, seen: Listing, *, confirmed: bool = False) -> Held | None:
        """One poll; the hold is remembered as a cycle remembers it."""
        plans = {
            user: [plan(data, seen, self.known) for data in own] for user, own in self.files.items()
        }
        held, hold = judge_lockout(
            seen, plans, self.ledger, self.confirmations, confirmed=confirmed
        )
        self.ledger = replace(self.ledger, hold=hold)
        return held

    def polls(self, *seen: Listing) -> list[str]:
        """The name of what held each poll; an empty one where it was applied."""
        return [held.kind if (held := self.poll(one)) else "" for one in seen]


# ---- G3: when ----


def test_an_ordinary_listing_is_applied_at_once() -> None:
    """G3: only the named dangers are held."""
    machine = Machine(files={"root": [line(0)]})
    assert machine.poll(listing(0, 1)) is None
    assert machine.ledger.hold is None


def test_removing_some_keys_is_prompt() -> None:
    """G3: removing some keys while others stay needs no confirmation."""
    machine = Machine(files={"root": [line(0) + line(1)]})
    assert machine.polls(listing(0)) == [""]


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (EMPTY, "empty_listing"),
        (Listing((), (), 7), "empty_listing"),
        (listing(bad=[1, 2]), "no_valid_entry"),
        (Listing((), (RejectedEntry(1, "not_a_key", "…"),), None), "no_valid_entry"),
    ],
)
def test_a_listing_without_a_usable_key_is_held(seen: Listing, kind: str) -> None:
    """G3: empty, or no valid entry; also when no file would change at all."""
    machine = Machine()
    held = machine.poll(seen)
    hold = machine.ledger.hold
    assert held is not None
    assert hold is not None
    assert (held.kind, held.hold) == (kind, hold)
    assert hold == Hold(kind, hold.digest, 1, 3)
    assert "seen in 1 of 3 polls" in held.hint
    assert "keysync sync --confirm-removals" in held.hint


def test_the_number_of_unusable_entries_is_said() -> None:
    """G3: the message says what the operator will find on the console."""
    held = Machine().poll(listing(bad=[0, 1, 2]))
    assert held is not None
    assert "None of the account's 3 SSH keys" in held.message


FORCED = 'command="backup"'
WOULD_LOCK_OUT = {
    "only a forced command would be left": line(0, options=FORCED, managed=False) + line(1),
    "only a line that sshd ignores": line(0, options="bad", managed=False) + line(1),
    "only an expiring line": line(0, options='expiry-time="20991231"', managed=False) + line(1),
    "only an expiry that is none": line(0, options='expiry-time="2099"', managed=False) + line(1),
    "only a bad variable": line(0, options='environment="A-B=1"', managed=False) + line(1),
    "only a bad forwarding": line(0, options='permitopen="host"', managed=False) + line(1),
    "only a line for nobody": line(0, options='from=""', managed=False) + line(1),
    "only a CA": line(0, options="cert-authority", managed=False) + line(1),
    "only a DSA key": line(0, options=FORCED, managed=False)
    + text_of(joined([b"ssh-dss", b"\1" * 128, b"\1", b"\1", b"\1"])).encode()
    + b"\n"
    + line(1),
}


@pytest.mark.parametrize("name", WOULD_LOCK_OUT)
def test_a_listing_that_would_leave_no_way_in_is_held(name: str) -> None:
    """G3: the listing has a key, but in this file it stands behind options that let nobody in."""
    machine = Machine(files={"root": [WOULD_LOCK_OUT[name]]})
    held = machine.poll(listing(0))
    assert held is not None
    assert held.kind == "would_lock_out"
    assert "root" in held.message


STILL_OPEN = {
    "a restricted line of use": line(0, options="restrict,pty", managed=False) + line(1),
    "a foreign key": line(0, options=FORCED, managed=False) + line(1) + line(2, managed=False),
    "nothing is removed": line(0, options=FORCED, managed=False),
    "another managed line": line(1),
}


@pytest.mark.parametrize("name", STILL_OPEN)
def test_a_listing_that_leaves_a_way_in_is_applied(name: str) -> None:
    """G3: held only when a target is left without any usable key by what is removed."""
    assert Machine(files={"root": [STILL_OPEN[name]]}).poll(listing(0)) is None


def test_every_locked_out_user_is_named_and_one_is_enough() -> None:
    """G3: it holds for each target; users are named in order."""
    shut = WOULD_LOCK_OUT["only a forced command would be left"]
    machine = Machine(files={"user": [shut], "root": [shut], "other": [line(0)]})
    held = machine.poll(listing(0))
    assert held is not None
    assert held.message == "No usable key would be left for root, user."


def test_all_files_of_a_user_count_together() -> None:
    """G3: sshd reads all of a user's files, so one with a way in is enough."""
    shut = WOULD_LOCK_OUT["only a forced command would be left"]
    assert Machine(files={"root": [shut, line(2, managed=False)]}).poll(listing(0)) is None
    assert Machine(files={"root": [shut, b""]}).poll(listing(0, 3)) is None
    held = Machine(files={"root": [shut, line(0, options=FORCED, managed=False)]}).poll(listing(0))
    assert held is not None


# ---- G3: for how long ----


def test_it_is_applied_when_seen_n_times_in_a_row() -> None:
    """G3: held until it was seen in `removal_confirmations` polls in a row."""
    assert Machine().polls(*[EMPTY] * 3) == ["empty_listing", "empty_listing", ""]


@pytest.mark.parametrize("confirmations", [1, 2, 5])
def test_the_number_of_polls_is_the_configured_one(confirmations: int) -> None:
    """Section 8: `policy.removal_confirmations`."""
    assert Machine(confirmations).polls(*[EMPTY] * confirmations) == [
        *["empty_listing"] * (confirmations - 1),
        "",
    ]


def test_it_stays_applied_while_it_stays_the_same() -> None:
    """G3: once confirmed, the same listing is no new danger at every later poll."""
    assert Machine().polls(*[EMPTY] * 6)[2:] == ["", "", "", ""]


def test_a_different_listing_starts_the_count_anew() -> None:
    """G3: N polls in a row must have seen the same listing."""
    one, two = listing(bad=[1]), listing(bad=[1, 2])
    assert Machine().polls(one, one, two, two, one, one, one) == ["no_valid_entry"] * 6 + [""]


def test_a_good_listing_in_between_starts_the_count_anew() -> None:
    """G3: in a row."""
    seen = Machine().polls(EMPTY, EMPTY, listing(0), EMPTY, EMPTY, EMPTY)
    assert seen == ["empty_listing", "empty_listing", "", "empty_listing", "empty_listing", ""]


def test_another_danger_starts_the_count_anew() -> None:
    """G3: what is confirmed is this danger of this listing."""
    machine = Machine(files={"root": [WOULD_LOCK_OUT["only a forced command would be left"]]})
    assert machine.polls(listing(0), listing(0)) == ["would_lock_out"] * 2
    assert machine.polls(EMPTY) == ["empty_listing"]


def test_the_order_of_the_api_makes_no_other_listing() -> None:
    """G3: the same listing is the same keys."""
    machine = Machine()
    assert machine.polls(listing(bad=[0, 1]), listing(bad=[1, 0]), listing(bad=[0, 1]))[-1] == ""


def test_the_operator_may_confirm_at_once() -> None:
    """G3: `keysync sync --confirm-removals`; and then it stays applied."""
    machine = Machine()
    assert machine.poll(EMPTY, confirmed=True) is None
    assert machine.polls(EMPTY, EMPTY) == ["", ""]


def test_a_confirmation_is_for_what_was_seen_with_it() -> None:
    """G3: it does not confirm the next danger in advance."""
    machine = Machine()
    assert machine.poll(listing(bad=[1]), confirmed=True) is None
    assert machine.polls(EMPTY) == ["empty_listing"]
    assert machine.poll(listing(0), confirmed=True) is None
    assert machine.polls(EMPTY) == ["empty_listing"]


LOCKED = WOULD_LOCK_OUT["only a forced command would be left"]
APPLIED = line(0, options=FORCED, managed=False)


def test_what_a_confirmed_listing_took_is_taken_again_at_once() -> None:
    """R5 and G3: the listing was seen in N polls in a row, so nothing waits when it comes back."""
    machine = Machine(files={"root": [LOCKED]})
    assert machine.polls(*[listing(0)] * 3) == ["would_lock_out"] * 2 + [""]
    machine.files = {"root": [APPLIED]}
    assert machine.polls(listing(0), listing(0)) == ["", ""]
    machine.files = {"root": [LOCKED]}
    assert machine.polls(listing(0)) == [""]


def test_a_row_that_was_too_short_is_broken_when_the_danger_is_over() -> None:
    """G3: in a row."""
    machine = Machine(files={"root": [LOCKED]})
    assert machine.polls(listing(0), listing(0)) == ["would_lock_out"] * 2
    machine.files = {"root": [APPLIED]}
    assert machine.polls(listing(0)) == [""]
    machine.files = {"root": [LOCKED]}
    assert machine.polls(listing(0)) == ["would_lock_out"]


def test_another_listing_ends_what_was_confirmed() -> None:
    """G3: the confirmation is of one listing."""
    machine = Machine(files={"root": [LOCKED]})
    machine.polls(*[listing(0)] * 3)
    machine.files = {"root": [APPLIED]}
    assert machine.polls(listing(0, 2), listing(0)) == ["", ""]
    machine.files = {"root": [LOCKED]}
    assert machine.polls(listing(0)) == ["would_lock_out"]


def test_an_entry_that_becomes_usable_makes_another_listing() -> None:
    """G3: the same keys, refused before and accepted now, are not what was confirmed."""
    machine = Machine(files={"root": [line(1, managed=False)]})
    assert machine.polls(*[listing(bad=[0])] * 3) == ["no_valid_entry"] * 2 + [""]
    assert machine.polls(listing(0), listing(bad=[0])) == ["", "no_valid_entry"]


def test_a_confirmation_shortens_no_row() -> None:
    """G3: polls that were seen stay counted when the operator confirms, too."""
    machine = Machine(1)
    machine.polls(*[EMPTY] * 4)
    machine.poll(EMPTY, confirmed=True)
    machine.confirmations = 5
    assert machine.polls(EMPTY) == [""]


polls = st.lists(
    st.tuples(
        st.sampled_from((EMPTY, listing(bad=[1]), listing(bad=[2]), listing(0))), st.booleans()
    )
)


@given(polls, st.integers(1, 4))
def test_held_exactly_until_confirmed(seen: list[tuple[Listing, bool]], needed: int) -> None:
    """G3: held while the same danger was seen fewer than N times in a row and not confirmed."""
    machine = Machine(needed)
    row: list[tuple[Listing, bool]] = []
    for one, confirmed in seen:
        row = [*row, (one, confirmed)] if row and row[-1][0] == one else [(one, confirmed)]
        dangerous = not one.keys
        passes = len(row) >= needed or any(yes for _, yes in row)
        assert (machine.poll(one, confirmed=confirmed) is not None) == (dangerous and not passes)
        assert (machine.ledger.hold is not None) == dangerous


# ---- G4 ----


def test_the_first_listing_is_of_the_right_account() -> None:
    """G4: the `user_id` of the first accepted listing is what is remembered."""
    assert judge_account(listing(0), Ledger(), None) is None
    assert Ledger().accept(listing(0), "now").account_id == 7


def test_a_listing_of_the_same_account_passes() -> None:
    """G4: only another account's is refused."""
    assert judge_account(listing(0), Ledger(account_id=7), None) is None


def test_a_listing_of_another_account_is_refused() -> None:
    """G4: swapping the API key must not hand the machine to a stranger."""
    held = judge_account(listing(0, account=8), Ledger(account_id=7), None)
    assert held is not None
    assert (held.kind, held.hold) == ("account_changed", None)
    assert "account 8" in held.message
    assert "account 7" in held.message
    assert "--accept-account 8" in held.hint


def test_the_operator_accepts_the_other_account_by_its_id() -> None:
    """G4: `keysync sync --accept-account ID`."""
    assert judge_account(listing(0, account=8), Ledger(account_id=7), 8) is None


@pytest.mark.parametrize("seen", [7, 9])
def test_accepting_one_account_accepts_no_other(seen: int) -> None:
    """G4: the id must be that of the listing, not even the old one passes by a slip."""
    held = judge_account(listing(0, account=seen), Ledger(account_id=7), 8)
    assert held is not None
    assert held.kind == "account_changed"


def test_an_account_may_be_demanded_before_the_first_listing() -> None:
    """G4: the id given is the one expected, also when none is remembered yet."""
    assert judge_account(listing(0, account=8), Ledger(), 8) is None
    assert judge_account(listing(0, account=7), Ledger(), 8) is not None


@pytest.mark.parametrize("accepted", [None, 7])
def test_a_list_that_does_not_say_whose_it_is_is_refused(accepted: int | None) -> None:
    """G4 and G1: only a listing of the expected account changes anything."""
    for seen in (listing(0, account=None), listing(bad=[0], account=None)):
        held = judge_account(seen, Ledger(account_id=7), accepted)
        assert held is not None
        assert (held.kind, held.hold) == ("account_unknown", None)
        assert judge_account(seen, Ledger(), None) is None


def test_an_empty_list_names_nobody_and_is_the_lockout_guards() -> None:
    """G3 before G4: an empty list cannot say whose it is, and is held for its own reason."""
    assert judge_account(EMPTY, Ledger(account_id=7), None) is None
    assert Machine(ledger=Ledger(account_id=7)).polls(EMPTY) == ["empty_listing"]


def test_deleted_entries_still_name_their_account() -> None:
    """G4: an empty list of a stranger is refused as a stranger's when it says so."""
    held = judge_account(Listing((), (), 8), Ledger(account_id=7), None)
    assert held is not None
    assert held.kind == "account_changed"
