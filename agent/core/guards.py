"""The guards as values: what is held back, and why (G3, G4).

1. A listing of another account than the first one changes nothing until it is accepted by id.
2. A listing that is empty or holds no usable key is held for all targets; one that would leave a
   user without a way in is held for that user's files only.
3. A hold ends when the operator confirms it, or when the danger was there in enough polls that
   count, over enough time, whatever else changed in the listing meanwhile: nobody can put it off by
   changing the listing. A poll counts when it comes an interval after the last that did.
4. What was confirmed stays so while the danger lasts: for all targets until a key is listed that
   may enter, for a user until there is a way in again. The loss of another way in is held anew.
5. Any other removal is prompt.
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

_EARLY = 0.9  # of an interval: a poll may come a little sooner, and counts all the same

OpensSession = Callable[[Line], bool]


@dataclass(frozen=True, slots=True)
class Held:
    """What is not applied, and why; `user` is empty when it concerns every target."""

    kind: str
    message: str
    hint: str
    user: str = ALL_TARGETS


class HoldRule(NamedTuple):
    """The configured bounds of a hold: polls that must count, and seconds."""

    confirmations: int
    hold_s: float
    interval_s: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """What G3 says about one listing: what is held, and the hold to remember, if any.

    A confirmed hold is remembered too: what it removed is removed at once when others put it back
    (R5).
    """

    held: Held | None = None
    hold: Hold | None = None


def judge_account(listing: Listing, ledger: Ledger, accepted: int | None) -> Held | None:
    """G4. `accepted` is the account that the operator accepted in this very run."""
    expected = ledger.account_id if accepted is None else accepted
    if expected is None or listing.account_id == expected:
        return None
    if listing.account_id is None:
        return _of_nobody(listing, ledger, expected)
    other = f"this machine follows account {expected}"
    if accepted is not None:
        other = f"the one that was accepted is {accepted}"
    return Held(
        "account_changed",
        f"The API key belongs to account {listing.account_id}; {other}.",
        f"Nothing was changed. To switch to account {listing.account_id}: "
        f"keysync sync --accept-account {listing.account_id}",
    )


def _of_nobody(listing: Listing, ledger: Ledger, expected: int) -> Held | None:
    """A list that names no account: an empty one is guard 2's, but it confirms no new account."""
    empty = not listing.keys and not listing.rejected
    if empty and expected == ledger.account_id:
        return None
    hint = "Check api.url; the console's own API always names the account."
    if empty:
        hint = "Put a key on the console's Keys page of that account, and accept it again."
    follows = ledger.account_id
    return Held(
        "account_unknown",
        "The list of SSH keys does not say whose it is; this machine follows "
        + (f"account {follows}." if follows is not None else "no account yet."),
        f"Nothing was changed. {hint}",
    )


class LockoutGuard:
    """G3 for one listing; `confirmed` is the operator's word in this very run.

    `waiting` are the keys of the listing that have to be confirmed before they enter (G14).
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
        """Whether it is held for all targets."""
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
        self, user: str, plans: Sequence[Plan], opens: OpensSession, *, counts: bool = True
    ) -> Judgement:
        """Whether it is held for this user; `plans` are those of all the user's files.

        `counts` is false for a poll in which nothing could enter, so that the hold does not end
        with the old key out and the new one not in (G11).

        `opens` says whether a line lets a person in. Nobody is held once more in the cycle in which
        the hold of a listing without a usable key ends.
        """
        if would_lock_out(plans, opens):
            text = f"No usable key would be left for {user}."
            danger = Held("would_lock_out", text, "", user)
            return self._judge(user, danger, counts=counts, passes=self._listing_passes_now())
        earlier = self._ledger.holds.get(user)
        stays = earlier and earlier.confirmed and not has_way_in(plans, opens)
        return Judgement(hold=earlier if stays else None)

    def _listing_passes_now(self) -> bool:
        """Whether a listing without a usable key is applied for the first time.

        Later, a key that was left by a refused entry and goes too is a new danger (G2).
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
        if earlier.confirmed:  # it stays so, and the ledger as it is (R7)
            return replace(earlier, reason=reason)
        hold = replace(earlier, reason=reason, needed=rule.confirmations, wait_s=rule.hold_s)
        passed = self._seconds_since(earlier.last)
        if not counts:
            return replace(hold, last=now)
        if passed is not None and passed < _EARLY * rule.interval_s:
            return hold
        return replace(hold, seen=hold.seen + 1, waited_s=hold.waited_s + (passed or 0.0), last=now)

    def _seconds_since(self, last: Moment) -> float | None:
        """None when a clock was set back between two boots.

        Across boots only the wall clock counts, which may have been set: such a poll counts as
        one, and for no longer than an interval.
        """
        passed = seconds_between(last, self._now)
        same_boot = last.boot and last.boot == self._now.boot
        if passed is None or same_boot:
            return passed
        return min(passed, self._rule.interval_s)

    def _hint(self, hold: Hold) -> str:
        left = round(hold.remaining(self._rule.interval_s))
        prevent = "put a usable key on the Keys page"
        if self._waiting:  # another key there would wait too (G14)
            prevent = "let in a key that waits: keysync sync --confirm-additions FINGERPRINT"
        return (
            f"Seen in {hold.seen} of {hold.needed} polls; it is applied in about {left} s if it "
            f"stays. To prevent that, {prevent}. To apply it now: "
            "keysync sync --confirm-removals"
        )


def would_lock_out(plans: Sequence[Plan], opens: OpensSession) -> bool:
    """Whether the plans take something away and leave the user no way in."""
    return any(plan.removed for plan in plans) and not has_way_in(plans, opens)


def has_way_in(plans: Sequence[Plan], opens: OpensSession) -> bool:
    """Whether a person can log in by what the plans leave, over all the files of one user."""
    return any(opens(line) for plan in plans for line in plan.after.lines)
