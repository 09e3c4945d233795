"""Who can log in to each target and why, from the files on disk and the ledger; no network."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import datetime

from agent.adapters.key_file import KeyFile
from agent.adapters.state import StateDirectory
from agent.config import Config, Target
from agent.core.authorized_keys import AuthorizedKeys, Line, LineKind, shown_comment
from agent.core.ledger import Ledger, TargetOutcome
from agent.core.public_key import PublicKey
from agent.errors import EXIT_OK, KeysyncError, TargetFailed
from agent.service.login import NO, judge
from agent.service.report import Problem
from agent.service.sync import Clock, age_seconds, now_text
from agent.service.targets import locate

EXIT_STALE = 75


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key line: `access` is managed, pinned, restricted or foreign; `note` what is special.

    `login` is whether sshd lets the key in by this line: yes, no, depends (on the
    address), or certificates (those that it signed).
    """

    line: int
    access: str
    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    note: str
    login: str
    options: tuple[str, ...] = ()
    since: str | None = None  # when this machine first saw the console list it


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One file, or why it could not be read."""

    user: str
    path: str
    keys: tuple[KeyStatus, ...] = ()
    problem: Problem | None = None
    last: TargetOutcome | None = None  # how the last cycle ended for it


@dataclass(frozen=True, slots=True)
class Status:
    """The whole report; ages are whole seconds."""

    now: str
    ledger: Ledger
    targets: tuple[TargetStatus, ...]
    max_staleness: float | None
    state_problem: str | None = None
    pins: frozenset[str] = field(default_factory=frozenset)

    @property
    def age(self) -> int | None:
        """Seconds since the last sync in which everything was well; None before the first."""
        return age_seconds(self.ledger.last_success, self.now)

    @property
    def stale(self) -> bool:
        """G6: older than policy.max_staleness, which is off by default."""
        if self.max_staleness is None:
            return False
        # A success far in the future was stamped by a wrong clock, and says nothing about now.
        return self.age is None or abs(self.age) > self.max_staleness

    @property
    def failing(self) -> bool:
        """Whether the last thing that happened was a failure or a hold."""
        failure = self.ledger.last_failure
        return failure is not None and failure.solved_at is None

    @property
    def exit_code(self) -> int:
        """0, or 74 when a target or the state cannot be read, or 75 when the state is too old."""
        if self.state_problem or any(target.problem for target in self.targets):
            return TargetFailed.exit_code
        return EXIT_STALE if self.stale else EXIT_OK

    def as_json(self) -> dict[str, object]:
        """The one object that `status --json` prints."""
        ledger = self.ledger
        failure = ledger.last_failure
        return {
            "account_id": ledger.account_id,
            "last_success": ledger.last_success,
            "last_success_age": self.age,
            "stale": self.stale,
            "failing": self.failing,
            "last_error": failure
            and {
                "at": failure.at,
                "kind": failure.kind,
                "message": failure.message,
                "hint": failure.hint,
            },
            "held": ledger.hold
            and {
                "reason": ledger.hold.reason,
                "seen": ledger.hold.seen,
                "needed": ledger.hold.needed,
                "applied": ledger.hold.confirmed,
            },
            "rejected": [
                {"key_id": entry.key_id, "reason": entry.reason, "detail": entry.detail}
                for entry in ledger.rejected
            ],
            "state_problem": self.state_problem,
            "targets": [_target_json(target) for target in self.targets],
        }


def _target_json(target: TargetStatus) -> dict[str, object]:
    return {
        "user": target.user,
        "path": target.path,
        "error": target.problem and target.problem.as_json(),
        "last_result": target.last and {"result": target.last.result, "at": target.last.at},
        "keys": [
            {
                "line": key.line,
                "access": key.access,
                "fingerprint": key.fingerprint,
                "key_type": key.key_type,
                "comment": key.comment,
                "key_id": key.key_id,
                "note": key.note or None,
                "login": key.login,
                "since": key.since,
                "options": list(key.options),
            }
            for key in target.keys
        ],
    }


def read_status(config: Config, clock: Clock = now_text) -> Status:
    """Reads the ledger and every target; whatever cannot be read is said in the result."""
    try:
        ledger, problem = StateDirectory(config.state_dir).load()
    except KeysyncError as error:
        ledger, problem = Ledger(), error.message
    pins = frozenset(pin.key.fingerprint for pin in config.pins)
    now = clock()
    targets = [one for target in config.targets for one in _target(target, ledger, pins, now)]
    return Status(now, ledger, tuple(targets), config.policy_max_staleness, problem, pins)


def _target(target: Target, ledger: Ledger, pins: frozenset[str], now: str) -> list[TargetStatus]:
    try:
        places = locate(target, ledger.paths(target.user))
    except TargetFailed as error:
        return [TargetStatus(target.user, target.path or "", problem=Problem.of(error))]
    found = []
    for place in places:
        with contextlib.ExitStack() as stack:
            try:
                opened = KeyFile.opened(place.path, place.owner, for_writing=False)
                snapshot = stack.enter_context(opened).read()
            except TargetFailed as error:
                found.append(TargetStatus(place.user, place.path, problem=Problem.of(error)))
                continue
        if place.main or snapshot.exists:
            keys = _keys(AuthorizedKeys.parse(snapshot.data), ledger, pins, now)
            last = ledger.outcome(place.user, place.path)
            found.append(TargetStatus(place.user, place.path, keys, last=last))
    return found


def _keys(
    document: AuthorizedKeys, ledger: Ledger, pins: frozenset[str], now: str
) -> tuple[KeyStatus, ...]:
    moment = datetime.fromisoformat(now.replace("Z", "+00:00"))
    return tuple(
        _key(at, line, line.key, ledger, pins, moment)
        for at, line in enumerate(document.lines, 1)
        if line.key is not None
    )


_ACCESS = {
    LineKind.MANAGED: "managed",
    LineKind.RESTRICTED: "restricted",
    LineKind.PLAIN: "foreign",
}


def _key(
    at: int, line: Line, key: PublicKey, ledger: Ledger, pins: frozenset[str], now: datetime
) -> KeyStatus:
    fingerprint = key.fingerprint
    known = ledger.keys.get(fingerprint)
    pinned = fingerprint in pins and line.kind is not LineKind.RESTRICTED
    revoked = known is not None and known.revoked_at is not None and fingerprint not in pins
    login, note = judge(line, now)
    return KeyStatus(
        at,
        "pinned" if pinned else _ACCESS[line.kind],
        fingerprint,
        key.key_type,
        shown_comment(line),
        known.key_id if known else None,
        _note(line, revoked and login != NO) or note,
        login,
        line.options.names if line.options else (),
        known.first_listed if known else None,
    )


def _note(line: Line, revoked: bool) -> str:
    """What must be known first about a line that should let nobody in."""
    if revoked and line.kind is LineKind.RESTRICTED:
        return "deleted on the console, but still authorized by this restricted line"
    if revoked:
        return "deleted on the console; the next sync removes it"
    return ""
