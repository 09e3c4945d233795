"""All the files of one user within one cycle: read, planned, guarded, written.

Users are served one after the other, so that nobody's file decides what becomes of another's (G3)
and a large file keeps nobody waiting but those behind it (G12). The files that a user shares with
others were served before (`shared_files`); here they count as ways in, and are reported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.adapters.files.key_file import KeyFile
from agent.adapters.sshd_config import Sshd
from agent.core.desired_keys import DesiredKeys
from agent.core.guards import (
    Judgement,
    LockoutGuard,
    OpensSession,
    has_way_in,
    would_lock_out,
)
from agent.core.plan import Plan, Role
from agent.errors import TargetFailed
from agent.service.accounts import Origin
from agent.service.beside import restricted_beside
from agent.service.locate import KeyFileLocation
from agent.service.report import TargetReport
from agent.service.target import Records, TargetSync


@dataclass(frozen=True, slots=True)
class ServedFile:
    """One file to serve, and why it is served; `error` is why it could not be found out."""

    location: KeyFileLocation
    origin: Origin
    error: TargetFailed | None = None

    @property
    def role(self) -> Role:
        """What may be done to the file."""
        if self.origin is Origin.RETIRED:
            return Role.REVOKE
        return Role.MAIN if self.location.main else Role.OTHER


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every file of one cycle.

    `may_enter` is false where new keys could not be recorded first (G11); `all_held` when the
    listing is held for everybody.
    """

    desired: DesiredKeys
    guard: LockoutGuard
    opens: OpensSession
    records: Records
    may_enter: bool = True
    all_held: bool = False
    dry_run: bool = False
    sshd: Sshd = field(default_factory=Sshd)


NOT_HELD = Judgement()


@dataclass(slots=True)
class UserResult:
    """What came of one user's files; `judgement` is what G3 says of them."""

    user: str
    reports: tuple[TargetReport, ...] = ()
    judgement: Judgement = NOT_HELD
    locked_out: bool = False


class UserSync:
    """The files of one user: those that are the user's alone, and those in `shared` with others."""

    def __init__(
        self,
        user: str,
        own: Sequence[ServedFile],
        terms: Terms,
        shared: Sequence[TargetSync] = (),
    ) -> None:
        self._user = user
        self._own = own
        self._terms = terms
        self._shared = shared

    def serve(self, of_shared: Judgement = NOT_HELD) -> UserResult:
        """Reads and plans every file, judges them together, and writes the user's own unless they
        are held. `of_shared` is what G3 said of the shared ones for this user.
        """
        terms = self._terms
        with contextlib.ExitStack() as stack:
            own = self._read(stack, for_writing=not terms.dry_run)
            targets = [*own, *self._shared]
            judgement = NOT_HELD
            if not terms.all_held:
                judgement = terms.guard.judge_user(
                    self._user, _sure_plans(targets), terms.opens, counts=terms.may_enter
                )
            for target in own:
                if terms.all_held or judgement.held:
                    target.hold()
                elif not terms.dry_run:
                    target.write(terms.records, self._locks_out(target, targets, judgement))
            return UserResult(
                self._user,
                tuple(target.report(dry_run=terms.dry_run) for target in targets),
                Judgement(judgement.held or of_shared.held, judgement.hold or of_shared.hold),
                self._is_locked_out(targets),
            )

    def plans_for_shared(self) -> list[Plan]:
        """By what the user can log in once the shared files are written, to judge those (G3).

        An own main file counts as an empty one, into which the listed keys would be written. Only
        where that is no way in are the own files read: what stands in them can let the user in, and
        nobody holds a removal up for the others by it that an empty file would let pass.
        """
        mains = [one for one in self._own if one.role is Role.MAIN and not one.error]
        empty = [self._target(one) for one in mains]
        for target in empty:
            target.assume_empty()
            target.respect(self._shared)
        plans = _sure_plans([*empty, *self._shared])
        if not would_lock_out(plans, self._terms.opens):
            return plans
        with contextlib.ExitStack() as stack:
            own = self._read(stack, for_writing=False)
            return _sure_plans([*own, *self._shared])

    def _locks_out(
        self, target: TargetSync, targets: Sequence[TargetSync], judgement: Judgement
    ) -> Callable[[Plan], bool]:
        """Whether another plan for `target` would lock the user out, as nobody has confirmed."""
        confirmed = self._terms.guard.confirmed or judgement.hold is not None

        def locks_out(plan: Plan) -> bool:
            judged = _judged(targets)
            if confirmed or target not in judged:
                return False
            others = [one.plan for one in judged if one is not target and one.plan]
            return would_lock_out([plan, *others], self._terms.opens)

        return locks_out

    def _is_locked_out(self, targets: Sequence[TargetSync]) -> bool:
        """Whether nobody can log in as this user; not where a file was not read, or is held."""
        served = any(target.origin is not Origin.RETIRED for target in targets)
        judged = _judged(targets)
        plans = [target.plan for target in judged if target.plan and not target.held]
        return served and len(plans) == len(judged) and not has_way_in(plans, self._terms.opens)

    def _read(self, stack: contextlib.ExitStack, *, for_writing: bool) -> list[TargetSync]:
        targets = []
        for found in self._own:
            target = self._target(found)
            try:
                if found.error:
                    raise found.error
                file = KeyFile.opened(
                    found.location.path, found.location.owner, for_writing=for_writing
                )
                target.read(stack.enter_context(file))
            except TargetFailed as error:
                target.fail(error)
            if found.location.main or target.exists:
                targets.append(target)
        everything = [*targets, *self._shared]
        beside = self._restricted_beside()
        for target in targets:
            before = (
                () if target.location.main else [one for one in self._shared if one.location.main]
            )
            target.respect((one for one in everything if one is not target), before, beside)
        return targets

    def _restricted_beside(self) -> frozenset[bytes]:
        named = [one.location for one in self._own if one.origin is not Origin.RETIRED]
        served = [one.location.path for one in self._own]
        served += [one.location.path for one in self._shared]
        return restricted_beside(named, served, self._terms.desired, self._terms.sshd)

    def _target(self, found: ServedFile) -> TargetSync:
        terms = self._terms
        return TargetSync(
            found.location, terms.desired, found.origin, found.role, may_enter=terms.may_enter
        )


def _sure_plans(targets: Sequence[TargetSync]) -> list[Plan]:
    """The plans by which the user can log in.

    While sshd cannot be asked, the file that it reads by default is no sure way in: the one that
    it named before is among the retired ones then, and must keep its last key.
    """
    sure = [target for target in targets if not target.location.problem]
    return [target.plan for target in _judged(sure) or _judged(targets) if target.plan]


def _judged(targets: Sequence[TargetSync]) -> Sequence[TargetSync]:
    """The files by which the user can log in: retired ones only where there is no other."""
    return [target for target in targets if target.origin is not Origin.RETIRED] or targets


def by_user(found: Sequence[ServedFile]) -> list[tuple[str, list[ServedFile]]]:
    """The places of each user, the users with little to read first (G12)."""
    users: dict[str, list[ServedFile]] = {}
    for one in found:
        users.setdefault(one.location.user, []).append(one)
    return sorted(users.items(), key=lambda item: sum(map(_size, _read_for(item[1]))))


def _read_for(found: Sequence[ServedFile]) -> set[str]:
    return {path for one in found for path in (one.location.path, *one.location.beside)}


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
