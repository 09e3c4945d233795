"""The guards G3 and G4: what is held back, for how long, and how an operator lets it pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.authorized_keys import AuthorizedKeys
from agent.core.desired_keys import DesiredKeys
from agent.core.guards import Held, HoldRule, LockoutGuard, judge_account
from agent.core.ledger import ALL_TARGETS, Hold, Ledger
from agent.core.listing import Listing, RejectedEntry
from agent.core.plan import Plan, make_plan
from agent.core.public_key import without_sshd
from agent.core.times import Moment
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


def plan(data: bytes, desired: Listing, known: Sequence[int] = (), *, strict: bool = False) -> Plan:
    return make_plan(
        AuthorizedKeys.parse(data),
        DesiredKeys(
            listed=by_blob(*desired.keys),
            pins={},
            previously_listed={FINGERPRINTS[at]: at for at in known},
            present=desired.present,
            listed_but_malformed=desired.listed_but_malformed,
            strict=strict,
        ),
    )


INTERVAL = 30.0
START = Moment("2026-01-01T00:00:00Z", "boot 1", 1000.0)
Files = Mapping[str, Sequence[bytes]]


@dataclass
class Machine:
    """What the guards remember between polls; `files` are the key files of each user."""

    confirmations: int = 3
    hold_s: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    files: Files = field(default_factory=dict)
    known: Sequence[int] = ()
    now: Moment = START

    def poll(
        self,
        seen: Listing,
        *,
        after: float = INTERVAL,
        confirmed: bool = False,
        waiting: frozenset[str] = frozenset(),
    ) -> dict[str, Held]:
        """One answered poll, so many seconds later: what is held, by user.

        The holds are remembered as a cycle remembers them.
        """
        self.now = self.now.after(after)
        rule = HoldRule(self.confirmations, self.hold_s, INTERVAL)
        guard = LockoutGuard(
            seen, self.ledger, rule, self.now, confirmed=confirmed, waiting=waiting
        )
        judged = {ALL_TARGETS: guard.judge_listing()}
        if not judged[ALL_TARGETS].held:
            for user, own in self.files.items():
                plans = [plan(data, seen, self.known) for data in own]
                judged[user] = guard.judge_user(
                    user, plans, lambda line: line.opens_session_for(without_sshd)
                )
        holds = {user: one.hold for user, one in judged.items() if one.hold}
        if judged[ALL_TARGETS].held:
            holds = {**self.ledger.holds, **holds}
        self.ledger = replace(self.ledger, holds=holds)
        return {user: one.held for user, one in judged.items() if one.held}

    def polls(self, *seen: Listing, after: float = INTERVAL) -> list[str]:
        """The name of what held each poll; an empty one where it was applied."""
        return [
            ", ".join(held.kind for held in self.poll(one, after=after).values()) for one in seen
        ]

    def reboot(self, wall_s: float) -> None:
        """A new boot, `wall_s` seconds later by the wall clock alone."""
        self.now = self.now.after(wall_s)._replace(boot="boot 2", seconds=5.0)


def held_for_all(machine: Machine, seen: Listing) -> Held:
    """What holds this poll for everybody."""
    held = machine.poll(seen)
    assert held.keys() == {ALL_TARGETS}
    return held[ALL_TARGETS]


# ---- G3: what is held ----


def test_an_ordinary_listing_is_applied_at_once() -> None:
    """G3: only the named dangers are held."""
    machine = Machine(files={"root": [line(0)]})
    assert machine.poll(listing(0, 1)) == {}
    assert machine.ledger.holds == {}


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
def test_a_listing_without_a_usable_key_is_held_for_all(seen: Listing, kind: str) -> None:
    """G3: empty, or no valid entry; also when no file would change at all."""
    machine = Machine(hold_s=300.0)
    held = held_for_all(machine, seen)
    hold = machine.ledger.holds[ALL_TARGETS]
    assert held.kind == kind
    assert hold == Hold(kind, 1, 3, 300.0, 0.0, machine.now.at, machine.now)
    assert "Seen in 1 of 3 polls" in held.hint
    assert "in about 300 s" in held.hint
    assert "keysync sync --confirm-removals" in held.hint


def test_the_number_of_unusable_entries_is_said() -> None:
    """G3: the message says what the operator will find on the console."""
    assert "None of the 3 entries" in held_for_all(Machine(), listing(bad=[0, 1, 2])).message


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
LOCKED = WOULD_LOCK_OUT["only a forced command would be left"]
APPLIED = line(0, options=FORCED, managed=False)


@pytest.mark.parametrize("name", WOULD_LOCK_OUT)
def test_a_listing_that_would_leave_no_way_in_is_held(name: str) -> None:
    """G3: the listing has a key, but in this file it stands behind options that let nobody in."""
    held = Machine(files={"root": [WOULD_LOCK_OUT[name]]}).poll(listing(0))
    assert held.keys() == {"root"}
    assert (held["root"].kind, held["root"].user) == ("would_lock_out", "root")
    assert "root" in held["root"].message


STILL_OPEN = {
    "a restricted line of use": line(0, options="restrict,pty", managed=False) + line(1),
    "a foreign key": line(0, options=FORCED, managed=False) + line(1) + line(2, managed=False),
    "nothing is removed": line(0, options=FORCED, managed=False),
    "another managed line": line(1),
}


@pytest.mark.parametrize("name", STILL_OPEN)
def test_a_listing_that_leaves_a_way_in_is_applied(name: str) -> None:
    """G3: held only when a user is left without any usable key by what is removed."""
    assert Machine(files={"root": [STILL_OPEN[name]]}).poll(listing(0)) == {}


def test_all_files_of_a_user_count_together() -> None:
    """G3: sshd reads all of a user's files, so one with a way in is enough."""
    assert Machine(files={"root": [LOCKED, line(2, managed=False)]}).poll(listing(0)) == {}
    assert Machine(files={"root": [LOCKED, b""]}).poll(listing(0, 3)) == {}
    assert Machine(files={"root": [LOCKED, APPLIED]}).poll(listing(0)) != {}


