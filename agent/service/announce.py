"""The events of one cycle: what was done to each key, and its one canonical line.

Whatever a file or an answer holds, it causes a bounded number of lines (G12).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from agent import events
from agent.core.desired_keys import Entry
from agent.core.ledger import MAX_REJECTED, MAX_SKIPPED, Ledger, SkippedFile, WaitingKey
from agent.core.listing import RejectedEntry
from agent.log import Emit
from agent.service.accounts import Origin, Skipped
from agent.service.report import CHANGES, SyncReport, TargetReport, lockout_cure
from agent.service.served_files import ServedFiles
from agent.service.user_sync import ServedFile

MAX_EVENTS = 10  # of one kind for one file or answer
MAX_ADDITIONS = 1000  # each is an event (G14), also one that waits, and a list can be long

_KINDS: dict[str, type[events.KeyEvent]] = {
    "added": events.KeyAdded,
    "adopted": events.KeyAdopted,
    "removed": events.KeyRemoved,
}


def announce_target(sync_id: str, report: TargetReport, ledger: Ledger, emit: Emit) -> None:
    """One event for each key that changed, and for each that should have and could not.

    A file that several users read is announced for the first of them only.
    """
    if report.repeats:
        return
    if report.problem:
        problem = report.problem
        emit(
            events.TargetProblem(
                sync_id, report.user, report.path, problem.kind, problem.message, problem.hint
            )
        )
    for change in report.mode_changes:
        before, after = f"{change.before:04o}", f"{change.after:04o}"
        emit(events.TargetModeChanged(sync_id, report.user, change.path, before, after))
    _emit_some(sync_id, report, _key_events(sync_id, report, ledger), emit)


def _emit_some(
    sync_id: str, report: TargetReport, found: Iterable[events.KeyEvent], emit: Emit
) -> None:
    counts: Counter[str] = Counter()
    for event in found:
        counts[event.name] += 1
        if counts[event.name] <= _bound(event.name):
            emit(event)
    for name, count in counts.items():
        if count > _bound(name):
            more = count - _bound(name)
            emit(events.EventsOmitted(sync_id, name, more, report.user, report.path))


def _bound(name: str) -> int:
    return MAX_ADDITIONS if name == events.KeyAdded.name else MAX_EVENTS


def _key_events(sync_id: str, report: TargetReport, ledger: Ledger) -> Iterable[events.KeyEvent]:
    came_back: set[str] = set()
    if ledger.was_in_sync(report.user, report.path):
        came_back = {name for name, key in ledger.keys.items() if key.revoked_at}
    for name in (*CHANGES, "restricted"):
        for entry in report.entries.get(name, ()):
            kind = _kind(name, entry, came_back)
            if kind is not None:
                yield kind(
                    sync_id,
                    report.user,
                    report.path,
                    entry.fingerprint,
                    entry.key_type,
                    entry.comment,
                    entry.key_id,
                    entry.reason,
                )


def _kind(name: str, entry: Entry, came_back: set[str]) -> type[events.KeyEvent] | None:
    if name == "removed" and entry.fingerprint in came_back:
        return events.KeyReappeared
    if name == "restricted":
        return events.KeyStillAuthorized if entry.reason == "revoked" else None
    return _KINDS[name]


def announce_rejected(
    sync_id: str, entries: Sequence[RejectedEntry], known: Sequence[RejectedEntry], emit: Emit
) -> None:
    """What is wrong with the listing's entries, each said once until it changes.

    Only the first ones are remembered, so only they are compared; the others are counted.
    """
    told = {(entry.key_id, entry.reason, entry.detail) for entry in known}
    compared = entries[:MAX_REJECTED]
    new = [one for one in compared if (one.key_id, one.reason, one.detail) not in told]
    for entry in new[:MAX_EVENTS]:
        emit(events.KeyRejected(sync_id, entry.key_id, entry.reason, entry.detail))
    more = len(new[MAX_EVENTS:]) + len(entries) - len(compared)
    if new and more:
        emit(events.EventsOmitted(sync_id, events.KeyRejected.name, more, "", ""))


def announce_places(sync_id: str, places: ServedFiles, ledger: Ledger, emit: Emit) -> None:
    """What is new of the files to serve, and what sshd could not be asked about them."""
    for one in places.found:
        if one.location.main and not one.error:
            _announce_place(sync_id, one, ledger, emit)
    for new in (one for one in places.retired if one not in ledger.retired):
        hint = f"Deleted keys are still removed from it. To end that: keysync forget {new.path}"
        emit(events.TargetRetired(sync_id, new.user, new.path, hint))
    announce_skipped(sync_id, places.skipped, ledger.skipped, emit)


def _announce_place(sync_id: str, found: ServedFile, ledger: Ledger, emit: Emit) -> None:
    location = found.location
    if found.origin is Origin.AUTO and ledger.outcome(location.user, location.path) is None:
        emit(events.TargetDiscovered(sync_id, location.user, location.path))
    if location.problem:
        emit(events.TargetDefaulted(sync_id, location.user, location.path, location.problem))
    if location.disagreement:
        emit(events.TargetDisagreed(sync_id, location.user, location.path, location.disagreement))


def announce_skipped(
    sync_id: str, skipped: Sequence[Skipped], known: Sequence[SkippedFile], emit: Emit
) -> None:
    """The key files that could not be searched, each logged once until that changes.

    Only the first ones are remembered, so only they are compared; the others are counted.
    """
    new = [one for one in skipped[:MAX_SKIPPED] if one.file not in known]
    for location, error in new[:MAX_EVENTS]:
        emit(
            events.AccountSkipped(
                sync_id, location.user, location.path, error.kind, error.message, error.hint
            )
        )
    more = len(new[MAX_EVENTS:]) + len(skipped[MAX_SKIPPED:])
    if new and more:
        emit(events.EventsOmitted(sync_id, events.AccountSkipped.name, more, "", ""))


def announce_waiting(sync_id: str, new: Sequence[WaitingKey], emit: Emit) -> None:
    """The keys that begin to wait for confirmation."""
    for one in new[:MAX_ADDITIONS]:
        hint = f"To let it in: keysync sync --confirm-additions {one.fingerprint}"
        emit(events.KeyHeld(sync_id, one.fingerprint, one.key_type, one.comment, one.key_id, hint))
    more = len(new) - MAX_ADDITIONS
    if more > 0:
        emit(events.EventsOmitted(sync_id, events.KeyHeld.name, more, "", ""))


def locked_out(
    sync_id: str, user: str, reports: Sequence[TargetReport], waiting: Sequence[WaitingKey]
) -> events.UserLockedOut:
    """That no key in any of the user's files lets anybody in; keys may be `waiting` (G14)."""
    paths = ", ".join(report.path for report in reports)
    return events.UserLockedOut(
        sync_id,
        user,
        paths,
        f"No key lets anybody log in as {user} any more.",
        lockout_cure(waiting),
    )


def canonical(
    report: SyncReport,
    duration_ms: int,
    listing_age_s: Callable[[], int | None],
    failing_since: str | None = None,
) -> events.Event:
    """The one line of the cycle."""
    added, adopted, removed = (report.count(name) for name in CHANGES)
    if report.problem:
        kind = events.SyncHeld if report.result == "held" else events.SyncFailed
        return kind(
            report.sync_id,
            report.problem.kind,
            report.problem.message,
            report.problem.hint,
            report.dry_run,
            duration_ms,
            report.listing.keys if report.listing else None,
            len(report.rejected),
            added,
            adopted,
            removed,
            listing_age_s(),
            failing_since,
        )
    return events.SyncCompleted(
        report.sync_id,
        report.result,
        report.dry_run,
        duration_ms,
        report.listing.keys if report.listing else 0,
        len(report.rejected),
        added,
        adopted,
        removed,
        not_modified=bool(report.listing and report.listing.not_modified),
    )
