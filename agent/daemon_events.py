"""The events that the daemon adds to those of its cycles (events.py)."""

from __future__ import annotations

from dataclasses import dataclass

from agent.events import CycleEvent, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyContested(CycleEvent):
    """Something puts a line back, or takes it away, each time that keysync mends it.

    `direction` is put_back or taken_away. Said at the counts 3, 10, 30, 100 and so on, in place of
    one line for each time.
    """

    name = "key.contested"
    level = "warning"
    user: str
    path: str
    fingerprint: str
    direction: str
    count: int
    since: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRecovered(CycleEvent):
    """A streak of failed or held cycles is over; its start, changes and reminders were logged."""

    name = "sync.recovered"
    kind: str
    failures: int
    lasted_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStarted(Event):
    """`keysync run` begins; the first poll follows at once."""

    name = "agent.started"
    pid: int
    interval_s: float
    targets: int | None  # None: found anew in each cycle (auto)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDoubled(Event):
    """Another agent runs on the same state folder, in the process `pid`."""

    name = "agent.doubled"
    level = "warning"
    pid: int
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStartFailed(Event):
    """`keysync run` could not begin, and ends with the exit code of this kind."""

    name = "agent.start_failed"
    level = "error"
    kind: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PollsSummarized(Event):
    """What the polls of the last quarter of an hour came to; unchanged ones have no line."""

    name = "polls.summarized"
    polls: int
    failed: int
    changed: int
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStopped(Event):
    """`keysync run` ends because it was told to, by the signal that is the reason."""

    name = "agent.stopped"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFailed(Event):
    """A cycle ended in a defect of keysync: the kind of exception and where, never its text."""

    name = "agent.failed"
    level = "error"
    kind: str
    where: str
    failing_since: str | None = None
    next_poll_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReloaded(Event):
    """The configuration was read anew and holds from now on."""

    name = "config.reloaded"
    interval_s: float
    targets: int | None  # None: found anew in each cycle (auto)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRejected(Event):
    """The configuration that was to be reloaded is wrong; the earlier one stays."""

    name = "config.rejected"
    level = "error"
    message: str
    hint: str