# ---- G3: for whom ----


def test_only_the_user_who_would_be_locked_out_is_held() -> None:
    """Incident 3: everybody else's revocations and additions go on."""
    machine = Machine(files={"root": [line(0) + line(1)], "al": [LOCKED], "bo": [line(1)]})
    assert machine.poll(listing(0)).keys() == {"al"}
    assert machine.ledger.holds.keys() == {"al"}


def test_a_local_user_holds_up_nobody_by_his_own_file() -> None:
    """Incident 3: restricted lines that let nobody in, and a random line with the tag."""
    forged = line(0, options='restrict,expiry-time="19700101"', managed=False) + line(3)
    machine = Machine(files={"al": [forged], "root": [line(0) + line(1)]}, known=[0, 1])
    for _ in range(3):
        assert "root" not in machine.poll(listing(0))


def test_each_users_hold_is_counted_on_its_own() -> None:
    """G3: one that began later ends later."""
    machine = Machine(files={"al": [LOCKED]})
    assert machine.poll(listing(0)).keys() == {"al"}
    machine.files = {"al": [LOCKED], "bo": [LOCKED]}
    assert machine.poll(listing(0)).keys() == {"al", "bo"}
    assert machine.poll(listing(0)).keys() == {"bo"}
    assert machine.poll(listing(0)).keys() == set()


def test_what_a_user_writes_does_not_start_the_count_anew() -> None:
    """G3: the same listing is held, whatever else comes into the file meanwhile."""
    machine = Machine(files={"al": [LOCKED]})
    result = []
    for added in (line(3), line(2) + b"# words\n", b"\xff\n" * 9):
        result += machine.polls(listing(0))
        machine.files = {"al": [LOCKED + added]}
    assert result == ["would_lock_out", "would_lock_out", ""]


def test_a_listing_without_a_usable_key_is_not_held_once_more_for_each_user() -> None:
    """G3: it is judged as a whole; when its hold has ended it is applied to all."""
    machine = Machine(files={"root": [line(0)], "al": [line(1)]}, known=[0, 1])
    assert machine.polls(*[EMPTY] * 3) == ["empty_listing", "empty_listing", ""]


# ---- G3: for how long ----


def test_it_is_applied_when_seen_in_enough_polls() -> None:
    """G3: held until it was seen in `removal_confirmations` polls."""
    assert Machine().polls(*[EMPTY] * 3) == ["empty_listing", "empty_listing", ""]


