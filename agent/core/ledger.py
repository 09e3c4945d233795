"""What must be remembered between cycles: whose account, which keys it held, what is held back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.core.listing import Listing, RejectedEntry


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that a listing once held; `revoked_at` is set when the console let go of it."""

    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    first_listed: str
    revoked_at: str | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """A listing that waits for confirmation, and in how many polls in a row it was seen (G3)."""

    reason: str
    digest: str
    seen: int
    needed: int

    @property
    def confirmed(self) -> bool:
        """Whether it was seen often enough to be applied."""
        return self.seen >= self.needed


@dataclass(frozen=True, slots=True)
class Failure:
    """The last thing that went wrong; `solved_at` is the first success since."""

    at: str
    kind: str
    message: str
    hint: str
    solved_at: str | None = None


@dataclass(frozen=True, slots=True)
class TargetOutcome:
    """How the last cycle ended for one key file."""

    user: str
    path: str
    result: str
    at: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that outlives a cycle. Times are RFC 3339 in UTC."""

    account_id: int | None = None
    keys: Mapping[str, KnownKey] = field(default_factory=dict)
    rejected: tuple[RejectedEntry, ...] = ()
    hold: Hold | None = None
    last_success: str | None = None
    last_failure: Failure | None = None
    targets: tuple[TargetOutcome, ...] = ()

    @property
    def known(self) -> dict[str, int | None]:
        """The console's id of every key that was ever listed, by fingerprint."""
        return {fingerprint: key.key_id for fingerprint, key in self.keys.items()}

    def accept(self, listing: Listing, now: str) -> Ledger:
        """The ledger after `listing` was applied (R5): new keys known, missing ones revoked."""
        keys = dict(self.keys)
        present = listing.present
        for fingerprint, key in self.keys.items():
            if fingerprint not in present:
                keys[fingerprint] = replace(key, revoked_at=key.revoked_at or now)
        for found in _known_keys(listing, now):
            earlier = keys.get(found.fingerprint)
            first = earlier.first_listed if earlier else now
            keys[found.fingerprint] = replace(found, first_listed=first)
        account_id = listing.account_id if self.account_id is None else self.account_id
        return replace(self, account_id=account_id, keys=keys, rejected=listing.rejected)

    def saw(self, listing: Listing, now: str) -> Ledger:
        """The ledger when `listing` is held (G3): its new keys are known, and nothing is revoked.

        Such a key may stand in a file already; deleted before the listing was ever applied, it
        must not stay (R5).
        """
        found = {known.fingerprint: known for known in _known_keys(listing, now)}
        return replace(self, keys={**found, **self.keys})

    def paths(self, user: str) -> tuple[str, ...]:
        """The files that the last cycle served for `user`."""
        return tuple(target.path for target in self.targets if target.user == user and target.path)

    def succeeded(self, now: str) -> Ledger:
        """The ledger after every target was brought in sync."""
        failure = self.last_failure
        if failure and failure.solved_at is None:
            failure = replace(failure, solved_at=now)
        return replace(self, last_success=now, last_failure=failure)

    def outcome(self, user: str, path: str) -> TargetOutcome | None:
        """How the last cycle that came to this file ended for it."""
        here = (target for target in self.targets if (target.user, target.path) == (user, path))
        return next(here, None)

    def was_well(self, user: str, path: str, since: str) -> bool:
        """Whether this file was in sync at that time or later (R5: what came back came back)."""
        last = self.outcome(user, path)
        return last is not None and last.result in ("changed", "in_sync") and last.at >= since


def _known_keys(listing: Listing, now: str) -> list[KnownKey]:
    """Refused entries count too: the platform may have written their keys at creation."""
    refused = [
        KnownKey(fingerprint, "", "", entry.key_id, now)
        for entry in listing.rejected
        for fingerprint in sorted(entry.fingerprints)
    ]
    valid = [
        KnownKey(listed.key.fingerprint, listed.key.key_type, listed.comment, listed.key_id, now)
        for listed in listing.keys
    ]
    return refused + valid
