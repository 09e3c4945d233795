"""One sync. `Syncer.sync` runs a cycle, and `_Cycle.run` has a call for each step:

1. Fetch the account's list of SSH keys from the API.
2. Parse it: usable keys and rejected entries, or a failure (G1, G2).
3. Judge the account: another account's list changes nothing (G4).
4. Find the keys that wait for confirmation (G14).
5. Record which keys are listed, before any of them enters a file (R5, G11).
6. Judge the listing: one without a usable key is held for everybody (G3).
7. Find the key files to serve (R5).
8. Plan, guard, apply and verify, user by user (user_sync.py and shared_files.py).
9. Remember how it ended, if that is news (R7).
10. Report it, as events and as a value.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.adapters.clock import present
from agent.adapters.sshd_config import Sshd
from agent.adapters.state import StateDirectory
from agent.config import Config
from agent.core.answer import Answer
from agent.core.guards import Judgement, LockoutGuard, judge_account
from agent.core.ledger import MAX_SKIPPED, WaitingKey
from agent.core.listing import Listing, RejectedEntry
from agent.core.results import Result, Trigger
from agent.core.times import Moment
from agent.errors import KeysyncError
from agent.log import Emit
from agent.providers import provider
from agent.service.additions import find_waiting, fingerprints, require_listed
from agent.service.announce import (
    announce_files,
    announce_rejected,
    announce_results,
    announce_waiting,
    in_cycle,
    summary_event,
)
from agent.service.api_client import ApiClient, secret_hidden
from agent.service.bookkeeping import Bookkeeping, Records, Unsaved
from agent.service.conclusion import holds_of, problem_of, reports_of, result_of
from agent.service.locate import accepted_types
from agent.service.report import ListingFacts, Problem, SyncReport, TargetReport
from agent.service.served_files import ServedFile, find_served_files
from agent.service.shared_files import serve_all
from agent.service.terms import Terms, desired_keys, lockout_guard
from agent.service.user_sync import UserResult


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller of one cycle asks for.

    `confirm_additions` are fingerprints, or `all`, that may enter although additions are held.
    `accept_account` is the id of the account to follow from now on.
    """

    dry_run: bool = False
    confirm_removals: bool = False
    confirm_additions: tuple[str, ...] = ()
    accept_account: int | None = None
    trigger: Trigger = Trigger.MANUAL


class Syncer:
    """Runs cycles with one configuration and keeps the connection to the API.

    `emit` gets the events. A cycle waits up to `lock_seconds` for another keysync to finish.
    """

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str],
        emit: Emit,
        lock_seconds: float = 60.0,
        clock: Callable[[], Moment] = present,
    ) -> None:
        self.config = config
        self._emit = emit
        self._lock_seconds = lock_seconds
        self._clock = clock
        self._api = ApiClient(config, environment)
        self._state = StateDirectory(config.state_dir)
        self._unsaved: Unsaved | None = None

    def sync(self, request: Request) -> SyncReport:
        """Runs one cycle. Raises no KeysyncError: a failure is a report with its exit code."""
        started, now, sync_id = time.monotonic(), self._clock(), secrets.token_hex(4)
        emit = in_cycle(self._emit, sync_id, request.trigger)
        records = Records(self._state, sync_id, now.at)
        bookkeeping = Bookkeeping(
            records, now, emit, dry_run=request.dry_run, unsaved=self._unsaved
        )
        try:
            with bookkeeping.lock(self._lock_seconds):
                report = _Cycle(self.config, request, self._api, bookkeeping, now, emit).run()
        except KeysyncError as error:
            report = SyncReport(Result.FAILED, sync_id, request.dry_run, problem=Problem.of(error))
        finally:
            self._unsaved = bookkeeping.unsaved
        duration_ms = round((time.monotonic() - started) * 1000)
        emit(summary_event(report, duration_ms, bookkeeping.success_age, bookkeeping.failing_since))
        return report

    def close(self) -> None:
        """Closes the connection to the API, which also ends a request that is running."""
        self._api.close()


