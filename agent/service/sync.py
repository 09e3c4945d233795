"""One cycle: fetch, judge, plan, hold or apply, verify, remember, report.

`Syncer.sync` is the whole story in order; every step is a function below it.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from agent import events
from agent.adapters.credential import Credential, find_credential
from agent.adapters.key_file import KeyFile
from agent.adapters.state import StateDirectory
from agent.config import Config
from agent.core.ledger import Failure, Ledger, TargetOutcome
from agent.core.listing import Listing
from agent.core.plan import Plan, Wanted
from agent.core.policy import Held, judge_account, judge_lockout
from agent.errors import ApiUnreachable, KeysyncError, TargetFailed
from agent.log import Emit
from agent.service.report import CHANGES, ListingFacts, Problem, SyncReport, TargetReport
from agent.service.target_sync import TargetSync
from agent.service.targets import Place, locate

if TYPE_CHECKING:
    from agent.adapters.console import Answer, Console

LOCK_SECONDS = 60.0
_WAIT_FIRST_SECONDS = 1.0
_WAIT_MOST_SECONDS = 15.0

Clock = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller of one cycle asks for."""

    dry_run: bool = False
    confirm_removals: bool = False
    accept_account: int | None = None


@dataclass(slots=True)
class _Cycle:
    """What one cycle knows; filled in as it goes."""

    request: Request
    sync_id: str
    started: float
    now: str
    ledger: Ledger
    listing: Listing | None = None
    facts: ListingFacts | None = None