@pytest.mark.parametrize("confirmations", [1, 2, 5])
def test_the_number_of_polls_is_the_configured_one(confirmations: int) -> None:
    """Configuration: `policy.removal_confirmations`."""
    assert Machine(confirmations).polls(*[EMPTY] * confirmations) == [
        *["empty_listing"] * (confirmations - 1),
        "",
    ]


def test_it_is_held_for_the_configured_time_too() -> None:
    """Configuration: `policy.removal_hold`, 5 minutes from the first poll that saw it."""
    found = Machine(hold_s=300.0).polls(*[EMPTY] * 12)
    assert found == ["empty_listing"] * 10 + ["", ""]


def test_time_alone_is_not_enough() -> None:
    """G3: two polls in an hour are two polls."""
    machine = Machine(hold_s=300.0)
    assert machine.polls(EMPTY, EMPTY, after=1800.0) == ["empty_listing"] * 2
    assert machine.polls(EMPTY) == [""]


def test_quick_polls_do_not_count() -> None:
    """Incident 5: three quick `keysync sync` by hand apply nothing."""
    machine = Machine()
    assert machine.polls(*[EMPTY] * 20, after=1.0) == ["empty_listing"] * 20
    assert machine.ledger.holds[ALL_TARGETS].seen == 1


def test_quick_polls_do_not_put_off_those_that_count() -> None:
    """G3: a poll counts an interval after the last *that counted*, whoever asked in between."""
    machine = Machine()
    found = machine.polls(*[EMPTY] * 9, after=INTERVAL / 4)
    assert found == ["empty_listing"] * 8 + [""]


@pytest.mark.parametrize(("share", "counts"), [(0.89, False), (0.9, True), (1.1, True)])
def test_a_poll_counts_about_an_interval_later(share: float, *, counts: bool) -> None:
    """G3: the daemon's own jitter must not lose a poll."""
    machine = Machine()
    machine.polls(EMPTY)
    machine.polls(EMPTY, after=share * INTERVAL)
    hold = machine.ledger.holds[ALL_TARGETS]
    assert (hold.seen, hold.waited_s) == (
        (2, pytest.approx(share * INTERVAL)) if counts else (1, 0)
    )


def test_a_failed_poll_neither_counts_nor_resets() -> None:
    """Incident 5: it leaves the ledger alone, and the next answered poll goes on."""
    machine = Machine()
    assert machine.polls(EMPTY, EMPTY) == ["empty_listing"] * 2
    machine.now = machine.now.after(7 * INTERVAL)
    assert machine.polls(EMPTY) == [""]


def test_a_poll_in_which_nothing_could_enter_does_not_count() -> None:
    """G11: else the old key goes and the new one cannot come."""
    machine = Machine(files={"root": [LOCKED]})
    machine.poll(listing(0))
    now = machine.now.after(INTERVAL)
    rule = HoldRule(3, 0.0, INTERVAL)
    guard = LockoutGuard(listing(0), machine.ledger, rule, now, confirmed=False)
    plans = [plan(LOCKED, listing(0))]
    judged = guard.judge_user(
        "root", plans, lambda line: line.opens_session_for(without_sshd), counts=False
    )
    assert judged.hold == replace(machine.ledger.holds["root"], last=now)


def test_changed_bounds_hold_at_once() -> None:
    """Configuration: a configuration that asks for more, or less, is obeyed by a running hold."""
    machine = Machine(hold_s=3600.0)
    machine.polls(*[EMPTY] * 3)
    machine.confirmations, machine.hold_s = 5, 60.0
    assert machine.polls(EMPTY, EMPTY) == ["empty_listing", ""]


# ---- G3: clocks ----


def test_a_reboot_does_not_start_the_count_anew() -> None:
    """G3: a poll after it counts as the next one."""
    machine = Machine()
    assert machine.polls(EMPTY, EMPTY) == ["empty_listing"] * 2
    machine.reboot(60.0)
    assert machine.polls(EMPTY, after=0.0) == [""]


