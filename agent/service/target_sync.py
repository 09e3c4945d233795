"""One key file within one cycle: read, planned, written until it agrees, reported."""

from __future__ import annotations

from collections.abc import Iterable

from agent.adapters.key_file import KeyFile, Snapshot
from agent.adapters.state import StateDirectory
from agent.core.authorized_keys import AuthorizedKeys
from agent.core.plan import Entry, Plan, Wanted, make_plan, restricted_keys, standing
from agent.errors import TargetFailed
from agent.service.report import CHANGES, STANDING, Problem, TargetReport
from agent.service.targets import Place


class TargetSync:
    """The file at one place; a failure is kept in it and never stops the others (R11)."""

    def __init__(self, place: Place, wanted: Wanted) -> None:
        self.place = place
        self.plan: Plan | None = None
        self.exists = False
        self._wanted = wanted
        self._file: KeyFile | None = None
        self._document = AuthorizedKeys(())
        self._data = b""
        self._problem: Problem | None = None
        self._restricted_elsewhere: frozenset[bytes] = frozenset()
        self._changes: dict[str, dict[tuple[str, str], Entry]] = {name: {} for name in CHANGES}
        self._wrote = False

    @classmethod
    def failed_early(cls, place: Place, error: TargetFailed) -> TargetSync:
        """A target whose file could not even be found out."""
        target = cls(place, Wanted({}, {}))
        target.fail(error)
        return target

    def fail(self, error: TargetFailed) -> None:
        """Remembers why this target could not be served."""
        self._problem = Problem.of(error)
        self.plan = None
        self.exists = True  # what cannot be read is there, and must not be passed over

    def read(self, file: KeyFile) -> None:
        """Reads the file. Raises TargetFailed."""
        snapshot = file.read()
        self._file = file
        self.exists = snapshot.exists
        self._data = snapshot.data
        self._document = AuthorizedKeys.parse(snapshot.data)
        self.plan = self._plan(self._document)

    @property
    def restricted(self) -> frozenset[bytes]:
        """The blobs of the keys that a restricted line of this file speaks for."""
        return restricted_keys(self._document, self._wanted)

    def heed(self, others: Iterable[TargetSync]) -> None:
        """Respects the restricted lines in the user's other files (R4)."""
        self._restricted_elsewhere = frozenset().union(*(other.restricted for other in others))
        if self.plan is not None and self._restricted_elsewhere:
            self.plan = self._plan(self._document)

    def _plan(self, document: AuthorizedKeys) -> Plan:
        return make_plan(
            document, self._wanted, self._restricted_elsewhere, additions=self.place.main
        )

    def write(self, state: StateDirectory, sync_id: str, now: str) -> None:
        """Makes the file agree with the plan; a failure is kept for the report."""
        if self.plan is None or self._file is None:
            return
        latest = self.plan
        meant = latest.after.render() if latest.changes else self._data

        def transform(data: bytes) -> bytes:
            nonlocal latest, meant
            if data == meant:  # a plan's result needs nothing more (R7)
                return data
            if data != self._data:
                latest = self._plan(AuthorizedKeys.parse(data))
                meant = latest.after.render() if latest.changes else data
            self._data = data
            return meant

        def before_write(replaced: Snapshot) -> None:
            original = replaced.data if replaced.exists else None
            state.save_original(self.place.user, self.place.path, original, now)
            if gone := latest.removed_lines + replaced.unmerged:
                state.journal(sync_id, self.place.path, gone, now)
            self._wrote = True
            self._note(latest)

        try:
            self._file.update(transform, before_write)
        except TargetFailed as error:
            self.fail(error)
        else:
            self.plan = latest

    def _note(self, plan: Plan) -> None:
        for name, seen in self._changes.items():
            entries: tuple[Entry, ...] = getattr(plan, name)
            for entry in entries:
                seen[entry.fingerprint, entry.reason] = entry

    def report(self, *, dry_run: bool) -> TargetReport:
        """What was done; in a dry run, what would be."""
        if self.plan is None:
            return self._report("failed", {})
        if dry_run:
            self._note(self.plan)
        entries = {name: tuple(seen.values()) for name, seen in self._changes.items()}
        entries |= {name: getattr(self.plan, name) for name in STANDING}
        changed = self._wrote or any(entries[name] for name in CHANGES)
        return self._report("changed" if changed else "in_sync", entries)

    def report_held(self) -> TargetReport:
        """The file as it is, and what would go if the held listing were applied."""
        if self.plan is None:
            return self._report("failed", {})
        entries = standing(self._document, self._wanted)
        return self._report("held", entries, self.plan.removed)

    def _report(
        self,
        result: str,
        entries: dict[str, tuple[Entry, ...]],
        would_remove: tuple[Entry, ...] = (),
    ) -> TargetReport:
        place = self.place
        return TargetReport(place.user, place.path, result, entries, would_remove, self._problem)
