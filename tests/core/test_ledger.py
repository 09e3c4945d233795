"""What outlives a cycle: which keys the account held, and when it let go of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.known_keys import MAX_KNOWN_KEYS, MAX_REFUSED_KEYS, KnownKey
from agent.core.ledger import (
    ALL_TARGETS,
    MAX_REJECTED,
    Failure,
    Hold,
    Ledger,
    Retired,
    TargetOutcome,
    WaitingKey,
)
from agent.core.listing import MAX_ENTRIES, ListedKey, Listing, RejectedEntry
from agent.core.public_key import PublicKey
from agent.core.times import Moment, time_text
from tests.core.support import ed25519, listed

KEYS = tuple(map(ed25519, range(4)))
FINGERPRINTS = tuple(key.fingerprint for key in KEYS)
EMPTY = Listing((), (), None)


def listing(*numbers: int, bad: Sequence[int] = (), account: int | None = 7) -> Listing:
    """A listing of some keys, and of some that stand in entries that are refused."""
    keys = tuple(listed(KEYS[at], f"key {at}", 10 + at) for at in numbers)
    rejected = tuple(
        RejectedEntry(90 + at, "options", "…", frozenset({FINGERPRINTS[at]})) for at in bad
    )
    return Listing(keys, rejected, account)


def moment(day: int) -> Moment:
    return Moment(f"2026-01-{day:02}T00:00:00Z", "b1", day * 86400.0)


def day(number: int) -> str:
    return moment(number).at


def after(*seen: Listing) -> Ledger:
    """The ledger after these listings, each applied on its own day."""
    ledger = Ledger()
    for number, one in enumerate(seen, 1):
        ledger = ledger.apply_listing(one, (), day(number))
    return ledger


def revoked(ledger: Ledger) -> dict[str, str]:
    return {f: key.revoked_at for f, key in ledger.keys.items() if key.revoked_at is not None}


def accepted(ledger: Ledger) -> dict[str, str]:
    return {
        f: key.accepted_at for f, key in ledger.keys.items() if key.accepted_at and key.is_accepted
    }


# ---- R5: which keys the account held ----


def test_nothing_is_known_at_first() -> None:
    """R5: only what a verified listing once held can be revoked."""
    assert Ledger().previously_listed == {}
    assert Ledger().account_id is None


def test_a_listed_key_is_known() -> None:
    """R5 and state: id, fingerprint, comment, and since when."""
    assert after(listing(0)).keys == {
        FINGERPRINTS[0]: KnownKey(
            FINGERPRINTS[0], "ssh-ed25519", "key 0", 10, day(1), None, accepted_at=day(1)
        )
    }
    assert after(listing(0, 1)).previously_listed == {FINGERPRINTS[0]: 10, FINGERPRINTS[1]: 11}


def test_a_key_that_is_no_longer_listed_is_revoked_since_then() -> None:
    """R5: and it stays known, with the day of its end."""
    ledger = after(listing(0, 1), listing(1), listing(1))
    assert revoked(ledger) == {FINGERPRINTS[0]: day(2)}
    assert ledger.revoked == {FINGERPRINTS[0]}
    assert ledger.previously_listed[FINGERPRINTS[0]] == 10


def test_a_key_listed_again_is_no_longer_revoked() -> None:
    """R5: adding it back is a decision on the console, too; it is known since its first day."""
    ledger = after(listing(0, 1), listing(1), listing(0, 1))
    assert (revoked(ledger), ledger.revoked) == ({}, frozenset())
    assert ledger.keys[FINGERPRINTS[0]].first_listed == day(1)
    again = after(listing(0), listing(1), listing(0), listing(1))
    assert revoked(again)[FINGERPRINTS[0]] == day(4)


def test_a_renamed_key_is_the_same_key() -> None:
    """Comment and id are only what is shown of it."""
    renamed = Listing((listed(KEYS[0], "new name", 99),), (), 7)
    ledger = after(listing(0)).apply_listing(renamed, (), day(2))
    assert ledger.keys[FINGERPRINTS[0]] == KnownKey(
        FINGERPRINTS[0], "ssh-ed25519", "new name", 99, day(1), None, accepted_at=day(1)
    )


def test_keys_in_refused_entries_are_known_and_revoked_as_others() -> None:
    """R5: the platform may have written them at creation, so their deletion must count."""
    ledger = after(listing(0, bad=[1]))
    assert ledger.previously_listed == {FINGERPRINTS[0]: 10, FINGERPRINTS[1]: 91}
    assert not ledger.keys[FINGERPRINTS[1]].was_usable
    assert revoked(ledger) == {}
    assert revoked(ledger.apply_listing(listing(0), (), day(2))) == {FINGERPRINTS[1]: day(2)}


def test_a_key_that_is_refused_from_now_on_is_not_revoked() -> None:
    """R5: it is still on the console, and keeps the name that it had."""
    ledger = after(listing(0, 1), listing(0, bad=[1]))
    assert revoked(ledger) == {}
    assert ledger.keys[FINGERPRINTS[1]].comment == "key 1"


def test_a_key_both_valid_and_refused_is_shown_as_the_valid_one() -> None:
    """G2: a bad entry never spoils a good one."""
    assert after(listing(0, bad=[0])).keys[FINGERPRINTS[0]].comment == "key 0"


def test_an_empty_listing_revokes_all() -> None:
    """R5 behind G3: once it is applied, nothing of the account is left."""
    ledger = after(listing(0, bad=[1]), EMPTY)
    assert revoked(ledger).keys() == set(FINGERPRINTS[:2])
    assert ledger.account_id == 7


def test_the_account_of_the_first_listing_is_kept() -> None:
    """G4: of the first that names one."""
    assert after(listing(0, account=None)).account_id is None
    assert after(listing(0, account=None), listing(0), listing(0, account=8)).account_id == 7


def test_the_rejected_entries_are_those_of_the_last_listing() -> None:
    """Commands, `status`: rejected entries as they are now."""
    ledger = after(listing(0, bad=[1]), listing(0, bad=[2]))
    assert [entry.key_id for entry in ledger.rejected] == [92]
    assert after(listing(0, bad=[1]), listing(0)).rejected == ()


def test_applying_a_listing_touches_nothing_else() -> None:
    """State: times, failures, targets and holds are the cycle's to write."""
    before = Ledger(
        account_id=7,
        holds={ALL_TARGETS: Hold("empty_listing", 1, 3, 300.0, 0.0, day(1), moment(1))},
        waiting=(WaitingKey("SHA256:w", "ssh-ed25519", "", 5, day(1)),),
        retired=(Retired("al", "/a", day(1)),),
        last_success=moment(1),
        last_failure=Failure(moment(1), day(1), "server_error", "…", "…"),
        targets=(TargetOutcome("root", "/root/.ssh/authorized_keys", "in_sync", day(1)),),
    )
    ledger = before.apply_listing(listing(0), (), day(2))
    assert replace(ledger, keys={}) == before
    assert before.keys == {}


