"""What a daemon logs of a state that lasts: its beginning, its change and its end."""

from __future__ import annotations

import time

from agent import events
from agent.log import Emit


class StreakFilter:
    """Passes events on to `emit`, without the repetitions within a streak of failures.

    A failing or held sync, a failing target and a key that is still authorized are each said once,
    until their kind changes or a sync goes well again (product: logs and events).
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._kind: str | None = None  # of the streak's last failure; None when there is none
        self._failures = 0
        self._since = 0.0
        self._said: set[tuple[str, ...]] = set()
        self._this_cycle: set[tuple[str, ...]] = set()

    def __call__(self, event: events.Event) -> None:
        """One event of a cycle; the canonical one comes last."""
        identity = _identity(event)
        if identity is not None:
            self._this_cycle.add(identity)
            if identity in self._said:
                return
        elif isinstance(event, events.SyncTrouble | events.AgentFailed):
            self._end_cycle()
            if not self._is_news(f"{event.name} {event.kind}"):
                return
        elif isinstance(event, events.SyncCompleted):
            self._end_cycle(complete=True)
            self._recover(event.sync_id)
        self._emit(event)

    def _end_cycle(self, *, complete: bool = False) -> None:
        """What a cycle did not say again is over, if the cycle got so far as to look at it."""
        reached_targets = any(name == events.TargetProblem.name for name, *_ in self._this_cycle)
        earlier = set() if complete or reached_targets else self._said
        self._said = earlier | self._this_cycle
        self._this_cycle = set()

    def _is_news(self, kind: str) -> bool:
        if self._kind is None:
            self._since = time.monotonic()
        self._failures += 1
        news = kind != self._kind
        self._kind = kind
        return news

    def _recover(self, sync_id: str) -> None:
        if self._kind is None:
            return
        lasted = round(time.monotonic() - self._since)
        kind = self._kind.rpartition(" ")[2]
        self._emit(events.SyncRecovered(sync_id, kind, self._failures, lasted))
        self._kind, self._failures = None, 0


def _identity(event: events.Event) -> tuple[str, ...] | None:
    """What makes two events the same news; None for those that are always news."""
    if isinstance(event, events.TargetProblem):
        return (event.name, event.user, event.path, event.kind)
    if isinstance(event, events.TargetDefaulted):
        return (event.name, event.user, event.path, event.reason)
    if isinstance(event, events.KeyStillAuthorized):
        return (event.name, event.user, event.path, event.fingerprint)
    return None
