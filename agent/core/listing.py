"""The account's SSH keys as one complete, validated list, and how one entry is judged (G1, G2).

What a platform's API answers, and which answers are such a list, is known to agent/providers/.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from agent.core.key_entry import fingerprints_in, parse_entry
from agent.core.public_key import Accepts, PublicKey
from agent.core.wire import InvalidKey, RefusalReason

# Why an entry is refused; the names are part of the log and of `--json` (docs/events.md).
EntryRefusal = Literal[RefusalReason, "no_key_text", "unsupported_by_sshd"]
MAX_ENTRIES = 10_000  # the ledger stores them all, and many deleted keys beside them (G11, G12)
_WEAK: tuple[EntryRefusal, ...] = ("rsa_too_small", "weak_key", "unsupported_type", "certificate")
# The form of the entry is valid, so it is certain which key it holds.
_WELL_FORMED: tuple[EntryRefusal, ...] = (*_WEAK, "unsupported_by_sshd")


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key of the account, under the console's id for it."""

    key: PublicKey
    comment: str
    key_id: int | None


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """A refused entry: the name of the reason, and a detail for people."""

    key_id: int | None
    reason: EntryRefusal
    detail: str
    fingerprints: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Listing:
    """The usable keys in the console's order, the refused entries, and whose list it is.

    `protected` are the fingerprints of keys that refused entries held before (G2).
    """

    keys: tuple[ListedKey, ...]
    rejected: tuple[RejectedEntry, ...]
    account_id: int | None
    protected: frozenset[str] = frozenset()

    @property
    def usable(self) -> frozenset[str]:
        """The fingerprints of the keys that are valid entries."""
        return frozenset(listed.key.fingerprint for listed in self.keys)

    @property
    def present(self) -> frozenset[str]:
        """The fingerprints of every key that the console still holds, refused ones included."""
        return self.usable.union(self.protected, *(entry.fingerprints for entry in self.rejected))

    @property
    def listed_but_malformed(self) -> frozenset[str]:
        """The fingerprints of keys whose entry is refused for its form alone.

        A line break in an entry must not remove its key from the machine; a weak key must go.
        """
        entries = (entry for entry in self.rejected if entry.reason not in _WEAK)
        return self.protected.union(*(entry.fingerprints for entry in entries))

    @property
    def malformed_ids(self) -> frozenset[int | None]:
        """The console's ids of the entries that are refused for their form (G2)."""
        return frozenset(
            entry.key_id for entry in self.rejected if entry.reason not in _WELL_FORMED
        )

    def protecting(self, fingerprints: frozenset[str]) -> Listing:
        """The same listing, in which these keys count as still on the console."""
        return replace(self, protected=fingerprints)

    @classmethod
    def of(cls, entries: Iterable[ListedKey | RejectedEntry], account_id: int | None) -> Listing:
        """The listing of these entries; of several with one key, the first counts."""
        keys: dict[bytes, ListedKey] = {}
        rejected = []
        for entry in entries:
            if isinstance(entry, RejectedEntry):
                rejected.append(entry)
            else:
                keys.setdefault(entry.key.blob, entry)
        return cls(tuple(keys.values()), tuple(rejected), account_id)


def judge_entry(
    text: str | None, key_id: int | None, min_rsa_bits: int, accepts: Accepts
) -> ListedKey | RejectedEntry:
    """The key in one entry of the account's list, or why the entry is refused (G2).

    `text` is None when the entry has no key text. `accepts` tells whether this machine's sshd
    accepts a key type, None when sshd could not be asked.
    """
    if text is None:
        return RejectedEntry(key_id, "no_key_text", "the entry has no key text")
    try:
        key, comment = parse_entry(text, min_rsa_bits)
    except InvalidKey as error:
        return RejectedEntry(key_id, error.reason, error.detail, fingerprints_in(text))
    if not key.accepted_by(accepts):
        detail = _unsupported(key, accepts)
        return RejectedEntry(key_id, "unsupported_by_sshd", detail, frozenset({key.fingerprint}))
    return ListedKey(key, comment, key_id)


def _unsupported(key: PublicKey, accepts: Accepts) -> str:
    """Why a key of this type cannot be used here, and what to do."""
    if accepts(key.key_type) is None:
        return (
            f"keysync does not know the key type {key.key_type}, and this machine's sshd could not "
            "be asked whether it accepts it; fix what `sshd -T` reports, or save a key of "
            "another type such as ssh-ed25519"
        )
    return (
        f"this machine's sshd does not accept keys of the type {key.key_type}; save a key of "
        "another type such as ssh-ed25519, or add the type to PubkeyAcceptedAlgorithms in "
        "sshd_config if this sshd supports it"
    )