class Syncer:
    """Runs cycles with one configuration; `emit` gets the events. The connection is kept.

    `clock` gives the present as the ledger writes it.
    """

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str],
        emit: Emit,
        lock_seconds: float = LOCK_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self._lock_seconds = lock_seconds
        self._clock = clock or now_text
        self._console: Console | None = None
        self._environment = environment
        self._emit = emit
        self._state = StateDirectory(config.state_dir)

    def sync(self, request: Request) -> SyncReport:
        """One cycle. Never raises a KeysyncError: every failure is a report with its exit code."""
        cycle = _Cycle(request, secrets.token_hex(4), time.monotonic(), self._clock(), Ledger())
        try:
            with self._alone(request):
                report = self._sync_alone(cycle)
        except KeysyncError as error:
            report = SyncReport("failed", cycle.sync_id, request.dry_run, problem=Problem.of(error))
        self._emit(_canonical(report, cycle))
        return report

    def _sync_alone(self, cycle: _Cycle) -> SyncReport:
        cycle.ledger = self._load(cycle)
        try:
            listing = self._listing(cycle)
        except KeysyncError as error:
            return self._not_applied(cycle, error)
        stranger = judge_account(listing, cycle.ledger, cycle.request.accept_account)
        if stranger:
            return self._not_applied(cycle, stranger)
        if cycle.request.accept_account is not None:  # the operator's word, whatever follows
            cycle.ledger = replace(cycle.ledger, account_id=cycle.request.accept_account)
        self._heed(cycle, listing)
        with contextlib.ExitStack() as stack:
            targets = self._read_targets(cycle, listing, stack)
            plans = _plans_by_user(targets)
            held, hold = judge_lockout(
                listing,
                plans,
                cycle.ledger,
                self.config.policy_removal_confirmations,
                confirmed=cycle.request.confirm_removals,
            )
            cycle.ledger = replace(cycle.ledger, hold=hold)
            if held:
                return self._not_applied(cycle, held, targets)
            return self._apply(cycle, listing, targets)

    # ---- the steps ----

    def _alone(self, request: Request) -> contextlib.AbstractContextManager[None]:
        """One sync at a time; a dry run writes nothing, so it neither locks nor waits."""
        if request.dry_run:
            return contextlib.nullcontext()
        return self._state.locked(self._lock_seconds)

    def _load(self, cycle: _Cycle) -> Ledger:
        ledger, problem = self._state.load()
        if problem and not cycle.request.dry_run:
            aside = self._state.set_aside(cycle.now.replace(":", "") + "-" + cycle.sync_id)
            self._emit(events.StateSetAside(cycle.sync_id, aside, problem))
        return ledger

    def _listing(self, cycle: _Cycle) -> Listing:
        credential = find_credential(self.config.api_key_file, self._environment)
        try:
            answer = self._fetch(credential)
            listing = Listing.parse(answer.body, self.config.policy_min_rsa_bits)
        except KeysyncError as error:
            error.message = credential.hidden_in(error.message)
            if error.kind in ("credential_rejected", "not_found"):
                error.message += f" The API key was {credential.masked} from {credential.source}."
            raise
        cycle.facts = ListingFacts(
            len(listing.keys), listing.account_id, cycle.now, answer.not_modified
        )
        return listing

    def _heed(self, cycle: _Cycle, listing: Listing) -> None:
        """It is the account's own list from here on; what is wrong with it is said once."""
        cycle.listing = listing
        said = frozenset(cycle.ledger.rejected)
        for entry in listing.rejected:
            if entry not in said:
                self._emit(
                    events.KeyRejected(cycle.sync_id, entry.key_id, entry.reason, entry.detail)
                )

    def _fetch(self, credential: Credential) -> Answer:
        if self._console is None:
            from agent.adapters.console import Console  # loads httpx, which status does without

            self._console = Console(self.config.api_url, self.config.api_timeout)
        return self._console.fetch(credential)

    def close(self) -> None:
        """Ends the connection to the console."""
        if self._console is not None:
            self._console.close()

    def _read_targets(
        self, cycle: _Cycle, listing: Listing, stack: contextlib.ExitStack
    ) -> list[TargetSync]:
        """Opens and reads every file, so that the guards can see the whole before any write."""
        wanted = self._wanted(listing, cycle.ledger)
        targets = []
        for target in self.config.targets:
            try:
                places = locate(target, cycle.ledger.paths(target.user))
            except TargetFailed as error:
                targets.append(TargetSync.failed_early(Place.missing(target), error))
                continue
            if places[0].problem:
                self._emit(
                    events.TargetDefaulted(
                        cycle.sync_id, target.user, places[0].path, places[0].problem
                    )
                )
            targets += self._open_places(cycle, places, wanted, stack)
        return targets

    def _open_places(
        self, cycle: _Cycle, places: list[Place], wanted: Wanted, stack: contextlib.ExitStack
    ) -> list[TargetSync]:
        opened = []
        for place in places:
            target = TargetSync(place, wanted)
            try:
                writing = not cycle.request.dry_run
                file = KeyFile.opened(place.path, place.owner, for_writing=writing)
                target.read(stack.enter_context(file))
            except TargetFailed as error:
                target.fail(error)
            if place.main or target.exists:
                opened.append(target)
        for target in opened:
            target.heed(other for other in opened if other is not target)
        return opened

    def _wanted(self, listing: Listing, ledger: Ledger) -> Wanted:
        return Wanted(
            listed={listed.key.blob: listed for listed in listing.keys},
            pins={pin.key.blob: pin for pin in self.config.pins},
            known=ledger.known,
            present=listing.present,
            spared=listing.spared,
            strict=self.config.policy_unmanaged == "remove",
        )

    def _apply(self, cycle: _Cycle, listing: Listing, targets: list[TargetSync]) -> SyncReport:
        """Writes each target, and then remembers: the state is never ahead of the disk."""
        if not cycle.request.dry_run:
            for target in targets:
                target.write(self._state, cycle.sync_id, cycle.now)
        reports = tuple(target.report(dry_run=cycle.request.dry_run) for target in targets)
        problem = next((report.problem for report in reports if report.problem), None)
        changed = any(report.result == "changed" for report in reports)
        result = "failed" if problem else "changed" if changed else "in_sync"
        self._announce(cycle, reports)
        ledger = cycle.ledger.accept(listing, cycle.now)
        if problem is None:
            ledger = ledger.succeeded(cycle.now)
        self._remember(cycle, ledger, problem, reports)
        return self._report(cycle, result, problem, reports)

    def _not_applied(
        self,
        cycle: _Cycle,
        cause: KeysyncError | Held,
        targets: list[TargetSync] | None = None,
    ) -> SyncReport:
        """Nothing is changed; what happened is remembered, and a broken row of polls ends.

        A row that was long enough has done its work: what it confirmed stays confirmed.
        """
        problem = Problem.of(cause)
        hold = cause.hold if isinstance(cause, Held) else None
        if hold is None and cycle.ledger.hold and cycle.ledger.hold.confirmed:
            hold = cycle.ledger.hold
        ledger = replace(cycle.ledger, hold=hold)
        if cycle.listing is not None:
            ledger = replace(ledger, rejected=cycle.listing.rejected)
            ledger = ledger.saw(cycle.listing, cycle.now)
        reports = tuple(target.report_held() for target in targets or ())
        self._remember(cycle, ledger, problem, reports)
        result = "held" if isinstance(cause, Held) else "failed"
        return self._report(cycle, result, problem, reports)

    def _remember(
        self,
        cycle: _Cycle,
        ledger: Ledger,
        problem: Problem | None,
        reports: tuple[TargetReport, ...],
    ) -> None:
        if cycle.request.dry_run:
            return
        if problem:
            failure = Failure(cycle.now, problem.kind, problem.message, problem.hint)
            ledger = replace(ledger, last_failure=failure)
        if reports:
            outcomes = (TargetOutcome(r.user, r.path, r.result, cycle.now) for r in reports)
            ledger = replace(ledger, targets=tuple(outcomes))
        self._state.save(ledger)

    def _report(
        self,
        cycle: _Cycle,
        result: str,
        problem: Problem | None,
        reports: tuple[TargetReport, ...],
    ) -> SyncReport:
        rejected = cycle.listing.rejected if cycle.listing else ()
        return SyncReport(
            result, cycle.sync_id, cycle.request.dry_run, cycle.facts, reports, rejected, problem
        )

    def _announce(self, cycle: _Cycle, reports: tuple[TargetReport, ...]) -> None:
        """One event for each key that changed, and for each that should have and could not."""
        for report in reports:
            if report.problem:
                self._emit(
                    events.TargetProblem(
                        cycle.sync_id,
                        report.user,
                        report.path,
                        report.problem.kind,
                        report.problem.message,
                        report.problem.hint,
                    )
                )
            for event in _key_events(cycle, report):
                self._emit(event)


