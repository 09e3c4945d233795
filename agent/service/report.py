"""What one cycle did, as a value; `as_json` is what `keysync sync --json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.adapters.files.file_mode import ModeChange
from agent.core.desired_keys import Entry
from agent.core.guards import Held
from agent.core.ledger import WaitingKey
from agent.core.listing import Listing, RejectedEntry
from agent.core.plan import Entries
from agent.core.results import CHANGES, STANDING, EntryList, Origin, Result
from agent.errors import (
    EXIT_HELD,
    EXIT_NO_WAY_IN,
    EXIT_OK,
    KeysyncError,
    TargetFailed,
    TemporaryFailure,
)

MAX_SHOWN = 100  # keys and entries of one kind in text output; JSON holds them all


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a cycle or a target is not in sync, and the exit code for it."""

    kind: str
    message: str
    hint: str
    exit_code: int
    retry_after: float | None = None  # seconds, from the Retry-After header

    @classmethod
    def of(cls, cause: KeysyncError | Held) -> Problem:
        """The problem that an error or a guard's decision means."""
        code = EXIT_HELD if isinstance(cause, Held) else cause.exit_code
        wait = cause.retry_after if isinstance(cause, TemporaryFailure) else None
        return cls(cause.kind, cause.message, cause.hint, code, wait)

    def as_json(self) -> dict[str, object]:
        """The `error` object; the exit code is that of the process."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class TargetReport:
    """One file of one user; `entries` are its keys by list.

    `would_remove` are the removals that a guard holds back. `repeats` says that the file is shared
    and another reader's report already covers it.
    """

    user: str
    path: str
    result: Result
    entries: Entries = field(default_factory=dict)
    would_remove: tuple[Entry, ...] = ()
    problem: Problem | None = None
    origin: Origin = Origin.CONFIGURED
    mode_changes: tuple[ModeChange, ...] = ()
    repeats: bool = False

    def as_json(self) -> dict[str, object]:
        """One object of `targets`."""
        lists: dict[str, object] = {
            name: [_entry(entry) for entry in self.entries.get(name, ())]
            for name in (*CHANGES, *STANDING)
        }
        more: dict[str, object] = {"error": self.problem and self.problem.as_json()}
        if self.would_remove:
            more["would_remove"] = [_entry(entry) for entry in self.would_remove]
        about = {"user": self.user, "path": self.path, "origin": self.origin}
        return {**about, "result": self.result, **lists, **more}


@dataclass(frozen=True, slots=True)
class ListingFacts:
    """The listing of the cycle: its number of usable keys, account and age."""

    keys: int
    account_id: int | None
    fetched_at: str
    not_modified: bool

    @classmethod
    def of(cls, listing: Listing, fetched_at: str, *, not_modified: bool) -> ListingFacts:
        """Those of a listing that was fetched at this time (RFC 3339)."""
        return cls(len(listing.keys), listing.account_id, fetched_at, not_modified)


@dataclass(frozen=True, slots=True)
class SyncReport:
    """One cycle; `waiting` are the keys that `additions: hold` keeps out, `no_way_in` the users as
    whom nobody can log in.
    """

    result: Result
    sync_id: str
    dry_run: bool
    listing: ListingFacts | None = None
    targets: tuple[TargetReport, ...] = ()
    rejected: tuple[RejectedEntry, ...] = ()
    problem: Problem | None = None
    waiting: tuple[WaitingKey, ...] = ()
    no_way_in: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """That of the problem, else EXIT_NO_WAY_IN or EXIT_OK."""
        if self.problem:
            return self.problem.exit_code
        return EXIT_NO_WAY_IN if self.no_way_in else EXIT_OK

    def count(self, name: EntryList) -> int:
        """The number of entries of all files in this list."""
        own = (target for target in self.targets if not target.repeats)
        return sum(len(target.entries.get(name, ())) for target in own)

    def as_json(self) -> dict[str, object]:
        """The object that `sync --json` prints."""
        facts = self.listing
        return {
            "result": self.result,
            "sync_id": self.sync_id,
            "dry_run": self.dry_run,
            "listing": facts
            and {
                "keys": facts.keys,
                "account_id": facts.account_id,
                "fetched_at": facts.fetched_at,
                "not_modified": facts.not_modified,
            },
            "targets": [target.as_json() for target in self.targets],
            "rejected": [
                {"key_id": entry.key_id, "reason": entry.reason, "detail": entry.detail}
                for entry in self.rejected
            ],
            "waiting": [waiting_json(key) for key in self.waiting],
            "no_way_in": list(self.no_way_in),
            "error": self.problem and self.problem.as_json(),
        }


def waiting_json(key: WaitingKey) -> dict[str, object]:
    """One key that waits for confirmation (G14)."""
    return {
        "fingerprint": key.fingerprint,
        "key_type": key.key_type,
        "comment": key.comment,
        "key_id": key.key_id,
        "since": key.since,
    }


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "fingerprint": entry.fingerprint,
        "key_type": entry.key_type,
        "comment": entry.comment,
        "key_id": entry.key_id,
        "reason": entry.reason or None,
    }


def lockout_hint(waiting: Sequence[WaitingKey], *, synced: bool = True) -> str:
    """What to do when nobody can log in as a user; a key may already be waiting (G14)."""
    if waiting:
        which = waiting[0].fingerprint if len(waiting) == 1 else "FINGERPRINT"
        return f"A key that could let somebody in waits: keysync sync --confirm-additions {which}"
    if not synced:
        return "The account's keys are not on this machine yet: keysync sync"
    return (
        "Add a usable key on the console's Keys page, or a pin in the configuration; "
        "keysync status shows what each file holds."
    )


def sshd_not_asked(user: str, path: str, reason: str) -> Problem:
    """The problem of a user's key file that sshd may not read, because of `reason`."""
    error = TargetFailed(
        "sshd_not_asked",
        f"It is uncertain which key file sshd reads for {user}, so {path} was used: {reason}.",
        "Run sshd -T as root to see why, or give the target a path in the configuration.",
    )
    return Problem.of(error)


def lost_state(at: str) -> str:
    """A warning that the state was set aside, so that only keys listed since are known (R5)."""
    return (
        f"the state was lost at {at}: keys that were deleted on the console before are no longer "
        "known; look at the foreign and restricted lines"
    )


def counted(number: int, noun: str) -> str:
    """A number with its noun in the right form."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
