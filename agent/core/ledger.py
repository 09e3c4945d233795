"""What must be remembered between cycles: whose account, which keys it held, what is held back.

Bounded: however many keys a console lists and refuses, the ledger forgets the least useful ones
(G12). Two ledgers that are equal need no writing (R7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from agent.core.authorized_keys import printable
from agent.core.listing import MAX_ENTRIES, Listing, RejectedEntry
from agent.core.times import Moment, age_seconds

ALL_TARGETS = ""  # the name under which a hold of every target is kept
MAX_KNOWN_KEYS = MAX_ENTRIES + 20_000  # the longest list, and what was deleted before it (R5)
MAX_REFUSED_KEYS = 200  # that were seen only inside refused entries
MAX_REJECTED = 100
MAX_SKIPPED = 100


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that a listing once held.

    `revoked_at` is set when the console let go of it, `accepted_at` when it was last allowed into
    the key files; a revoked key that is listed again has to be accepted again (G14).
    """

    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    first_listed: str
    revoked_at: str | None = None
    accepted_at: str | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether it may enter although additions are held (G14)."""
        return self.accepted_at is not None and self.revoked_at is None

    @property
    def was_usable(self) -> bool:
        """Whether it was an entry of its own, and not only seen inside a refused one."""
        return self.key_type != ""


@dataclass(frozen=True, slots=True)
class Hold:
    """A danger that waits for confirmation (G3): no usable key for all targets, or for one user.

    It was seen in `seen` of `needed` polls that count, and over `waited_s` of `wait_s` seconds;
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


@dataclass(frozen=True, slots=True)
class WaitingKey:
    """A listed key that policy.additions: hold keeps out until it is confirmed (G14)."""

    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    since: str


@dataclass(frozen=True, slots=True)
class Failure:
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


@dataclass(frozen=True, slots=True)
class TargetOutcome:
    """How the last cycle that changed something ended for one key file.

    `origin` is why it was a target: configured, auto or retired.
    """

    user: str
    path: str
    result: str
    at: str
    origin: str = "configured"

    @property
    def well(self) -> bool:
        """Whether the file was in sync then."""
        return self.result in ("changed", "in_sync")