def sync_until(
    run: Callable[[], SyncReport], seconds: float, sleep: Callable[[float], None] = time.sleep
) -> SyncReport:
    """Repeats a cycle while the API is not reachable, for at most `seconds` (boot).

    The pauses grow exponentially with full jitter, so that a fleet booted together spreads out.
    A Retry-After is obeyed; when it leads beyond the deadline, there is nothing to wait for.
    """
    deadline = time.monotonic() + seconds
    pause = _WAIT_FIRST_SECONDS
    while True:
        report = run()
        left = deadline - time.monotonic()
        least = (report.problem and report.problem.retry_after) or 0.0
        if report.exit_code != ApiUnreachable.exit_code or left <= 0 or least > left:
            return report
        wish = random.uniform(0.0, pause)  # noqa: S311  # reason: no secret
        sleep(max(least, min(wish, left)))
        pause = min(2 * pause, _WAIT_MOST_SECONDS)


def now_text() -> str:
    """The present as the ledger writes it: RFC 3339, UTC, whole seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def age_seconds(since: str | None, now: str) -> int | None:
    """Whole seconds between two of the ledger's times; None when there is no first one."""
    if since is None:
        return None
    start, end = (datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (since, now))
    return int((end - start).total_seconds())


def _plans_by_user(targets: list[TargetSync]) -> dict[str, list[Plan]]:
    plans: dict[str, list[Plan]] = {}
    for target in targets:
        if target.plan is not None:
            plans.setdefault(target.place.user, []).append(target.plan)
    return plans


_EVENTS: dict[str, type[events.KeyEvent]] = {
    "added": events.KeyAdded,
    "adopted": events.KeyAdopted,
    "removed": events.KeyRemoved,
}


def _key_events(cycle: _Cycle, report: TargetReport) -> list[events.KeyEvent]:
    came_back = {
        fingerprint
        for fingerprint, key in cycle.ledger.keys.items()
        if key.revoked_at and cycle.ledger.was_well(report.user, report.path, key.revoked_at)
    }
    found: list[events.KeyEvent] = []
    done = () if cycle.request.dry_run else CHANGES  # what would change has not changed
    for name in (*done, "restricted"):
        for entry in report.entries.get(name, ()):
            kind = _EVENTS.get(name)
            if name == "removed" and entry.fingerprint in came_back:
                kind = events.KeyReappeared
            elif name == "restricted" and entry.reason == "revoked":
                kind = events.KeyStillAuthorized
            if kind is not None:
                found.append(
                    kind(
                        cycle.sync_id,
                        report.user,
                        report.path,
                        entry.fingerprint,
                        entry.key_type,
                        entry.comment,
                        entry.key_id,
                        entry.reason,
                    )
                )
    return found


def _canonical(report: SyncReport, cycle: _Cycle) -> events.Event:
    duration = round((time.monotonic() - cycle.started) * 1000)
    rejected = len(report.rejected)
    added, adopted, removed = (report.count(name) for name in CHANGES)
    if report.problem:
        kind = events.SyncHeld if report.result == "held" else events.SyncFailed
        return kind(
            report.sync_id,
            report.problem.kind,
            report.problem.message,
            report.problem.hint,
            report.dry_run,
            duration,
            report.listing.keys if report.listing else None,
            rejected,
            added,
            adopted,
            removed,
            age_seconds(cycle.ledger.last_success, cycle.now),
        )
    return events.SyncCompleted(
        report.sync_id,
        report.result,
        report.dry_run,
        duration,
        report.listing.keys if report.listing else 0,
        rejected,
        added,
        adopted,
        removed,
        not_modified=bool(report.listing and report.listing.not_modified),
    )
