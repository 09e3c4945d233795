"""What a cycle saves: the ledger, the first content of files, and removed lines.

If something cannot be saved, no key is added to a file, but deleted keys are still removed (G11).
`Records.problem` then says why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from agent import events
from agent.adapters.files.key_file import Snapshot
from agent.adapters.state import StateDirectory
from agent.core.guards import Judgement
from agent.core.ledger import Hold, Ledger, TargetOutcome, WaitingKey
from agent.core.listing import Listing
from agent.core.times import Moment, seconds_between
from agent.errors import EXIT_HELD, TargetFailed
from agent.log import Emit
from agent.service.additions import fingerprints, was_accepted
from agent.service.locate import KeyFileLocation
from agent.service.report import Problem, TargetReport

_FORGOTTEN_HINT = (
    "The account has listed more keys over time than keysync can remember. If you did not do "
    "that, replace the account's API keys. A forgotten key that another tool puts back stays."
)


class NotKept(Exception):
    """The content about to be replaced could not be saved; `cause` is the failure."""

    def __init__(self, cause: TargetFailed) -> None:
        super().__init__(cause.kind)
        self.cause = cause


@dataclass(slots=True)
class Records:
    """The first content and the removed lines of the key files of one cycle (G5).

    `problem` is the last failure to save anything, `omitted` how many lines the journal left out,
    by user and path.
    """

    state: StateDirectory
    sync_id: str
    now: str
    problem: TargetFailed | None = None
    omitted: dict[tuple[str, str], int] = field(default_factory=dict)

    def keep(
        self,
        location: KeyFileLocation,
        replaced: Snapshot,
        removed: tuple[bytes, ...],
        *,
        only_revokes: bool,
    ) -> None:
        """Saves what is about to be replaced. Raises NotKept.

        With `only_revokes`, every removed line is one that should no longer let anybody in; then a
        journal that cannot be written is no reason to stop (G11).
        """
        original = replaced.data if replaced.exists else None
        is_saved = False
        try:
            self.state.save_original(location.user, location.path, original, self.now)
            is_saved = True
            if removed:
                omitted = self.state.journal(self.sync_id, location.path, removed, self.now)
                self.omitted[location.user, location.path] = omitted
        except TargetFailed as error:
            self.problem = error
            if not (is_saved and only_revokes):
                raise NotKept(error) from error


class Unsaved(NamedTuple):
    """A ledger that could not be saved, and the older one on disk.

    It still counts in the next cycle, so that holds also progress on a full disk (G3, G11).
    """

    on_disk: Ledger
    ledger: Ledger


class Bookkeeping:
    """The ledger within one cycle; `ledger` holds what the cycle knows so far.

    `unsaved` is what the previous cycle could not save, and afterwards what this one could not. A
    dry run reads the ledger and writes nothing.
    """

    def __init__(
        self,
        records: Records,
        now: Moment,
        emit: Emit,
        *,
        dry_run: bool = False,
        unsaved: Unsaved | None = None,
    ) -> None:
        self.records = records
        self.ledger = Ledger()
        self.unsaved = unsaved
        self._on_disk = Ledger()
        self._state = records.state
        self._now = now
        self._emit = emit
        self._dry_run = dry_run

    def lock(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Waits up to `seconds` for another keysync; raises Busy. A dry run needs no lock."""
        return contextlib.nullcontext() if self._dry_run else self._state.locked(seconds)

    def load(self) -> None:
        """Reads the ledger. An unreadable one is renamed, and what could be saved of it is kept."""
        ledger, problem = self._state.load()
        self._on_disk = self.ledger = ledger
        if problem and not self._dry_run:
            path = self._set_aside()
            self._emit(
                events.StateSetAside(path=path, reason=problem, account_id=ledger.account_id)
            )
            self._save()  # the account pin holds, however this cycle ends (G4)
        if self.unsaved and _same(self.unsaved.on_disk, ledger):
            self.ledger = self.unsaved.ledger

    def _set_aside(self) -> str:
        """The new path of the unreadable ledger; "" when it could not be renamed."""
        try:
            stamp = self._now.at.replace(":", "")
            return self._state.set_aside(f"{stamp}-{self.records.sync_id}")
        except TargetFailed as error:
            self.records.problem = error
            return ""

    def record_listing(self, listing: Listing, accepted: frozenset[str] = frozenset()) -> bool:
        """Saves which keys are listed and which of them are accepted, before any enters a file
        (R5, G11, G14). Returns whether they may enter.
        """
        earlier, now = self.ledger, self._now.at
        self.ledger = earlier.record_listing(listing, now).accepting(accepted, now)
        forgotten = self.ledger.forgotten_since(earlier)
        if forgotten and not self._dry_run:
            self._emit(events.RevocationsDropped(count=forgotten, hint=_FORGOTTEN_HINT))
        is_known = not self._on_disk.missing_from(listing)
        is_known = is_known and all(was_accepted(self._on_disk, one) for one in accepted)
        if is_known or self._dry_run:
            return True
        return self._save()

    def apply(
        self,
        listing: Listing,
        waiting: tuple[WaitingKey, ...],
        listing_judgement: Judgement,
        holds: Mapping[str, Hold],
    ) -> None:
        """The ledger after the files were served; a listing held for everybody revokes nothing."""
        if listing_judgement.held:
            self.ledger = replace(self.ledger, holds={**self.ledger.holds, **holds})
            return
        ledger = self.ledger.apply_listing(listing, fingerprints(waiting), self._now.at)
        self.ledger = replace(ledger, waiting=waiting, holds=holds)

    def conclude(
        self, problem: Problem | None, reports: Sequence[TargetReport] = ()
    ) -> Problem | None:
        """Saves how the cycle ended, if that is news (R7). Returns the cycle's worst problem."""
        if self._dry_run:
            return problem
        was_failing = self.failing_since is not None
        problem = _outranked(problem, self.records.problem)
        self.ledger = self._ended(problem, reports)
        if _same(self.ledger, self._on_disk):
            self.unsaved = None
        elif not self._save():
            problem = _outranked(problem, self.records.problem)
        if error := self.records.problem:
            self._emit(
                events.StateWriteFailed(kind=error.kind, message=error.message, hint=error.hint)
            )
        elif problem is None:
            self._state.mark_success(self._now, at_once=was_failing)
        self._state.keep_reserve()
        return problem

    def _ended(self, problem: Problem | None, reports: Sequence[TargetReport]) -> Ledger:
        ledger = self.ledger
        if reports:
            ledger = ledger.with_outcomes(
                TargetOutcome(one.user, one.path, one.result, self._now.at, one.origin)
                for one in reports
            )
        if problem:
            return ledger.failed(problem.kind, problem.message, problem.hint, self._now)
        return ledger.succeeded(self._now)

    def _save(self) -> bool:
        try:
            self._state.save(self.ledger)
        except TargetFailed as error:
            self.records.problem = error
            self.unsaved = Unsaved(self._on_disk, self.ledger)
            return False
        self._on_disk, self.unsaved = self.ledger, None
        return True

    @property
    def failing_since(self) -> str | None:
        """When the current streak of failures began (RFC 3339), None without one.

        A restart of the agent does not reset it.
        """
        failure = self.ledger.last_failure
        return failure.since.at if failure and failure.solved_at is None else None

    @property
    def success_age(self) -> int | None:
        """Seconds since the last success; None before the first, and where a clock was set back."""
        last = self.ledger.last_success
        seconds = seconds_between(last, self._now) if last else None
        return None if seconds is None else int(seconds)


def _outranked(problem: Problem | None, error: TargetFailed | None) -> Problem | None:
    """The problem of a cycle in which saving failed: worse than a hold (G11), but no other."""
    if error is None or (problem and problem.exit_code != EXIT_HELD):
        return problem
    message = f"{error.message} Deleted keys are removed anyway; keys not yet recorded must wait."
    return replace(Problem.of(error), message=message)


def _same(one: Ledger, other: Ledger) -> bool:
    """Whether the ledgers differ at most in the last success, which has a file of its own."""
    return replace(one, last_success=None) == replace(other, last_success=None)