# ---- G11: recorded before it is applied ----


def test_a_recorded_listing_makes_its_keys_known_and_accepts_none() -> None:
    """G11: known before it enters a file; not accepted, so G14 still asks about it."""
    recorded = Ledger().record_listing(listing(0, bad=[1]), day(1))
    assert recorded.previously_listed == {FINGERPRINTS[0]: 10, FINGERPRINTS[1]: 91}
    assert accepted(recorded) == {}
    assert recorded.account_id is None


def test_a_listing_that_was_only_recorded_can_be_revoked() -> None:
    """R5: a key that is deleted before the listing was ever applied does not stay for ever."""
    recorded = Ledger().record_listing(listing(0, bad=[1]), day(1))
    ledger = recorded.apply_listing(listing(2), (), day(2))
    assert revoked(ledger) == dict.fromkeys(FINGERPRINTS[:2], day(2))


def test_recording_revokes_nothing_and_brings_nothing_back() -> None:
    """G3: a listing that is held changes what is known, and nothing about what is applied."""
    before = after(listing(0, 1), listing(1))
    assert before.record_listing(listing(0), day(3)) == before


def test_a_key_seen_in_a_refused_entry_gets_its_name_when_it_is_usable() -> None:
    """G2: and stays known since the day when the console first held it."""
    ledger = after(listing(bad=[0])).record_listing(listing(0), day(2))
    key = ledger.keys[FINGERPRINTS[0]]
    assert (key.comment, key.key_id, key.first_listed) == ("key 0", 10, day(1))


