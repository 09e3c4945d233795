"""The keys that wait for confirmation, where `policy.additions` is `hold` (G14)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agent.core.ledger import Ledger, WaitingKey
from agent.core.listing import ListedKey, Listing
from agent.core.text import printable
from agent.errors import RequestInvalid

CONFIRM_ALL = "all"


def find_waiting(
    listing: Listing, ledger: Ledger, confirmed: Collection[str], now: str
) -> tuple[WaitingKey, ...]:
    """The listed keys that were never accepted and are not among the `confirmed` fingerprints."""
    if CONFIRM_ALL in confirmed:
        return ()
    since = {one.fingerprint: one.since for one in ledger.waiting}
    return tuple(
        _waiting_key(listed, since.get(listed.key.fingerprint, now))
        for listed in listing.keys
        if listed.key.fingerprint not in confirmed
        and not was_accepted(ledger, listed.key.fingerprint)
    )


def require_listed(listing: Listing, confirmed: Collection[str]) -> None:
    """Raises RequestInvalid for a confirmed fingerprint that the account does not list."""
    listed = {one.key.fingerprint for one in listing.keys}
    unknown = set(confirmed) - listed - {CONFIRM_ALL}
    if unknown:
        raise RequestInvalid(
            "not_listed",
            f"The account does not list the key {', '.join(sorted(unknown))}, so it cannot be "
            "confirmed.",
            "keysync status shows the fingerprints of the keys that wait.",
        )


def fingerprints(waiting: Iterable[WaitingKey]) -> frozenset[str]:
    """The fingerprints of the waiting keys."""
    return frozenset(one.fingerprint for one in waiting)


def was_accepted(ledger: Ledger, fingerprint: str) -> bool:
    """Whether the key may enter without confirmation; a deleted key must be confirmed again."""
    known = ledger.keys.get(fingerprint)
    return known is not None and known.is_accepted


def _waiting_key(listed: ListedKey, since: str) -> WaitingKey:
    key = listed.key
    comment = printable(listed.comment)
    return WaitingKey(key.fingerprint, key.key_type, comment, listed.key_id, since)
