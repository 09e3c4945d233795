"""Plans the new content of one key file: the laws R1-R8 as one pure function.

1. A restricted line is kept as it is; a managed line for the same key is removed, a plain one is
   left alone (R4).
2. Every other listed key and pin gets exactly one line; those of listed keys are managed (R1, R3).
3. A managed line for any other key is removed (R2), and so is a plain one whose key was revoked
   (R5).
4. In strict mode every other key line is removed (R8), unless its key waits for confirmation (G14).
5. Everything else is kept, byte for byte and in order (R6); without changes, no write (R7).
6. In the role REVOKE only rule 3 removes lines, and no line is added or adopted (R5, G11).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from agent.core.authorized_keys import (
    AuthorizedKeys,
    Line,
    LineKind,
    adopted_line,
    managed_line,
)
from agent.core.desired_keys import DesiredKeys, Entry, Reason
from agent.core.public_key import PublicKey
from agent.core.results import CHANGES, STANDING, EntryList


class Role(Enum):
    """Which changes a file may get."""

    MAIN = "main"  # the file that sshd reads first: all changes
    OTHER = "other"  # a further file of the user: lines are removed and adopted, none added
    REVOKE = "revoke"  # removals only: a retired target, or the state cannot be written


Entries = dict[EntryList, tuple[Entry, ...]]


@dataclass(frozen=True, slots=True)
class Plan:
    """A file before and after the change, and what is done about each key in it."""

    before: AuthorizedKeys
    after: AuthorizedKeys
    removed_lines: tuple[bytes, ...]
    added: tuple[Entry, ...]
    adopted: tuple[Entry, ...]
    removed: tuple[Entry, ...]
    kept: tuple[Entry, ...]
    restricted: tuple[Entry, ...]
    foreign: tuple[Entry, ...]

    @property
    def changes(self) -> bool:
        """Whether anything must be written."""
        return bool(self.added or self.adopted or self.removed)

    @property
    def entries(self) -> Entries:
        """Every key of the file, by list."""
        return {
            "added": self.added,
            "adopted": self.adopted,
            "removed": self.removed,
            "kept": self.kept,
            "restricted": self.restricted,
            "foreign": self.foreign,
        }


def restricted_keys(document: AuthorizedKeys, desired: DesiredKeys) -> frozenset[bytes]:
    """The blobs of the keys that have a restricted line in this file, if that line is kept (R4)."""
    return frozenset(
        line.key.blob
        for line in document.lines
        if line.key and line.kind is LineKind.RESTRICTED and _stays(line.key, desired)
    )


def _stays(key: PublicKey, desired: DesiredKeys) -> bool:
    """Whether a restricted line is kept: strict mode keeps only pins and waiting keys (R8, G14)."""
    return not desired.strict or key.blob in desired.pins or key.fingerprint in desired.waiting


def make_plan(
    document: AuthorizedKeys,
    desired: DesiredKeys,
    restricted_elsewhere: frozenset[bytes] = frozenset(),
    role: Role = Role.MAIN,
    unrestricted_before: frozenset[bytes] = frozenset(),
) -> Plan:
    """The plan for one file.

    `restricted_elsewhere` are the blobs of the keys with a restricted line in another file of the
    same user (see `restricted_keys`). `unrestricted_before` are those with an unrestricted line in
    a shared file that sshd reads before this one.
    """
    planner = _Planner(document, desired, restricted_elsewhere, role, unrestricted_before)
    for at, line in enumerate(document.lines):
        if line.key is not None:
            planner.judge(at, line, line.key)
    if role is Role.MAIN:
        planner.add_missing()
    return planner.plan()


class _Planner:
    """Collects the decisions for one plan."""

    def __init__(
        self,
        document: AuthorizedKeys,
        desired: DesiredKeys,
        restricted_elsewhere: frozenset[bytes],
        role: Role,
        unrestricted_before: frozenset[bytes],
    ) -> None:
        self._document = document
        self._desired = desired
        self._revokes_only = role is Role.REVOKE
        own = restricted_keys(document, desired)
        self._restricted = own | restricted_elsewhere
        self._restricted_before = frozenset() if role is Role.MAIN else restricted_elsewhere
        self._unrestricted_before = unrestricted_before
        self._first = _first_working_lines(document, own)
        self._chosen = _one_line_each(document)
        self._edits: dict[int, Line | None] = {}
        self._new: list[Line] = []
        self._entries: dict[EntryList, list[Entry]] = {name: [] for name in (*CHANGES, *STANDING)}

    def judge(self, at: int, line: Line, key: PublicKey) -> None:
        """Decides one key line, in the order of the module's rules."""
        waits = key.fingerprint in self._desired.waiting
        strict = self._desired.strict and not self._revokes_only and not waits
        if line.kind is LineKind.RESTRICTED:
            if _stays(key, self._desired) or not strict:
                self._report("restricted", line, key, self._restricted_reason(at, line, key))
            else:
                self._drop(at, line, key, "unmanaged")
        elif self._desired.wants(key):
            self._judge_desired(at, line, key)
        elif line.kind is LineKind.MANAGED:
            self._judge_undesired(at, line, key)
        elif self._desired.revoked(key):
            self._drop(at, line, key, "revoked")
        elif strict:
            self._drop(at, line, key, "unmanaged")
        else:
            self._report("foreign", line, key, "waiting" if waits else "")

    def _judge_desired(self, at: int, line: Line, key: PublicKey) -> None:
        if line.kind is LineKind.PLAIN and key.blob in self._restricted:
            self._judge_beside_restricted(at, line, key)
        elif self._revokes_only:
            self._report("kept" if line.kind is LineKind.MANAGED else "foreign", line, key)
        elif key.blob in self._restricted:
            self._drop(at, line, key, "restricted_line_exists")
        elif self._chosen[key.blob] != at:
            self._drop(at, line, key, "duplicate")
        elif line.kind is LineKind.PLAIN and key.blob in self._desired.listed:
            self._edits[at] = adopted_line(line)
            self._report("adopted", line, key)
        else:
            self._report("kept", line, key)

    def _judge_beside_restricted(self, at: int, line: Line, key: PublicKey) -> None:
        """R4: both lines belong to the user; removing the plain one could cost them their shell."""
        used = self._first.get(key.blob, at) == at and key.blob not in self._restricted_before
        reason: Reason = "used_beside_restricted" if used else "behind_restricted"
        shared = key.blob in self._unrestricted_before
        self._report("foreign", line, key, "behind_shared" if shared else reason)

    def _restricted_reason(self, at: int, line: Line, key: PublicKey) -> Reason:
        """Whether sshd uses another line for the same key; a reason of the line itself is first."""
        if own_reason := self._desired.entry(line, key).reason:
            return own_reason
        if key.blob in self._unrestricted_before:
            return "behind_shared"
        first = self._first.get(key.blob, at)
        return "behind_plain" if self._document.lines[first].kind is LineKind.PLAIN else ""

    def _judge_undesired(self, at: int, line: Line, key: PublicKey) -> None:
        """A managed line whose key is neither pinned nor in a valid entry of the console."""
        waits = key.fingerprint in self._desired.waiting
        if not waits and key.fingerprint not in self._desired.listed_but_malformed:
            self._drop(at, line, key, "revoked" if self._desired.revoked(key) else "unlisted")
        elif key.blob in self._restricted and not self._revokes_only:
            self._drop(at, line, key, "restricted_line_exists")
        else:
            self._report("kept", line, key, "waiting" if waits else "entry_rejected")

    def _drop(self, at: int, line: Line, key: PublicKey, reason: Reason) -> None:
        self._edits[at] = None
        self._report("removed", line, key, reason)

    def add_missing(self) -> None:
        """R1: the listed keys in the console's order, then the pins."""
        present = set(self._chosen) | self._restricted
        for source in (self._desired.listed, self._desired.pins):
            for blob, listed in source.items():
                if blob not in present:
                    present.add(blob)
                    line = managed_line(listed.key, listed.comment)
                    self._new.append(line)
                    self._report("added", line, listed.key)

    def _report(self, name: EntryList, line: Line, key: PublicKey, reason: Reason = "") -> None:
        self._entries[name].append(self._desired.entry(line, key, reason))

    def plan(self) -> Plan:
        """The plan made of all decisions."""
        after = self._document.edited(self._edits, self._new)
        dropped = (self._document.lines[at] for at, edit in self._edits.items() if edit is None)
        entries = {name: tuple(found) for name, found in self._entries.items()}
        return Plan(self._document, after, tuple(line.raw for line in dropped), **entries)


