"""The key files that several users read, as with `AuthorizedKeysFile /etc/ssh/shared %h/own`.

Each is read, planned and written once in a cycle, before the users' own files, so that every user
is served by the same plan and a second sync writes nothing (R7).

1. Its readers are the users of the targets that name it, as far as they may read it. One that sshd
   reads for every user is shared also when it is a single target's.
2. A key leaves it for a restricted line only if that stands in a file that all its readers read
   (R4). Nobody's own file takes a line from the others; that file's report says which line counts.
3. It is held while its plan leaves one of its readers without a way in, over all the files of that
   reader (G3); `UserSync.plans_for_shared` says how the reader's own files count. Own files
   are held for their user alone, as ever.
4. A target of one user outranks the retired target of another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from agent.adapters.files.file_mode import is_at_home, real_path
from agent.adapters.files.key_file import KeyFile
from agent.core.guards import Judgement, would_lock_out
from agent.core.plan import Plan, Role
from agent.errors import TargetFailed
from agent.service.accounts import Origin
from agent.service.target import TargetSync
from agent.service.user_sync import NOT_HELD, ServedFile, Terms, UserResult, UserSync, by_user

_ANYBODY = "*"  # users who are no targets
_ROLES = (Role.MAIN, Role.OTHER, Role.REVOKE)  # the first of its readers' roles counts


def serve_all(found: Sequence[ServedFile], terms: Terms) -> list[UserResult]:
    """All files of one cycle: those that several users read, and then user by user."""
    shared = SharedFiles(found, terms)
    shared.serve()
    return [shared.user_sync(user).serve(shared.judgement(user)) for user in shared.users]


@dataclass(frozen=True, slots=True)
class _SharedFile:
    """One file with its readers, of whom the first speaks for all in events."""

    target: TargetSync
    readers: tuple[ServedFile, ...]

    @property
    def users(self) -> frozenset[str]:
        return frozenset(one.location.user for one in self.readers)

    @property
    def audience(self) -> frozenset[str]:
        """For whom sshd reads it."""
        is_common = any(one.location.common for one in self.readers)
        return self.users | {_ANYBODY} if is_common else self.users

    def readers_of(self, user: str) -> list[ServedFile]:
        """The places of this user that are the file."""
        return [one for one in self.readers if one.location.user == user]

    def of(self, reader: ServedFile) -> TargetSync:
        """The file as one of its readers judges and reports it."""
        repeats = reader is not self.readers[0]
        return self.target.for_reader(reader.location, reader.origin, repeats=repeats)


class SharedFiles:
    """The files of one cycle that several users read."""

    def __init__(self, found: Sequence[ServedFile], terms: Terms) -> None:
        self._found = found
        self._places = dict(by_user(found))
        self._terms = terms
        self._files: list[_SharedFile] = []
        self._judgements: dict[str, Judgement] = {}

    @property
    def users(self) -> Iterable[str]:
        """All users, also those who share no file, in the order of `by_user`."""
        return self._places

    def judgement(self, user: str) -> Judgement:
        """What G3 says of the shared files of this user."""
        return self._judgements.get(user, NOT_HELD)

    def user_sync(self, user: str, terms: Terms | None = None) -> UserSync:
        """The files of one user, of which the shared ones are not served again."""
        shared = [(one, file) for file in self._files for one in file.readers_of(user)]
        not_own = [one for one, _ in shared]
        own = [one for one in self._places[user] if one not in not_own]
        return UserSync(user, own, terms or self._terms, [file.of(one) for one, file in shared])

    def serve(self) -> None:
        """Reads and plans every file, judges them for each reader, and writes those not held."""
        terms = self._terms
        with contextlib.ExitStack() as stack:
            self._read(stack)
            if not terms.all_held:
                self._judge()
            for file in self._files:
                if terms.all_held or any(self.judgement(user).held for user in file.users):
                    file.target.hold()
                elif not terms.dry_run:
                    file.target.write(terms.records, self._locks_out(file))

    def _judge(self) -> None:
        terms = self._terms
        for user in {user for file in self._files for user in file.users}:
            plans = self._plans_for(user, terms)
            self._judgements[user] = terms.guard.judge_user(
                user, plans, terms.opens, counts=terms.may_enter
            )

    def _locks_out(self, file: _SharedFile) -> Callable[[Plan], bool]:
        """Whether another plan for the file would lock a reader out, as nobody has confirmed."""
        terms = replace(self._terms, may_enter=False)

        def locks_out(_: Plan) -> bool:  # the file has the plan already
            if terms.guard.confirmed:
                return False
            users = (user for user in file.users if self.judgement(user).hold is None)
            return any(would_lock_out(self._plans_for(one, terms), terms.opens) for one in users)

        return locks_out

    def _plans_for(self, user: str, terms: Terms) -> list[Plan]:
        return self.user_sync(user, terms).plans_for_shared()

    # ---- reading ----

    def _read(self, stack: contextlib.ExitStack) -> None:
        for places in _by_file(self._found):
            file = self._opened(places, stack)
            if file is not None:
                self._files.append(file)
        for file in self._files:
            others = (one for one in self._files if one is not file)
            file.target.respect(one.target for one in others if one.audience >= file.audience)

    def _opened(
        self, places: Iterable[ServedFile], stack: contextlib.ExitStack
    ) -> _SharedFile | None:
        """The file as its first reader has it; None when it is one user's alone, or no file yet
        that keysync should make.

        The other readers are looked for when it was read: what a user puts in its place in the
        meantime is no file of theirs.
        """
        terms = self._terms
        candidates = iter(sorted(places, key=_comes_late))
        with contextlib.ExitStack() as opened:
            for first in candidates:
                with contextlib.suppress(TargetFailed):
                    file = opened.enter_context(_key_file(first, for_writing=not terms.dry_run))
                    snapshot = file.read()
                    break
            else:
                return None
            readers = (first, *filter(_may_be_read, candidates))
            role = min((one.role for one in readers), key=_ROLES.index)
            target = TargetSync(
                first.location, terms.desired, first.origin, role, may_enter=terms.may_enter
            )
            target.take(file, snapshot)
            shared = _SharedFile(target, readers)
            if len(shared.audience) < 2 or not (snapshot.exists or role is Role.MAIN):
                return None
            stack.enter_context(opened.pop_all())
            return shared


def _by_file(found: Iterable[ServedFile]) -> list[list[ServedFile]]:
    """The places of each file that may be shared, whatever links lead to it."""
    files: dict[str, list[ServedFile]] = {}
    for one in (one for one in found if not one.error):
        files.setdefault(real_path(one.location.path), []).append(one)
    return [places for places in files.values() if len(places) > 1 or places[0].location.common]


def _comes_late(found: ServedFile) -> tuple[bool, bool]:
    """Whether the file should rather be opened, and made, as another reader's: of one in whose home
    it lies, and of no retired target, whose user may be gone.
    """
    return found.origin is Origin.RETIRED, not is_at_home(found.location.path, found.location.owner)


def _may_be_read(found: ServedFile) -> bool:
    with contextlib.suppress(TargetFailed), _key_file(found, for_writing=False) as file:
        file.read()
        return True
    return False


def _key_file(
    found: ServedFile, *, for_writing: bool
) -> contextlib.AbstractContextManager[KeyFile]:
    return KeyFile.opened(found.location.path, found.location.owner, for_writing=for_writing)
