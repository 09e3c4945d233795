"""The guards against account changes and lockouts, as values (G3, G4).

1. A listing of another account than the first one changes nothing until the operator accepts that
   account by its id.
2. A listing without a usable key is held for all targets. A listing that would leave a user without
   a way to log in is held for that user's files only.
3. A hold ends when the operator confirms it, or when the danger was seen in enough polls over
   enough time. Other changes in the listing do not restart the count, so nobody can delay the end
   by editing the list. A poll counts if it comes an interval or more after the last that counted.
4. A confirmation lasts as long as the danger: for all targets until a key is listed that may be
   added, for a user until they can log in again. After that, a new danger is held again.
5. All other removals are immediate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from agent.core.authorized_keys import Line
from agent.core.ledger import ALL_TARGETS, Hold, Ledger
from agent.core.listing import Listing
from agent.core.plan import Plan
from agent.core.times import Moment, seconds_between

_EARLY = 0.9  # part of an interval: a poll that comes slightly early still counts

OpensSession = Callable[[Line], bool]


@dataclass(frozen=True, slots=True)
class Held:
    """What is not applied, and why; `user` is ALL_TARGETS when it concerns every target."""

    kind: str
    message: str
    hint: str
    user: str = ALL_TARGETS


class HoldRule(NamedTuple):
    """When a hold ends by itself: after `confirmations` counted polls and `hold_s` seconds.

    `interval_s` is the polling interval in seconds.
    """

    confirmations: int
    hold_s: float
    interval_s: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of G3: what is held, if anything, and the hold to store in the ledger, if any.

    A confirmed hold is stored too, so that a key it removed is removed again at once when somebody
    puts it back (R5).
    """

    held: Held | None = None
    hold: Hold | None = None


def judge_account(listing: Listing, ledger: Ledger, accepted: int | None) -> Held | None:
    """G4: whether the listing is held because of its account; None if it is not.

    `accepted` is the account id that the operator accepts in this run, if any.
    """
    expected = ledger.account_id if accepted is None else accepted
    if expected is None or listing.account_id == expected:
        return None
    if listing.account_id is None:
        return _judge_unknown_account(listing, ledger, expected)
    other = f"this machine follows account {expected}"
    if accepted is not None:
        other = f"the accepted account is {accepted}"
    return Held(
        "account_changed",
        f"The API key belongs to account {listing.account_id}; {other}.",
        f"Nothing was changed. To switch to account {listing.account_id}: "
        f"keysync sync --accept-account {listing.account_id}",
    )


def _judge_unknown_account(listing: Listing, ledger: Ledger, expected: int) -> Held | None:
    """For a listing that names no account: an empty one is left to G3, but confirms no account."""
    empty = not listing.keys and not listing.rejected
    if empty and expected == ledger.account_id:
        return None
    hint = "Check api.url; the console's own API always names the account."
    if empty:
        hint = "Put a key on the Keys page of that account, then accept the account again."
    follows = ledger.account_id
    return Held(
        "account_unknown",
        "The list of SSH keys does not name its account; this machine follows "
        + (f"account {follows}." if follows is not None else "no account yet."),
        f"Nothing was changed. {hint}",
    )


