"""What is remembered between cycles: the account, its keys, what is held, how cycles ended.

Everything in it is bounded, whatever a console lists or refuses (G12). Two equal ledgers need no
write (R7). Times are RFC 3339 in UTC unless they are a `Moment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from agent.core import known_keys
from agent.core.known_keys import KnownKeys
from agent.core.listing import Listing, RejectedEntry
from agent.core.results import IN_SYNC, Origin, Result
from agent.core.times import Moment

ALL_TARGETS = ""  # the name under which a hold of every target is kept
MAX_REJECTED = 100
MAX_SKIPPED = 100


@dataclass(frozen=True, slots=True)
class Hold:
    """A removal that waits for confirmation (G3), for all targets or for one user.

    It was seen in `seen` of `needed` polls that count, and for `waited_s` of `wait_s` seconds;
    `at` is when it was first seen and `last` when a poll last counted.
    """

    reason: str
    seen: int
    needed: int
    wait_s: float
    waited_s: float
    at: str
    last: Moment

    @property
    def confirmed(self) -> bool:
        """Whether it was seen often and long enough, or the operator confirmed it."""
        return self.seen >= self.needed and self.waited_s >= self.wait_s

    def remaining(self, interval_s: float) -> float:
        """Seconds after `last` until it is applied, with polls every `interval_s` seconds."""
        return max((self.needed - self.seen) * interval_s, self.wait_s - self.waited_s, 0.0)


class WaitingKey(NamedTuple):
    """A listed key that `policy.additions: hold` keeps out until it is confirmed (G14)."""

    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    since: str


class Failure(NamedTuple):
    """The last thing that went wrong.

    `since` is when the streak of failures began, `at` when this kind and message first came;
    `solved_at` is the first success after it.
    """

    since: Moment
    at: str
    kind: str
    message: str
    hint: str
    solved_at: str | None = None


class TargetOutcome(NamedTuple):
    """How the last cycle that changed something ended for one key file.

    `result` is a `Result` and `origin`, why the file was served, an `Origin`; both are texts,
    because another version may have written other values.
    """

    user: str
    path: str
    result: str
    at: str
    origin: str = Origin.CONFIGURED

    @property
    def was_in_sync(self) -> bool:
        """Whether the file was in sync at the end of that cycle."""
        return self.result in IN_SYNC


class Retired(NamedTuple):
    """A key file that was a target and is no longer one; revocations still reach it (R5)."""

    user: str
    path: str
    since: str


class SkippedFile(NamedTuple):
    """The key file of an account that is no target, which `targets: auto` could not search (R5)."""

    user: str
    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that outlives a cycle."""

    account_id: int | None = None
    keys: KnownKeys = field(default_factory=dict)
    rejected: tuple[RejectedEntry, ...] = ()
    holds: Mapping[str, Hold] = field(default_factory=dict)  # by user, or ALL_TARGETS
    waiting: tuple[WaitingKey, ...] = ()
    retired: tuple[Retired, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    last_success: Moment | None = None
    last_failure: Failure | None = None
    targets: tuple[TargetOutcome, ...] = ()

    # ---- the account's keys ----

    @property
    def previously_listed(self) -> dict[str, int | None]:
        """The console's id of every key that was ever listed, by fingerprint."""
        return {fingerprint: key.key_id for fingerprint, key in self.keys.items()}

    @property
    def revoked(self) -> frozenset[str]:
        """The fingerprints of the keys that were deleted on the console (R5)."""
        return frozenset(name for name, key in self.keys.items() if key.revoked_at is not None)

    def still_listed(self, listing: Listing, waiting: frozenset[str]) -> frozenset[str]:
        """The fingerprints in `listing` that are not revoked; see `known_keys.still_listed`."""
        return known_keys.still_listed(self.keys, listing, waiting)

    def keys_with_id(self, ids: Iterable[int | None]) -> frozenset[str]:
        """The fingerprints of the usable keys that were last listed under these ids."""
        wanted = set(ids) - {None}
        return frozenset(
            key.fingerprint
            for key in self.keys.values()
            if key.key_id in wanted and key.was_usable and key.revoked_at is None
        )

    def missing_from(self, listing: Listing) -> frozenset[str]:
        """The fingerprints of the usable keys of `listing` that this ledger does not know."""
        return listing.usable.difference(self.keys)

    def forgotten_since(self, earlier: Ledger) -> int:
        """How many revoked keys of `earlier` were forgotten for lack of room (G12).

        Keys that were seen in refused entries only do not count.
        """
        return sum(
            key.was_usable and key.revoked_at is not None and name not in self.keys
            for name, key in earlier.keys.items()
        )

    def record_listing(self, listing: Listing, now: str) -> Ledger:
        """The ledger that knows every key of `listing` and revokes none.

        It is saved before any key enters a file: whatever happens next, a key that is deleted on
        the console later is known to have been listed (R5, G11).
        """
        keys = known_keys.record_listing(self.keys, listing, now)
        return replace(self, keys=keys, rejected=_without_keys(listing.rejected))

    def apply_listing(self, listing: Listing, waiting: Iterable[str], now: str) -> Ledger:
        """The ledger after `listing` was applied: its keys accepted, missing keys revoked.

        `waiting` are the fingerprints that were kept out (G14). The account of the first listing
        that names one is kept (G4).
        """
        account_id = listing.account_id if self.account_id is None else self.account_id
        keys = known_keys.apply_listing(self.keys, listing, frozenset(waiting), now)
        rejected = _without_keys(listing.rejected)
        return replace(self, account_id=account_id, keys=keys, rejected=rejected)

    def accepting(self, fingerprints: Iterable[str], now: str) -> Ledger:
        """The ledger in which these known keys are allowed into the key files (G14)."""
        return replace(self, keys=known_keys.accept(self.keys, fingerprints, now))

    # ---- how cycles end ----

    def succeeded(self, now: Moment) -> Ledger:
        """The ledger after every target was brought in sync."""
        failure = self.last_failure
        if failure and failure.solved_at is None:
            failure = failure._replace(solved_at=now.at)
        return replace(self, last_success=now, last_failure=failure)

    def failed(self, kind: str, message: str, hint: str, now: Moment) -> Ledger:
        """The ledger after a failure; repeating the same failure changes nothing (R7)."""
        last, since = self.last_failure, now
        if last and last.solved_at is None:  # the streak goes on
            if (last.kind, last.message, last.hint) == (kind, message, hint):
                return self
            since = last.since
        return replace(self, last_failure=Failure(since, now.at, kind, message, hint))

    def outcome(self, user: str, path: str) -> TargetOutcome | None:
        """How the last cycle that reached this file ended for it."""
        found = (target for target in self.targets if (target.user, target.path) == (user, path))
        return next(found, None)

    def was_in_sync(self, user: str, path: str) -> bool:
        """Whether this file was last in sync: a revoked key in it now was put back (R5)."""
        last = self.outcome(user, path)
        return last is not None and last.was_in_sync

    def with_outcomes(self, outcomes: Iterable[TargetOutcome]) -> Ledger:
        """The ledger with the outcomes of this cycle; what stays in sync keeps its time (R7).

        An outcome without a path is that of a user whose key file could not be located. The user's
        earlier files get the same outcome and are remembered, so that they can be retired (R5).
        """
        new = [self._earlier_if_unchanged(one) for one in outcomes]
        located = {(one.user, one.path) for one in new}
        not_located = {one.user: one for one in new if not one.path}
        kept = (
            one._replace(result=not_located[one.user].result, at=not_located[one.user].at)
            for one in self.targets
            if one.user in not_located and (one.user, one.path) not in located
        )
        return replace(self, targets=(*new, *kept))

    def _earlier_if_unchanged(self, new: TargetOutcome) -> TargetOutcome:
        earlier = self.outcome(new.user, new.path)
        if earlier is None or earlier.origin != new.origin:
            return new
        still_in_sync = new.result == Result.IN_SYNC and earlier.was_in_sync
        same = new.result == earlier.result != Result.CHANGED
        return earlier if still_in_sync or same else new


def _without_keys(rejected: tuple[RejectedEntry, ...]) -> tuple[RejectedEntry, ...]:
    """The rejected entries to remember; the keys in them are in `Ledger.keys`."""
    return tuple(replace(entry, fingerprints=frozenset()) for entry in rejected[:MAX_REJECTED])
