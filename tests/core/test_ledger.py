"""What outlives a cycle: which keys the account held, and when it let go of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.ledger import Failure, Hold, KnownKey, Ledger, TargetOutcome
from agent.core.listing import Listing, RejectedEntry
from tests.core.support import ed25519, listed

KEYS = tuple(map(ed25519, range(4)))
FINGERPRINTS = tuple(key.fingerprint for key in KEYS)


def listing(*numbers: int, bad: Sequence[int] = (), account: int | None = 7) -> Listing:
    """A listing of some keys, and of some that stand in entries that are refused."""
    keys = tuple(listed(KEYS[at], f"key {at}", 10 + at) for at in numbers)
    rejected = tuple(
        RejectedEntry(90 + at, "options", "…", frozenset({FINGERPRINTS[at]})) for at in bad
    )
    return Listing(keys, rejected, account)


def after(*seen: Listing) -> Ledger:
    """The ledger after these listings, each accepted on its own day."""
    ledger = Ledger()
    for day, one in enumerate(seen, 1):
        ledger = ledger.accept(one, f"day {day}")
    return ledger


def revoked(ledger: Ledger) -> dict[str, str]:
    return {f: key.revoked_at for f, key in ledger.keys.items() if key.revoked_at is not None}


def test_nothing_is_known_at_first() -> None:
    """R5: only what a verified listing once held can be revoked."""
    assert Ledger().known == {}
    assert Ledger() == Ledger(None, {}, (), None, None, None, ())


def test_a_listed_key_is_known() -> None:
    """R5 and section 10: id, fingerprint, comment, and since when."""
    assert after(listing(0)).keys == {
        FINGERPRINTS[0]: KnownKey(FINGERPRINTS[0], "ssh-ed25519", "key 0", 10, "day 1", None)
    }
    assert after(listing(0, 1)).known == {FINGERPRINTS[0]: 10, FINGERPRINTS[1]: 11}


def test_a_key_that_is_no_longer_listed_is_revoked_since_then() -> None:
    """R5: and it stays known, with the day of its end."""
    ledger = after(listing(0, 1), listing(1), listing(1))
    assert revoked(ledger) == {FINGERPRINTS[0]: "day 2"}
    assert ledger.known[FINGERPRINTS[0]] == 10


def test_a_key_listed_again_is_no_longer_revoked() -> None:
    """R5: adding it back is a decision on the console, too; it is known since its first day."""
    ledger = after(listing(0, 1), listing(1), listing(0, 1))
    assert revoked(ledger) == {}
    assert ledger.keys[FINGERPRINTS[0]].first_listed == "day 1"
    assert (
        revoked(after(listing(0), listing(1), listing(0), listing(1)))[FINGERPRINTS[0]] == "day 4"
    )


def test_a_renamed_key_is_the_same_key() -> None:
    """Section 2: comment and id are only what is shown of it."""
    ledger = after(listing(0)).accept(Listing((listed(KEYS[0], "new name", 99),), (), 7), "day 2")
    assert ledger.keys[FINGERPRINTS[0]] == KnownKey(
        FINGERPRINTS[0], "ssh-ed25519", "new name", 99, "day 1", None
    )


def test_keys_in_refused_entries_are_known_and_revoked_as_others() -> None:
    """R5: the platform may have written them at creation, so their deletion must count."""
    ledger = after(listing(0, bad=[1]))
    assert ledger.known == {FINGERPRINTS[0]: 10, FINGERPRINTS[1]: 91}
    assert revoked(ledger) == {}
    assert revoked(ledger.accept(listing(0), "day 2")) == {FINGERPRINTS[1]: "day 2"}


def test_a_key_that_is_refused_from_now_on_is_not_revoked() -> None:
    """R5: it is still on the console."""
    assert revoked(after(listing(0, 1), listing(0, bad=[1]))) == {}


def test_a_key_both_valid_and_refused_is_shown_as_the_valid_one() -> None:
    """G2: a bad entry never spoils a good one."""
    assert after(listing(0, bad=[0])).keys[FINGERPRINTS[0]].comment == "key 0"


def test_an_empty_listing_revokes_all() -> None:
    """R5 behind G3: once it is applied, nothing of the account is left."""
    ledger = after(listing(0, bad=[1]), Listing((), (), None))
    assert revoked(ledger).keys() == set(FINGERPRINTS[:2])
    assert ledger.account_id == 7


def test_the_account_of_the_first_listing_is_kept() -> None:
    """G4: of the first that names one."""
    assert after(listing(0, account=None)).account_id is None
    assert after(listing(0, account=None), listing(0), listing(0, account=8)).account_id == 7


def test_the_rejected_entries_are_those_of_the_last_listing() -> None:
    """Section 7, `status`: rejected entries as they are now."""
    ledger = after(listing(0, bad=[1]), listing(0, bad=[2]))
    assert [entry.key_id for entry in ledger.rejected] == [92]
    assert after(listing(0, bad=[1]), listing(0)).rejected == ()


def test_accepting_a_listing_touches_nothing_else() -> None:
    """Section 10: times, failures, targets and the hold are the cycle's to write."""
    hold = Hold("empty_listing", "digest", 1, 3)
    failure = Failure("day 0", "server_error", "…", "…")
    targets = (TargetOutcome("root", "/root/.ssh/authorized_keys", "in_sync", "day 0"),)
    before = Ledger(7, {}, (), hold, "day 0", failure, targets)
    ledger = before.accept(listing(0), "day 1")
    assert (ledger.hold, ledger.last_success, ledger.last_failure, ledger.targets) == (
        hold,
        "day 0",
        failure,
        targets,
    )
    assert before.keys == {}


