"""All the files of one user within one cycle: plan, guard, apply, verify, report.

Users are served one after the other, so that no user's file affects another user (G3) and a large
file delays only the users after it (G12). The files that a user shares with others were served
before (shared_files.py); here they count as ways in and are reported.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.adapters.files.atomic import Owner
from agent.adapters.files.file_mode import real_path
from agent.adapters.files.key_file import KeyFile
from agent.adapters.sshd_config import Sshd
from agent.core.authorized_keys import AuthorizedKeys
from agent.core.desired_keys import DesiredKeys
from agent.core.guards import Judgement, has_way_in, would_lock_out
from agent.core.plan import Plan, Role, restricted_keys
from agent.core.results import Origin
from agent.errors import TargetFailed
from agent.service.locate import KeyFileLocation
from agent.service.report import TargetReport
from agent.service.served_files import ServedFile
from agent.service.target import TargetSync
from agent.service.terms import Terms

NOT_HELD = Judgement()


@dataclass(slots=True)
class UserResult:
    """How one user's files ended; `locked_out` says that nobody can log in as the user."""

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
        """Plans all files, judges them together, and writes the user's own unless they are held.

        `of_shared` is how the shared files were judged for this user (G3).
        """
        terms = self._terms
        with contextlib.ExitStack() as stack:
            own = self._plan(stack, for_writing=not terms.dry_run)
            targets = [*own, *self._shared]
            judgement = self._judge(targets)
            self._apply(own, targets, judgement)
            return UserResult(
                self._user,
                tuple(target.report(dry_run=terms.dry_run) for target in targets),
                Judgement(judgement.held or of_shared.held, judgement.hold or of_shared.hold),
                self._is_locked_out(targets),
            )

    def _judge(self, targets: Sequence[TargetSync]) -> Judgement:
        terms = self._terms
        if terms.all_held:
            return NOT_HELD
        plans = _certain_plans(targets)
        return terms.guard.judge_user(self._user, plans, terms.opens, counts=terms.may_enter)

    def _apply(
        self, own: Sequence[TargetSync], targets: Sequence[TargetSync], judgement: Judgement
    ) -> None:
        """Holds or writes each own file; writing verifies by reading the file again (R10)."""
        terms = self._terms
        for target in own:
            if terms.all_held or judgement.held:
                target.hold()
            elif not terms.dry_run:
                locks_out = functools.partial(self._locks_out, target, targets, judgement)
                target.write(terms.records, locks_out)

    def plans_for_shared(self) -> list[Plan]:
        """The plans that give the user a way in, for judging the shared files (G3).

        The user's own main file first counts as empty, so that only the listed keys would be in it.
        The own files are read only if that gives no way in: a line in them can let the user in, but
        must not hold up a removal for other users that an empty file would allow.
        """
        mains = [one for one in self._own if one.role is Role.MAIN and not one.error]
        empty = [self._target(one) for one in mains]
        for target in empty:
            target.assume_empty()
            target.plan_with_others(self._shared)
        plans = _certain_plans([*empty, *self._shared])
        if not would_lock_out(plans, self._terms.opens):
            return plans
        with contextlib.ExitStack() as stack:
            own = self._plan(stack, for_writing=False)
            return _certain_plans([*own, *self._shared])

    def _locks_out(
        self, target: TargetSync, targets: Sequence[TargetSync], judgement: Judgement
    ) -> bool:
        """Whether the new plan of `target` would lock the user out, and nobody confirmed that."""
        judged = _judged(targets)
        if self._terms.guard.confirmed or judgement.hold is not None or target not in judged:
            return False
        return would_lock_out([one.plan for one in judged if one.plan], self._terms.opens)

    def _is_locked_out(self, targets: Sequence[TargetSync]) -> bool:
        """Whether nobody can log in as this user; not where a file was not read, or is held."""
        served = any(target.origin is not Origin.RETIRED for target in targets)
        judged = _judged(targets)
        plans = [target.plan for target in judged if target.plan and not target.held]
        return served and len(plans) == len(judged) and not has_way_in(plans, self._terms.opens)

    def _plan(self, stack: contextlib.ExitStack, *, for_writing: bool) -> list[TargetSync]:
        """Reads and plans the user's own files; further files that do not exist are left out."""
        opened = [self._opened(found, stack, for_writing=for_writing) for found in self._own]
        targets = [one for one in opened if one.location.main or one.exists]
        shared_main = [one for one in self._shared if one.location.main]
        beside = self._restricted_beside()
        for target in targets:
            others = (one for one in (*targets, *self._shared) if one is not target)
            target.plan_with_others(others, () if target.location.main else shared_main, beside)
        return targets

    def _opened(
        self, found: ServedFile, stack: contextlib.ExitStack, *, for_writing: bool
    ) -> TargetSync:
        target, location = self._target(found), found.location
        try:
            if found.error:
                raise found.error
            file = KeyFile.opened(location.path, location.owner, for_writing=for_writing)
            target.read(stack.enter_context(file))
        except TargetFailed as error:
            target.fail(error)
        return target

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


