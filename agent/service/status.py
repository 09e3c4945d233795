"""What `keysync status` found, as values, and their JSON; read_status.py reads them."""

from __future__ import annotations

from typing import NamedTuple

from agent.adapters.heartbeat import Condition, Heartbeat
from agent.config import Config
from agent.core.access import Access, Login
from agent.core.ledger import ALL_TARGETS, Hold, Ledger, TargetOutcome
from agent.core.results import IN_SYNC, Origin
from agent.core.times import Moment, seconds_between
from agent.errors import ConfigInvalid
from agent.service.locate import KeyFileLocation
from agent.service.report import Problem, waiting_json
from agent.service.target_users import Skipped


class KeyStatus(NamedTuple):
    """One key line of a file, at line number `line`; `note` says what is special about it."""

    line: int
    access: Access
    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    note: str
    login: Login
    options: tuple[str, ...] = ()
    since: str | None = None  # when this machine first saw the key listed
    still_authorized: bool = False  # deleted on the console, but a restricted line keeps it (R4)
    is_way_in: bool = False  # for a person, as the lockout guard counts it (G3)

    @property
    def is_accepted(self) -> bool:
        """Whether this line lets the key in, at least from some address."""
        return self.login in (Login.YES, Login.DEPENDS)


class TargetStatus(NamedTuple):
    """One key file with its key lines, or the `problem` for which it could not be read."""

    user: str
    path: str
    origin: Origin = Origin.CONFIGURED
    keys: tuple[KeyStatus, ...] = ()
    problem: Problem | None = None
    last: TargetOutcome | None = None  # how the last cycle ended for it
    unsure: str | None = None  # why it is not certain that sshd reads this file
    disagreement: str | None = None  # that sshd reads another file for some connections


class Status(NamedTuple):
    """Everything that was found; with an invalid configuration, for the last cycle's targets."""

    now: Moment
    config: Config
    ledger: Ledger
    targets: tuple[TargetStatus, ...]
    state_problem: str | None = None  # why the state could not be read
    state_obstacle: Problem | None = None  # why the state could not be written (G11)
    config_problem: ConfigInvalid | None = None
    heartbeat: Heartbeat | None = None
    service: bool = False  # whether an agent is expected to run here
    forgotten: tuple[KeyFileLocation, ...] = ()  # files with keysync's lines, of no target (R5)
    skipped: tuple[Skipped, ...] = ()  # files of no target that could not be searched (R5)
    lost_states: tuple[tuple[str, str], ...] = ()  # path and time of each that was set aside

    @property
    def last_success(self) -> Moment | None:
        """From the state, which records it once a minute at most, or the agent's heartbeat."""
        beat = self.heartbeat
        known = self.ledger.last_success
        if beat is None or beat.last_cycle is None or beat.result not in IN_SYNC:
            return known
        later = seconds_between(known, beat.last_cycle) if known else 0.0
        return known if later is None else beat.last_cycle

    @property
    def age(self) -> int | None:
        """Seconds since the last success; None before the first or when a clock was wrong."""
        last = self.last_success
        seconds = seconds_between(last, self.now) if last else None
        return None if seconds is None else int(seconds)

    @property
    def clock_is_wrong(self) -> bool:
        """Whether the last success lies in the future."""
        return self.last_success is not None and self.age is None

    @property
    def stale(self) -> bool:
        """G6: older than policy.max_staleness, or of unknown age."""
        limit = self.config.policy_max_staleness
        return limit is not None and (self.age is None or self.age > limit)

    @property
    def failing(self) -> bool:
        """Whether the last cycle failed or was held."""
        failure = self.ledger.last_failure
        return failure is not None and failure.solved_at is None

    @property
    def condition(self) -> Condition | None:
        """The agent's condition; None when there is no heartbeat."""
        return self.heartbeat.condition(self.now) if self.heartbeat else None

    @property
    def next_poll_s(self) -> int | None:
        """Whole seconds until the running agent polls again; None when no agent runs."""
        beat = self.heartbeat
        if beat is None or beat.next_poll is None or self.condition is not Condition.RUNNING:
            return None
        return int(seconds_between(self.now, beat.next_poll) or 0)

    @property
    def no_way_in(self) -> tuple[str, ...]:
        """The users of targets for whom no line of any file is a way in; as `sync` reports them.

        A user with a file that could not be read is not among them, because nobody knows.
        """
        own = [target for target in self.targets if target.origin is not Origin.RETIRED]
        unknown = {target.user for target in own if target.problem}
        let_in = {target.user for target in own if any(key.is_way_in for key in target.keys)}
        users = dict.fromkeys(target.user for target in own)
        return tuple(user for user in users if user not in unknown | let_in)

    def held_until(self, hold: Hold) -> Moment | None:
        """When the held removal is applied at the earliest; None when it was applied already."""
        if hold.confirmed:
            return None
        return hold.last.after(hold.remaining(self.config.poll_interval))

    def as_json(self) -> dict[str, object]:
        """What `status --json` prints, apart from the verdict."""
        ledger, success = self.ledger, self.last_success
        return {
            "account_id": ledger.account_id,
            "last_success": success and success.at,
            "last_success_age": self.age,
            "stale": self.stale,
            "failing": self.failing,
            "last_error": _failure_json(ledger),
            "held": [_hold_json(self, user, hold) for user, hold in ledger.holds.items()],
            "rejected": [
                {"key_id": entry.key_id, "reason": entry.reason, "detail": entry.detail}
                for entry in ledger.rejected
            ],
            "waiting": [waiting_json(key) for key in ledger.waiting],
            "retired": [
                {"user": one.user, "path": one.path, "since": one.since} for one in ledger.retired
            ],
            "forgotten": [{"user": one.user, "path": one.path} for one in self.forgotten],
            "skipped": [_skipped_json(one) for one in self.skipped],
            "agent": _agent_json(self),
            "state_problem": self.state_problem,
            "config_problem": self.config_problem and self.config_problem.message,
            "no_way_in": list(self.no_way_in),
            "targets": [_target_json(target) for target in self.targets],
        }