@dataclass(frozen=True, slots=True)
class Retired:
    """A key file that was a target and is no longer; revocations still reach it (R5)."""

    user: str
    path: str
    since: str


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A key file of an account that is no target, which `targets: auto` could not search (R5)."""

    user: str
    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that outlives a cycle. Times are RFC 3339 in UTC."""

    account_id: int | None = None
    keys: Mapping[str, KnownKey] = field(default_factory=dict)
    rejected: tuple[RejectedEntry, ...] = ()
    holds: Mapping[str, Hold] = field(default_factory=dict)
    waiting: tuple[WaitingKey, ...] = ()
    retired: tuple[Retired, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    last_success: Moment | None = None
    last_failure: Failure | None = None
    targets: tuple[TargetOutcome, ...] = ()

    @property
    def previously_listed(self) -> dict[str, int | None]:
        """The console's id of every key that was ever listed, by fingerprint."""
        return {fingerprint: key.key_id for fingerprint, key in self.keys.items()}

    @property
    def revoked(self) -> frozenset[str]:
        """The fingerprints of the keys that the console let go of (R5)."""
        return frozenset(name for name, key in self.keys.items() if key.revoked_at is not None)

    def still_listed(self, listing: Listing, waiting: frozenset[str]) -> frozenset[str]:
        """The fingerprints in `listing` that are not revoked.

        A revoked key comes back by a valid entry alone (R5), and not while it is among the
        `waiting` ones that have to be confirmed (G14).
        """
        return (listing.usable - waiting) | (listing.present - self.revoked)

    def keys_with_id(self, ids: Iterable[int | None]) -> frozenset[str]:
        """The usable keys that the console last listed under these ids."""
        desired = set(ids) - {None}
        return frozenset(
            key.fingerprint
            for key in self.keys.values()
            if key.key_id in desired and key.was_usable and key.revoked_at is None
        )

    # ---- a listing ----

    def record_listing(self, listing: Listing, now: str) -> Ledger:
        """The ledger that knows every key of `listing` and revokes none.

        This is written before any key enters a file: whatever happens next, a key that is deleted
        on the console later is known to have been listed (R5, G11).
        """
        keys = dict(self.keys)
        for found in _keys_of(listing, now):
            earlier = keys.get(found.fingerprint)
            if earlier is None:
                keys[found.fingerprint] = found
            elif found.was_usable and not earlier.was_usable:
                keys[found.fingerprint] = replace(
                    found, first_listed=earlier.first_listed, revoked_at=earlier.revoked_at
                )
        return replace(self, keys=_bounded(keys, listing), rejected=_shown(listing))

    def forgotten_since(self, earlier: Ledger) -> int:
        """How many revoked keys of `earlier` found no room any more (G12); refused ones aside."""
        return sum(
            key.was_usable and key.revoked_at is not None and name not in self.keys
            for name, key in earlier.keys.items()
        )

    def apply_listing(self, listing: Listing, waiting: Iterable[str], now: str) -> Ledger:
        """The ledger after `listing` was applied: its keys accepted, the missing ones revoked.

        `waiting` are the fingerprints that were kept out (G14).
        """
        recorded = self.record_listing(listing, now)
        keys = dict(recorded.keys)
        kept_out = frozenset(waiting)
        gone = recorded.keys.keys() - recorded.still_listed(listing, kept_out)
        for fingerprint in gone - recorded.revoked:
            keys[fingerprint] = replace(keys[fingerprint], revoked_at=now)
        for found in _keys_of(listing, now):
            if found.fingerprint in keys:
                accepts = found.was_usable and found.fingerprint not in kept_out
                keys[found.fingerprint] = _listed_again(keys[found.fingerprint], found, accepts)
        account_id = listing.account_id if self.account_id is None else self.account_id
        return replace(recorded, account_id=account_id, keys=keys)

    def accepting(self, fingerprints: Iterable[str], now: str) -> Ledger:
        """The ledger in which these known keys are allowed into the key files (G14)."""
        keys = dict(self.keys)
        for fingerprint in fingerprints:
            if (key := keys.get(fingerprint)) and not key.is_accepted:
                keys[fingerprint] = replace(key, accepted_at=now, revoked_at=None)
        return replace(self, keys=keys)

    def missing_from(self, listing: Listing) -> frozenset[str]:
        """The fingerprints of the usable keys of `listing` that this ledger does not know."""
        return frozenset(
            listed.key.fingerprint
            for listed in listing.keys
            if listed.key.fingerprint not in self.keys
        )

    # ---- how cycles end ----

    def succeeded(self, now: Moment) -> Ledger:
        """The ledger after every target was brought in sync."""
        failure = self.last_failure
        if failure and failure.solved_at is None:
            failure = replace(failure, solved_at=now.at)
        return replace(self, last_success=now, last_failure=failure)

    def failed(self, kind: str, message: str, hint: str, now: Moment) -> Ledger:
        """The ledger after a failure; the same one again changes nothing."""
        last = self.last_failure
        goes_on = last is not None and last.solved_at is None
        if last and goes_on and (last.kind, last.message, last.hint) == (kind, message, hint):
            return self
        since = last.since if last and goes_on else now
        return replace(self, last_failure=Failure(since, now.at, kind, message, hint))

    def outcome(self, user: str, path: str) -> TargetOutcome | None:
        """How the last cycle that came to this file ended for it."""
        here = (target for target in self.targets if (target.user, target.path) == (user, path))
        return next(here, None)

    def was_in_sync(self, user: str, path: str) -> bool:
        """Whether this file was in sync at last: a revoked key in it now was put back (R5)."""
        last = self.outcome(user, path)
        return last is not None and last.well

    def with_outcomes(self, outcomes: Iterable[TargetOutcome]) -> Ledger:
        """The ledger with how this cycle ended; what stays in sync keeps its time (R7).

        A user whose file could not be found out has an outcome without a path. It stands for the
        user's earlier files too: they are remembered, so that they can be retired (R5).
        """
        new = [self._unless_unchanged(one) for one in outcomes]
        here = {(one.user, one.path) for one in new}
        lost = {one.user: one for one in new if not one.path}
        kept = (
            replace(one, result=lost[one.user].result, at=lost[one.user].at)
            for one in self.targets
            if one.user in lost and (one.user, one.path) not in here
        )
        return replace(self, targets=(*new, *kept))

    def _unless_unchanged(self, new: TargetOutcome) -> TargetOutcome:
        earlier = self.outcome(new.user, new.path)
        if earlier is None or earlier.origin != new.origin:
            return new
        still_well = new.result == "in_sync" and earlier.well
        same = new.result == earlier.result != "changed"
        return earlier if still_well or same else new


def _listed_again(earlier: KnownKey, found: KnownKey, accepts: bool) -> KnownKey:
    """A key that is on the console now, with what was known of it; revoked until accepted."""
    if not found.was_usable:  # refused now, perhaps usable before: its name stays
        return earlier
    revoked, accepted = earlier.revoked_at, earlier.accepted_at
    if accepts:
        accepted = accepted if earlier.is_accepted else found.first_listed
        revoked = None
    return replace(
        found, first_listed=earlier.first_listed, revoked_at=revoked, accepted_at=accepted
    )


def _keys_of(listing: Listing, now: str) -> list[KnownKey]:
    """Refused entries count too: the platform may have written their keys at creation."""
    refused = [
        KnownKey(fingerprint, "", "", entry.key_id, now)
        for entry in listing.rejected
        for fingerprint in sorted(entry.fingerprints)
    ]
    valid = [
        KnownKey(
            listed.key.fingerprint,
            listed.key.key_type,
            printable(listed.comment),
            listed.key_id,
            now,
        )
        for listed in listing.keys
    ]
    return refused + valid


def _bounded(keys: dict[str, KnownKey], listing: Listing) -> dict[str, KnownKey]:
    """Without the least useful keys beyond the bounds."""
    refused = [key for key in keys.values() if not key.was_usable]
    usable = [key for key in keys.values() if key.was_usable]
    gone = _surplus(refused, MAX_REFUSED_KEYS, listing.present)
    gone |= _surplus(usable, MAX_KNOWN_KEYS, listing.usable)
    return {name: key for name, key in keys.items() if name not in gone} if gone else keys


def _surplus(keys: list[KnownKey], most: int, listed: frozenset[str]) -> set[str]:
    """Those to forget: revoked ones first, then what was deleted just now.

    Of the listed ones the latest go first, so that the same list changes nothing again (R7).
    """
    if len(keys) <= most:
        return set()
    absent = sorted((key for key in keys if key.fingerprint not in listed), key=_worth)
    present = [key for key in keys if key.fingerprint in listed]
    present.sort(key=lambda key: key.first_listed, reverse=True)
    return {key.fingerprint for key in (absent + present)[: len(keys) - most]}


def _worth(key: KnownKey) -> tuple[bool, bool, int, str]:
    """The more, the longer it is remembered.

    Whoever lists and deletes thousands of keys cannot have them listed for as long as the
    account's own, nor accepted where additions are held; so those are forgotten first (G12).
    """
    if key.revoked_at is None:
        return True, True, 0, key.first_listed
    return False, key.accepted_at is not None, _listed_seconds(key), key.revoked_at


def _listed_seconds(key: KnownKey) -> int:
    """For how long it was on the console; 0 where a clock was wrong, or a time is unreadable."""
    try:
        return age_seconds(key.first_listed, key.revoked_at or "") or 0
    except ValueError:
        return 0


def _shown(listing: Listing) -> tuple[RejectedEntry, ...]:
    """The refused entries that are remembered; their keys are in `keys`."""
    return tuple(
        replace(entry, fingerprints=frozenset()) for entry in listing.rejected[:MAX_REJECTED]
    )
