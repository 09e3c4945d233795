"""The keys that the account ever listed, and how a listing changes what is known of them.

The number of remembered keys is bounded, whatever a console lists (G12): beyond the bound the keys
that matter least are forgotten, see `_retention_order`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from agent.core.listing import MAX_ENTRIES, Listing
from agent.core.text import printable
from agent.core.times import age_seconds

MAX_KNOWN_KEYS = MAX_ENTRIES + 20_000  # the longest listing, and keys that were deleted (R5)
MAX_REFUSED_KEYS = 200  # keys that were seen in refused entries only


class KnownKey(NamedTuple):
    """A key that a listing once held.

    `revoked_at` is when it was first missing from a listing, `accepted_at` when it was last allowed
    into the key files; a revoked key that is listed again has to be accepted again (G14). Times are
    RFC 3339 in UTC. `key_type` is empty for a key that was seen in refused entries only.
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
        """Whether it was ever a valid entry, not only seen in a refused one."""
        return self.key_type != ""


KnownKeys = Mapping[str, KnownKey]  # by fingerprint


def still_listed(keys: KnownKeys, listing: Listing, waiting: frozenset[str]) -> frozenset[str]:
    """The fingerprints in `listing` that are not revoked.

    Only a valid entry ends a revocation (R5), and only if the key is not among the `waiting` ones,
    which have to be confirmed first (G14).
    """
    revoked = {name for name, key in keys.items() if key.revoked_at is not None}
    return (listing.usable - waiting) | (listing.present - revoked)


def record_listing(keys: KnownKeys, listing: Listing, now: str) -> KnownKeys:
    """`keys` with every key of `listing` added; none is revoked or accepted."""
    recorded = dict(keys)
    for found in _keys_in(listing, now):
        earlier = recorded.get(found.fingerprint)
        if earlier is None:
            recorded[found.fingerprint] = found
        elif found.was_usable and not earlier.was_usable:
            recorded[found.fingerprint] = found._replace(
                first_listed=earlier.first_listed, revoked_at=earlier.revoked_at
            )
    return _bounded(recorded, listing)


def apply_listing(
    keys: KnownKeys, listing: Listing, waiting: frozenset[str], now: str
) -> KnownKeys:
    """`keys` after `listing`: its keys are accepted unless `waiting`, missing keys are revoked."""
    recorded = record_listing(keys, listing, now)
    present = still_listed(recorded, listing, waiting)
    applied = {
        name: key if name in present or key.revoked_at is not None else key._replace(revoked_at=now)
        for name, key in recorded.items()
    }
    for found in _keys_in(listing, now):
        name = found.fingerprint
        if found.was_usable:  # seen in a refused entry, a key keeps the name that it had
            applied[name] = _listed_again(applied[name], found, accepts=name not in waiting)
    return applied


def accept(keys: KnownKeys, fingerprints: Iterable[str], now: str) -> KnownKeys:
    """`keys`, of which those with these fingerprints are accepted; unknown ones are ignored."""
    accepted = dict(keys)
    for name in fingerprints:
        if (key := accepted.get(name)) and not key.is_accepted:
            accepted[name] = key._replace(accepted_at=now, revoked_at=None)
    return accepted


def _listed_again(earlier: KnownKey, found: KnownKey, *, accepts: bool) -> KnownKey:
    """A known key with the name that it is listed under now; revoked until it is accepted."""
    revoked, accepted = earlier.revoked_at, earlier.accepted_at
    if accepts:
        accepted = accepted if earlier.is_accepted else found.first_listed
        revoked = None
    return found._replace(
        first_listed=earlier.first_listed, revoked_at=revoked, accepted_at=accepted
    )


def _keys_in(listing: Listing, now: str) -> list[KnownKey]:
    """Every key of the listing, valid entries last, so that their names win.

    Keys of refused entries count: the platform may have written them at creation (R5).
    """
    refused = [
        KnownKey(fingerprint, "", "", entry.key_id, now)
        for entry in listing.rejected
        for fingerprint in sorted(entry.fingerprints)
    ]
    valid = [
        KnownKey(one.key.fingerprint, one.key.key_type, printable(one.comment), one.key_id, now)
        for one in listing.keys
    ]
    return refused + valid


# ---- bounds (G12) ----


def _bounded(keys: dict[str, KnownKey], listing: Listing) -> dict[str, KnownKey]:
    refused = [key for key in keys.values() if not key.was_usable]
    usable = [key for key in keys.values() if key.was_usable]
    forgotten = _excess(refused, MAX_REFUSED_KEYS, listing.present)
    forgotten |= _excess(usable, MAX_KNOWN_KEYS, listing.usable)
    return {name: key for name, key in keys.items() if name not in forgotten}


def _excess(keys: list[KnownKey], limit: int, listed: frozenset[str]) -> set[str]:
    """The keys to forget: first those that are not `listed`, then those listed last.

    The same listing therefore changes nothing when it is applied again (R7).
    """
    if len(keys) <= limit:
        return set()
    absent = sorted((key for key in keys if key.fingerprint not in listed), key=_retention_order)
    present = [key for key in keys if key.fingerprint in listed]
    present.sort(key=lambda key: key.first_listed, reverse=True)
    return {key.fingerprint for key in (absent + present)[: len(keys) - limit]}


def _retention_order(key: KnownKey) -> tuple[bool, bool, int, str]:
    """Sorts the key to forget first to the front.

    An attacker who lists and deletes thousands of keys can neither have them listed for as long as
    the account's own keys were, nor accepted where additions are held; those go first (G12).
    """
    if key.revoked_at is None:
        return True, True, 0, key.first_listed
    return False, key.accepted_at is not None, _listed_seconds(key), key.revoked_at


def _listed_seconds(key: KnownKey) -> int:
    """For how long it was listed; 0 if the clock was wrong or a time is malformed."""
    try:
        return age_seconds(key.first_listed, key.revoked_at or "") or 0
    except ValueError:
        return 0
