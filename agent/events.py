"""Every event that keysync logs: a frozen dataclass each, rendered by `log` and nowhere else.

The names are a contract; docs/events.md lists them with their fields, and a test keeps both equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """`name` is `noun.past_verb`; `level` is one of debug, info, warning, error."""

    name: ClassVar[str]
    level: ClassVar[str] = "info"

    sync_id: str


@dataclass(frozen=True, slots=True)
class SyncCompleted(Event):
    """The one line of a cycle that ended with every target in sync."""

    name = "sync.completed"
    result: str
    dry_run: bool
    duration_ms: int
    listed: int
    rejected: int
    added: int
    adopted: int
    removed: int
    not_modified: bool
    listing_age_s: int = 0  # it was fetched in this cycle


@dataclass(frozen=True, slots=True)
class SyncFailed(Event):
    """The one line of a cycle that failed; `listing_age_s` is the age of the last good one."""

    name = "sync.failed"
    level = "error"
    kind: str
    message: str
    hint: str
    duration_ms: int
    listing_age_s: int | None


@dataclass(frozen=True, slots=True)
class SyncHeld(Event):
    """The one line of a cycle in which a guard held the listing back."""

    name = "sync.held"
    level = "warning"
    kind: str
    message: str
    hint: str
    duration_ms: int
    listing_age_s: int | None


@dataclass(frozen=True, slots=True)
class KeyEvent(Event):
    """What all events about one key in one file say."""

    user: str
    path: str
    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class KeyAdded(KeyEvent):
    """A line was written for a listed key or a pin."""

    name = "key.added"


@dataclass(frozen=True, slots=True)
class KeyAdopted(KeyEvent):
    """A plain line that was there for a listed key is keysync's from now on (R3)."""

    name = "key.adopted"


@dataclass(frozen=True, slots=True)
class KeyRemoved(KeyEvent):
    """A line is gone, seen by reading the file again; `reason` says which law took it."""

    name = "key.removed"


@dataclass(frozen=True, slots=True)
class KeyReappeared(KeyEvent):
    """Somebody put a revoked key back; it was removed again (R5)."""

    name = "key.reappeared"
    level = "warning"


@dataclass(frozen=True, slots=True)
class KeyStillAuthorized(KeyEvent):
    """A key deleted on the console stands in a restricted line, which is its owner's (R4)."""

    name = "key.still_authorized"
    level = "warning"


@dataclass(frozen=True, slots=True)
class KeyRejected(Event):
    """An entry of the listing is no usable key (G2); said once, until it changes."""

    name = "key.rejected"
    level = "warning"
    key_id: int | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class TargetProblem(Event):
    """A key file could not be read or written; the other targets were served (R11)."""

    name = "target.failed"
    level = "error"
    user: str
    path: str
    kind: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class TargetDefaulted(Event):
    """sshd could not be asked which file it reads, so its default was taken."""

    name = "target.defaulted"
    user: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class StateSetAside(Event):
    """state.json could not be understood; it was renamed and is rebuilt."""

    name = "state.set_aside"
    level = "warning"
    path: str
    reason: str
