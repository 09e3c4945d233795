"""Who can log in to each target and why, from the files on disk and the state; no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from agent.adapters.clock import present
from agent.adapters.files.key_file import KeyFile
from agent.adapters.heartbeat import Condition, Heartbeat, read_heartbeat
from agent.adapters.sshd_config import Sshd
from agent.adapters.state import StateDirectory
from agent.config import Config, Target
from agent.core.access import DEPENDS, NO, YES, judge
from agent.core.authorized_keys import AuthorizedKeys, Line, LineKind, shown_comment
from agent.core.ledger import ALL_TARGETS, Hold, Ledger, TargetOutcome
from agent.core.public_key import PublicKey
from agent.core.times import Moment, seconds_between
from agent.errors import ConfigInvalid, KeysyncError, TargetFailed
from agent.service.accounts import Origin, Skipped, forgotten_accounts, unserved
from agent.service.locate import KeyFileLocation, accepted_types
from agent.service.report import Problem, waiting_json
from agent.service.served_files import ServedFile, find_served_files

ACCOUNT_KINDS = frozenset({"account_changed", "account_unknown"})  # of a list that is held (G4)


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
    still_authorized: bool = False  # deleted on the console, and kept by a restricted line (R4)
    is_way_in: bool = False  # for a person, as the lockout guard counts it (G3)

    @property
    def is_accepted(self) -> bool:
        """Whether sshd takes the key for this line, from some address at least."""
        return self.login in (YES, DEPENDS)


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One file, or why it could not be read; `origin` is configured, auto or retired.

    `unsure` is why it is not certain that sshd reads this file, `disagreement` that it reads
    another one for other connections.
    """

    user: str
    path: str
    origin: str = Origin.CONFIGURED.value
    keys: tuple[KeyStatus, ...] = ()
    problem: Problem | None = None
    last: TargetOutcome | None = None  # how the last cycle ended for it
    unsure: str | None = None
    disagreement: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What was found; `service` is whether an agent is expected to run here.

    `config_problem` is what is wrong with the configuration: then the targets are those of the
    last cycle.
    """

    now: Moment
    config: Config
    ledger: Ledger
    targets: tuple[TargetStatus, ...]
    state_problem: str | None = None
    state_obstacle: Problem | None = None  # why the state could not be written (G11)
    config_problem: ConfigInvalid | None = None
    heartbeat: Heartbeat | None = None
    service: bool = False
    forgotten: tuple[KeyFileLocation, ...] = ()  # key files of accounts that are no target (R5)
    skipped: tuple[Skipped, ...] = ()  # those of them that could not be searched
    lost_states: tuple[tuple[str, str], ...] = ()  # path and time of each that was set aside

    @property
    def last_success(self) -> Moment | None:
        """The state marks it once a minute at most, a running agent notes every cycle."""
        beat = self.heartbeat
        known = self.ledger.last_success
        if beat is None or beat.last_cycle is None or beat.result not in ("changed", "in_sync"):
            return known
        later = seconds_between(known, beat.last_cycle) if known else 0.0
        return known if later is None else beat.last_cycle

    @property
    def age(self) -> int | None:
        """Seconds since the last success; None before the first, and where a clock was wrong."""
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
        """Whether the last thing that happened was a failure or a hold."""
        failure = self.ledger.last_failure
        return failure is not None and failure.solved_at is None

    @property
    def condition(self) -> Condition | None:
        """How the agent is; None when there is no heartbeat."""
        return self.heartbeat.condition(self.now) if self.heartbeat else None

    @property
    def next_poll_s(self) -> int | None:
        """Whole seconds until the running agent polls again."""
        beat = self.heartbeat
        if beat is None or beat.next_poll is None or self.condition is not Condition.RUNNING:
            return None
        return int(seconds_between(self.now, beat.next_poll) or 0)

    @property
    def no_way_in(self) -> tuple[str, ...]:
        """The users of targets for whom no line of any file is a way in; as `sync` reports them.

        A user with a file that could not be read is not among them: nobody knows.
        """
        own = [target for target in self.targets if target.origin != Origin.RETIRED.value]
        unknown = {target.user for target in own if target.problem}
        let_in = {target.user for target in own if any(key.is_way_in for key in target.keys)}
        users = dict.fromkeys(target.user for target in own)
        return tuple(user for user in users if user not in unknown | let_in)

    def held_until(self, hold: Hold) -> Moment | None:
        """When it is applied at the earliest; None when it is."""
        if hold.confirmed:
            return None
        return hold.last.after(hold.remaining(self.config.poll_interval))

    def as_json(self) -> dict[str, object]:
        """What `status --json` prints, beside the verdict."""
        ledger = self.ledger
        failure, success = ledger.last_failure, self.last_success
        return {
            "account_id": ledger.account_id,
            "last_success": success and success.at,
            "last_success_age": self.age,
            "stale": self.stale,
            "failing": self.failing,
            "last_error": failure
            and {
                "at": failure.at,
                "since": failure.since.at,
                "kind": failure.kind,
                "message": failure.message,
                "hint": failure.hint,
            },
            "held": [self._hold_json(user, hold) for user, hold in ledger.holds.items()],
            "rejected": [
                {"key_id": entry.key_id, "reason": entry.reason, "detail": entry.detail}
                for entry in ledger.rejected
            ],
            "waiting": [waiting_json(key) for key in ledger.waiting],
            "retired": [
                {"user": one.user, "path": one.path, "since": one.since} for one in ledger.retired
            ],
            "forgotten": [{"user": one.user, "path": one.path} for one in self.forgotten],
            "skipped": [
                {
                    "user": location.user,
                    "path": location.path,
                    "error": Problem.of(error).as_json(),
                }
                for location, error in self.skipped
            ],
            "agent": self._agent_json(),
            "state_problem": self.state_problem,
            "config_problem": self.config_problem and self.config_problem.message,
            "no_way_in": list(self.no_way_in),
            "targets": [_target_json(target) for target in self.targets],
        }

    def _hold_json(self, user: str, hold: Hold) -> dict[str, object]:
        until = self.held_until(hold)
        return {
            "user": None if user == ALL_TARGETS else user,
            "reason": hold.reason,
            "seen": hold.seen,
            "needed": hold.needed,
            "until": until and until.at,
            "applied": hold.confirmed,
        }

    def _agent_json(self) -> dict[str, object] | None:
        beat = self.heartbeat
        if beat is None:
            return {"condition": "missing"} if self.service else None
        return {
            "condition": beat.condition(self.now).value,
            "version": beat.version,
            "pid": beat.pid,
            "started": beat.started.at,
            "last_cycle": beat.last_cycle and beat.last_cycle.at,
            "next_poll_s": self.next_poll_s,
            "failing_since": beat.failing_since and beat.failing_since.at,
            "stopped": beat.stopped and beat.stopped.at,
            "stop_reason": beat.stop_reason,
        }


def _target_json(target: TargetStatus) -> dict[str, object]:
    return {
        "user": target.user,
        "path": target.path,
        "origin": target.origin,
        "error": target.problem and target.problem.as_json(),
        "sshd_problem": target.unsure,
        "sshd_disagreement": target.disagreement,
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


def read_status(
    config: Config,
    clock: Callable[[], Moment] = present,
    *,
    service: bool = False,
    config_problem: ConfigInvalid | None = None,
) -> Status:
    """Reads the state and every target; whatever cannot be read is told in the result."""
    ledger, problem = _load(config)
    if config_problem:
        config = replace(config, targets=_last_targets(ledger))
    now = clock()
    sshd = Sshd()
    reader = _Reader(config, ledger, now, sshd)
    found = reader.targets()
    forgotten = forgotten_accounts(config, ledger, sshd)
    skipped = [*reader.skipped, *forgotten.skipped]
    heartbeat = read_heartbeat(config.state_dir)
    expected = heartbeat is not None or (service and not problem)
    state = StateDirectory(config.state_dir)
    obstacle = state.obstacle()
    return Status(
        now,
        config,
        ledger,
        found,
        problem,
        Problem.of(obstacle) if obstacle else None,
        config_problem,
        heartbeat,
        expected,
        tuple(forgotten.found),
        tuple(unserved(skipped, {target.path for target in found})),
        state.lost(),
    )


def _load(config: Config) -> tuple[Ledger, str | None]:
    try:
        return StateDirectory(config.state_dir).load()
    except KeysyncError as error:
        return Ledger(), error.message


def _last_targets(ledger: Ledger) -> tuple[Target, ...]:
    retired = {(one.user, one.path) for one in ledger.retired}
    return tuple(
        Target(one.user, one.path)
        for one in ledger.targets
        if one.path and (one.user, one.path) not in retired
    )


class _Reader:
    """Reads key files, with what is known of each key."""

    def __init__(self, config: Config, ledger: Ledger, now: Moment, sshd: Sshd) -> None:
        self._config = config
        self._ledger = ledger
        self._at = now.at
        self._now = datetime.fromisoformat(now.at.replace("Z", "+00:00"))
        self._pins = frozenset(pin.key.fingerprint for pin in config.pins)
        self._sshd = sshd
        self.skipped: list[Skipped] = []  # which `targets` could not search
        self._accepts = accepted_types(config, self._sshd)

    def targets(self) -> tuple[TargetStatus, ...]:
        """Every file of every target, and the retired ones."""
        places = find_served_files(self._config, self._ledger, self._sshd, self._at)
        self.skipped = places.skipped
        found = (self._file(one) for one in places.found)
        return tuple(_with_rivals([one for one in found if one]))

    def _file(self, found: ServedFile) -> TargetStatus | None:
        """None for a file that sshd reads besides, while it is not there."""
        location = found.location
        unsure = location.problem if location.main else None
        status = TargetStatus(location.user, location.path, found.origin.value, unsure=unsure)
        try:
            if found.error:
                raise found.error
            with KeyFile.opened(location.path, location.owner, for_writing=False) as file:
                snapshot = file.read()
        except TargetFailed as error:
            return replace(status, problem=Problem.of(error))
        if not location.main and not snapshot.exists:
            return None
        keys = self._keys(AuthorizedKeys.parse(snapshot.data), location.user)
        last = self._ledger.outcome(location.user, location.path)
        disagreement = location.disagreement if location.main else None
        return replace(status, keys=keys, last=last, disagreement=disagreement)

    def _keys(self, document: AuthorizedKeys, user: str) -> tuple[KeyStatus, ...]:
        removal = _HELD_REMOVAL if self._holds(user) else _REMOVED_NEXT
        return tuple(
            self._key(at, line, line.key, removal)
            for at, line in document.numbered()
            if line.key is not None
        )

    def _holds(self, user: str) -> bool:
        """Whether the next sync may remove nothing from this user's files (G3, G4)."""
        failure = self._ledger.last_failure
        if failure and failure.solved_at is None and failure.kind in ACCOUNT_KINDS:
            return True
        holds = (self._ledger.holds.get(name) for name in (ALL_TARGETS, user))
        return any(hold and not hold.confirmed for hold in holds)

    def _key(self, at: int, line: Line, key: PublicKey, removal: str) -> KeyStatus:
        known = self._ledger.keys.get(key.fingerprint)
        is_pin = key.fingerprint in self._pins
        restricted = line.kind is LineKind.RESTRICTED
        login, note = judge(line, self._now, self._accepts)
        is_way_in = line.opens_session_for(self._accepts)
        if login in (YES, DEPENDS) and not is_way_in:
            note = f"{note}; {_NO_WAY_IN}" if note else _NO_WAY_IN
        revoked = known is not None and known.revoked_at is not None and not is_pin
        stays = revoked and login != NO
        if stays:
            note = _STILL_AUTHORIZED if restricted else removal
        return KeyStatus(
            at,
            "pinned" if is_pin and not restricted else _ACCESS[line.kind],
            key.fingerprint,
            key.key_type,
            shown_comment(line),
            known.key_id if known else None,
            note,
            login,
            line.options.names if line.options else (),
            known.first_listed if known else None,
            stays and restricted,
            is_way_in,
        )


