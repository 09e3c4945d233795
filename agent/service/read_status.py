"""Reads who can log in to each target and why, from the key files and the state; no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from agent.adapters.clock import present
from agent.adapters.files.key_file import KeyFile
from agent.adapters.heartbeat import read_heartbeat
from agent.adapters.sshd_config import Sshd
from agent.adapters.state import StateDirectory
from agent.config import Config, Target
from agent.core.access import Access, Login, judge
from agent.core.authorized_keys import AuthorizedKeys, Line, shown_comment
from agent.core.ledger import ALL_TARGETS, Ledger
from agent.core.public_key import PublicKey
from agent.core.times import Moment
from agent.errors import REFUSED_KINDS, ConfigInvalid, KeysyncError, TargetFailed
from agent.service.locate import accepted_types
from agent.service.report import Problem
from agent.service.served_files import ServedFile, find_served_files
from agent.service.status import KeyStatus, Status, TargetStatus
from agent.service.target_users import find_untargeted_files, unserved

_NO_WAY_IN = "does not count as a way in for a person"
_STILL_AUTHORIZED = "deleted on the console, but still authorized by this restricted line"
_REMOVED_NEXT = "deleted on the console; the next sync removes it"
_HELD_REMOVAL = "deleted on the console; its removal is held, see above"


def read_status(
    config: Config,
    clock: Callable[[], Moment] = present,
    *,
    service: bool = False,
    config_problem: ConfigInvalid | None = None,
) -> Status:
    """Reads the state and every target; the result says what could not be read.

    `service` says whether a service manager is meant to keep an agent running here.
    """
    ledger, problem = _load(config)
    if config_problem:
        config = replace(config, targets=_last_targets(ledger))
    now, sshd = clock(), Sshd()
    served = find_served_files(config, ledger, sshd, now.at)
    targets = _Reader(config, ledger, now, sshd).read(served.found)
    forgotten = find_untargeted_files(config, ledger, sshd)
    skipped = unserved([*served.skipped, *forgotten.skipped], {one.path for one in targets})
    heartbeat = read_heartbeat(config.state_dir)
    state = StateDirectory(config.state_dir)
    obstacle = state.obstacle()
    return Status(
        now,
        config,
        ledger,
        targets,
        state_problem=problem,
        state_obstacle=Problem.of(obstacle) if obstacle else None,
        config_problem=config_problem,
        heartbeat=heartbeat,
        service=heartbeat is not None or (service and not problem),
        forgotten=tuple(forgotten.found),
        skipped=tuple(skipped),
        lost_states=state.lost(),
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
    """Reads key files, and adds what the state knows about each key."""

    def __init__(self, config: Config, ledger: Ledger, now: Moment, sshd: Sshd) -> None:
        self._ledger = ledger
        self._now = datetime.fromisoformat(now.at.replace("Z", "+00:00"))
        self._pins = frozenset(pin.key.fingerprint for pin in config.pins)
        self._revoked = ledger.revoked - self._pins  # a pin overrides (R5)
        self._accepts = accepted_types(config, sshd)

    def read(self, served: Iterable[ServedFile]) -> tuple[TargetStatus, ...]:
        """The status of each file, in the same order."""
        found = (self._file(one) for one in served)
        return tuple(_with_used_lines([one for one in found if one]))

    def _file(self, served: ServedFile) -> TargetStatus | None:
        """None for a missing file that is not the first one that sshd reads for the user."""
        location = served.location
        unsure = location.problem if location.main else None
        status = TargetStatus(location.user, location.path, served.origin, unsure=unsure)
        try:
            if served.error:
                raise served.error
            with KeyFile.opened(location.path, location.owner, for_writing=False) as file:
                snapshot = file.read()
        except TargetFailed as error:
            return status._replace(problem=Problem.of(error))
        if not location.main and not snapshot.exists:
            return None
        return status._replace(
            keys=self._keys(AuthorizedKeys.parse(snapshot.data), location.user),
            last=self._ledger.outcome(location.user, location.path),
            disagreement=location.disagreement if location.main else None,
        )

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
        if failure and failure.solved_at is None and failure.kind in REFUSED_KINDS:
            return True
        holds = (self._ledger.holds.get(name) for name in (ALL_TARGETS, user))
        return any(hold and not hold.confirmed for hold in holds)

    def _key(self, at: int, line: Line, key: PublicKey, removal: str) -> KeyStatus:
        known = self._ledger.keys.get(key.fingerprint)
        access = Access.of(line, pinned=key.fingerprint in self._pins)
        login, note = judge(line, self._now, self._accepts)
        status = KeyStatus(
            line=at,
            access=access,
            fingerprint=key.fingerprint,
            key_type=key.key_type,
            comment=shown_comment(line),
            key_id=known.key_id if known else None,
            note=note,
            login=login,
            options=line.options.names if line.options else (),
            since=known.first_listed if known else None,
            is_way_in=line.opens_session_for(self._accepts),
        )
        if key.fingerprint in self._revoked and login is not Login.NO:
            restricted = access is Access.RESTRICTED
            note = _STILL_AUTHORIZED if restricted else removal
            return status._replace(note=note, still_authorized=restricted)
        if status.is_accepted and not status.is_way_in:
            return status._replace(note=f"{note}; {_NO_WAY_IN}" if note else _NO_WAY_IN)
        return status


def _with_used_lines(targets: list[TargetStatus]) -> list[TargetStatus]:
    """Notes at each plain line beside a restricted one for the same key which of them counts.

    sshd uses the first line that matches, over all files of the user in order (R4, sshd(8)).
    """
    first: dict[tuple[str, str], Access] = {}
    restricted = set()
    for target in targets:
        for key in target.keys:
            identity = (target.user, key.fingerprint)
            if key.is_accepted:
                first.setdefault(identity, key.access)
                if key.access is Access.RESTRICTED:
                    restricted.add(identity)

    def noted(user: str, key: KeyStatus) -> KeyStatus:
        identity = (user, key.fingerprint)
        if key.note or key.access is Access.RESTRICTED or identity not in restricted:
            return key
        used = "the restricted one" if first[identity] is Access.RESTRICTED else "this one"
        note = f"a restricted line holds the same key; sshd uses {used}, the first"
        return key._replace(note=note)

    return [
        target._replace(keys=tuple(noted(target.user, key) for key in target.keys))
        for target in targets
    ]
