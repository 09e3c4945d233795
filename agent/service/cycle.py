"""One cycle: fetch, judge, record, and then user by user plan, guard, apply, verify; report.

`Syncer.sync` is the whole story in order; every step is a function below it.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent import events
from agent.adapters.clock import present
from agent.adapters.credential import find_credential
from agent.adapters.sshd_config import Sshd
from agent.adapters.state import StateDirectory
from agent.config import Config
from agent.core.answer import Answer
from agent.core.authorized_keys import printable
from agent.core.desired_keys import DesiredKeys
from agent.core.guards import Held, HoldRule, Judgement, LockoutGuard, judge_account
from agent.core.ledger import (
    ALL_TARGETS,
    MAX_SKIPPED,
    Hold,
    Ledger,
    TargetOutcome,
    WaitingKey,
)
from agent.core.listing import ListedKey, Listing
from agent.core.public_key import Accepts
from agent.core.secret import Credential
from agent.core.times import Moment, seconds_between
from agent.errors import (
    EXIT_HELD,
    KeysyncError,
    RequestInvalid,
    TargetFailed,
    TemporaryFailure,
)
from agent.log import Emit
from agent.providers import vast
from agent.service.announce import (
    announce_places,
    announce_rejected,
    announce_target,
    announce_waiting,
    canonical,
    locked_out,
)
from agent.service.locate import accepted_types
from agent.service.report import ListingFacts, Problem, SyncReport, TargetReport
from agent.service.served_files import find_served_files
from agent.service.shared_files import serve_all
from agent.service.target import Records
from agent.service.user_sync import ServedFile, Terms, UserResult

if TYPE_CHECKING:
    from agent.adapters.http import HttpClient

LOCK_SECONDS = 60.0
_WAIT_FIRST_SECONDS = 1.0
_WAIT_MOST_SECONDS = 15.0
_FORGOTTEN_HINT = (
    "The account's list held more keys over time than are remembered. If that was not you, replace "
    "the account's API keys; a forgotten key that another tool puts back stays."
)

Clock = Callable[[], Moment]


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller of one cycle asks for.

    `confirm_additions` are fingerprints, or `all`, that may enter although additions are held;
    `trigger` is what the cycle comes from: poll, signal, manual or boot.
    """

    dry_run: bool = False
    confirm_removals: bool = False
    confirm_additions: tuple[str, ...] = ()
    accept_account: int | None = None
    trigger: str = "manual"