def test_what_the_ledger_does_not_know_yet() -> None:
    """G11: only new keys cost a write before the files."""
    ledger = after(listing(0))
    assert ledger.missing_from(listing(0, bad=[2])) == frozenset()
    assert ledger.missing_from(listing(0, 1)) == {FINGERPRINTS[1]}


# ---- G14: accepted keys ----


def test_a_key_that_waits_is_not_accepted() -> None:
    """G14: it is known (R5), and accepted on the day when it is let in."""
    ledger = Ledger().apply_listing(listing(0, 1), [FINGERPRINTS[1]], day(1))
    assert accepted(ledger) == {FINGERPRINTS[0]: day(1)}
    ledger = ledger.apply_listing(listing(0, 1), (), day(2))
    assert accepted(ledger) == {FINGERPRINTS[0]: day(1), FINGERPRINTS[1]: day(2)}


def test_a_revocation_ends_the_acceptance() -> None:
    """G14: a key that comes back after it was deleted has to be accepted again."""
    gone = after(listing(0, 1), listing(1))
    assert accepted(gone).keys() == {FINGERPRINTS[1]}
    waits = gone.apply_listing(listing(0, 1), [FINGERPRINTS[0]], day(3))
    assert accepted(waits).keys() == {FINGERPRINTS[1]}
    back = gone.apply_listing(listing(0, 1), (), day(3))
    assert accepted(back)[FINGERPRINTS[0]] == day(3)


def test_a_key_in_a_refused_entry_is_not_accepted() -> None:
    """G14: it never entered; one that had entered before stays accepted."""
    assert accepted(after(listing(bad=[0]))) == {}
    assert accepted(after(listing(0), listing(bad=[0]))) == {FINGERPRINTS[0]: day(1)}


def test_a_revoked_key_in_a_refused_entry_stays_revoked() -> None:
    """R5: whoever holds the account's API key does not bring it back by quoting it in junk."""
    gone = after(listing(0, 1), listing(1))
    ledger = gone.apply_listing(listing(1, bad=[0]), (), day(3))
    assert ledger.keys == gone.keys
    assert gone.still_listed(listing(1, bad=[0]), frozenset()) == {FINGERPRINTS[1]}
    back = ledger.apply_listing(listing(0, 1, bad=[0]), (), day(4))
    assert (revoked(back), accepted(back)[FINGERPRINTS[0]]) == ({}, day(4))


def test_a_revoked_key_that_waits_stays_revoked_until_it_is_confirmed() -> None:
    """G14, R5: also when the list drops it and holds it again; the new name is shown."""
    renamed = Listing((listed(KEYS[0], "new", 99), *listing(1).keys), (), 7)
    ledger = after(listing(0, 1), listing(1))
    for seen, number in ((renamed, 3), (listing(1), 4), (renamed, 5)):
        ledger = ledger.apply_listing(seen, [FINGERPRINTS[0]], day(number))
        assert ledger.still_listed(seen, frozenset(FINGERPRINTS[:1])) == {FINGERPRINTS[1]}
        assert revoked(ledger) == {FINGERPRINTS[0]: day(2)}
    assert (ledger.keys[FINGERPRINTS[0]].comment, ledger.previously_listed[FINGERPRINTS[0]]) == (
        "new",
        99,
    )
    confirmed = ledger.accepting(FINGERPRINTS[:3], day(6))  # one is accepted, one is not known
    assert (revoked(confirmed), accepted(confirmed)[FINGERPRINTS[1]]) == ({}, day(1))
    assert confirmed.still_listed(renamed, frozenset()) == set(FINGERPRINTS[:2])


