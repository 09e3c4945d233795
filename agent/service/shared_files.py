"""The key files that several users read, as with `AuthorizedKeysFile /etc/ssh/shared %h/own`.

Each is read, planned and written once in a cycle, before the users' own files, so that one plan
serves every user and a second sync writes nothing (R7).

1. Its readers are the users of the targets that name it, if they may read it. A file that sshd
   reads for every user is shared even when only one target names it.
2. A key leaves it for a restricted line only if that line is in a file that all its readers read
   (R4). A user's own file takes no line from the others; the report on that file says which line
   counts.
3. It is held while its plan leaves one of its readers without a way in, over all files of that
   reader (G3); `UserSync.plans_for_shared` says how the reader's own files count. A user's own
   files are held for that user alone.
4. A target of one user takes precedence over the retired target of another.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from agent.adapters.files.file_mode import is_at_home, real_path
from agent.adapters.files.key_file import KeyFile, Snapshot
from agent.core.guards import Judgement, would_lock_out
from agent.core.plan import Plan, Role
from agent.core.results import Origin
from agent.errors import TargetFailed
from agent.service.served_files import ServedFile
from agent.service.target import TargetSync
from agent.service.terms import Terms
from agent.service.user_sync import NOT_HELD, UserResult, UserSync, by_user

_ANYBODY = "*"  # users who are no targets
_ROLES = (Role.MAIN, Role.OTHER, Role.REVOKE)  # the first of its readers' roles counts


def serve_all(files: Sequence[ServedFile], terms: Terms) -> list[UserResult]:
    """Serves all files of one cycle: those that several users read, and then user by user."""
    shared = SharedFiles(files, terms)
    shared.serve()
    return [shared.user_sync(user).serve(shared.judgement(user)) for user in shared.users]


@dataclass(frozen=True, slots=True)
class _SharedFile:
    """One file with its readers; events name only the first of them."""

    target: TargetSync
    readers: tuple[ServedFile, ...]

    @property
    def users(self) -> frozenset[str]:
        return frozenset(one.location.user for one in self.readers)

    @property
    def audience(self) -> frozenset[str]:
        """The users for whom sshd reads it."""
        is_common = any(one.location.common for one in self.readers)
        return self.users | {_ANYBODY} if is_common else self.users

    def readers_of(self, user: str) -> list[ServedFile]:
        """The file as the targets of this user name it."""
        return [one for one in self.readers if one.location.user == user]

    def of(self, reader: ServedFile) -> TargetSync:
        """The file for one of its readers to judge and report."""
        repeats = reader is not self.readers[0]
        return self.target.for_reader(reader.location, reader.origin, repeats=repeats)


class SharedFiles:
    """The files of one cycle that several users read."""

    def __init__(self, served: Sequence[ServedFile], terms: Terms) -> None:
        self._served = served
        self._by_user = dict(by_user(served))
        self._terms = terms
        self._files: list[_SharedFile] = []
        self._judgements: dict[str, Judgement] = {}

    @property
    def users(self) -> Iterable[str]:
        """All users, including those who share no file, in the order of `by_user`."""
        return self._by_user

    def judgement(self, user: str) -> Judgement:
        """How the shared files of this user were judged (G3)."""
        return self._judgements.get(user, NOT_HELD)

    def user_sync(self, user: str, terms: Terms | None = None) -> UserSync:
        """The files of one user; the shared ones are not served again."""
        shared = [(one, file) for file in self._files for one in file.readers_of(user)]
        not_own = [one for one, _ in shared]
        own = [one for one in self._by_user[user] if one not in not_own]
        return UserSync(user, own, terms or self._terms, [file.of(one) for one, file in shared])

    def serve(self) -> None:
        """Plans every shared file, judges it for each reader, and writes it unless it is held."""
        terms = self._terms
        with contextlib.ExitStack() as stack:
            self._plan(stack)
            if not terms.all_held:
                self._judge()
            for file in self._files:
                if terms.all_held or any(self.judgement(user).held for user in file.users):
                    file.target.hold()
                elif not terms.dry_run:
                    file.target.write(terms.records, functools.partial(self._locks_out, file))

    def _judge(self) -> None:
        terms = self._terms
        for user in {user for file in self._files for user in file.users}:
            plans = self._plans_for(user, terms)
            self._judgements[user] = terms.guard.judge_user(
                user, plans, terms.opens, counts=terms.may_enter
            )

    def _locks_out(self, file: _SharedFile) -> bool:
        """Whether the new plan of `file` would lock a reader out, and nobody confirmed that."""
        terms = replace(self._terms, may_enter=False)
        if terms.guard.confirmed:
            return False
        users = (user for user in file.users if self.judgement(user).hold is None)
        return any(would_lock_out(self._plans_for(one, terms), terms.opens) for one in users)

    def _plans_for(self, user: str, terms: Terms) -> list[Plan]:
        return self.user_sync(user, terms).plans_for_shared()

    # ---- reading ----

    def _plan(self, stack: contextlib.ExitStack) -> None:
        for same_file in _by_file(self._served):
            file = self._opened(same_file, stack)
            if file is not None:
                self._files.append(file)
        for file in self._files:
            others = (one for one in self._files if one is not file)
            file.target.plan_with_others(
                one.target for one in others if one.audience >= file.audience
            )

    def _opened(
        self, same_file: Iterable[ServedFile], stack: contextlib.ExitStack
    ) -> _SharedFile | None:
        """The file, opened as its first reader's and planned; None when it is not shared, or does
        not exist and need not be created.

        Whether the other readers may read it is checked only after it was opened and read: a file
        that a user swaps in meanwhile is not a file of theirs.
        """
        terms = self._terms
        candidates = iter(sorted(same_file, key=_precedence))
        with contextlib.ExitStack() as opened:
            first = self._open_first(candidates, opened)
            if first is None:
                return None
            reader, file, snapshot = first
            readers = (reader, *filter(_may_be_read, candidates))
            role = min((one.role for one in readers), key=_ROLES.index)
            target = TargetSync(
                reader.location, terms.desired, reader.origin, role, may_enter=terms.may_enter
            )
            target.take(file, snapshot)
            shared = _SharedFile(target, readers)
            if len(shared.audience) < 2 or not (snapshot.exists or role is Role.MAIN):
                return None
            stack.enter_context(opened.pop_all())
            return shared

    def _open_first(
        self, candidates: Iterable[ServedFile], stack: contextlib.ExitStack
    ) -> tuple[ServedFile, KeyFile, Snapshot] | None:
        """The first of the candidates as whose file it can be opened and read."""
        for reader in candidates:
            with contextlib.suppress(TargetFailed):
                file = _key_file(reader, for_writing=not self._terms.dry_run)
                opened = stack.enter_context(file)
                return reader, opened, opened.read()
        return None


def _by_file(served: Iterable[ServedFile]) -> list[list[ServedFile]]:
    """The files that may be shared, each as all the targets that lead to it, also by links."""
    files: dict[str, list[ServedFile]] = {}
    for one in (one for one in served if not one.error):
        files.setdefault(real_path(one.location.path), []).append(one)
    return [same for same in files.values() if len(same) > 1 or same[0].location.common]


def _precedence(served: ServedFile) -> tuple[bool, bool]:
    """As whose file it is opened and created: not a retired target's, whose user may be gone, and
    preferably the file of the user in whose home it is.
    """
    location = served.location
    return served.origin is Origin.RETIRED, not is_at_home(location.path, location.owner)


def _may_be_read(served: ServedFile) -> bool:
    with contextlib.suppress(TargetFailed), _key_file(served, for_writing=False) as file:
        file.read()
        return True
    return False


def _key_file(
    served: ServedFile, *, for_writing: bool
) -> contextlib.AbstractContextManager[KeyFile]:
    location = served.location
    return KeyFile.opened(location.path, location.owner, for_writing=for_writing)
