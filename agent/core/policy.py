"""The guards as values: what is held back, and why (G3, G4).

1. A listing of another account than the first one changes nothing until it is accepted by id.
2. A listing that is empty, holds no usable key, or would leave a target without a way in, is held
   until it was seen in so many polls in a row, or is confirmed by the operator.
3. Any other removal is prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.core.ledger import Hold, Ledger
from agent.core.listing import Listing
from agent.core.plan import Plan


@dataclass(frozen=True, slots=True)
class Held:
    """Nothing is applied, for this reason; `hold` is what the ledger must remember of it."""

    kind: str
    message: str
    hint: str
    hold: Hold | None = None


def judge_account(listing: Listing, ledger: Ledger, accepted: int | None) -> Held | None:
    """G4. `accepted` is the account that the operator accepted in this very run."""
    expected = ledger.account_id if accepted is None else accepted
    if expected is None or listing.account_id == expected:
        return None
    if listing.account_id is None:
        # An empty list names nobody; guard 2 decides about it.
        if not listing.keys and not listing.rejected:
            return None
        return Held(
            "account_unknown",
            f"The list of SSH keys does not say whose it is; this machine follows account "
            f"{expected}.",
            "Nothing was changed. Check api.url; the console's own API always names the account.",
        )
    other = f"this machine follows account {expected}"
    if accepted is not None:
        other = f"the one that was accepted is {accepted}"
    return Held(
        "account_changed",
        f"The API key belongs to account {listing.account_id}; {other}.",
        f"Nothing was changed. If the machine shall follow account {listing.account_id} from now "
        f"on: keysync sync --accept-account {listing.account_id}",
    )


def judge_lockout(
    listing: Listing,
    plans: Mapping[str, Sequence[Plan]],
    ledger: Ledger,
    confirmations: int,
    *,
    confirmed: bool,
) -> tuple[Held | None, Hold | None]:
    """G3. `plans` are each user's files; gives what is held, and the hold to remember.

    The hold is remembered also when it is no longer held, so that the same listing stays applied:
    what it removed is removed at once when others put it back (R5).
    """
    danger = _danger(listing, plans)
    if danger is None:
        return None, _still_confirmed(listing, ledger.hold)
    reason, message = danger
    digest = _digest(reason, listing)
    earlier = ledger.hold
    seen = earlier.seen + 1 if earlier and earlier.digest == digest else 1
    hold = Hold(reason, digest, max(seen, confirmations) if confirmed else seen, confirmations)
    if hold.confirmed:
        return None, hold
    hint = (
        f"Nothing was changed yet (seen in {hold.seen} of {confirmations} polls in a row; at the "
        "last of them it is applied). To prevent that, put a usable key on the Keys page. To apply "
        "it now: keysync sync --confirm-removals"
    )
    return Held(reason, message, hint, hold), hold


def _still_confirmed(listing: Listing, earlier: Hold | None) -> Hold | None:
    """The confirmation of a listing that is the same and endangers nobody at the moment."""
    same = earlier is not None and earlier.digest == _digest(earlier.reason, listing)
    return earlier if earlier is not None and same and earlier.confirmed else None


def _danger(listing: Listing, plans: Mapping[str, Sequence[Plan]]) -> tuple[str, str] | None:
    if not listing.keys and not listing.rejected:
        return "empty_listing", "The account's list of SSH keys is empty."
    if not listing.keys:
        count = len(listing.rejected)
        return "no_valid_entry", f"None of the account's {count} SSH keys is usable."
    shut = sorted(user for user, own in plans.items() if _locks_out(own))
    if shut:
        return "would_lock_out", f"No usable key would be left for {', '.join(shut)}."
    return None


def _locks_out(plans: Sequence[Plan]) -> bool:
    """Over all the files that sshd reads for one user."""
    return any(plan.removed for plan in plans) and not any(
        line.opens_session for plan in plans for line in plan.after.lines
    )


def _digest(reason: str, listing: Listing) -> str:
    """The same listing gives the same text, in whatever order the API sends it."""
    valid = {listed.key.fingerprint for listed in listing.keys}
    refused = (f"refused {fingerprint}" for fingerprint in listing.present - valid)
    return hashlib.sha256("\n".join([reason, *sorted({*valid, *refused})]).encode()).hexdigest()
