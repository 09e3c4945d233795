"""When another program keeps undoing a change to one line: one event with a count, not one each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from agent import daemon_events, events
from agent.adapters.clock import present
from agent.core.times import Moment
from agent.daemon_events import Direction
from agent.log import Emit

_LOGGED_EACH = 3  # beyond this count, key.contested replaces the single events
_OVER_SECONDS = 3600.0
_MAX_LINES = 1000  # users choose how many lines they put back (G12)
_HINTS = {
    Direction.PUT_BACK: "keysync keeps removing it. Find what writes the file (a boot script, "
    "cron, another agent) and make it leave this key out.",
    Direction.TAKEN_AWAY: "keysync keeps adding it. Find what rewrites the file (a boot script, "
    "cron, another agent) and make it keep lines with the tag keysync:managed.",
}


@dataclass(slots=True)
class _Contest:
    since: str
    direction: Direction
    sync_id: str = ""  # of the last cycle counted: several copies of a line count once
    count: int = 0
    last: float = 0.0  # seconds on the steady clock


class ContestFilter:
    """Passes events on to `emit`, except the repeated changes of one line after the third.

    Of those, `key.contested` gives the count.

    A contest ends after an hour without a change.
    """

    def __init__(self, emit: Emit, clock: Callable[[], Moment] = present) -> None:
        self._emit = emit
        self._clock = clock
        self._contests: OrderedDict[tuple[str, str, str], _Contest] = OrderedDict()

    def __call__(self, event: events.Event) -> None:
        """One event of a cycle."""
        if isinstance(event, events.KeyReappeared | events.KeyRemoved):
            contest = self._contest(event, Direction.PUT_BACK)
        elif isinstance(event, events.KeyAdded):
            contest = self._contest(event, Direction.TAKEN_AWAY)
        else:
            self._emit(event)
            return
        is_copy = contest.sync_id == event.sync_id
        contest.sync_id = event.sync_id
        contest.count += not is_copy
        if contest.count <= _LOGGED_EACH:
            self._emit(event)
        if _is_milestone(contest.count) and not is_copy:
            self._emit(_contested(event, contest))

    def _contest(self, event: events.KeyEvent, direction: Direction) -> _Contest:
        """The contest over this line. The opposite change starts a new one, because then the
        console's list changed.
        """
        line, now = (event.user, event.path, event.fingerprint), self._clock()
        contest = self._contests.pop(line, None)
        over = contest is None or now.seconds - contest.last >= _OVER_SECONDS
        if contest is None or over or contest.direction != direction:
            contest = _Contest(now.at, direction)
        contest.last = now.seconds
        self._contests[line] = contest
        if len(self._contests) > _MAX_LINES:
            self._contests.popitem(last=False)
        return contest


def _is_milestone(count: int) -> bool:
    """Whether it is 3, 10, 30, 100, 300 and so on."""
    digits = str(count)
    return count >= _LOGGED_EACH and digits[0] in "13" and not digits[1:].strip("0")


def _contested(event: events.KeyEvent, contest: _Contest) -> daemon_events.KeyContested:
    return daemon_events.KeyContested(
        sync_id=event.sync_id,
        trigger=event.trigger,
        user=event.user,
        path=event.path,
        fingerprint=event.fingerprint,
        direction=contest.direction,
        count=contest.count,
        since=contest.since,
        hint=_HINTS[contest.direction],
    )