def _one_line_each(document: AuthorizedKeys) -> dict[bytes, int]:
    """For each key, the index of the line to keep: the first managed one, else the first plain."""
    chosen: dict[bytes, int] = {}
    for kind in (LineKind.MANAGED, LineKind.PLAIN):
        for at, line in enumerate(document.lines):
            if line.key is not None and line.kind is kind:
                chosen.setdefault(line.key.blob, at)
    return chosen


def _first_working_lines(
    document: AuthorizedKeys, restricted: frozenset[bytes]
) -> dict[bytes, int]:
    """For each key with a restricted line, the index of the line that sshd uses: the first valid.

    Managed lines are skipped, because they are removed where a restricted line exists.
    """
    found: dict[bytes, int] = {}
    for at, line in enumerate(document.lines):
        if line.kind is LineKind.MANAGED or line.key is None or not line.lets_key_in:
            continue
        if line.key.blob in restricted:
            found.setdefault(line.key.blob, at)
    return found


def current_entries(document: AuthorizedKeys, desired: DesiredKeys) -> Entries:
    """The keys in the file as it is, under the names in `Plan`; managed ones are `kept`."""
    names: dict[LineKind, EntryList] = {
        LineKind.MANAGED: "kept",
        LineKind.RESTRICTED: "restricted",
        LineKind.PLAIN: "foreign",
    }
    found: dict[EntryList, list[Entry]] = {name: [] for name in names.values()}
    for line in document.lines:
        if line.key is not None:
            found[names[line.kind]].append(desired.entry(line, line.key))
    return {name: tuple(entries) for name, entries in found.items()}
