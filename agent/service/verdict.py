"""The verdict of `keysync status`: what is wrong, the most serious first, and the exit code.

The order of seriousness: nobody can log in as a user (4); the configuration is wrong (78), so the
agent does not start or uses an earlier one; a file or the state could not be read, the state cannot
be written, or sshd could not be asked which files it reads (74); the API key (77); the console's
answer (65); no recent answer, or no agent that could act on one (75); something is held and waits
for a person (3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from agent.adapters.heartbeat import Condition
from agent.core.ledger import ALL_TARGETS, Failure
from agent.core.times import Moment, seconds_between
from agent.errors import (
    EXIT_HELD,
    EXIT_NO_WAY_IN,
    EXIT_OK,
    EXIT_UNEXPECTED,
    AnswerUnusable,
    ConfigInvalid,
    CredentialRejected,
    TargetFailed,
    TemporaryFailure,
)
from agent.service.accounts import Origin
from agent.service.report import MAX_SHOWN, counted, lockout_cure, lost_state
from agent.service.status import ACCOUNT_KINDS, Status

_SERIOUSNESS = (
    EXIT_NO_WAY_IN,
    ConfigInvalid.exit_code,
    TargetFailed.exit_code,
    CredentialRejected.exit_code,
    AnswerUnusable.exit_code,
    TemporaryFailure.exit_code,
    EXIT_HELD,
    EXIT_UNEXPECTED,
    EXIT_OK,
)
_MAX_SKIPPED = 10  # with a finding of its own
_LOCKOUT_KINDS = {"empty_listing", "no_valid_entry", "would_lock_out"}
_HELD_KINDS = ACCOUNT_KINDS | _LOCKOUT_KINDS
_UNREACHABLE_KINDS = {
    "busy",
    "connection_failed",
    "connection_lost",
    "name_unknown",
    "proxy_failed",
    "proxy_unusable",
    "rate_limited",
    "server_error",
    "timeout",
    "tls_failed",
}
_UNUSABLE_KINDS = {
    "empty_body",
    "error_answer",
    "html_page",
    "malformed_account",
    "not_found",
    "not_http",
    "not_json",
    "partial_list",
    "redirected",
    "several_accounts",
    "too_large",
    "truncated",
    "unexpected_encoding",
    "unexpected_status",
    "unknown_shape",
}


class Severity(Enum):
    """How much a finding weighs."""

    PROBLEM = "problem"
    WARNING = "warning"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know, and what to do about it; `exit_code` is 0 for what is no problem."""

    severity: Severity
    text: str
    fix: str = ""
    exit_code: int = EXIT_OK

    def as_json(self) -> dict[str, object]:
        """One object of `verdict`."""
        return {"severity": self.severity.value, "text": self.text, "fix": self.fix or None}


def exit_code_of(kind: str) -> int:
    """The exit code of a failure that is known by its kind alone, as the state keeps it."""
    if kind in _HELD_KINDS:
        return EXIT_HELD
    if kind in _UNREACHABLE_KINDS:
        return TemporaryFailure.exit_code
    if kind in _UNUSABLE_KINDS:
        return AnswerUnusable.exit_code
    is_credential = kind.startswith("credential_")
    return CredentialRejected.exit_code if is_credential else TargetFailed.exit_code


def judge_status(status: Status) -> list[Finding]:
    """Every finding, the most serious first; when nothing is wrong the first one says that."""
    problems = sorted(_problems(status), key=lambda one: _SERIOUSNESS.index(one.exit_code))
    warnings = list(_warnings(status))
    if problems:
        return problems + warnings
    return [Finding(Severity.OK, _all_is_well(status)), *warnings]


def exit_code(findings: list[Finding]) -> int:
    """That of the most serious finding."""
    return findings[0].exit_code if findings else EXIT_OK


def _problem(code: int, text: str, fix: str) -> Finding:
    return Finding(Severity.PROBLEM, text, fix, code)


def _problems(status: Status) -> Iterator[Finding]:
    yield from _no_way_in(status)
    if status.config_problem:
        error = status.config_problem
        text = f"the configuration is wrong, so this is told from the state: {error.message}"
        yield _problem(error.exit_code, text, error.hint)
    if status.state_problem:
        text = f"the state in {status.config.state_dir} could not be read: {status.state_problem}"
        yield _problem(TargetFailed.exit_code, text, "The next sync starts it anew.")
    if status.state_obstacle:
        text = f"{status.state_obstacle.message} Deleted keys are removed; new ones wait."
        yield _problem(TargetFailed.exit_code, text, status.state_obstacle.hint)
    yield from _unreadable(status)
    yield from _failing(status)
    yield from _agent(status)
    yield from _stale(status)
    yield from _held(status)


