"""One key file within one cycle: reads, plans, writes, verifies and reports it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from dataclasses import replace

from agent.adapters.files.key_file import KeyFile, Snapshot
from agent.adapters.files.os_errors import NO_ROOM_KINDS
from agent.core.authorized_keys import AuthorizedKeys, LineKind
from agent.core.desired_keys import DesiredKeys, Entry, Reason
from agent.core.plan import Entries, Plan, Role, current_entries, make_plan, restricted_keys
from agent.core.results import CHANGES, Change, Origin, Result
from agent.errors import TargetFailed
from agent.service.bookkeeping import NotKept, Records
from agent.service.locate import KeyFileLocation
from agent.service.report import Problem, TargetReport

# Why a line is removed that should no longer let anybody in.
_REVOKED: tuple[Reason, ...] = ("revoked", "unlisted")


class TargetSync:
    """One key file; its failure is kept here and never stops the other files (R11).

    `plan` is None before the file is read and after a failure. With `may_enter` false, only
    revocations are planned (G11).
    """

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
        self._planned_data = b""
        self._problem: Problem | None = None
        self._restricted_elsewhere: frozenset[bytes] = frozenset()
        self._unrestricted_before: frozenset[bytes] = frozenset()
        self._changes: dict[Change, dict[tuple[str, str], Entry]] = {name: {} for name in CHANGES}
        self._wrote = False

    def fail(self, error: TargetFailed) -> None:
        """Keeps the failure for the report."""
        self._problem = Problem.of(error)
        self.plan = None
        self.exists = True  # what cannot be read must not be passed over as missing

    def read(self, file: KeyFile) -> None:
        """Reads the file and plans for it. Raises TargetFailed."""
        self.take(file, file.read())

    def take(self, file: KeyFile, snapshot: Snapshot) -> None:
        """Plans for a file whose content `snapshot` was read before."""
        self._file = file
        self.exists = snapshot.exists
        self._plan_for(snapshot.data)

    @property
    def restricted(self) -> frozenset[bytes]:
        """The blobs of the keys that a restricted line of this file holds."""
        return restricted_keys(self._document, self._desired)

    @property
    def unrestricted(self) -> frozenset[bytes]:
        """The blobs of the keys that a line without options lets in after the plan."""
        lines = self.plan.after.lines if self.plan else ()
        return frozenset(
            line.key.blob
            for line in lines
            if line.key and line.kind is not LineKind.RESTRICTED and line.lets_key_in
        )

    def plan_with_others(
        self,
        others: Iterable[TargetSync],
        shared_before: Iterable[TargetSync] = (),
        beside: frozenset[bytes] = frozenset(),
    ) -> None:
        """Plans again without the keys that a restricted line in another file holds (R4).

        `others` are the user's other files, `shared_before` the files of several users that sshd
        reads before this one, `beside` the blobs of such keys in files that are not served.
        """
        self._restricted_elsewhere = beside.union(*(one.restricted for one in others))
        self._unrestricted_before = frozenset().union(*(one.unrestricted for one in shared_before))
        if self.plan is not None and (self._restricted_elsewhere or self._unrestricted_before):
            self._plan_for(self._data)

    def assume_empty(self) -> None:
        """Plans as if the file were empty, without reading it."""
        self._plan_for(b"")

    def hold(self) -> None:
        """The file stays as it is in this cycle (G3)."""
        self.held = True

    def for_reader(self, location: KeyFileLocation, origin: Origin, *, repeats: bool) -> TargetSync:
        """A copy for another user who reads the same file, to judge and to report.

        `repeats` says that another user's report already covers the file.
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
        self._planned_data = plan.after.render() if plan.changes else data
        return plan

    def _planned(self, document: AuthorizedKeys, role: Role) -> Plan:
        elsewhere, before = self._restricted_elsewhere, self._unrestricted_before
        return make_plan(document, self._desired, elsewhere, role, before)

    # ---- writing ----

    def write(self, records: Records, locks_out: Callable[[], bool] = lambda: False) -> None:
        """Writes the file as planned; a failure is kept for the report.

        If the replaced content cannot be saved, only revoked keys are removed (G11), and not even
        these if `locks_out` returns True for the plan that is left: a user would have no way in
        (G3). No key is added then, except one that replaces revoked ones: it is recorded already,
        and only the journal lacks the removed lines.
        """
        if self._file is None or self.plan is None:
            return
        try:
            self._write_or_revoke(self._file, records, locks_out)
        except TargetFailed as error:
            self.fail(error)

    def _write_or_revoke(
        self, file: KeyFile, records: Records, locks_out: Callable[[], bool]
    ) -> None:
        try:
            self._update(file, records)
        except NotKept as error:
            self._role = Role.REVOKE
            self._plan_for(self._data)
            if locks_out():
                raise self._last_keys_stay(error.cause) from error
            self._update(file, records)

    def _last_keys_stay(self, cause: TargetFailed) -> TargetFailed:
        return TargetFailed(
            cause.kind,
            f"{cause.message} So no new key enters {self.location.path}, and its deleted keys "
            "stay: without them a user would have no way in.",
            f"{cause.hint} To remove them anyway: keysync sync --confirm-removals",
        )

    def _update(self, file: KeyFile, records: Records) -> None:
        """Raises TargetFailed, and NotKept unless the file is only to lose revoked keys."""
        keep = functools.partial(self._keep, records)
        try:
            file.update(self._transform, keep, self._note_written)
        except TargetFailed as error:
            if not self._release_reserve(file, records, error):
                raise
            file.update(self._transform, keep, self._note_written)

    def _keep(self, records: Records, replaced: Snapshot) -> None:
        """Saves what is about to be replaced."""
        removed = self.plan.removed_lines if self.plan else ()
        try:
            records.keep(self.location, replaced, removed, only_revokes=self._only_revokes())
        except NotKept:
            if self._role is not Role.REVOKE:
                raise

    def _only_revokes(self) -> bool:
        """Whether every removed line is one that should no longer let anybody in."""
        return self.plan is None or all(one.reason in _REVOKED for one in self.plan.removed)

    def _release_reserve(self, file: KeyFile, records: Records, error: TargetFailed) -> bool:
        """Whether the reserve was released to make room; only a revocation may use it (G11)."""
        gone = self.plan.removed if self.plan else ()
        if error.kind not in NO_ROOM_KINDS or not any(entry.reason in _REVOKED for entry in gone):
            return False
        return file.device is not None and records.state.release_reserve(file.device)

    def _transform(self, data: bytes) -> bytes:
        if data == self._planned_data:  # the result of a plan needs no further change (R7)
            return data
        if data != self._data:
            self._plan_for(data)
        return self._planned_data

    def _note_written(self) -> None:
        """Called after the file was written and read again: only then is it reported (R10)."""
        self._wrote = True
        if self.plan is not None:
            self._note(self.plan)

    def _note(self, plan: Plan) -> None:
        for name in CHANGES:
            for entry in plan.entries[name]:
                self._changes[name][entry.fingerprint, entry.reason] = entry

    # ---- reporting ----

    def report(self, *, dry_run: bool) -> TargetReport:
        """What was done; in a dry run what would be done, for a held file what is in it now."""
        if self.plan is None:
            return self._report(Result.FAILED, {})
        if self.held:
            found = current_entries(self._document, self._desired)
            return replace(self._report(Result.HELD, found), would_remove=self.plan.removed)
        if dry_run:
            self._note(self.plan)
        entries = self.plan.entries
        entries |= {name: tuple(seen.values()) for name, seen in self._changes.items()}
        changed = self._wrote or any(entries[name] for name in CHANGES)
        if not dry_run and self._keeps_waiting():
            return self._report(Result.FAILED, entries)
        return self._report(Result.CHANGED if changed else Result.IN_SYNC, entries)

    def _keeps_waiting(self) -> bool:
        """Whether a key should have entered but could not be recorded first (G11)."""
        if self._role is self._full_role or self.plan is None:
            return False
        return self._planned(self.plan.after, self._full_role).changes

    def _report(self, result: Result, entries: Entries) -> TargetReport:
        location = self.location
        changes = tuple(self._file.mode_changes) if self._file else ()
        return TargetReport(
            location.user,
            location.path,
            result,
            entries,
            problem=self._problem,
            origin=self.origin,
            mode_changes=changes,
            repeats=self.repeats,
        )