def _failure_json(ledger: Ledger) -> dict[str, object] | None:
    failure = ledger.last_failure
    if failure is None:
        return None
    return {
        "at": failure.at,
        "since": failure.since.at,
        "kind": failure.kind,
        "message": failure.message,
        "hint": failure.hint,
    }


def _hold_json(status: Status, user: str, hold: Hold) -> dict[str, object]:
    until = status.held_until(hold)
    return {
        "user": None if user == ALL_TARGETS else user,
        "reason": hold.reason,
        "seen": hold.seen,
        "needed": hold.needed,
        "until": until and until.at,
        "applied": hold.confirmed,
    }


def _skipped_json(skipped: Skipped) -> dict[str, object]:
    location, error = skipped
    return {
        "user": location.user,
        "path": location.path,
        "error": Problem.of(error).as_json(),
    }


def _agent_json(status: Status) -> dict[str, object] | None:
    beat = status.heartbeat
    if beat is None:
        return {"condition": "missing"} if status.service else None
    return {
        "condition": beat.condition(status.now).value,
        "version": beat.version,
        "pid": beat.pid,
        "started": beat.started.at,
        "last_cycle": beat.last_cycle and beat.last_cycle.at,
        "next_poll_s": status.next_poll_s,
        "failing_since": beat.failing_since and beat.failing_since.at,
        "stopped": beat.stopped and beat.stopped.at,
        "stop_reason": beat.stop_reason,
    }


def _target_json(target: TargetStatus) -> dict[str, object]:
    return {
        "user": target.user,
        "path": target.path,
        "origin": target.origin.value,
        "error": target.problem and target.problem.as_json(),
        "sshd_problem": target.unsure,
        "sshd_disagreement": target.disagreement,
        "last_result": target.last and {"result": target.last.result, "at": target.last.at},
        "keys": [_key_json(key) for key in target.keys],
    }


def _key_json(key: KeyStatus) -> dict[str, object]:
    return {
        "line": key.line,
        "access": key.access.value,
        "fingerprint": key.fingerprint,
        "key_type": key.key_type,
        "comment": key.comment,
        "key_id": key.key_id,
        "note": key.note or None,
        "login": key.login.value,
        "since": key.since,
        "options": list(key.options),
    }