def _no_way_in(status: Status) -> Iterator[Finding]:
    for user in status.no_way_in:
        paths = ", ".join(target.path for target in status.targets if target.user == user)
        yield _problem(
            EXIT_NO_WAY_IN,
            f"nobody can log in as {user} (no usable key in {paths})",
            lockout_cure(status.ledger.waiting, synced=bool(status.ledger.targets)),
        )


def _unreadable(status: Status) -> Iterator[Finding]:
    for target in status.targets:
        if target.problem:
            yield _problem(TargetFailed.exit_code, target.problem.message, target.problem.hint)
        elif target.unsure:
            yield _problem(
                TargetFailed.exit_code,
                f"sshd could not be asked which file it reads for {target.user} "
                f"({target.unsure}); {target.path} is its default",
                "Run sshd -t as root to see why, or give the target a path in the configuration.",
            )


def _failing(status: Status) -> Iterator[Finding]:
    failure = status.ledger.last_failure
    if failure is None or failure.solved_at is not None or _is_told_elsewhere(status, failure):
        return
    code, since = exit_code_of(failure.kind), _since(failure.since, status.now)
    how = "held" if code == EXIT_HELD else "failing"
    yield _problem(code, f"{how} since {since}: {failure.message}", failure.hint)


def _is_told_elsewhere(status: Status, failure: Failure) -> bool:
    """As the hold it is, as the problem of its target, or as that of the state."""
    if failure.kind in _LOCKOUT_KINDS:
        return bool(status.ledger.holds)
    if failure.kind == "sshd_not_asked":
        return any(target.unsure for target in status.targets)
    obstacle = status.state_obstacle
    if obstacle and obstacle.kind == failure.kind and status.config.state_dir in failure.message:
        return True
    return any(t.problem and t.problem.message == failure.message for t in status.targets)


def _agent(status: Status) -> Iterator[Finding]:
    condition, beat = status.condition, status.heartbeat
    if not status.service or condition is Condition.RUNNING:
        return
    if beat is None:
        text = "the agent is not running (it has never run here)"
    elif condition is Condition.OVERDUE:
        text = f"the agent is stuck: its poll of {_poll_time(beat.next_poll)} has not ended"
    else:
        last = beat.stopped or beat.last_cycle or beat.started
        text = f"the agent is not running (last seen {_since(last, status.now)})"
    verb = "restart" if condition is Condition.OVERDUE else "start"
    yield _problem(
        TemporaryFailure.exit_code,
        text,
        f"systemctl {verb} keysync, supervisorctl {verb} keysync, or: keysync run",
    )


def _poll_time(moment: Moment | None) -> str:
    return moment.at if moment else "an unknown time"


def _stale(status: Status) -> Iterator[Finding]:
    if not status.stale:
        return
    last = status.last_success
    fix = "See why: keysync sync"
    if last is None:
        yield _problem(TemporaryFailure.exit_code, "no sync has succeeded yet", fix)
    elif status.clock_is_wrong:
        text = f"the clock is wrong: the last success lies in the future ({last.at})"
        yield _problem(TemporaryFailure.exit_code, text, "Set the clock (timedatectl, ntpdate).")
    else:
        limit = duration(int(status.config.policy_max_staleness or 0))
        text = f"stale: the last success was {_since(last, status.now)}; {limit} are allowed"
        yield _problem(TemporaryFailure.exit_code, text, fix)


def _held(status: Status) -> Iterator[Finding]:
    prevent = "put a usable key on the console's Keys page"
    if status.ledger.waiting:  # another key there would wait too (G14)
        prevent = "let in a key that waits: keysync sync --confirm-additions FINGERPRINT"
    for user, hold in status.ledger.holds.items():
        until = status.held_until(hold)
        if until is None:
            continue
        whom = "all targets" if user == ALL_TARGETS else user
        left = seconds_between(status.now, until)
        when = f"until about {until.at} " if left else ""
        yield _problem(
            EXIT_HELD,
            f"held {when}for {whom}: {_HOLD_TEXT.get(hold.reason, hold.reason)} "
            f"(seen in {hold.seen} of {hold.needed} polls)",
            f"To apply it now: keysync sync --confirm-removals. To prevent it, {prevent}.",
        )