def test_a_revoked_key_known_from_refused_entries_stays_revoked_while_it_waits() -> None:
    """R5 and G14: that it is usable for the first time is no confirmation."""
    ledger = after(listing(0, bad=[1]), listing(0))
    (gone,) = revoked(ledger)
    waits = ledger.apply_listing(listing(0, 1), {gone}, day(3))
    assert set(revoked(ledger.record_listing(listing(0, 1), day(3)))) == {gone}
    assert set(revoked(waits)) == {gone}
    assert not revoked(waits.apply_listing(listing(0, 1), (), day(4)))


def test_a_key_that_waits_and_never_went_is_not_revoked() -> None:
    """G14: it keeps a line that it has; once dropped, it is as any other deleted key."""
    waits = Ledger().apply_listing(listing(0), FINGERPRINTS[:1], day(1))
    assert waits.still_listed(listing(0), frozenset(FINGERPRINTS[:1])) == {FINGERPRINTS[0]}
    assert revoked(waits) == {}
    again = waits.apply_listing(listing(1), (), day(2)).apply_listing(
        listing(0, 1), FINGERPRINTS[:1], day(3)
    )
    assert revoked(again) == {FINGERPRINTS[0]: day(2)}


# ---- G2: the key that an entry held before ----


def test_the_keys_that_an_id_held() -> None:
    """G2: usable ones that are on the console; an entry without an id protects nothing."""
    ledger = after(listing(0, 1, 2, bad=[3]), listing(1, 2, bad=[3]))
    assert ledger.keys_with_id([10, 11, 93, None]) == {FINGERPRINTS[1]}
    without_id = after(Listing((listed(KEYS[0]),), (), 7))
    assert without_id.keys_with_id([None]) == frozenset()


def test_a_protected_key_is_not_revoked() -> None:
    """G2: an entry refused for its form does not revoke the key that its id held before."""
    before = after(listing(0, 1))
    garbled = Listing(listing(0).keys, (RejectedEntry(11, "not_a_key", "…"),), 7)
    protected = garbled.protecting(before.keys_with_id(garbled.malformed_ids))
    ledger = before.apply_listing(protected, (), day(2))
    assert (revoked(ledger), accepted(ledger)) == ({}, accepted(before))
    again = garbled.protecting(ledger.keys_with_id(garbled.malformed_ids))
    assert ledger.apply_listing(again, (), day(3)) == ledger
    assert revoked(ledger.apply_listing(listing(0), (), day(3))) == {FINGERPRINTS[1]: day(3)}


# ---- G12: bounds ----


def many(count: int, first: int = 0) -> list[RejectedEntry]:
    """Refused entries, each with its own id and key."""
    return [
        RejectedEntry(at, "options", "…", frozenset({f"SHA256:{at:05}"}))
        for at in range(first, first + count)
    ]


def test_refused_entries_with_changing_ids_do_not_make_the_ledger_grow() -> None:
    """Incident 18: 5,000 new bad entries in every poll."""
    ledger = Ledger()
    for number in range(1, 6):
        bad = many(5_000, number * 5_000)
        ledger = ledger.apply_listing(Listing(listing(0).keys, tuple(bad), 7), (), day(number))
        assert len(ledger.rejected) == MAX_REJECTED
        assert len(ledger.keys) == MAX_REFUSED_KEYS + 1
        assert all(entry.fingerprints == frozenset() for entry in ledger.rejected)
    assert FINGERPRINTS[0] in ledger.keys