def _certain_plans(targets: Sequence[TargetSync]) -> list[Plan]:
    """The plans that surely give the user a way in.

    While sshd cannot be asked, the default file is not one of them: the file that sshd really reads
    may be among the retired ones, and must then keep its last key.
    """
    certain = [target for target in targets if not target.location.problem]
    return [target.plan for target in _judged(certain) or _judged(targets) if target.plan]


def _judged(targets: Sequence[TargetSync]) -> Sequence[TargetSync]:
    """The files that count as ways in: retired ones only if there is no other."""
    return [target for target in targets if target.origin is not Origin.RETIRED] or targets


def by_user(files: Sequence[ServedFile]) -> list[tuple[str, list[ServedFile]]]:
    """The files of each user, the users with little to read first (G12)."""
    users: dict[str, list[ServedFile]] = {}
    for one in files:
        users.setdefault(one.location.user, []).append(one)
    return sorted(users.items(), key=lambda item: sum(map(_size, _paths_to_read(item[1]))))


def _paths_to_read(files: Sequence[ServedFile]) -> set[str]:
    return {path for one in files for path in (one.location.path, *one.location.beside)}


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


# ---- files beside a target that has a path ----


def restricted_beside(
    locations: Iterable[KeyFileLocation], served: Iterable[str], desired: DesiredKeys, sshd: Sshd
) -> frozenset[bytes]:
    """The blobs of the keys in restricted lines of the user's other files (R4); they are only read.

    A target with a path needs no sshd, so the files beside it are sshd's default files. sshd is
    asked only if one of them holds a restricted line: if it does not read that file, the line has
    no effect. If it cannot be asked, the line counts. `served` are the files that are read anyway.
    """
    known = set(map(real_path, served))
    beside = ((path, location) for location in locations for path in location.beside)
    files = {path: location for path, location in beside if real_path(path) not in known}
    found = {
        path: _restricted_in(path, location.owner, desired) for path, location in files.items()
    }
    return frozenset().union(
        *(keys for path, keys in found.items() if keys and _reads(sshd, files[path].user, path))
    )


def _restricted_in(path: str, owner: Owner, desired: DesiredKeys) -> frozenset[bytes]:
    """Empty for a file that cannot be read: it is no target, so the cycle does not fail."""
    with contextlib.suppress(TargetFailed), KeyFile.opened(path, owner, for_writing=False) as file:
        return restricted_keys(AuthorizedKeys.parse(file.read().data), desired)
    return frozenset()


def _reads(sshd: Sshd, user: str, path: str) -> bool:
    with contextlib.suppress(KeyError):
        files = sshd.key_files(pwd.getpwnam(user)).paths
        return real_path(path) in map(real_path, files)
    return False