@dataclass(slots=True)
class _Cycle:
    """What one cycle knows; filled in as it goes. `on_disk` is the ledger that is saved."""

    request: Request
    sync_id: str
    started: float
    now: Moment
    ledger: Ledger
    records: Records
    on_disk: Ledger = field(default_factory=Ledger)
    listing: Listing | None = None
    facts: ListingFacts | None = None
    sshd: Sshd = field(default_factory=Sshd)


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
        clock: Clock = present,
    ) -> None:
        self.config = config
        self._lock_seconds = lock_seconds
        self._clock = clock
        self._console: HttpClient | None = None
        self._environment = environment
        self._log = emit
        self._trigger = "manual"  # of the cycle that runs
        self._state = StateDirectory(config.state_dir)
        # The saved ledger and the newer one that could not be saved: on a full disk holds still
        # count (G3, G11).
        self._unsaved: tuple[Ledger, Ledger] | None = None

    def sync(self, request: Request) -> SyncReport:
        """One cycle. Never raises a KeysyncError: every failure is a report with its exit code."""
        self._trigger = request.trigger
        now, sync_id = self._clock(), secrets.token_hex(4)
        records = Records(self._state, sync_id, now.at)
        cycle = _Cycle(request, sync_id, time.monotonic(), now, Ledger(), records)
        try:
            with self._alone(request):
                report = self._sync_alone(cycle)
        except KeysyncError as error:
            report = SyncReport("failed", sync_id, request.dry_run, problem=Problem.of(error))
        duration_ms = round((time.monotonic() - cycle.started) * 1000)
        self._emit(
            canonical(report, duration_ms, lambda: _success_age(cycle), _failing_since(cycle))
        )
        return report

    def _sync_alone(self, cycle: _Cycle) -> SyncReport:
        self._load(cycle)
        try:
            listing = self._listing(cycle)
        except KeysyncError as error:
            return self._not_applied(cycle, error)
        refused = judge_account(listing, cycle.ledger, cycle.request.accept_account)
        if refused:
            return self._not_applied(cycle, refused)
        if cycle.request.accept_account is not None:  # the operator's word, whatever follows
            cycle.ledger = replace(cycle.ledger, account_id=cycle.request.accept_account)
        listing = listing.protecting(cycle.ledger.keys_with_id(listing.malformed_ids))
        cycle.listing = listing
        self._announce_listing(cycle, listing)
        waiting = self._waiting(cycle, listing)
        may_enter = self._record(cycle, listing, waiting)
        guard = self._guard(cycle, listing, waiting)
        everybody = guard.judge_listing()
        found = self._find_places(cycle)
        desired = self._desired(cycle, listing, waiting)
        all_held = everybody.held is not None
        terms = self._terms(cycle, desired, guard, may_enter=may_enter, all_held=all_held)
        results = serve_all(found, terms)
        holds = _holds(everybody, results)
        reports = _reports(results, found)
        if everybody.held:
            return self._not_applied(cycle, everybody.held, holds, reports)
        return self._applied(cycle, listing, waiting, holds, results, reports, found)

    def _emit(self, event: events.Event) -> None:
        """Logs an event of this cycle, with what the cycle came from."""
        if isinstance(event, events.CycleEvent):
            event = replace(event, trigger=self._trigger)
        self._log(event)

    # ---- before the files ----

    def _alone(self, request: Request) -> contextlib.AbstractContextManager[None]:
        """One sync at a time; a dry run writes nothing, so it neither locks nor waits."""
        if request.dry_run:
            return contextlib.nullcontext()
        return self._state.locked(self._lock_seconds)

    def _load(self, cycle: _Cycle) -> None:
        ledger, problem = self._state.load()
        if problem and not cycle.request.dry_run:
            try:
                stamp = cycle.now.at.replace(":", "") + "-" + cycle.sync_id
                aside = self._state.set_aside(stamp)
            except TargetFailed as error:
                cycle.records.problem = error
                aside = ""
            self._emit(events.StateSetAside(cycle.sync_id, aside, problem, ledger.account_id))
        cycle.on_disk = cycle.ledger = ledger
        if problem and not cycle.request.dry_run:
            self._saved(cycle)  # the account pin holds, however this cycle ends (G4)
        if self._unsaved and _same(self._unsaved[0], ledger):
            cycle.ledger = self._unsaved[1]

    def _listing(self, cycle: _Cycle) -> Listing:
        credential = find_credential(self.config.api_key_file, self._environment)
        try:
            answer = self._fetch(credential)
            listing = vast.read_listing(
                answer, self.config.policy_min_rsa_bits, self._accepts(cycle)
            )
        except KeysyncError as error:
            error.message = credential.hidden_in(error.message)
            if error.kind in ("credential_rejected", "not_found"):
                error.message += f" The API key was {credential.masked} from {credential.source}."
            raise
        cycle.facts = ListingFacts(
            len(listing.keys), listing.account_id, cycle.now.at, answer.not_modified
        )
        return listing

    def _fetch(self, credential: Credential) -> Answer:
        if self._console is None:
            from agent.adapters.http import HttpClient  # loads httpx, which status does without

            url = vast.list_url(self.config.api_url)
            self._console = HttpClient(url, self.config.api_timeout)
        return self._console.fetch(credential)

    def close(self) -> None:
        """Ends the connection to the console."""
        if self._console is not None:
            self._console.close()

    def _accepts(self, cycle: _Cycle) -> Accepts:
        return accepted_types(self.config, cycle.sshd)

    def _announce_listing(self, cycle: _Cycle, listing: Listing) -> None:
        announce_rejected(cycle.sync_id, listing.rejected, cycle.ledger.rejected, self._emit)

    def _waiting(self, cycle: _Cycle, listing: Listing) -> tuple[WaitingKey, ...]:
        """The listed keys that were never accepted and are not confirmed now (G14)."""
        confirmed = cycle.request.confirm_additions
        unknown = set(confirmed) - {"all"} - {key.key.fingerprint for key in listing.keys}
        if unknown:
            raise RequestInvalid(
                "not_listed",
                f"The account's list has no key {', '.join(sorted(unknown))}, so it cannot be "
                "confirmed.",
                "keysync status shows the keys that wait, each with its fingerprint.",
            )
        if self.config.policy_additions == "apply" or "all" in confirmed:
            return ()
        since = {one.fingerprint: one.since for one in cycle.ledger.waiting}
        waiting = tuple(
            _waiting_key(listed, since.get(listed.key.fingerprint, cycle.now.at))
            for listed in listing.keys
            if listed.key.fingerprint not in confirmed
            and not _was_accepted(cycle.ledger, listed.key.fingerprint)
        )
        new = [one for one in waiting if one.fingerprint not in since]
        announce_waiting(cycle.sync_id, new, self._emit)
        return waiting

    def _record(self, cycle: _Cycle, listing: Listing, waiting: tuple[WaitingKey, ...]) -> bool:
        """Saves which keys are listed, and which are accepted, before any of them enters a file
        (R5, G11, G14). Gives whether they may enter.
        """
        now, on_disk, earlier = cycle.now.at, cycle.on_disk, cycle.ledger
        cycle.ledger = earlier.record_listing(listing, now)
        forgotten = cycle.ledger.forgotten_since(earlier)
        if forgotten and not cycle.request.dry_run:
            self._emit(events.RevocationsDropped(cycle.sync_id, forgotten, _FORGOTTEN_HINT))
        must_save = bool(on_disk.missing_from(listing))
        if self.config.policy_additions == "hold":
            entering = listing.usable - {one.fingerprint for one in waiting}
            cycle.ledger = cycle.ledger.accepting(entering, now)
            must_save |= not all(_was_accepted(on_disk, one) for one in entering)
        if cycle.request.dry_run or not must_save:
            return True
        return self._saved(cycle)

    def _saved(self, cycle: _Cycle) -> bool:
        try:
            self._state.save(cycle.ledger)
        except TargetFailed as error:
            cycle.records.problem = error
            self._unsaved = (cycle.on_disk, cycle.ledger)
            return False
        cycle.on_disk, self._unsaved = cycle.ledger, None
        return True

    def _guard(
        self, cycle: _Cycle, listing: Listing, waiting: tuple[WaitingKey, ...]
    ) -> LockoutGuard:
        config = self.config
        rule = HoldRule(
            config.policy_removal_confirmations, config.policy_removal_hold, config.poll_interval
        )
        return LockoutGuard(
            listing,
            cycle.ledger,
            rule,
            cycle.now,
            confirmed=cycle.request.confirm_removals,
            waiting=frozenset(one.fingerprint for one in waiting),
        )

    def _find_places(self, cycle: _Cycle) -> list[ServedFile]:
        """The files of all targets, and of the retired ones."""
        places = find_served_files(self.config, cycle.ledger, cycle.sshd, cycle.now.at)
        announce_places(cycle.sync_id, places, cycle.ledger, self._emit)
        skipped = tuple(one.file for one in places.skipped[:MAX_SKIPPED])
        cycle.ledger = replace(cycle.ledger, retired=places.retired, skipped=skipped)
        return places.found

    def _desired(
        self, cycle: _Cycle, listing: Listing, waiting: tuple[WaitingKey, ...]
    ) -> DesiredKeys:
        held = frozenset(one.fingerprint for one in waiting)
        present = cycle.ledger.still_listed(listing, held)
        return DesiredKeys(
            listed={
                listed.key.blob: listed
                for listed in listing.keys
                if listed.key.fingerprint not in held
            },
            pins={pin.key.blob: pin for pin in self.config.pins},
            previously_listed=cycle.ledger.previously_listed,
            present=present,
            listed_but_malformed=listing.listed_but_malformed & present,
            waiting=held & present,
            strict=self.config.policy_unmanaged == "remove",
        )

    def _terms(
        self,
        cycle: _Cycle,
        desired: DesiredKeys,
        guard: LockoutGuard,
        *,
        may_enter: bool,
        all_held: bool,
    ) -> Terms:
        accepts = self._accepts(cycle)
        return Terms(
            desired,
            guard,
            lambda line: line.opens_session_for(accepts),
            cycle.records,
            may_enter=may_enter,
            all_held=all_held,
            dry_run=cycle.request.dry_run,
            sshd=cycle.sshd,
        )

    # ---- after the files ----

    def _applied(
        self,
        cycle: _Cycle,
        listing: Listing,
        waiting: tuple[WaitingKey, ...],
        holds: dict[str, Hold],
        results: list[UserResult],
        reports: tuple[TargetReport, ...],
        found: list[ServedFile],
    ) -> SyncReport:
        """Announces what was done and remembers it; a failed target outranks a hold."""
        earlier = cycle.ledger
        if not cycle.request.dry_run:
            for report in reports:
                announce_target(cycle.sync_id, report, earlier, self._emit)
            self._announce_omitted(cycle)
        ledger = earlier.apply_listing(listing, (one.fingerprint for one in waiting), cycle.now.at)
        cycle.ledger = replace(ledger, waiting=waiting, holds=holds)
        cause = _problem_of(results, reports) or _not_asked(found)
        problem = self._remember(cycle, cause, reports)
        changed = any(report.result == "changed" for report in reports)
        result = _result(problem, changed=changed)
        shut = tuple(one.user for one in results if one.locked_out)
        if not cycle.request.dry_run:
            for one in results:
                if one.locked_out:
                    self._emit(locked_out(cycle.sync_id, one.user, one.reports, waiting))
        return self._report(cycle, result, problem, reports, waiting, shut)

    def _announce_omitted(self, cycle: _Cycle) -> None:
        for (user, path), lines in cycle.records.omitted.items():
            if lines:
                self._emit(events.JournalOmitted(cycle.sync_id, user, path, lines))

    def _not_applied(
        self,
        cycle: _Cycle,
        cause: KeysyncError | Held,
        holds: dict[str, Hold] | None = None,
        reports: tuple[TargetReport, ...] = (),
    ) -> SyncReport:
        """Nothing is changed. A failed poll neither counts for a hold nor ends it (G3)."""
        if holds is not None:
            cycle.ledger = replace(cycle.ledger, holds={**cycle.ledger.holds, **holds})
        if not cycle.request.dry_run:
            for report in reports:
                announce_target(cycle.sync_id, report, cycle.ledger, self._emit)
        problem = self._remember(cycle, cause, reports)
        result = _result(problem, changed=False)
        return self._report(cycle, result, problem, reports, cycle.ledger.waiting)

    def _remember(
        self,
        cycle: _Cycle,
        cause: KeysyncError | Held | Problem | None,
        reports: tuple[TargetReport, ...],
    ) -> Problem | None:
        """Saves the ledger when it changed (R7); gives the worst problem of the cycle."""
        problem = cause if isinstance(cause, Problem | None) else Problem.of(cause)
        if cycle.request.dry_run:
            return problem
        problem = _outranked(problem, cycle.records.problem)
        ledger = cycle.ledger
        if reports:
            ledger = ledger.with_outcomes(
                TargetOutcome(r.user, r.path, r.result, cycle.now.at, r.origin) for r in reports
            )
        was_failing = bool(ledger.last_failure and ledger.last_failure.solved_at is None)
        if problem:
            ledger = ledger.failed(problem.kind, problem.message, problem.hint, cycle.now)
        else:
            ledger = ledger.succeeded(cycle.now)
        cycle.ledger = ledger
        if _same(ledger, cycle.on_disk):
            self._unsaved = None
        elif not self._saved(cycle):
            problem = _outranked(problem, cycle.records.problem)
        if cycle.records.problem:
            error = cycle.records.problem
            self._emit(
                events.StateWriteFailed(cycle.sync_id, error.kind, error.message, error.hint)
            )
        elif problem is None:
            self._state.mark_success(cycle.now, at_once=was_failing)
        self._state.keep_reserve()
        return problem

    def _report(
        self,
        cycle: _Cycle,
        result: str,
        problem: Problem | None,
        reports: tuple[TargetReport, ...],
        waiting: tuple[WaitingKey, ...],
        no_way_in: tuple[str, ...] = (),
    ) -> SyncReport:
        rejected = cycle.listing.rejected if cycle.listing else ()
        return SyncReport(
            result,
            cycle.sync_id,
            cycle.request.dry_run,
            cycle.facts,
            reports,
            rejected,
            problem,
            waiting,
            no_way_in,
        )


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
        if report.exit_code != TemporaryFailure.exit_code or left <= 0 or least > left:
            return report
        wish = random.uniform(0.0, pause)  # noqa: S311  # reason: no secret
        sleep(max(least, min(wish, left)))
        pause = min(2 * pause, _WAIT_MOST_SECONDS)


