"""What an agent says of itself: `keysync status --json` as values, and the command that asks it."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_REPOSITORY = Path(__file__).resolve().parents[2]
_SECONDS = 30
_REASONS = {
    "empty_listing": "the list is empty",
    "no_valid_entry": "no key on the list can be used",
    "would_lock_out": "nobody could log in any more",
}
_OVERRIDES = ("KEYSYNC_", "VAST_", "CREDENTIALS_DIRECTORY")


@dataclass(frozen=True, slots=True)
class AgentKey:
    """One line of the key file with a key in it; `access` and `login` as the agent names them.

    login  whether sshd lets the key in by this line: yes, no, depends, or certificates
    """

    line: int
    access: str
    fingerprint: str
    comment: str
    note: str
    options: tuple[str, ...]
    login: str
    key_id: int | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """The agent's last error, in its own words."""

    at: str
    kind: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Held:
    """A listing that the agent does not apply yet, for one user or (None) for all of them.

    until    the earliest time at which the agent will apply it; None where it names none
    applied  whether it has applied the listing, since polls enough have shown it
    """

    reason: str
    seen: int
    needed: int
    user: str | None = None
    until: str | None = None
    applied: bool = False

    @property
    def in_words(self) -> str:
        """Why, for whom, and when it will be applied."""
        why = _REASONS.get(self.reason, self.reason)
        who = f" for {self.user}" if self.user else ""
        until = "" if self.applied or self.until is None else f", until {_moment(self.until)}"
        return f"{why}{who}, seen in {self.seen} of {self.needed} polls{until}."


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """The agent's report on one instance; `waiting` has the fingerprints to be confirmed."""

    last_success: str | None
    failing: bool
    error: Trouble | None
    holds: tuple[Held, ...]
    rejected: dict[int, str]
    keys: tuple[AgentKey, ...]
    waiting: frozenset[str] = frozenset()

    @property
    def held(self) -> tuple[Held, ...]:
        """What is held right now."""
        return tuple(hold for hold in self.holds if not hold.applied)

    def hold_of(self, user: str) -> Held | None:
        """What concerns this user's files; a listing that is held goes before one applied."""
        own = [hold for hold in self.holds if hold.user in (None, user)]
        return min(own, key=lambda hold: hold.applied, default=None)


@dataclass(frozen=True, slots=True)
class AgentFiles:
    """Where an agent keeps what the page watches."""

    state: Path
    api_key: Path | None

    @classmethod
    def of(cls, configuration: Path) -> "AgentFiles":
        """As the agent's own configuration says."""
        found = yaml.safe_load(configuration.read_text()) or {}
        key_file = (found.get("api") or {}).get("key_file")
        state = Path(found.get("state_dir") or "/var/lib/keysync")
        return cls(state / "state.json", Path(key_file) if key_file else None)


async def ask(configuration: Path, keys_file: Path) -> AgentStatus | str:
    """The status of the agent for one key file, or why there is none.

    The command takes a fifth of a second, so it runs beside the loop.
    """
    return await asyncio.to_thread(_ask, configuration, keys_file)


def parse_status(report: dict[str, Any], keys_file: Path) -> AgentStatus:
    """The values in a report, for the target that is this file."""
    targets = [one for one in report["targets"] if one["path"] == str(keys_file)]
    error = report["last_error"]
    return AgentStatus(
        report["last_success"],
        bool(report["failing"]),
        Trouble(error["at"], error["kind"], error["message"], error["hint"]) if error else None,
        _holds(report["held"]),
        {one["key_id"]: one["detail"] for one in report["rejected"] if one["key_id"] is not None},
        tuple(_key(one) for target in targets for one in target["keys"]),
        frozenset(one["fingerprint"] for one in report.get("waiting") or ()),
    )


def _holds(found: list[dict[str, Any]] | dict[str, Any] | None) -> tuple[Held, ...]:
    """A list with an object per user; agents before it gave one object for all, or null."""
    each = [found] if isinstance(found, dict) else found or []
    return tuple(
        Held(
            one["reason"],
            one["seen"],
            one["needed"],
            one.get("user"),
            one.get("until"),
            bool(one["applied"]),
        )
        for one in each
    )


def _moment(time: str) -> str:
    """A time of the agent's as the page writes it."""
    return time.replace("T", " ").replace("Z", " UTC")


def _key(found: dict[str, Any]) -> AgentKey:
    return AgentKey(
        found["line"],
        found["access"],
        found["fingerprint"],
        found["comment"],
        found["note"] or "",
        tuple(found["options"]),
        found["login"],
        found["key_id"],
    )


def _ask(configuration: Path, keys_file: Path) -> AgentStatus | str:
    command = [sys.executable, "-m", "agent", "--config", str(configuration), "status", "--json"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OVERRIDES)}
    try:
        done = subprocess.run(
            command,
            cwd=_REPOSITORY,
            env=kept,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the agent's status did not come in {_SECONDS} s"
    try:
        return parse_status(json.loads(done.stdout), keys_file)
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip()[-300:]
        return f"the agent's status could not be read: {said or 'no output'}"