@dataclass(slots=True)
class _Cycle:
    """One run of the steps; `bookkeeping.ledger` is what the cycle knows so far."""

    config: Config
    request: Request
    api: ApiClient
    bookkeeping: Bookkeeping
    now: Moment
    emit: Emit
    sshd: Sshd = field(default_factory=Sshd)
    facts: ListingFacts | None = None
    rejected: tuple[RejectedEntry, ...] = ()

    def run(self) -> SyncReport:
        """The steps of the module's docstring, in order. Raises KeysyncError."""
        self.bookkeeping.load()
        try:
            credential = self.api.credential()
            with secret_hidden(credential):
                answer = self.api.fetch(credential)  # step 1
                listing = self._parse(answer)  # 2
        except KeysyncError as error:
            return self._end(Problem.of(error))
        refused = judge_account(listing, self.bookkeeping.ledger, self.request.accept_account)  # 3
        if refused:
            return self._end(Problem.of(refused))
        listing = self._accept(listing)
        waiting = self._find_waiting(listing)  # 4
        may_enter = self._record(listing, waiting)  # 5
        guard = self._guard(listing, waiting)
        listing_judgement = guard.judge_listing()  # 6
        files = self._find_files()  # 7
        terms = self._terms(listing, waiting, guard, listing_judgement, may_enter)
        results = serve_all(files, terms)  # 8
        reports = reports_of(results, files)
        if not self.request.dry_run:
            announce_results(results, reports, self.bookkeeping, waiting, self.emit)
        holds = holds_of(listing_judgement, results)
        self.bookkeeping.apply(listing, waiting, listing_judgement, holds)
        problem = problem_of(listing_judgement, results, reports, files)
        return self._end(problem, reports, results)  # 9, 10

    def _parse(self, answer: Answer) -> Listing:
        """The listing in the answer. Raises what `read_listing` raises."""
        accepts = accepted_types(self.config, self.sshd)
        listing = provider.read_listing(answer, self.config.policy_min_rsa_bits, accepts)
        self.facts = ListingFacts.of(listing, self.now.at, not_modified=answer.not_modified)
        return listing

    def _accept(self, listing: Listing) -> Listing:
        """The listing of the accepted account; it protects keys of malformed entries (G2)."""
        account = self.request.accept_account
        if account is not None:  # the operator's decision stays, however this cycle ends
            self.bookkeeping.ledger = replace(self.bookkeeping.ledger, account_id=account)
        ledger = self.bookkeeping.ledger
        self.rejected = listing.rejected
        announce_rejected(listing.rejected, ledger.rejected, self.emit)
        return listing.protecting(ledger.keys_with_id(listing.malformed_ids))

    def _find_waiting(self, listing: Listing) -> tuple[WaitingKey, ...]:
        """The listed keys that wait (G14). Raises RequestInvalid for a confirmed, unlisted key."""
        confirmed, ledger = self.request.confirm_additions, self.bookkeeping.ledger
        require_listed(listing, confirmed)
        if self.config.policy_additions == "apply":
            return ()
        waiting = find_waiting(listing, ledger, confirmed, self.now.at)
        announce_waiting(waiting, ledger.waiting, self.emit)
        return waiting

    def _record(self, listing: Listing, waiting: Sequence[WaitingKey]) -> bool:
        """Records the listed keys. Returns whether they may enter: not before that (G11)."""
        if self.config.policy_additions == "apply":
            return self.bookkeeping.record_listing(listing)
        return self.bookkeeping.record_listing(listing, listing.usable - fingerprints(waiting))

    def _guard(self, listing: Listing, waiting: Sequence[WaitingKey]) -> LockoutGuard:
        return lockout_guard(
            self.config,
            listing,
            self.bookkeeping.ledger,
            self.now,
            confirmed=self.request.confirm_removals,
            waiting=fingerprints(waiting),
        )

    def _find_files(self) -> list[ServedFile]:
        ledger = self.bookkeeping.ledger
        files = find_served_files(self.config, ledger, self.sshd, self.now.at)
        announce_files(files, ledger, self.emit)
        skipped = tuple(one.file for one in files.skipped[:MAX_SKIPPED])
        self.bookkeeping.ledger = replace(ledger, retired=files.retired, skipped=skipped)
        return files.found

    def _terms(
        self,
        listing: Listing,
        waiting: Sequence[WaitingKey],
        guard: LockoutGuard,
        listing_judgement: Judgement,
        may_enter: bool,
    ) -> Terms:
        accepts = accepted_types(self.config, self.sshd)
        return Terms(
            desired_keys(self.config, listing, self.bookkeeping.ledger, fingerprints(waiting)),
            guard,
            lambda line: line.opens_session_for(accepts),
            self.bookkeeping.records,
            may_enter=may_enter,
            all_held=listing_judgement.held is not None,
            dry_run=self.request.dry_run,
            sshd=self.sshd,
        )

    def _end(
        self,
        problem: Problem | None,
        reports: tuple[TargetReport, ...] = (),
        results: Sequence[UserResult] = (),
    ) -> SyncReport:
        """Saves how the cycle ended and returns the report.

        A cycle that ended before the files leaves the holds as they are: it neither counts for one
        nor ends it (G3).
        """
        problem = self.bookkeeping.conclude(problem, reports)
        return SyncReport(
            result_of(problem, reports),
            self.bookkeeping.records.sync_id,
            self.request.dry_run,
            self.facts,
            reports,
            self.rejected,
            problem,
            self.bookkeeping.ledger.waiting,
            tuple(one.user for one in results if one.locked_out),
        )