def _holds(everybody: Judgement, results: list[UserResult]) -> dict[str, Hold]:
    """What is to be remembered of G3: by user, and that of all targets."""
    judged = {ALL_TARGETS: everybody} | {result.user: result.judgement for result in results}
    return {name: judgement.hold for name, judgement in judged.items() if judgement.hold}


def _reports(results: list[UserResult], found: list[ServedFile]) -> tuple[TargetReport, ...]:
    """All reports in the order of the configuration."""
    order = {(one.location.user, one.location.path): at for at, one in enumerate(found)}
    reports = (report for result in results for report in result.reports)
    return tuple(sorted(reports, key=lambda report: order[report.user, report.path]))


def _problem_of(
    results: list[UserResult], reports: tuple[TargetReport, ...]
) -> Problem | Held | None:
    """A target that failed, else what is held, with all its users."""
    failed = next((report.problem for report in reports if report.problem), None)
    if failed:
        return failed
    held = [result.judgement.held for result in results if result.judgement.held]
    if not held:
        return None
    users = ", ".join(sorted(one.user for one in held))
    return replace(held[0], message=f"No usable key would be left for {users}.")


def _not_asked(found: list[ServedFile]) -> Problem | None:
    """That it is not certain which file sshd reads: such a cycle is not in sync."""
    unsure = next((one.location for one in found if one.location.problem), None)
    if unsure is None:
        return None
    error = TargetFailed(
        "sshd_not_asked",
        f"sshd could not be asked which file it reads for {unsure.user}, so {unsure.path} was "
        f"taken: {unsure.problem}.",
        "Run `sshd -T` as root to see what it complains of, or give the target a path.",
    )
    return Problem.of(error)