def test_the_same_refused_entries_change_nothing() -> None:
    """R7 and incident 18: a list beyond the bounds is not written anew in each poll."""
    flood = Listing(listing(0).keys, tuple(many(1_000)), 7)
    ledger = Ledger().apply_listing(flood, (), day(1))
    turned = replace(flood, rejected=tuple(reversed(flood.rejected)))
    assert ledger.apply_listing(flood, (), day(2)) == ledger
    assert ledger.apply_listing(turned, (), day(3)).keys == ledger.keys


def revoked_keys(count: int) -> dict[str, KnownKey]:
    """Keys that were revoked one after the other, the first of them first."""
    return {
        f"SHA256:{at:05}": KnownKey(
            f"SHA256:{at:05}", "ssh-rsa", "", at, _second(at), _second(at + 3600), _second(at)
        )
        for at in range(count)
    }


def _second(number: int) -> str:
    return time_text(datetime(2025, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=number))


def test_of_too_many_keys_the_longest_revoked_is_forgotten() -> None:
    """G12: a listed key never, while a revoked one can go."""
    old = revoked_keys(MAX_KNOWN_KEYS - 1)
    before = Ledger(keys=dict(reversed(old.items())))
    ledger = before.apply_listing(listing(0, 1, 2), (), day(1))
    assert ledger.keys.keys() == {*FINGERPRINTS[:3], *sorted(old)[2:]}
    assert ledger.forgotten_since(before) == 2
    assert ledger.forgotten_since(ledger) == 0


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({}, False),
        ({"revoked_at": day(9)}, True),
        ({"accepted_at": None, "revoked_at": day(9)}, False),
        ({"first_listed": "a wrong clock's"}, False),
        ({"first_listed": day(9)}, False),
    ],
)
def test_a_flood_of_keys_evicts_no_key_of_long_standing(
    change: dict[str, str | None], *, stays: bool
) -> None:
    """G12, R5: what was listed for long, and accepted, outlives what somebody lists and deletes."""
    own = KnownKey("SHA256:own", "ssh-rsa", "", 1, _second(0), _second(3600), _second(0))
    own = own._replace(**change)  # type: ignore[arg-type]  # reason: all of these are texts
    flood = revoked_keys(MAX_KNOWN_KEYS + 1)
    del flood["SHA256:00000"]
    ledger = Ledger(keys={**flood, own.fingerprint: own}).record_listing(listing(), day(10))
    assert len(ledger.keys) == MAX_KNOWN_KEYS
    assert (own.fingerprint in ledger.keys) is stays


def test_lists_as_long_as_may_be_make_no_deleted_key_forgotten() -> None:
    """G12, R5: three of them, all of valid keys, one after the other."""
    ledger = after(listing(0), listing(1))
    for number in (3, 4, 5):
        flood = tuple(
            ListedKey(PublicKey("ssh-ed25519", b"%d %d" % (number, at), 256), "", at)
            for at in range(MAX_ENTRIES)
        )
        ledger = ledger.apply_listing(Listing(flood, (), 7), (), f"2026-01-02T00:0{number}:00Z")
        assert FINGERPRINTS[0] in revoked(ledger)
    assert len(ledger.keys) == MAX_KNOWN_KEYS


def test_a_key_that_was_deleted_just_now_is_not_the_one_to_forget() -> None:
    """R5 and G12: it was listed before the others went, but no file has lost it yet."""
    first_of_all = listing(0)
    ledger = Ledger().apply_listing(first_of_all, (), "2024-01-01T00:00:00Z")
    ledger = replace(ledger, keys={**ledger.keys, **revoked_keys(MAX_KNOWN_KEYS - 1)})
    ledger = ledger.record_listing(listing(1), day(4))
    assert ledger.keys.keys() >= set(FINGERPRINTS[:2])
    assert len(ledger.keys) == MAX_KNOWN_KEYS


def test_a_listing_never_holds_more_keys_than_the_ledger_can_remember() -> None:
    """G11: every key is recorded before it enters, however many there are."""
    assert 2 * MAX_ENTRIES < MAX_KNOWN_KEYS  # and as many deleted ones, and more


# ---- how cycles end ----