_HOLD_TEXT = {
    "empty_listing": "the account's list of SSH keys is empty",
    "no_valid_entry": "none of the account's SSH keys is usable",
    "would_lock_out": "no usable key would be left",
}


def _warnings(status: Status) -> Iterator[Finding]:
    if status.clock_is_wrong and not status.stale and status.last_success:
        at = status.last_success.at
        text = f"the clock is wrong: the last success lies in the future ({at})"
        yield Finding(Severity.WARNING, text, "Set the clock (timedatectl, ntpdate).")
    for path, at in status.lost_states:
        yield Finding(Severity.WARNING, lost_state(at), f"When that is done: rm {path}")
    yield from _waiting(status)
    for entry in status.ledger.rejected:
        text = f"rejected: key {entry.key_id} on the console: {entry.detail} ({entry.reason})"
        yield Finding(Severity.WARNING, text, "Correct it on the console's Keys page.")
    for target in status.targets:
        for key in target.keys:
            if key.still_authorized:
                text = f"{key.fingerprint} {key.comment} can still log in as {target.user}"
                text += f": {key.note}"
                fix = f"If it should not, remove line {key.line} of {target.path}."
                yield Finding(Severity.WARNING, text, fix)
        if target.disagreement:
            yield Finding(Severity.WARNING, target.disagreement)
        if target.origin == Origin.RETIRED.value:
            text = f"{target.path} of {target.user} is no longer a target; "
            text += "keys deleted on the console are still removed from it"
            yield Finding(Severity.WARNING, text, f"To end that: keysync forget {target.path}")
    for location in status.forgotten:
        text = (
            f"{location.path} of {location.user}, who is no target, holds keys that keysync knows"
        )
        fix = "Deleted keys stay there: set targets: auto, or add the user to the targets."
        yield Finding(Severity.WARNING, text, fix)
    yield from _skipped(status)


def _skipped(status: Status) -> Iterator[Finding]:
    """A deleted key may stand there, and nobody knows (R5)."""
    for location, error in status.skipped[:_MAX_SKIPPED]:
        text = f"a deleted key may stand in a file of {location.user}, no target: {error.message}"
        yield Finding(Severity.WARNING, text, error.hint)
    more = len(status.skipped) - _MAX_SKIPPED
    if more > 0:
        text = f"{more} more key files of accounts that are no target could not be searched"
        yield Finding(Severity.WARNING, text, "keysync status --json names them all.")


def _waiting(status: Status) -> Iterator[Finding]:
    let_in = {
        key.fingerprint: target.path
        for target in status.targets
        for key in target.keys
        if key.is_accepted
    }
    for new in status.ledger.waiting[:MAX_SHOWN]:
        path = let_in.get(new.fingerprint)
        text = f"waits for confirmation: {new.fingerprint} {new.comment}".rstrip()
        yield Finding(
            Severity.WARNING,
            f"{text}; a line of {path} lets it in now" if path else text,
            f"To let it in: keysync sync --confirm-additions {new.fingerprint}",
        )
    more = len(status.ledger.waiting) - MAX_SHOWN
    if more > 0:
        text = f"waits for confirmation: {counted(more, 'more key')}"
        yield Finding(Severity.WARNING, text, "To see them all: keysync status --json")


def _all_is_well(status: Status) -> str:
    age = status.age
    parts = ["no sync yet" if age is None else f"in sync {duration(age)} ago"]
    beat = status.heartbeat
    if beat is None:
        parts.append("no agent is set up here")
    else:
        parts.append(f"the agent runs since {beat.started.at}")
    if status.next_poll_s is not None:
        parts.append(f"next poll in {duration(status.next_poll_s)}")
    return "; ".join(parts)


def _since(moment: Moment, now: Moment) -> str:
    """A time, and how long ago that is where it is known."""
    seconds = seconds_between(moment, now)
    return moment.at if seconds is None else f"{moment.at} ({duration(int(seconds))} ago)"


def duration(seconds: int) -> str:
    """A length of time in one unit, for people."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
