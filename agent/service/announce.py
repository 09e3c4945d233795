"""The events of one cycle: what was done to each key, and how the cycle ended.

The number of events is bounded, whatever a file or an answer holds (G12).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from agent import events
from agent.core.desired_keys import Entry
from agent.core.ledger import MAX_REJECTED, MAX_SKIPPED, Ledger, SkippedFile, WaitingKey
from agent.core.listing import RejectedEntry
from agent.core.results import CHANGES, EntryList, Origin, Result, Trigger
from agent.log import Emit
from agent.service.additions import fingerprints
from agent.service.bookkeeping import Bookkeeping
from agent.service.report import SyncReport, TargetReport, lockout_hint
from agent.service.served_files import ServedFile, ServedFiles
from agent.service.target_users import Skipped
from agent.service.user_sync import UserResult

MAX_EVENTS = 10  # of one kind for one file or answer
MAX_ADDITIONS = 1000  # each is an event (G14), also one that waits, and a list can be long

_ANNOUNCED: tuple[EntryList, ...] = (*CHANGES, "restricted")
_KINDS: dict[EntryList, type[events.KeyEvent]] = {
    "added": events.KeyAdded,
    "adopted": events.KeyAdopted,
    "removed": events.KeyRemoved,
}


def in_cycle(emit: Emit, sync_id: str, trigger: Trigger) -> Emit:
    """`emit` for the events of one cycle: it adds the cycle's id and trigger to each."""

    def emit_in_cycle(event: events.Event) -> None:
        if isinstance(event, events.CycleEvent):
            event = event.replace(sync_id=sync_id, trigger=trigger)
        emit(event)

    return emit_in_cycle


# ---- before the files ----


def announce_rejected(
    entries: Sequence[RejectedEntry], known: Sequence[RejectedEntry], emit: Emit
) -> None:
    """The rejected entries of the listing, each once until it changes.

    `known` are those of the previous cycle. Only MAX_REJECTED are remembered, so only they are
    compared; the others are counted.
    """
    known_texts = {(entry.key_id, entry.reason, entry.detail) for entry in known}
    compared = entries[:MAX_REJECTED]
    new = [one for one in compared if (one.key_id, one.reason, one.detail) not in known_texts]
    for entry in new[:MAX_EVENTS]:
        emit(events.KeyRejected(key_id=entry.key_id, reason=entry.reason, detail=entry.detail))
    more = len(new[MAX_EVENTS:]) + len(entries) - len(compared)
    _announce_omitted(events.KeyRejected, more if new else 0, emit)


def announce_waiting(
    waiting: Sequence[WaitingKey], known: Sequence[WaitingKey], emit: Emit
) -> None:
    """The keys that begin to wait for confirmation (G14), without those `known` to wait."""
    earlier = fingerprints(known)
    new = [one for one in waiting if one.fingerprint not in earlier]
    for one in new[:MAX_ADDITIONS]:
        emit(
            events.KeyHeld(
                fingerprint=one.fingerprint,
                key_type=one.key_type,
                comment=one.comment,
                key_id=one.key_id,
                hint=f"To let it in: keysync sync --confirm-additions {one.fingerprint}",
            )
        )
    _announce_omitted(events.KeyHeld, len(new) - MAX_ADDITIONS, emit)


def announce_files(files: ServedFiles, ledger: Ledger, emit: Emit) -> None:
    """Targets that are new or retired, and files that are uncertain or could not be searched."""
    for one in files.found:
        if one.location.main and not one.error:
            _announce_file(one, ledger, emit)
    for new in (one for one in files.retired if one not in ledger.retired):
        hint = f"Deleted keys are still removed from it. To end that: keysync forget {new.path}"
        emit(events.TargetRetired(user=new.user, path=new.path, hint=hint))
    announce_skipped(files.skipped, ledger.skipped, emit)


def _announce_file(served: ServedFile, ledger: Ledger, emit: Emit) -> None:
    location, user, path = served.location, served.location.user, served.location.path
    if served.origin is Origin.AUTO and ledger.outcome(user, path) is None:
        emit(events.TargetDiscovered(user=user, path=path))
    if location.problem:
        emit(events.TargetDefaulted(user=user, path=path, reason=location.problem))
    if location.disagreement:
        emit(events.TargetDisagreed(user=user, path=path, reason=location.disagreement))


def announce_skipped(skipped: Sequence[Skipped], known: Sequence[SkippedFile], emit: Emit) -> None:
    """The key files that could not be searched, each once until that changes.

    `known` are those of the previous cycle. Only MAX_SKIPPED are remembered, so only they are
    compared; the others are counted.
    """
    new = [one for one in skipped[:MAX_SKIPPED] if one.file not in known]
    for location, error in new[:MAX_EVENTS]:
        emit(
            events.AccountSkipped(
                user=location.user,
                path=location.path,
                kind=error.kind,
                message=error.message,
                hint=error.hint,
            )
        )
    more = len(new[MAX_EVENTS:]) + len(skipped[MAX_SKIPPED:])
    _announce_omitted(events.AccountSkipped, more if new else 0, emit)


