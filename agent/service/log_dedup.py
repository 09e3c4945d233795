"""Removes repetitions from the log: a state that lasts is logged when it begins, changes and ends.

Reminders come in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agent import daemon_events, events
from agent.adapters.clock import present
from agent.core.results import Result, Trigger
from agent.core.times import Moment
from agent.log import Emit

_REMINDERS_SECONDS = (300.0, 900.0)  # after the start; then every hour
_HOUR = 3600.0
_MAX_CHANGES_PER_HOUR = 6  # of a message, or back to an earlier kind: a server chooses both
_LOCKED_OUT = "locked_out"


@dataclass(slots=True)
class _Streak:
    """Consecutive cycles that failed, were held, or left somebody locked out."""

    since: Moment
    kind: str = ""
    message: str = ""
    cycles: int = 0
    next_reminder: float = _REMINDERS_SECONDS[0]  # seconds after the start
    kinds: set[str] = field(default_factory=set)
    changes: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_CHANGES_PER_HOUR))

    def is_news(self, kind: str, message: str, now: float) -> bool:
        """Whether this failure differs from the last one and may be logged."""
        changed = (kind, message) != (self.kind, self.message)
        is_new_kind = kind not in self.kinds
        self.kinds.add(kind)
        if not changed or is_new_kind:
            self.kind, self.message = kind, message
            return is_new_kind
        full = len(self.changes) == _MAX_CHANGES_PER_HOUR
        if full and now - self.changes[0] < _HOUR:
            return False
        self.changes.append(now)
        self.kind, self.message = kind, message
        return True

    def set_next_reminder(self, now: float) -> None:
        elapsed = now - self.since.seconds
        later = (at for at in _REMINDERS_SECONDS if at > elapsed)
        self.next_reminder = next(later, (elapsed // _HOUR + 1) * _HOUR)


class StreakFilter:
    """Passes events on to `emit`, without repetitions within a streak of failures.

    A failing or held sync is logged at its start, when its kind or message changes, as a reminder
    after 5 min, 15 min and every hour, and at its end. A failing target, a key that is still
    authorized and the like are logged once until a sync succeeds again; a user who is locked out
    also with each reminder. An unchanged poll becomes a debug event.
    """

    def __init__(self, emit: Emit, clock: Callable[[], Moment] = present) -> None:
        self._log = emit
        self._clock = clock
        self._streak: _Streak | None = None
        self._logged: set[tuple[str, ...]] = set()
        self._this_cycle: set[tuple[str, ...]] = set()
        self._lines = 0  # logged in this cycle
        self._lockout = ""  # the users locked out in this cycle, as text
        self._reminding: bool | None = None  # whether this cycle reminds; None: not decided yet
        self._had_success = False

    @property
    def failing_since(self) -> Moment | None:
        """When the current streak began; None when there is none."""
        return self._streak.since if self._streak else None

    def __call__(self, event: events.Event) -> None:
        """Takes one event of a cycle; the one on how it ended comes last."""
        if isinstance(event, events.SyncTrouble):
            self._end_in_failure(event, event.kind, event.message)
        elif isinstance(event, daemon_events.AgentFailed):
            self._end_in_failure(event, event.kind, event.where)
        elif isinstance(event, events.SyncCompleted):
            self._end_in_success(event)
        else:
            self._pass_on(event)

    def _pass_on(self, event: events.Event) -> None:
        if isinstance(event, events.UserLockedOut):
            self._lockout += f"{event.user} {event.reason}\n"
        identity = _identity(event)
        if identity is not None:
            self._this_cycle.add(identity)
            repeats = isinstance(event, events.UserLockedOut) and self._reminder_is_due()
            if identity in self._logged and not repeats:
                return
        self._emit(event)

    def _emit(self, event: events.Event) -> None:
        self._lines += 1
        self._log(event)

    # ---- the end of a cycle ----

    def _end_in_failure(
        self, event: events.SyncTrouble | daemon_events.AgentFailed, kind: str, message: str
    ) -> None:
        reached_targets = any(name == events.TargetProblem.name for name, *_ in self._this_cycle)
        if self._count_failure(f"{event.name} {kind}", message):
            since = self._streak.since.at if self._streak else None
            self._log(event.replace(failing_since=event.failing_since or since))
        self._end_cycle(complete=reached_targets)

    def _end_in_success(self, event: events.SyncCompleted) -> None:
        if self._lockout:
            self._count_failure(_LOCKED_OUT, self._lockout)
        else:
            self._recover(event)
        quiet = event.result is Result.IN_SYNC and event.trigger is Trigger.POLL
        quiet = quiet and self._had_success and self._lines == 0
        self._log(events.SyncUnchanged(**vars(event)) if quiet else event)
        self._had_success = True
        self._end_cycle(complete=True)

    def _count_failure(self, kind: str, message: str) -> bool:
        """Continues or starts the streak. Returns whether this event is to be logged."""
        reminder_is_due = self._reminder_is_due()
        now = self._clock()
        self._streak = self._streak or _Streak(now)
        self._streak.cycles += 1
        if reminder_is_due:
            self._streak.set_next_reminder(now.seconds)
        return self._streak.is_news(kind, message, now.seconds) or reminder_is_due

    def _recover(self, event: events.SyncCompleted) -> None:
        streak, self._streak = self._streak, None
        if streak is not None:
            lasted_s = round(self._clock().seconds - streak.since.seconds)
            kind = streak.kind.rpartition(" ")[2]
            self._emit(
                daemon_events.SyncRecovered(
                    sync_id=event.sync_id,
                    trigger=event.trigger,
                    kind=kind,
                    failures=streak.cycles,
                    lasted_s=lasted_s,
                )
            )

    def _reminder_is_due(self) -> bool:
        """Whether it is time for a reminder; the same for all events of one cycle."""
        if self._reminding is None:
            elapsed = self._clock().seconds - self._streak.since.seconds if self._streak else 0.0
            self._reminding = self._streak is not None and elapsed >= self._streak.next_reminder
        return self._reminding

    def _end_cycle(self, *, complete: bool) -> None:
        """What a complete cycle did not report again is over; others did not look at everything."""
        self._logged = (set() if complete else self._logged) | self._this_cycle
        self._this_cycle, self._lines, self._lockout, self._reminding = set(), 0, "", None


def _identity(event: events.Event) -> tuple[str, ...] | None:
    """Two events with the same identity are one piece of news; None for events always logged."""
    if isinstance(event, events.TargetProblem):
        return (event.name, event.user, event.path, event.kind)
    if isinstance(event, events.TargetDefaulted):
        return (event.name, event.user, event.path, event.reason)
    if isinstance(event, events.KeyStillAuthorized):
        return (event.name, event.user, event.path, event.fingerprint)
    if isinstance(event, events.UserLockedOut):
        return (event.name, event.user, event.reason)
    return None