@pytest.mark.parametrize("wall_s", [31.0, 86400.0, 366 * 86400.0])
def test_a_reboot_is_no_longer_than_an_interval(wall_s: float) -> None:
    """G3: a wall clock that jumps between two boots must not end a hold."""
    machine = Machine(confirmations=1, hold_s=300.0)
    machine.polls(EMPTY)
    machine.reboot(wall_s)
    assert machine.polls(EMPTY, after=0.0) == ["empty_listing"]
    assert machine.ledger.holds[ALL_TARGETS].waited_s == INTERVAL


def test_a_quick_poll_after_a_reboot_does_not_count() -> None:
    """G3: also where only the wall clock is left."""
    machine = Machine()
    machine.polls(EMPTY)
    machine.reboot(10.0)
    machine.polls(EMPTY, after=0.0)
    assert machine.ledger.holds[ALL_TARGETS].seen == 1


def test_a_clock_that_was_set_back_does_not_hold_for_ever() -> None:
    """G3: how much time has passed is unknown, so a poll counts as one and as no time."""
    machine = Machine()
    machine.polls(EMPTY)
    machine.reboot(-86400.0)
    machine.polls(EMPTY, after=0.0)
    hold = machine.ledger.holds[ALL_TARGETS]
    assert (hold.seen, hold.waited_s, hold.last) == (2, 0.0, machine.now)
    assert machine.polls(EMPTY) == [""]


def test_a_wall_clock_that_is_set_within_a_boot_changes_nothing() -> None:
    """G3: the steady clock counts."""
    machine = Machine(hold_s=300.0)
    machine.polls(EMPTY)
    machine.now = machine.now._replace(at="2036-01-01T00:00:00Z")
    assert machine.polls(*[EMPTY] * 10) == ["empty_listing"] * 9 + [""]


def test_without_a_known_boot_the_wall_clock_counts_at_most_an_interval() -> None:
    """G3: as between two boots."""
    machine = Machine(hold_s=60.0, now=START._replace(boot=""))
    assert machine.polls(*[EMPTY] * 3, after=3600.0) == ["empty_listing"] * 2 + [""]


# ---- G3: which listing ----


def test_it_stays_applied_while_it_stays_the_same() -> None:
    """G3: once confirmed, the same listing is no new danger at every later poll."""
    assert Machine().polls(*[EMPTY] * 6)[2:] == ["", "", "", ""]


def test_entries_that_change_at_each_poll_do_not_put_off_the_end() -> None:
    """G3: whoever writes to the account cannot keep a deleted key for ever by useless entries."""
    useless = [EMPTY, *(listing(bad=[at]) for at in (1, 2, 3, 1)), listing(bad=[2, 3])]
    machine = Machine(confirmations=6, files={"root": [line(0)]}, known=[0])
    found = machine.polls(*useless)
    assert found == ["empty_listing", *["no_valid_entry"] * 4, ""]
    assert machine.polls(*useless) == [""] * 6


def test_keys_that_change_at_each_poll_do_not_put_off_the_end() -> None:
    """G3: the danger is the same, whichever keys that let nobody in are listed."""
    shut = b"".join(line(at, options=FORCED, managed=False) for at in (0, 2))
    machine = Machine(files={"root": [shut + line(1)]}, known=[1])
    seen = [listing(0), listing(2), listing(0, 2, bad=[3])]
    assert machine.polls(*seen) == ["would_lock_out", "would_lock_out", ""]


def test_a_good_listing_in_between_starts_the_count_anew() -> None:
    """G3: it was answered, and the danger was over."""
    seen = Machine().polls(EMPTY, EMPTY, listing(0), EMPTY, EMPTY, EMPTY)
    assert seen == ["empty_listing", "empty_listing", "", "empty_listing", "empty_listing", ""]


def test_another_danger_starts_the_count_anew() -> None:
    """G3: what is confirmed is this danger of this listing."""
    machine = Machine(files={"root": [LOCKED]})
    assert machine.polls(listing(0), listing(0)) == ["would_lock_out"] * 2
    assert machine.polls(EMPTY) == ["empty_listing"]


def test_the_operator_may_confirm_at_once() -> None:
    """G3: `keysync sync --confirm-removals`; and then it stays applied."""
    machine = Machine(hold_s=300.0, files={"root": [LOCKED]})
    assert machine.poll(EMPTY, confirmed=True) == {}
    assert machine.polls(EMPTY, EMPTY, after=1.0) == ["", ""]
    machine = Machine(hold_s=300.0, files={"root": [LOCKED]})
    assert machine.poll(listing(0), confirmed=True) == {}
    assert machine.polls(listing(0), after=1.0) == [""]


