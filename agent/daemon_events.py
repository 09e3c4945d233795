"""The events of the daemon, besides those of its cycles (events.py)."""

from __future__ import annotations

from enum import Enum

from agent.event_base import CycleEvent, Event, FileEvent


class Direction(str, Enum):
    """What the other program does to the line."""

    PUT_BACK = "put_back"
    TAKEN_AWAY = "taken_away"

    __str__ = str.__str__


class KeyContested(FileEvent):
    """Another program keeps undoing what keysync does to one line.

    Logged at the counts 3, 10, 30, 100 and so on, instead of one line each time.
    """

    name = "key.contested"
    level = "warning"
    fingerprint: str
    direction: Direction
    count: int
    since: str
    hint: str


class SyncRecovered(CycleEvent):
    """A streak of failed or held cycles has ended."""

    name = "sync.recovered"
    kind: str
    failures: int
    lasted_s: int


class AgentStarted(Event):
    """`keysync run` started; the first poll follows at once."""

    name = "agent.started"
    pid: int
    interval_s: float
    targets: int | None  # None with `targets: auto`


class AgentDoubled(Event):
    """Another agent uses the same state folder, in process `pid`."""

    name = "agent.doubled"
    level = "warning"
    pid: int
    message: str
    hint: str


class AgentStartFailed(Event):
    """`keysync run` could not start; it exits with the exit code of this kind."""

    name = "agent.start_failed"
    level = "error"
    kind: str
    message: str
    hint: str


class PollsSummarized(Event):
    """The polls of the last 15 minutes; unchanged ones have no line of their own."""

    name = "polls.summarized"
    polls: int
    failed: int
    changed: int
    since: str


class AgentStopped(Event):
    """`keysync run` was told to stop; `reason` is the name of the signal."""

    name = "agent.stopped"
    reason: str


class AgentFailed(Event):
    """An internal error ended a cycle: the exception's class and place, never its text (G10)."""

    name = "agent.failed"
    level = "error"
    kind: str
    where: str
    failing_since: str | None = None
    next_poll_s: int | None = None


class ConfigReloaded(Event):
    """A new configuration was read and is in use."""

    name = "config.reloaded"
    interval_s: float
    targets: int | None  # None with `targets: auto`


class ConfigRejected(Event):
    """The new configuration is invalid; the earlier one stays in use."""

    name = "config.rejected"
    level = "error"
    message: str
    hint: str
