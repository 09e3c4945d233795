"""The keys that an account and a configuration ask for, and how a report shows one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agent.core.authorized_keys import Line, LineKind, shown_comment
from agent.core.listing import ListedKey
from agent.core.public_key import PublicKey

# Why a key is in its list of the plan; the names are public (docs/events.md, `sync --json`).
Reason = Literal[
    "",
    "behind_plain",
    "behind_restricted",
    "behind_shared",
    "duplicate",
    "entry_rejected",
    "ignored_by_sshd",
    "pinned",
    "restricted_line_exists",
    "revoked",
    "unlisted",
    "unmanaged",
    "used_beside_restricted",
    "waiting",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a report: its public data, and the reason of the decision about it."""

    fingerprint: str
    key_type: str
    comment: str
    key_id: int | None
    reason: Reason = ""


@dataclass(frozen=True, slots=True)
class DesiredKeys:
    """What the account and the configuration ask for, the same for every target.

    `listed` and `pins` are keyed by blob, `previously_listed` by fingerprint: every key that a
    listing ever held, with its id. One that is not in `present` is revoked; one that was revoked
    before is present only when it may enter again. A key in `listed_but_malformed` is on the
    console in an entry that is refused for its form: its managed line stays. One in `waiting` has
    to be confirmed before it enters; a line that it has stays (G14), so `waiting` and
    `listed_but_malformed` hold no revoked key.
    """

    listed: Mapping[bytes, ListedKey]
    pins: Mapping[bytes, ListedKey]
    previously_listed: Mapping[str, int | None] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    listed_but_malformed: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    strict: bool = False

    def wants(self, key: PublicKey) -> bool:
        """Whether the key is listed or pinned."""
        return key.blob in self.listed or key.blob in self.pins

    def revoked(self, key: PublicKey) -> bool:
        """R5: once listed, no longer on the console, and not pinned."""
        if not self.previously_listed or self.wants(key):
            return False
        return key.fingerprint in self.previously_listed and key.fingerprint not in self.present

    def key_id(self, key: PublicKey) -> int | None:
        """The console's id, also of a key that it no longer lists."""
        listed = self.listed.get(key.blob)
        return listed.key_id if listed else self.previously_listed.get(key.fingerprint)

    def entry(self, line: Line, key: PublicKey, reason: Reason = "") -> Entry:
        """The line in a report; a restricted one always says what is special about it."""
        return Entry(
            key.fingerprint,
            key.key_type,
            shown_comment(line),
            self.key_id(key),
            reason or self._special_reason(line, key),
        )

    def _special_reason(self, line: Line, key: PublicKey) -> Reason:
        if line.kind is LineKind.RESTRICTED:
            if self.revoked(key):
                return "revoked"
            return "ignored_by_sshd" if line.options and line.options.problem else ""
        return "pinned" if key.blob in self.pins else ""