def _announce_omitted(
    kind: type[events.Event], count: int, emit: Emit, user: str = "", path: str = ""
) -> None:
    if count > 0:
        emit(events.EventsOmitted(omitted_event=kind.name, count=count, user=user, path=path))


# ---- after the files ----


def announce_results(
    results: Sequence[UserResult],
    reports: Sequence[TargetReport],
    bookkeeping: Bookkeeping,
    waiting: Sequence[WaitingKey],
    emit: Emit,
) -> None:
    """What was done to the files, and who is locked out now."""
    for report in reports:
        announce_target(report, bookkeeping.ledger, emit)
    for (user, path), lines in bookkeeping.records.omitted.items():
        if lines:
            emit(events.JournalOmitted(user=user, path=path, lines=lines))
    for one in results:
        if one.locked_out:
            emit(locked_out(one.user, one.reports, waiting))


def announce_target(report: TargetReport, ledger: Ledger, emit: Emit) -> None:
    """One event for each key that changed, and one for what prevented that.

    A file that several users read is announced for the first of them only.
    """
    if report.repeats:
        return
    user, path = report.user, report.path
    if problem := report.problem:
        emit(
            events.TargetProblem(
                user=user,
                path=path,
                kind=problem.kind,
                message=problem.message,
                hint=problem.hint,
            )
        )
    for change in report.mode_changes:
        before, after = f"{change.before:04o}", f"{change.after:04o}"
        emit(events.TargetModeChanged(user=user, path=change.path, before=before, after=after))
    counts: Counter[type[events.KeyEvent]] = Counter()
    for event in _key_events(report, ledger):
        counts[type(event)] += 1
        if counts[type(event)] <= _bound(type(event)):
            emit(event)
    for kind, count in counts.items():
        _announce_omitted(kind, count - _bound(kind), emit, user, path)


def _bound(kind: type[events.KeyEvent]) -> int:
    return MAX_ADDITIONS if kind is events.KeyAdded else MAX_EVENTS


def _key_events(report: TargetReport, ledger: Ledger) -> Iterator[events.KeyEvent]:
    came_back: frozenset[str] = frozenset()
    if ledger.was_in_sync(report.user, report.path):
        came_back = ledger.revoked
    for name in _ANNOUNCED:
        for entry in report.entries.get(name, ()):
            kind = _kind(name, entry, came_back)
            if kind is not None:
                yield kind(
                    user=report.user,
                    path=report.path,
                    fingerprint=entry.fingerprint,
                    key_type=entry.key_type,
                    comment=entry.comment,
                    key_id=entry.key_id,
                    reason=entry.reason,
                )


def _kind(name: EntryList, entry: Entry, came_back: frozenset[str]) -> type[events.KeyEvent] | None:
    if name == "removed" and entry.fingerprint in came_back:
        return events.KeyReappeared
    if name == "restricted":
        return events.KeyStillAuthorized if entry.reason == "revoked" else None
    return _KINDS[name]


def locked_out(
    user: str, reports: Sequence[TargetReport], waiting: Sequence[WaitingKey]
) -> events.UserLockedOut:
    """The event for a user as whom nobody can log in; keys may be `waiting` (G14)."""
    return events.UserLockedOut(
        user=user,
        paths=", ".join(report.path for report in reports),
        reason=f"No key lets anybody log in as {user} any more.",
        hint=lockout_hint(waiting),
    )


def summary_event(
    report: SyncReport, duration_ms: int, success_age_s: int | None, failing_since: str | None
) -> events.Event:
    """The event on how the cycle ended; each cycle has exactly one.

    `success_age_s` is how many seconds ago the last success was, `failing_since` when the streak of
    failures began (RFC 3339).
    """
    added, adopted, removed = (report.count(name) for name in CHANGES)
    facts = report.listing
    if report.problem is None:
        return events.SyncCompleted(
            result=report.result,
            dry_run=report.dry_run,
            duration_ms=duration_ms,
            listed=facts.keys if facts else 0,
            rejected=len(report.rejected),
            added=added,
            adopted=adopted,
            removed=removed,
            not_modified=bool(facts and facts.not_modified),
        )
    kind = events.SyncHeld if report.result is Result.HELD else events.SyncFailed
    return kind(
        kind=report.problem.kind,
        message=report.problem.message,
        hint=report.problem.hint,
        dry_run=report.dry_run,
        duration_ms=duration_ms,
        listed=facts.keys if facts else None,
        rejected=len(report.rejected),
        added=added,
        adopted=adopted,
        removed=removed,
        listing_age_s=success_age_s,
        failing_since=failing_since,
    )