class LockoutGuard:
    """G3 for one listing; `confirmed` is whether the operator confirms removals in this run.

    `waiting` are the fingerprints of listed keys that need confirmation before they are added
    (G14).
    """

    def __init__(
        self,
        listing: Listing,
        ledger: Ledger,
        rule: HoldRule,
        now: Moment,
        *,
        confirmed: bool,
        waiting: frozenset[str] = frozenset(),
    ) -> None:
        self._listing = listing
        self._ledger = ledger
        self._rule = rule
        self._now = now
        self.confirmed = confirmed
        self._waiting = waiting

    def judge_listing(self) -> Judgement:
        """Whether the listing is held for all targets."""
        if self._listing.keys:
            earlier = self._ledger.holds.get(ALL_TARGETS)
            stays = earlier and earlier.confirmed and self._listing.usable <= self._waiting
            return Judgement(hold=earlier if stays else None)
        count = len(self._listing.rejected)
        if count == 0:
            danger = Held("empty_listing", "The account's list of SSH keys is empty.", "")
        else:
            text = f"None of the {count} entries in the account's list is a usable SSH key."
            danger = Held("no_valid_entry", text, "")
        return self._judge(ALL_TARGETS, danger)

    def judge_user(
        self, user: str, plans: Sequence[Plan], opens_session: OpensSession, *, counts: bool = True
    ) -> Judgement:
        """Whether the listing is held for this user; `plans` are those of all the user's files.

        `opens_session` tells whether a person can log in by a line. `counts` is false for a poll in
        which no key could be added, so that the hold does not end with the old key removed and the
        new one missing (G11). When the hold of a listing without a usable key ends, users are not
        held again in the same cycle.
        """
        if would_lock_out(plans, opens_session):
            text = f"No usable key would be left for {user}."
            danger = Held("would_lock_out", text, "", user)
            return self._judge(user, danger, counts=counts, passes=self._listing_passes_now())
        earlier = self._ledger.holds.get(user)
        stays = earlier and earlier.confirmed and not has_way_in(plans, opens_session)
        return Judgement(hold=earlier if stays else None)

    def _listing_passes_now(self) -> bool:
        """Whether a listing without a usable key is applied for the first time.

        In later cycles, removing a key that a refused entry had protected is a new danger (G2).
        """
        earlier = self._ledger.holds.get(ALL_TARGETS)
        return not self._listing.keys and not (earlier and earlier.confirmed)

    def _judge(
        self, user: str, danger: Held, *, counts: bool = True, passes: bool = False
    ) -> Judgement:
        hold = self._counted(self._ledger.holds.get(user), danger.kind, counts)
        if self.confirmed or passes:
            hold = replace(hold, seen=max(hold.seen, hold.needed), waited_s=hold.wait_s)
        if hold.confirmed:
            return Judgement(hold=hold)
        return Judgement(replace(danger, hint=self._hint(hold)), hold)

    def _counted(self, earlier: Hold | None, reason: str, counts: bool) -> Hold:
        """The hold after this poll."""
        rule, now = self._rule, self._now
        if earlier is None:
            return Hold(reason, 1, rule.confirmations, rule.hold_s, 0.0, now.at, now)
        if earlier.confirmed:  # the ledger does not change (R7)
            return replace(earlier, reason=reason)
        hold = replace(earlier, reason=reason, needed=rule.confirmations, wait_s=rule.hold_s)
        passed = self._seconds_since(earlier.last)
        if not counts:
            return replace(hold, last=now)
        if passed is not None and passed < _EARLY * rule.interval_s:
            return hold
        return replace(hold, seen=hold.seen + 1, waited_s=hold.waited_s + (passed or 0.0), last=now)

    def _seconds_since(self, last: Moment) -> float | None:
        """Seconds since `last`; None when the wall clock was set back between two boots.

        Across boots only the wall clock is known, and it may have been set; so such a poll adds at
        most one interval.
        """
        passed = seconds_between(last, self._now)
        same_boot = last.boot and last.boot == self._now.boot
        if passed is None or same_boot:
            return passed
        return min(passed, self._rule.interval_s)

    def _hint(self, hold: Hold) -> str:
        left = round(hold.remaining(self._rule.interval_s))
        prevent = "put a usable key on the Keys page"
        if self._waiting:  # a key added there would wait too (G14)
            prevent = "confirm a waiting key: keysync sync --confirm-additions FINGERPRINT"
        return (
            f"Seen in {hold.seen} of {hold.needed} polls; if nothing changes, it is applied in "
            f"about {left} s. To prevent that, {prevent}. To apply it now: "
            "keysync sync --confirm-removals"
        )


def would_lock_out(plans: Sequence[Plan], opens_session: OpensSession) -> bool:
    """Whether the plans remove keys and leave no line by which a person can log in."""
    return any(plan.removed for plan in plans) and not has_way_in(plans, opens_session)


def has_way_in(plans: Sequence[Plan], opens_session: OpensSession) -> bool:
    """Whether a person can log in after these plans, which are those of all files of one user."""
    return any(opens_session(line) for plan in plans for line in plan.after.lines)