def test_a_listing_that_was_only_held_makes_its_keys_known() -> None:
    """R5: a key that is deleted before the listing was ever applied does not stay for ever."""
    held = Ledger().saw(listing(0, bad=[1]), "day 1")
    assert held.known == {FINGERPRINTS[0]: 10, FINGERPRINTS[1]: 91}
    assert revoked(held.accept(listing(2), "day 2")) == dict.fromkeys(FINGERPRINTS[:2], "day 2")


def test_a_listing_that_was_only_held_changes_nothing_else() -> None:
    """G3: it is not accepted: no key is revoked or comes back, and no account is pinned."""
    before = after(listing(0, 1), listing(1))
    assert before.saw(listing(0), "day 3") == before
    assert Ledger().saw(listing(0), "day 1").account_id is None


TARGETS = (
    TargetOutcome("root", "/a", "in_sync", "2026-01-02T00:00:00Z"),
    TargetOutcome("root", "/b", "failed", "2026-01-02T00:00:00Z"),
    TargetOutcome("user", "/c", "changed", "2026-01-02T00:00:00Z"),
    TargetOutcome("user", "", "failed", "2026-01-02T00:00:00Z"),
)


def test_the_files_of_a_user_are_those_that_were_served() -> None:
    """Section 10: a target whose file could not be found out has no path."""
    ledger = Ledger(targets=TARGETS)
    assert (ledger.paths("root"), ledger.paths("user"), ledger.paths("x")) == (
        ("/a", "/b"),
        ("/c",),
        (),
    )


def test_the_last_outcome_of_each_file() -> None:
    """Section 10: per-target result."""
    ledger = Ledger(targets=TARGETS)
    assert ledger.outcome("root", "/b") == TARGETS[1]
    assert ledger.outcome("user", "/b") is None
    assert ledger.outcome("root", "/x") is None


@pytest.mark.parametrize(
    ("user", "path", "since", "well"),
    [
        ("root", "/a", "2026-01-02T00:00:00Z", True),
        ("root", "/a", "2026-01-01T23:59:59Z", True),
        ("root", "/a", "2026-01-02T00:00:01Z", False),
        ("user", "/c", "2026-01-01T00:00:00Z", True),
        ("root", "/b", "2026-01-01T00:00:00Z", False),
        ("root", "/x", "2026-01-01T00:00:00Z", False),
    ],
)
def test_a_file_was_well_since(user: str, path: str, since: str, *, well: bool) -> None:
    """R5: a key came back only to a file from which it was gone after its revocation."""
    assert Ledger(targets=TARGETS).was_well(user, path, since) is well


def test_a_success_solves_the_last_failure_once() -> None:
    """Section 7, `status`: last success, last error, and since when it is over."""
    failure = Failure("day 1", "server_error", "…", "…")
    ledger = Ledger(last_failure=failure).succeeded("day 2")
    assert ledger == Ledger(last_success="day 2", last_failure=replace(failure, solved_at="day 2"))
    assert ledger.succeeded("day 3") == replace(ledger, last_success="day 3")
    assert Ledger().succeeded("day 1") == Ledger(last_success="day 1")


@pytest.mark.parametrize(("seen", "confirmed"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_hold_is_confirmed_when_seen_often_enough(seen: int, *, confirmed: bool) -> None:
    """G3: in `removal_confirmations` polls in a row."""
    assert Hold("empty_listing", "digest", seen, 3).confirmed is confirmed


listings = st.builds(
    lambda valid, bad: listing(*valid, bad=sorted(bad)),
    st.frozensets(st.integers(0, 3)).map(sorted),
    st.frozensets(st.integers(0, 3), max_size=1),
)


@given(st.lists(listings, min_size=1, max_size=8))
def test_the_ledger_tells_the_history_of_every_key(seen: list[Listing]) -> None:
    """R5: known is what was ever on the console; revoked is what is not there now, since when."""
    ledger = after(*seen)
    held = [one.present for one in seen]
    assert ledger.known.keys() == frozenset().union(*held)
    for fingerprint, key in ledger.keys.items():
        days = [day for day, present in enumerate(held, 1) if fingerprint in present]
        assert key.first_listed == f"day {days[0]}"
        gone = None if days[-1] == len(held) else f"day {days[-1] + 1}"
        assert key.revoked_at == gone
