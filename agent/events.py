"""The events of a cycle: frozen values, rendered by `log` and nowhere else.

Names and fields are a public contract: docs/events.md lists them, and a test keeps both equal. A
class without fields of its own needs no decorator, which would cost time at every start.
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
    """Something that happened in one cycle, which fills in `sync_id` and `trigger`."""

    sync_id: str = ""
    trigger: Trigger = Trigger.MANUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncCompleted(CycleEvent):
    """A cycle ended with every target in sync."""

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
    listing_age_s: int = 0  # the listing was fetched in this cycle


class SyncUnchanged(SyncCompleted):
    """A poll of the daemon found nothing new; see `polls.summarized`."""

    __slots__ = ()
    level = "debug"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncTrouble(CycleEvent):
    """A cycle did not end in sync.

    `listing_age_s` is the number of seconds since the last cycle that did. The counts say what was
    done for the other targets. The daemon adds when the streak of such cycles began
    (`failing_since`) and in how many seconds the next one starts (`next_poll_s`).
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
    """A cycle failed."""

    __slots__ = ()
    name = "sync.failed"
    level = "error"


class SyncHeld(SyncTrouble):
    """A guard held the listing back, for all users or for some (G3, G4)."""

    __slots__ = ()
    name = "sync.held"
    level = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvent(CycleEvent):
    """Something about one key in one file."""

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
    """keysync manages an existing plain line of a listed key from now on (R3)."""

    __slots__ = ()
    name = "key.adopted"


class KeyRemoved(KeyEvent):
    """A line was removed, which reading the file again confirmed; `reason` says why."""

    __slots__ = ()
    name = "key.removed"


class KeyReappeared(KeyEvent):
    """Somebody put a deleted key back; it was removed again (R5)."""

    __slots__ = ()
    name = "key.reappeared"
    level = "warning"


class KeyStillAuthorized(KeyEvent):
    """A key deleted on the console is in a restricted line, which belongs to the user (R4)."""

    __slots__ = ()
    name = "key.still_authorized"
    level = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHeld(CycleEvent):
    """A listed key that was never accepted before waits for confirmation (G14); logged once."""

    name = "key.held"
    level = "warning"
    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsOmitted(CycleEvent):
    """One file or answer caused more events of one kind than are logged (G12)."""

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
    """An entry of the listing is not a usable key (G2); logged once until it changes."""

    name = "key.rejected"
    level = "warning"
    key_id: int | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationsDropped(CycleEvent):
    """More keys were deleted than are remembered (G12); the forgotten ones count as foreign."""

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
    """sshd could not be asked which file it reads, so its default is served."""

    name = "target.defaulted"
    level = "warning"
    user: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRetired(CycleEvent):
    """A key file is no longer a target; deleted keys are still removed from it (R5)."""

    name = "target.retired"
    level = "warning"
    user: str
    path: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDiscovered(CycleEvent):
    """`targets: auto` found a user whose key file holds a key of the account."""

    name = "target.discovered"
    user: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSkipped(CycleEvent):
    """`targets: auto` could not search a key file of a user who is no target (R5)."""

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
    """keysync corrected a mode for which sshd would refuse the keys (G9)."""

    name = "target.mode_changed"
    level = "warning"
    user: str
    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateWriteFailed(CycleEvent):
    """The state or the journal could not be written; deleted keys were removed anyway (G11)."""

    name = "state.write_failed"
    level = "error"
    kind: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSetAside(CycleEvent):
    """state.json could not be read; it was renamed and is rebuilt.

    `account_id` is the account pin that could be recovered from it (G4). `path` is empty when the
    file could not be renamed.
    """

    name = "state.set_aside"
    level = "error"
    path: str
    reason: str
    account_id: int | None = None
