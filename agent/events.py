"""The events of a cycle: frozen values, rendered by `log` and nowhere else.

The names are a contract; docs/events.md lists them with their fields, and a test keeps both equal.
A class without fields of its own goes without the decorator, which costs a millisecond at each
start of keysync.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agent.core.results import Result, Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`name` is `noun.past_verb`; `level` is one of debug, info, warning, error."""

    name: ClassVar[str]
    level: ClassVar[str] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleEvent(Event):
    """What happened within one cycle; `sync_id` is the same in all of its lines.

    `trigger` is what the cycle came from: poll, signal, manual or boot.
    """

    sync_id: str = ""
    trigger: Trigger = Trigger.MANUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncCompleted(CycleEvent):
    """The one line of a cycle that ended with every target in sync."""

    name = "sync.completed"
    result: Result
    dry_run: bool
    duration_ms: int
    listed: int
    rejected: int
    added: int
    adopted: int
    removed: int
    not_modified: bool
    listing_age_s: int = 0  # it was fetched in this cycle


class SyncUnchanged(SyncCompleted):
    """The same of a poll of the daemon that found nothing new; they are summarized instead."""

    __slots__ = ()
    level = "debug"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncTrouble(CycleEvent):
    """What is said of a cycle that did not end in sync; `listing_age_s` is since the last that did.

    The counts tell what was done for the other targets when only some of them failed. The daemon
    adds since when cycles have not ended in sync, and in how many seconds the next one comes.
    """

    kind: str
    message: str
    hint: str
    dry_run: bool
    duration_ms: int
    listed: int | None
    rejected: int
    added: int
    adopted: int
    removed: int
    listing_age_s: int | None
    failing_since: str | None = None
    next_poll_s: int | None = None


class SyncFailed(SyncTrouble):
    """The one line of a cycle that failed."""

    __slots__ = ()
    name = "sync.failed"
    level = "error"


class SyncHeld(SyncTrouble):
    """The one line of a cycle in which a guard held the listing back, for all users or for some."""

    __slots__ = ()
    name = "sync.held"
    level = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvent(CycleEvent):
    """What all events about one key in one file say."""

    user: str
    path: str
    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    reason: str


class KeyAdded(KeyEvent):
    """A line was written for a listed key or a pin."""

    __slots__ = ()
    name = "key.added"


class KeyAdopted(KeyEvent):
    """A plain line that was there for a listed key is keysync's from now on (R3)."""

    __slots__ = ()
    name = "key.adopted"


class KeyRemoved(KeyEvent):
    """A line is gone, seen by reading the file again; `reason` says which law took it."""

    __slots__ = ()
    name = "key.removed"


class KeyReappeared(KeyEvent):
    """Somebody put a revoked key back; it was removed again (R5)."""

    __slots__ = ()
    name = "key.reappeared"
    level = "warning"


class KeyStillAuthorized(KeyEvent):
    """A key deleted on the console stands in a restricted line, which is its owner's (R4)."""

    __slots__ = ()
    name = "key.still_authorized"
    level = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHeld(CycleEvent):
    """A listed key that was never accepted before waits for confirmation (G14); said once."""

    name = "key.held"
    level = "warning"
    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsOmitted(CycleEvent):
    """There were more events of one kind than one file or answer may cause (G12)."""

    name = "events.omitted"
    level = "warning"
    omitted_event: str
    count: int
    user: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOmitted(CycleEvent):
    """More lines were removed from one file than the journal keeps of it (G5, G12)."""

    name = "journal.truncated"
    level = "warning"
    user: str
    path: str
    lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLockedOut(CycleEvent):
    """No key that is left in a user's files lets anybody in (G3)."""

    name = "user.locked_out"
    level = "error"
    user: str
    paths: str
    reason: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRejected(CycleEvent):
    """An entry of the listing is no usable key (G2); said once, until it changes."""

    name = "key.rejected"
    level = "warning"
    key_id: int | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationsDropped(CycleEvent):
    """There were more deleted keys than are remembered (G12); those count as foreign now."""

    name = "revocation.dropped"
    level = "warning"
    count: int
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetProblem(CycleEvent):
    """A key file could not be read or written; the other targets were served (R11)."""

    name = "target.failed"
    level = "error"
    user: str
    path: str
    kind: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDefaulted(CycleEvent):
    """sshd could not be asked which file it reads; its default is taken, and the doubt told."""

    name = "target.defaulted"
    level = "warning"
    user: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRetired(CycleEvent):
    """A key file is no longer a target; revocations still reach it (R5)."""

    name = "target.retired"
    level = "warning"
    user: str
    path: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDiscovered(CycleEvent):
    """`targets: auto` found an account whose key file holds a key of the account."""

    name = "target.discovered"
    user: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSkipped(CycleEvent):
    """`targets: auto` could not search a key file of an account that is no target (R5)."""

    name = "account.skipped"
    level = "warning"
    user: str
    path: str
    kind: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDisagreed(CycleEvent):
    """sshd reads other files of this user for other client addresses or ports."""

    name = "target.disagreed"
    level = "warning"
    user: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetModeChanged(CycleEvent):
    """keysync changed the mode of a file or directory, for which sshd refuses keys (G9)."""

    name = "target.mode_changed"
    level = "warning"
    user: str
    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateWriteFailed(CycleEvent):
    """The state or the journal could not be written; revocations were done all the same (G11)."""

    name = "state.write_failed"
    level = "error"
    kind: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSetAside(CycleEvent):
    """state.json could not be understood; it was renamed and is rebuilt.

    `account_id` is the account pin that could be saved from it (G4); `path` is empty when the
    file could not be renamed.
    """

    name = "state.set_aside"
    level = "error"
    path: str
    reason: str
    account_id: int | None = None