def test_a_confirmation_is_for_what_was_seen_with_it() -> None:
    """G3: it does not confirm the next danger in advance."""
    machine = Machine()
    assert machine.poll(EMPTY, confirmed=True) == {}
    assert machine.poll(listing(0), confirmed=True) == {}
    assert machine.polls(EMPTY) == ["empty_listing"]


def test_what_a_confirmed_listing_took_is_taken_again_at_once() -> None:
    """R5 and G3: the listing was seen often enough, so nothing waits when it comes back."""
    machine = Machine(files={"root": [LOCKED]})
    assert machine.polls(*[listing(0)] * 3) == ["would_lock_out"] * 2 + [""]
    machine.files = {"root": [APPLIED]}
    assert machine.polls(listing(0), listing(0)) == ["", ""]
    machine.files = {"root": [LOCKED]}
    assert machine.polls(listing(0)) == [""]


def test_a_count_ends_when_the_danger_is_over() -> None:
    """G3: what was not confirmed is forgotten with it."""
    machine = Machine(files={"root": [LOCKED]})
    assert machine.polls(listing(0), listing(0)) == ["would_lock_out"] * 2
    machine.files = {"root": [APPLIED]}
    assert machine.polls(listing(0)) == [""]
    machine.files = {"root": [LOCKED]}
    assert machine.polls(listing(0)) == ["would_lock_out"]


def test_a_way_in_ends_what_was_confirmed() -> None:
    """G3: who let one key go has not let the next one go."""
    machine = Machine(files={"root": [LOCKED]}, known=[0, 1, 2])
    assert machine.poll(listing(0), confirmed=True) == {}
    machine.files = {"root": [APPLIED + line(2)]}
    assert machine.polls(listing(0, 2)) == [""]
    assert machine.ledger.holds == {}
    assert machine.polls(listing(0)) == ["would_lock_out"]


def test_another_list_without_a_way_in_keeps_what_was_confirmed() -> None:
    """R5: a deleted key is taken at once, although the list changes at each poll."""
    shut = b"".join(line(at, options=FORCED, managed=False) for at in (0, 2))
    machine = Machine(files={"root": [shut + line(1)]}, known=[0, 1, 2])
    assert machine.poll(listing(0), confirmed=True) == {}
    machine.files = {"root": [shut]}
    assert machine.polls(listing(2), listing(0, 2)) == ["", ""]
    machine.files = {"root": [shut + line(1)]}
    assert machine.polls(listing(2)) == [""]


def test_a_usable_key_ends_what_was_confirmed() -> None:
    """G3: a list without a usable key is held anew after one that had some."""
    machine = Machine(files={"root": [line(1, managed=False)]})
    assert machine.polls(*[listing(bad=[0])] * 3) == ["no_valid_entry"] * 2 + [""]
    assert machine.polls(listing(0), listing(bad=[0])) == ["", "no_valid_entry"]


def test_a_key_that_waits_ends_nothing_that_was_confirmed() -> None:
    """G3, G14: whoever lists a key now and then does not begin a hold each time."""
    machine = Machine()
    assert machine.poll(EMPTY, confirmed=True) == {}
    before = machine.ledger
    assert machine.poll(listing(2), waiting=frozenset(FINGERPRINTS[2:3])) == {}
    assert machine.ledger == before
    assert machine.poll(EMPTY) == {}
    assert machine.poll(listing(1, 2), waiting=frozenset(FINGERPRINTS[2:3])) == {}
    assert machine.ledger.holds == {}


def test_only_what_was_confirmed_stays_while_keys_wait() -> None:
    """G3: a count ends when something is listed, and each user is judged alone."""
    machine = Machine()
    assert machine.polls(EMPTY) == ["empty_listing"]
    assert machine.poll(listing(2), waiting=frozenset(FINGERPRINTS[2:3])) == {}
    assert machine.ledger.holds == {}


def test_while_a_key_waits_the_hint_is_to_let_it_in() -> None:
    """G3, G14: another key on the Keys page would wait as well, and prevent nothing."""
    machine = Machine(files={"root": [line(0)]}, known=[0])
    held = machine.poll(listing(), waiting=frozenset(FINGERPRINTS[1:2]))
    assert "keysync sync --confirm-additions FINGERPRINT" in held[ALL_TARGETS].hint