TARGETS = (
    TargetOutcome("root", "/a", "in_sync", day(2)),
    TargetOutcome("root", "/b", "failed", day(2)),
    TargetOutcome("user", "/c", "changed", day(2)),
    TargetOutcome("user", "", "failed", day(2)),
)


def test_the_last_outcome_of_each_file() -> None:
    """State: per-target result."""
    ledger = Ledger(targets=TARGETS)
    assert ledger.outcome("root", "/b") == TARGETS[1]
    assert ledger.outcome("user", "/b") is None
    assert ledger.outcome("root", "/x") is None


@pytest.mark.parametrize(
    ("user", "path", "well"),
    [("root", "/a", True), ("user", "/c", True), ("root", "/b", False), ("root", "/x", False)],
)
def test_whether_a_file_was_in_sync(user: str, path: str, *, well: bool) -> None:
    """R5: a key came back only to a file from which it was gone."""
    assert Ledger(targets=TARGETS).was_in_sync(user, path) is well


def test_what_stays_in_sync_keeps_its_time() -> None:
    """R7: a second sync leaves an equal ledger, so that nothing is written."""
    first = Ledger().with_outcomes([TargetOutcome("root", "/a", "changed", day(1))])
    again = first.with_outcomes([TargetOutcome("root", "/a", "in_sync", day(2))])
    assert again == first
    failed = [TargetOutcome("root", "/a", "failed", day(3))]
    assert first.with_outcomes(failed).targets == tuple(failed)
    later = [TargetOutcome("root", "/a", "failed", day(4))]
    assert first.with_outcomes(failed).with_outcomes(later).targets == tuple(failed)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, TargetOutcome("root", "/a", "in_sync", day(2))),
        (
            TargetOutcome("root", "/a", "in_sync", day(1)),
            TargetOutcome("root", "/a", "changed", day(2)),
        ),
        (
            TargetOutcome("root", "/a", "changed", day(1)),
            TargetOutcome("root", "/a", "changed", day(2)),
        ),
        (
            TargetOutcome("root", "/a", "failed", day(1)),
            TargetOutcome("root", "/a", "in_sync", day(2)),
        ),
        (
            TargetOutcome("root", "/a", "in_sync", day(1)),
            TargetOutcome("root", "/a", "in_sync", day(2), "retired"),
        ),
    ],
)
def test_what_is_different_now_has_its_own_time(
    before: TargetOutcome | None, now: TargetOutcome
) -> None:
    """State: a change, a recovery, and a target that is served for another reason."""
    ledger = Ledger(targets=(before,) if before else ())
    assert ledger.with_outcomes([now]).targets == (now,)


def test_outcomes_are_those_of_this_cycle() -> None:
    """R5: a file that is served no more is retired, and is not remembered as a target."""
    assert Ledger(targets=TARGETS).with_outcomes(TARGETS[:1]).targets == TARGETS[:1]


def test_the_files_of_a_user_who_could_not_be_found_are_remembered() -> None:
    """R5: so that they are retired when the user is no target any more. They are not called right
    meanwhile: a key that is deleted then has not come back.
    """
    lost = TargetOutcome("user", "", "failed", day(3))
    after = Ledger(targets=TARGETS[:3]).with_outcomes([TARGETS[0], lost])
    file = TargetOutcome("user", "/c", "failed", day(3))
    assert after.targets == (TARGETS[0], lost, file)
    assert not after.was_in_sync("user", "/c")
    again = [TARGETS[0], TargetOutcome("user", "", "failed", day(4))]
    assert after.with_outcomes(again) == after  # R7
    found = TargetOutcome("user", "/c", "in_sync", day(5))
    assert after.with_outcomes([found]).targets == (found,)
    also = TargetOutcome("user", "/c", "in_sync", day(5), "retired")
    assert after.with_outcomes([lost, also]).targets == (lost, also)


