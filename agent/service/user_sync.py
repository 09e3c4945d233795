"""All the files of one user within one cycle: read, planned, guarded, written.

Users are served one after the other, so that nobody's file decides what becomes of another's (G3)
and a large file keeps nobody waiting but those behind it (G12).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.adapters.key_file import KeyFile
from agent.core.plan import Plan, Role, Wanted
from agent.core.policy import (
    Judgement,
    LockoutGuard,
    OpensSession,
    has_way_in,
    would_lock_out,
)
from agent.errors import TargetFailed
from agent.service.accounts import Origin
from agent.service.report import TargetReport
from agent.service.target_sync import Books, TargetSync
from agent.service.targets import Place


@dataclass(frozen=True, slots=True)
class FoundPlace:
    """One file to serve, and why it is served; `error` is why it could not be found out."""

    place: Place
    origin: Origin
    error: TargetFailed | None = None

    @property
    def role(self) -> Role:
        """What may be done to the file."""
        if self.origin is Origin.RETIRED:
            return Role.REVOKE
        return Role.MAIN if self.place.main else Role.OTHER


@dataclass(slots=True)
class UserResult:
    """What came of one user's files; `judgement` is what G3 says of them."""

    user: str
    reports: tuple[TargetReport, ...] = ()
    judgement: Judgement = field(default_factory=Judgement)
    locked_out: bool = False


class UserSync:
    """The files of one user; `wanted` is what the account and the configuration ask for."""

    def __init__(self, user: str, found: Sequence[FoundPlace], wanted: Wanted) -> None:
        self._user = user
        self._found = found
        self._wanted = wanted

    def serve(
        self,
        guard: LockoutGuard,
        opens: OpensSession,
        books: Books,
        *,
        may_enter: bool,
        all_held: bool,
        dry_run: bool,
    ) -> UserResult:
        """Reads and plans every file, judges them together, and writes unless they are held.

        `may_enter` is false where new keys could not be recorded first (G11); `all_held` when the
        listing is held for everybody.
        """
        with contextlib.ExitStack() as stack:
            targets = self._read(stack, may_enter, for_writing=not dry_run)
            # While sshd cannot be asked, the file that it reads by default is no sure way in: the
            # one that it named before is among the retired ones then, and must keep its last key.
            sure = [target for target in targets if not target.place.problem]
            judged = _judged(sure) or _judged(targets)
            plans = [target.plan for target in judged if target.plan]
            judgement = Judgement()
            if not all_held:
                judgement = guard.judge_user(self._user, plans, opens, counts=may_enter)
            if all_held or judgement.held:
                reports = tuple(target.report_held() for target in targets)
                return UserResult(self._user, reports, judgement)
            if not dry_run:
                for target in targets:
                    target.write(books, self._locks_out(target, targets, judgement, opens))
            return UserResult(
                self._user,
                tuple(target.report(dry_run=dry_run) for target in targets),
                judgement,
                self._is_locked_out(targets, opens),
            )

    def _locks_out(
        self,
        target: TargetSync,
        targets: Sequence[TargetSync],
        judgement: Judgement,
        opens: OpensSession,
    ) -> Callable[[Plan], bool]:
        """Whether another plan for `target` would lock the user out, as nobody has confirmed."""

        def locks_out(plan: Plan) -> bool:
            judged = _judged(targets)
            if judgement.hold is not None or target not in judged:
                return False
            others = [one.plan for one in judged if one is not target and one.plan]
            return would_lock_out([plan, *others], opens)

        return locks_out

    def _is_locked_out(self, targets: Sequence[TargetSync], opens: OpensSession) -> bool:
        """Whether nobody can log in as this user; not where a file could not be read."""
        served = any(target.origin is not Origin.RETIRED for target in targets)
        judged = _judged(targets)
        plans = [target.plan for target in judged if target.plan]
        return served and len(plans) == len(judged) and not has_way_in(plans, opens)

    def _read(
        self, stack: contextlib.ExitStack, may_enter: bool, *, for_writing: bool
    ) -> list[TargetSync]:
        targets = []
        for found in self._found:
            target = TargetSync(
                found.place, self._wanted, found.origin, found.role, may_enter=may_enter
            )
            try:
                if found.error:
                    raise found.error
                file = KeyFile.opened(found.place.path, found.place.owner, for_writing=for_writing)
                target.read(stack.enter_context(file))
            except TargetFailed as error:
                target.fail(error)
            if found.place.main or target.exists:
                targets.append(target)
        for target in targets:
            target.respect(other for other in targets if other is not target)
        return targets


def _judged(targets: Sequence[TargetSync]) -> Sequence[TargetSync]:
    """The files by which the user can log in: retired ones only where there is no other."""
    return [target for target in targets if target.origin is not Origin.RETIRED] or targets


def by_user(found: Sequence[FoundPlace]) -> list[tuple[str, list[FoundPlace]]]:
    """The places of each user, the users with little to read first (G12)."""
    users: dict[str, list[FoundPlace]] = {}
    for one in found:
        users.setdefault(one.place.user, []).append(one)
    return sorted(users.items(), key=lambda item: sum(_size(one.place.path) for one in item[1]))


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
