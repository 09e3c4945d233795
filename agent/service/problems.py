"""The checks of `keysync status` that find problems: each gives `status` its exit code.

A new check is one function here that yields findings, and its line in PROBLEMS; its test is in
tests/service/test_problems.py. Problems with the same exit code keep the order of PROBLEMS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.adapters.heartbeat import Condition
from agent.core.ledger import ALL_TARGETS, Failure
from agent.core.times import seconds_between
from agent.errors import (
    EXIT_HELD,
    EXIT_NO_WAY_IN,
    LOCKOUT_KINDS,
    TargetFailed,
    TemporaryFailure,
    exit_code_of,
)
from agent.service.finding import Finding, duration, problem, since
from agent.service.report import lockout_hint, sshd_not_asked
from agent.service.status import Status

_HOLD_TEXT = {
    "empty_listing": "the account's list of SSH keys is empty",
    "no_valid_entry": "none of the account's SSH keys is usable",
    "would_lock_out": "no usable key would be left",
}


def _no_way_in(status: Status) -> Iterator[Finding]:
    """G3: somebody is locked out."""
    for user in status.no_way_in:
        paths = ", ".join(target.path for target in status.targets if target.user == user)
        text = f"nobody can log in as {user} (no usable key in {paths})"
        hint = lockout_hint(status.ledger.waiting, synced=bool(status.ledger.targets))
        yield problem(EXIT_NO_WAY_IN, text, hint)


def _configuration(status: Status) -> Iterator[Finding]:
    error = status.config_problem
    if error:
        text = "the configuration is wrong, so the targets shown are those of the last sync: "
        yield problem(error.exit_code, text + error.message, error.hint)


def _state_unreadable(status: Status) -> Iterator[Finding]:
    if status.state_problem:
        text = f"the state in {status.config.state_dir} could not be read: {status.state_problem}"
        yield problem(TargetFailed.exit_code, text, "The next sync starts a new one.")


def _state_unwritable(status: Status) -> Iterator[Finding]:
    """G11: revocation goes on without the state, additions need it."""
    obstacle = status.state_obstacle
    if obstacle:
        text = f"{obstacle.message} Deleted keys are removed; new ones wait."
        yield problem(TargetFailed.exit_code, text, obstacle.hint)


def _key_files(status: Status) -> Iterator[Finding]:
    for target in status.targets:
        found = target.problem
        if found is None and target.unsure:
            found = sshd_not_asked(target.user, target.path, target.unsure)
        if found:
            yield problem(found.exit_code, found.message, found.hint)


def _last_cycle(status: Status) -> Iterator[Finding]:
    failure = status.ledger.last_failure
    if failure is None or failure.solved_at is not None or _is_reported_elsewhere(status, failure):
        return
    code = exit_code_of(failure.kind)
    how = "held" if code == EXIT_HELD else "failing"
    text = f"{how} since {since(failure.since, status.now)}: {failure.message}"
    yield problem(code, text, failure.hint)


def _is_reported_elsewhere(status: Status, failure: Failure) -> bool:
    """Whether a hold, a target or the state is reported for this failure."""
    if failure.kind in LOCKOUT_KINDS:
        return bool(status.ledger.holds)
    if failure.kind == "sshd_not_asked":
        return any(target.unsure for target in status.targets)
    obstacle = status.state_obstacle
    if obstacle and obstacle.kind == failure.kind and status.config.state_dir in failure.message:
        return True
    return any(
        target.problem and target.problem.message == failure.message for target in status.targets
    )


def _agent(status: Status) -> Iterator[Finding]:
    condition, beat = status.condition, status.heartbeat
    if not status.service or condition is Condition.RUNNING:
        return
    verb = "start"
    if beat is None:
        text = "the agent is not running (it has never run here)"
    elif condition is Condition.OVERDUE:
        verb, poll = "restart", beat.next_poll
        text = f"the agent is stuck: its poll of {poll.at if poll else '?'} has not ended"
    else:
        last = beat.stopped or beat.last_cycle or beat.started
        text = f"the agent is not running (last seen {since(last, status.now)})"
    fix = f"systemctl {verb} keysync, supervisorctl {verb} keysync, or: keysync run"
    yield problem(TemporaryFailure.exit_code, text, fix)


def _stale(status: Status) -> Iterator[Finding]:
    """G6: policy.max_staleness."""
    if not status.stale:
        return
    last, fix = status.last_success, "See why: keysync sync"
    if last is None:
        text = "no sync has succeeded yet"
    elif status.clock_is_wrong:
        text = f"the clock is wrong: the last success lies in the future ({last.at})"
        fix = "Set the clock (timedatectl, ntpdate)."
    else:
        limit = duration(int(status.config.policy_max_staleness or 0))
        text = f"stale: the last success was {since(last, status.now)}; {limit} are allowed"
    yield problem(TemporaryFailure.exit_code, text, fix)


def _holds(status: Status) -> Iterator[Finding]:
    """G3: what waits for confirmation, and until when."""
    prevent = "put a usable key on the console's Keys page"
    if status.ledger.waiting:  # another key there would wait too (G14)
        prevent = "confirm a waiting key: keysync sync --confirm-additions FINGERPRINT"
    for user, hold in status.ledger.holds.items():
        until = status.held_until(hold)
        if until is None:
            continue
        whom = "all targets" if user == ALL_TARGETS else user
        when = f"until about {until.at} " if seconds_between(status.now, until) else ""
        yield problem(
            EXIT_HELD,
            f"held {when}for {whom}: {_HOLD_TEXT.get(hold.reason, hold.reason)} "
            f"(seen in {hold.seen} of {hold.needed} polls)",
            f"To apply it now: keysync sync --confirm-removals. To prevent it, {prevent}.",
        )


PROBLEMS: tuple[Callable[[Status], Iterator[Finding]], ...] = (
    _no_way_in,
    _configuration,
    _state_unreadable,
    _state_unwritable,
    _key_files,
    _last_cycle,
    _agent,
    _stale,
    _holds,
)
