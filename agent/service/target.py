"""One key file within one cycle: read, planned, written until it agrees, reported."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from agent.adapters.files.atomic import NO_ROOM
from agent.adapters.files.key_file import KeyFile, Snapshot
from agent.adapters.state import StateDirectory
from agent.core.authorized_keys import AuthorizedKeys, LineKind
from agent.core.desired_keys import DesiredKeys, Entry
from agent.core.plan import Plan, Role, current_entries, make_plan, restricted_keys
from agent.errors import TargetFailed
from agent.service.accounts import Origin
from agent.service.locate import KeyFileLocation
from agent.service.report import CHANGES, Problem, TargetReport


@dataclass(slots=True)
class Records:
    """The bookkeeping of one cycle: first bytes and removed lines (G5), and what failed of it.

    A removal outranks it (G11): `problem` is why something could not be kept.
    """

    state: StateDirectory
    sync_id: str
    now: str
    problem: TargetFailed | None = None
    omitted: dict[tuple[str, str], int] = field(default_factory=dict)

    def keep(
        self,
        location: KeyFileLocation,
        replaced: Snapshot,
        removed: tuple[bytes, ...],
        *,
        only_revokes: bool,
    ) -> None:
        """Saves what is about to be replaced. Raises _NotKept.

        Where all that goes are lines by which somebody gets in who should not, a journal that
        cannot be written stops nothing.
        """
        original = replaced.data if replaced.exists else None
        is_saved = False
        try:
            self.state.save_original(location.user, location.path, original, self.now)
            is_saved = True
            if removed:
                omitted = self.state.journal(self.sync_id, location.path, removed, self.now)
                self.omitted[location.user, location.path] = omitted
        except TargetFailed as error:
            self.problem = error
            if not (is_saved and only_revokes):
                raise _NotKept(error) from error


class _NotKept(Exception):
    """What is about to be replaced could not be saved."""

    def __init__(self, cause: TargetFailed) -> None:
        super().__init__(cause.kind)
        self.cause = cause


_REVOKED = ("revoked", "unlisted")  # why a line goes by which somebody gets in who should not

LocksOut = Callable[[Plan], bool]


def _never(_: Plan) -> bool:
    return False


class TargetSync:
    """The file at one place; a failure is kept in it and never stops the others (R11)."""

    def __init__(
        self,
        location: KeyFileLocation,
        desired: DesiredKeys,
        origin: Origin,
        role: Role,
        *,
        may_enter: bool = True,
    ) -> None:
        self.location = location
        self.origin = origin
        self.plan: Plan | None = None
        self.exists = False
        self.held = False
        self.repeats = False
        self._desired = desired
        self._full_role = role
        self._role = role if may_enter else Role.REVOKE
        self._file: KeyFile | None = None
        self._document = AuthorizedKeys(())
        self._data = b""
        self._meant = b""
        self._problem: Problem | None = None
        self._restricted_elsewhere: frozenset[bytes] = frozenset()
        self._unrestricted_before: frozenset[bytes] = frozenset()
        self._changes: dict[str, dict[tuple[str, str], Entry]] = {name: {} for name in CHANGES}
        self._wrote = False

    def fail(self, error: TargetFailed) -> None:
        """Remembers why this target could not be served."""
        self._problem = Problem.of(error)
        self.plan = None
        self.exists = True  # what cannot be read is there, and must not be passed over

    def read(self, file: KeyFile) -> None:
        """Reads the file. Raises TargetFailed."""
        self.take(file, file.read())

    def take(self, file: KeyFile, snapshot: Snapshot) -> None:
        """Plans for what was read of the file."""
        self._file = file
        self.exists = snapshot.exists
        self._plan_for(snapshot.data)

    @property
    def restricted(self) -> frozenset[bytes]:
        """The blobs of the keys that a restricted line of this file speaks for."""
        return restricted_keys(self._document, self._desired)

    @property
    def unrestricted(self) -> frozenset[bytes]:
        """The blobs of the keys that this file will let in by a line without options."""
        lines = self.plan.after.lines if self.plan else ()
        return frozenset(
            line.key.blob
            for line in lines
            if line.key and line.kind is not LineKind.RESTRICTED and line.lets_key_in
        )

    def respect(
        self,
        others: Iterable[TargetSync],
        shared_before: Iterable[TargetSync] = (),
        beside: frozenset[bytes] = frozenset(),
    ) -> None:
        """Leaves the keys alone that a restricted line in the user's other files holds (R4).

        `shared_before` are the files of several users that sshd reads before this one; `beside`
        are such keys of files that are not served.
        """
        self._restricted_elsewhere = beside.union(*(one.restricted for one in others))
        self._unrestricted_before = frozenset().union(*(one.unrestricted for one in shared_before))
        if self.plan is not None and (self._restricted_elsewhere or self._unrestricted_before):
            self._plan_for(self._data)

    def assume_empty(self) -> None:
        """Plans as for an empty file; it is not read."""
        self._plan_for(b"")

    def hold(self) -> None:
        """Leaves the file as it is in this cycle (G3)."""
        self.held = True

    def for_reader(self, location: KeyFileLocation, origin: Origin, *, repeats: bool) -> TargetSync:
        """The same file as it is now, for another of its readers to judge and to report.

        `repeats` says that somebody else's report tells the same.
        """
        other = copy.copy(self)
        other.location, other.origin, other.repeats = location, origin, repeats
        return other

    def _plan_for(self, data: bytes) -> Plan:
        if data != self._data or self.plan is None:
            self._document = AuthorizedKeys.parse(data)
        self._data = data
        plan = self._planned(self._document, self._role)
        self.plan = plan
        self._meant = plan.after.render() if plan.changes else data
        return plan

    def _planned(self, document: AuthorizedKeys, role: Role) -> Plan:
        elsewhere, before = self._restricted_elsewhere, self._unrestricted_before
        return make_plan(document, self._desired, elsewhere, role, before)

    # ---- writing ----

    def write(self, records: Records, locks_out: LocksOut = _never) -> None:
        """Makes the file agree with the plan; a failure is kept for the report.

        Where the bookkeeping fails, revocations go on (G11), unless `locks_out` says that they
        alone would leave the user no way in (G3). Nothing enters then, but for a key that takes the
        place of revoked ones: it is recorded, and all that is lost is their lines in the journal.
        """
        if self._file is None or self.plan is None:
            return
        try:
            try:
                self._update(self._file, records)
            except _NotKept as error:
                self._role = Role.REVOKE
                if locks_out(self._plan_for(self._data)):
                    raise self._last_keys_stay(error.cause) from error
                self._update(self._file, records)
        except TargetFailed as error:
            self.fail(error)

    def _last_keys_stay(self, cause: TargetFailed) -> TargetFailed:
        """Why a deleted key stays where the one that replaces it may not enter."""
        return TargetFailed(
            cause.kind,
            f"{cause.message} So no new key enters {self.location.path}, and its deleted keys "
            "stay: without them a user would have no way in.",
            f"{cause.hint} To remove them all the same: keysync sync --confirm-removals",
        )

    def _update(self, file: KeyFile, records: Records) -> None:
        def before_write(replaced: Snapshot) -> None:
            gone = self.plan.removed_lines if self.plan else ()
            revokes = self._only_revokes()
            try:
                records.keep(self.location, replaced, gone, only_revokes=revokes)
            except _NotKept:
                if self._role is not Role.REVOKE:
                    raise

        def update() -> None:
            file.update(self._transform, before_write, self._note_written)

        try:
            update()
        except TargetFailed as error:
            if not self._gets_reserve(file, records, error):
                raise
            update()

    def _only_revokes(self) -> bool:
        """Whether every line that goes is one by which somebody gets in who should not."""
        return self.plan is None or all(one.reason in _REVOKED for one in self.plan.removed)

    def _gets_reserve(self, file: KeyFile, records: Records, error: TargetFailed) -> bool:
        """Whether the reserve made room for the new file; only a revocation gets it (G11)."""
        gone = self.plan.removed if self.plan else ()
        if error.kind not in NO_ROOM or not any(entry.reason in _REVOKED for entry in gone):
            return False
        return file.device is not None and records.state.release_reserve(file.device)

    def _transform(self, data: bytes) -> bytes:
        if data == self._meant:  # a plan's result needs nothing more (R7)
            return data
        if data != self._data:
            self._plan_for(data)
        return self._meant

    def _note_written(self) -> None:
        """The plan was carried out; only then is it reported (R10)."""
        self._wrote = True
        if self.plan is not None:
            self._note(self.plan)

    def _note(self, plan: Plan) -> None:
        by_name = {"added": plan.added, "adopted": plan.adopted, "removed": plan.removed}
        for name, entries in by_name.items():
            for entry in entries:
                self._changes[name][entry.fingerprint, entry.reason] = entry

    # ---- reporting ----

    def report(self, *, dry_run: bool) -> TargetReport:
        """What was done; in a dry run, what would be; of a file that is held, what is there."""
        if self.plan is None:
            return self._report("failed", {})
        if self.held:
            entries = current_entries(self._document, self._desired)
            return replace(self._report("held", entries), would_remove=self.plan.removed)
        if dry_run:
            self._note(self.plan)
        entries = {name: tuple(seen.values()) for name, seen in self._changes.items()}
        entries |= {
            "kept": self.plan.kept,
            "restricted": self.plan.restricted,
            "foreign": self.plan.foreign,
        }
        changed = self._wrote or any(entries[name] for name in CHANGES)
        if not dry_run and self._keeps_waiting():
            return self._report("failed", entries)
        return self._report("changed" if changed else "in_sync", entries)

    def _keeps_waiting(self) -> bool:
        """Whether something should have entered, and could not be recorded first (G11)."""
        if self._role is self._full_role or self.plan is None:
            return False
        return self._planned(self.plan.after, self._full_role).changes

    def _report(self, result: str, entries: dict[str, tuple[Entry, ...]]) -> TargetReport:
        location = self.location
        changes = tuple(self._file.mode_changes) if self._file else ()
        return TargetReport(
            location.user,
            location.path,
            result,
            entries,
            problem=self._problem,
            origin=self.origin.value,
            mode_changes=changes,
            repeats=self.repeats,
        )
