"""What is the same for every key file of one cycle: the desired keys, the guard, the options."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.adapters.sshd_config import Sshd
from agent.config import Config
from agent.core.desired_keys import DesiredKeys
from agent.core.guards import HoldRule, LockoutGuard, OpensSession
from agent.core.ledger import Ledger
from agent.core.listing import Listing
from agent.core.times import Moment
from agent.service.bookkeeping import Records


@dataclass(frozen=True, slots=True)
class Terms:
    """What is the same for every file of one cycle.

    `opens` tells whether a line lets a person in. `may_enter` is false where new keys could not be
    recorded first (G11), `all_held` true when the listing is held for everybody (G3).
    """

    desired: DesiredKeys
    guard: LockoutGuard
    opens: OpensSession
    records: Records
    may_enter: bool = True
    all_held: bool = False
    dry_run: bool = False
    sshd: Sshd = field(default_factory=Sshd)


def desired_keys(
    config: Config, listing: Listing, ledger: Ledger, waiting: frozenset[str]
) -> DesiredKeys:
    """The keys that the account and the configuration ask for; `waiting` fingerprints stay out."""
    present = ledger.still_listed(listing, waiting)
    return DesiredKeys(
        listed={one.key.blob: one for one in listing.keys if one.key.fingerprint not in waiting},
        pins={pin.key.blob: pin for pin in config.pins},
        previously_listed=ledger.previously_listed,
        present=present,
        listed_but_malformed=listing.listed_but_malformed & present,
        waiting=waiting & present,
        strict=config.policy_unmanaged == "remove",
    )


def lockout_guard(
    config: Config,
    listing: Listing,
    ledger: Ledger,
    now: Moment,
    *,
    confirmed: bool,
    waiting: frozenset[str],
) -> LockoutGuard:
    """The guard with the configured rule (G3); `confirmed` is the operator's --confirm-removals."""
    rule = HoldRule(
        config.policy_removal_confirmations, config.policy_removal_hold, config.poll_interval
    )
    return LockoutGuard(listing, ledger, rule, now, confirmed=confirmed, waiting=waiting)