def _result(problem: Problem | None, *, changed: bool) -> str:
    """How a cycle is called that ended with this problem."""
    if problem:
        return "held" if problem.exit_code == EXIT_HELD else "failed"
    return "changed" if changed else "in_sync"


def _outranked(problem: Problem | None, error: TargetFailed | None) -> Problem | None:
    """The problem of a cycle whose bookkeeping failed (G11); any other failure has its own name."""
    if error is None or (problem and problem.exit_code != EXIT_HELD):
        return problem
    message = f"{error.message} Deleted keys go all the same; a key that is not recorded waits."
    return replace(Problem.of(error), message=message)


def _same(one: Ledger, other: Ledger) -> bool:
    """Whether nothing differs that has to be written; the last success has a mark of its own."""
    return replace(one, last_success=None) == replace(other, last_success=None)


def _was_accepted(ledger: Ledger, fingerprint: str) -> bool:
    known = ledger.keys.get(fingerprint)
    return known is not None and known.is_accepted


def _waiting_key(listed: ListedKey, since: str) -> WaitingKey:
    key = listed.key
    comment = printable(listed.comment)
    return WaitingKey(key.fingerprint, key.key_type, comment, listed.key_id, since)


def _failing_since(cycle: _Cycle) -> str | None:
    """As `status` tells it: a row of failures goes on when the agent is started anew."""
    failure = cycle.ledger.last_failure
    return failure.since.at if failure and failure.solved_at is None else None


def _success_age(cycle: _Cycle) -> int | None:
    """Seconds since the last success; None before the first, and where a clock was wrong."""
    last = cycle.ledger.last_success
    seconds = seconds_between(last, cycle.now) if last else None
    return None if seconds is None else int(seconds)
