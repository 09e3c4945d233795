"""The events of a cycle, as values; only `log` writes them.

Names and fields are a public contract: docs/events.md lists them, and a test keeps both equal.
"""

from __future__ import annotations

from agent.core.results import Result
from agent.event_base import CycleEvent as CycleEvent
from agent.event_base import Event as Event


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

    level = "debug"


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

    name = "sync.failed"
    level = "error"


class SyncHeld(SyncTrouble):
    """A guard held the listing back, for all users or for some (G3, G4)."""

    name = "sync.held"
    level = "warning"


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

    name = "key.added"


class KeyAdopted(KeyEvent):
    """keysync manages an existing plain line of a listed key from now on (R3)."""

    name = "key.adopted"


class KeyRemoved(KeyEvent):
    """A line was removed, which reading the file again confirmed; `reason` says why."""

    name = "key.removed"


class KeyReappeared(KeyEvent):
    """Somebody put a deleted key back; it was removed again (R5)."""

    name = "key.reappeared"
    level = "warning"


class KeyStillAuthorized(KeyEvent):
    """A key deleted on the console is in a restricted line, which belongs to the user (R4)."""

    name = "key.still_authorized"
    level = "warning"


class KeyHeld(CycleEvent):
    """A listed key that was never accepted before waits for confirmation (G14); logged once."""

    name = "key.held"
    level = "warning"
    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    hint: str


class EventsOmitted(CycleEvent):
    """One file or answer caused more events of one kind than are logged (G12)."""

    name = "events.omitted"
    level = "warning"
    omitted_event: str
    count: int
    user: str
    path: str


class JournalOmitted(CycleEvent):
    """More lines were removed from one file than the journal keeps of it (G5, G12)."""

    name = "journal.truncated"
    level = "warning"
    user: str
    path: str
    lines: int


class UserLockedOut(CycleEvent):
    """No key that is left in a user's files lets anybody in (G3)."""

    name = "user.locked_out"
    level = "error"
    user: str
    paths: str
    reason: str
    hint: str


class KeyRejected(CycleEvent):
    """An entry of the listing is not a usable key (G2); logged once until it changes."""

    name = "key.rejected"
    level = "warning"
    key_id: int | None
    reason: str
    detail: str


class RevocationsDropped(CycleEvent):
    """More keys were deleted than are remembered (G12); the forgotten ones count as foreign."""

    name = "revocation.dropped"
    level = "warning"
    count: int
    hint: str


class TargetProblem(CycleEvent):
    """A key file could not be read or written; the other targets were served (R11)."""

    name = "target.failed"
    level = "error"
    user: str
    path: str
    kind: str
    message: str
    hint: str


class TargetDefaulted(CycleEvent):
    """sshd could not be asked which file it reads, so its default is served."""

    name = "target.defaulted"
    level = "warning"
    user: str
    path: str
    reason: str


class TargetRetired(CycleEvent):
    """A key file is no longer a target; deleted keys are still removed from it (R5)."""

    name = "target.retired"
    level = "warning"
    user: str
    path: str
    hint: str


class TargetDiscovered(CycleEvent):
    """`targets: auto` found a user whose key file holds a key of the account."""

    name = "target.discovered"
    user: str
    path: str


class AccountSkipped(CycleEvent):
    """`targets: auto` could not search a key file of a user who is no target (R5)."""

    name = "account.skipped"
    level = "warning"
    user: str
    path: str
    kind: str
    message: str
    hint: str


class TargetDisagreed(CycleEvent):
    """sshd reads other files of this user for other client addresses or ports."""

    name = "target.disagreed"
    level = "warning"
    user: str
    path: str
    reason: str


class TargetModeChanged(CycleEvent):
    """keysync corrected a mode for which sshd would refuse the keys (G9)."""

    name = "target.mode_changed"
    level = "warning"
    user: str
    path: str
    before: str
    after: str


class StateWriteFailed(CycleEvent):
    """The state or the journal could not be written; deleted keys were removed anyway (G11)."""

    name = "state.write_failed"
    level = "error"
    kind: str
    message: str
    hint: str


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