def test_a_key_that_a_refused_entry_left_is_held_for_its_user_when_it_goes_too() -> None:
    """G3, G2: a list without a usable key was let pass while that key stayed."""
    machine = Machine(files={"root": [line(1)], "al": [line(0)]}, known=[0, 1])
    kept = listing(bad=[1])
    assert machine.polls(*[kept] * 4) == ["no_valid_entry"] * 2 + ["", ""]
    assert machine.ledger.holds.keys() == {ALL_TARGETS, "al"}
    machine.files = {"root": [line(1)], "al": [b""]}
    assert machine.poll(EMPTY).keys() == {"root"}
    machine.files = {"root": [line(1)], "al": [line(0)]}  # put back, and let pass before
    assert machine.poll(EMPTY).keys() == {"root"}
    assert machine.poll(EMPTY) == {}


def test_a_confirmation_takes_back_no_count() -> None:
    """G3: polls that were seen stay counted when the operator confirms, too."""
    machine = Machine(1)
    machine.polls(*[EMPTY] * 4)
    machine.poll(EMPTY, confirmed=True)
    machine.confirmations = 5
    assert machine.polls(EMPTY) == [""]


SEEN = (EMPTY, listing(bad=[1]), listing(bad=[2]), listing(0))
polls = st.lists(
    st.tuples(st.sampled_from(SEEN), st.booleans(), st.sampled_from((1.0, 20.0, INTERVAL, 90.0)))
)


@given(polls, st.integers(1, 4), st.sampled_from((0.0, 45.0, 120.0)))
def test_held_exactly_until_confirmed(
    seen: list[tuple[Listing, bool, float]], needed: int, hold_s: float
) -> None:
    """G3, said once more and apart from the code: how often, how long, or the operator's word."""
    machine = Machine(needed, hold_s)
    count, waited, since, confirmed = 0, 0.0, 0.0, False
    for one, word, after in seen:
        since += after
        if one.keys:
            count, confirmed = 0, False
        elif count == 0:
            count, waited, since, confirmed = 1, 0.0, 0.0, False
        elif since >= 0.9 * INTERVAL:
            count, waited, since = count + 1, waited + since, 0.0
        confirmed = confirmed or word
        passes = confirmed = confirmed or (count >= needed and waited >= hold_s)
        held = machine.poll(one, after=after, confirmed=word)
        assert bool(held) == (not one.keys and not passes)
        assert bool(machine.ledger.holds) == (not one.keys)


# ---- G4 ----


def test_the_first_listing_is_of_the_right_account() -> None:
    """G4: the `user_id` of the first accepted listing is what is remembered."""
    assert judge_account(listing(0), Ledger(), None) is None
    assert Ledger().apply_listing(listing(0), (), "now").account_id == 7


def test_a_listing_of_the_same_account_passes() -> None:
    """G4: only another account's is refused."""
    assert judge_account(listing(0), Ledger(account_id=7), None) is None


def test_a_listing_of_another_account_is_refused() -> None:
    """G4: swapping the API key must not hand the machine to a stranger."""
    held = judge_account(listing(0, account=8), Ledger(account_id=7), None)
    assert held is not None
    assert held.kind == "account_changed"
    assert "account 8" in held.message
    assert "account 7" in held.message
    assert "--accept-account 8" in held.hint


def test_the_operator_accepts_the_other_account_by_its_id() -> None:
    """G4: `keysync sync --accept-account ID`."""
    assert judge_account(listing(0, account=8), Ledger(account_id=7), 8) is None


@pytest.mark.parametrize("follows", [None, 7])
def test_an_empty_list_confirms_no_new_account(follows: int | None) -> None:
    """G4: it names nobody, so a mistyped id would freeze this machine's keys at the next key."""
    held = judge_account(listing(account=None), Ledger(account_id=follows), 8)
    assert held is not None
    assert held.kind == "account_unknown"
    assert str(follows or "no account yet") in held.message
    assert "Keys page" in held.hint
    assert judge_account(listing(account=None), Ledger(account_id=7), 7) is None


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
        assert held.kind == "account_unknown"
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
