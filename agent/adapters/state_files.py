"""The names of keysync's files in its state folder, all in one place."""

from __future__ import annotations

LEDGER = "state.json"
LAST_SUCCESS = "success.json"
HEARTBEAT = "agent.json"
JOURNAL = "journal.jsonl"
RESERVE = "reserve"
LOCK = "lock"

# What names begin with:
UNREADABLE_LEDGER = f"{LEDGER}.unreadable-"
LARGE_JOURNAL = f"{JOURNAL}.large-"
ORIGINAL = "original-"
HEARTBEAT_LEFTOVER = f".{HEARTBEAT}."  # removed by the agent, which takes no lock for it
SYNC_LEFTOVERS = (
    *(f".{name}." for name in (LEDGER, LAST_SUCCESS, JOURNAL, RESERVE)),
    f".{ORIGINAL}",
)

_NAMES = (LEDGER, LAST_SUCCESS, HEARTBEAT, JOURNAL, RESERVE, LOCK)
_PREFIXES = (UNREADABLE_LEDGER, LARGE_JOURNAL, ORIGINAL, HEARTBEAT_LEFTOVER, *SYNC_LEFTOVERS)


def is_own(name: str) -> bool:
    """Whether keysync puts files of this name there, leftovers of a killed run included."""
    return name in _NAMES or name.startswith(_PREFIXES)