def test_a_success_solves_the_last_failure_once() -> None:
    """Commands, `status`: last success, last error, and since when it is over."""
    failure = Failure(moment(1), day(1), "server_error", "…", "…")
    ledger = Ledger(last_failure=failure).succeeded(moment(2))
    assert ledger == Ledger(last_success=moment(2), last_failure=failure._replace(solved_at=day(2)))
    assert ledger.succeeded(moment(3)) == replace(ledger, last_success=moment(3))
    assert Ledger().succeeded(moment(1)) == Ledger(last_success=moment(1))


def test_the_same_failure_again_changes_nothing() -> None:
    """R7: an outage writes its beginning, and not each of its polls."""
    first = Ledger().failed("timeout", "…", "wait", moment(1))
    assert first.last_failure == Failure(moment(1), day(1), "timeout", "…", "wait")
    assert first.failed("timeout", "…", "wait", moment(2)) == first


def test_another_failure_goes_on_with_the_streak() -> None:
    """Logs: failing since the first of them."""
    ledger = Ledger().failed("timeout", "…", "wait", moment(1))
    for change in (("dns", "…", "wait"), ("timeout", "other", "wait"), ("timeout", "…", "other")):
        assert ledger.failed(*change, moment(2)).last_failure == Failure(moment(1), day(2), *change)


def test_a_failure_after_a_success_is_a_new_streak() -> None:
    """Logs: the one before was solved."""
    ledger = Ledger().failed("timeout", "…", "wait", moment(1)).succeeded(moment(2))
    again = ledger.failed("timeout", "…", "wait", moment(3))
    assert again.last_failure == Failure(moment(3), day(3), "timeout", "…", "wait")


# ---- G3: a hold ----


@pytest.mark.parametrize(
    ("seen", "waited", "confirmed"),
    [
        (1, 0.0, False),
        (2, 500.0, False),
        (3, 299.9, False),
        (3, 300.0, True),
        (9, 60.0, False),
        (4, 900.0, True),
    ],
)
def test_a_hold_ends_when_it_was_seen_often_and_long_enough(
    seen: int, waited: float, *, confirmed: bool
) -> None:
    """G3: in `removal_confirmations` polls and for `removal_hold`; neither is enough alone."""
    hold = Hold("empty_listing", seen, 3, 300.0, waited, day(1), moment(1))
    assert hold.confirmed is confirmed
    assert (hold.remaining(60.0) == 0.0) is confirmed


def test_how_long_a_hold_still_lasts() -> None:
    """G3: whichever takes longer, the polls or the time."""
    hold = Hold("empty_listing", 1, 3, 300.0, 60.0, day(1), moment(1))
    assert hold.remaining(30.0) == 240.0
    assert hold.remaining(200.0) == 400.0


listings = st.builds(
    lambda valid, bad: listing(*valid, bad=sorted(bad)),
    st.frozensets(st.integers(0, 3)).map(sorted),
    st.frozensets(st.integers(0, 3), max_size=1),
)


@given(st.lists(listings, min_size=1, max_size=8))
def test_the_ledger_tells_the_history_of_every_key(seen: list[Listing]) -> None:
    """R5: known is what was ever on the console; revoked is what went and is not valid since."""
    ledger = after(*seen)
    held = [one.present for one in seen]
    assert ledger.previously_listed.keys() == frozenset().union(*held)
    for fingerprint, key in ledger.keys.items():
        revoked_at, first = None, None
        for number, one in enumerate(seen, 1):
            if fingerprint in one.present:
                first = first or day(number)
            elif first:
                revoked_at = revoked_at or day(number)
            if fingerprint in one.usable:
                revoked_at = None
        assert (key.first_listed, key.revoked_at) == (first, revoked_at)


@given(st.lists(listings, min_size=1, max_size=8))
def test_the_same_listing_again_leaves_an_equal_ledger(seen: list[Listing]) -> None:
    """R7: nothing is written for it."""
    ledger = after(*seen)
    assert ledger.record_listing(seen[-1], day(20)) == ledger
    assert ledger.apply_listing(seen[-1], (), day(20)) == ledger