_NO_WAY_IN = "does not count as a way in for a person"
_STILL_AUTHORIZED = "deleted on the console, but still authorized by this restricted line"
_REMOVED_NEXT = "deleted on the console; the next sync removes it"
_HELD_REMOVAL = "deleted on the console; its removal is held, see above"
_ACCESS = {
    LineKind.MANAGED: "managed",
    LineKind.RESTRICTED: "restricted",
    LineKind.PLAIN: "foreign",
}


def _with_rivals(targets: list[TargetStatus]) -> list[TargetStatus]:
    """Notes each plain line beside a restricted one for the same key, and which of them counts.

    sshd takes the first line that matches, over all files of the user in order (R4, sshd(8)).
    """
    first: dict[tuple[str, str], str] = {}
    restricted = set()
    for target in targets:
        for key in target.keys:
            identity = (target.user, key.fingerprint)
            if key.is_accepted:
                first.setdefault(identity, key.access)
            if key.access == "restricted" and key.is_accepted:
                restricted.add(identity)
    return [
        replace(t, keys=tuple(_rival(t.user, k, first, restricted) for k in t.keys))
        for t in targets
    ]


def _rival(
    user: str,
    key: KeyStatus,
    first: Mapping[tuple[str, str], str],
    restricted: set[tuple[str, str]],
) -> KeyStatus:
    identity = (user, key.fingerprint)
    if key.note or key.access == "restricted" or identity not in restricted:
        return key
    used = "the restricted one" if first[identity] == "restricted" else "this one"
    return replace(key, note=f"a restricted line holds the same key; sshd uses {used}, the first")
