"""A line that another tool puts back, or takes away, again and again."""

from __future__ import annotations

from agent import daemon_events, events
from agent.core.times import Moment
from agent.service.contest import ContestFilter
from tests.support.event_fields import KEY

START = Moment("2026-05-01T10:00:00Z", "boot", 1000.0)
BACK = events.KeyReappeared(**KEY, reason="revoked")
GONE = events.KeyRemoved(**KEY, reason="revoked")
ADDED = events.KeyAdded(**KEY, reason="")


class Machine:
    """Cycles half a minute apart, and what comes through of their events."""

    def __init__(self) -> None:
        self.found: list[events.Event] = []
        self._seconds = 0.0
        self._cycles = 0
        self._filter = ContestFilter(self.found.append, lambda: START.after(self._seconds))

    def cycle(self, *given: events.KeyEvent, after: float = 30.0) -> None:
        self._seconds += after
        self._cycles += 1
        for event in given:
            self._filter(event.replace(sync_id=str(self._cycles)))

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.found]

    @property
    def counts(self) -> list[int]:
        return [
            event.count for event in self.found if isinstance(event, daemon_events.KeyContested)
        ]


def test_a_key_that_is_put_back_again_and_again() -> None:
    """Incident 25: three warnings, and then one line with its count at 3, 10, 30 and 100."""
    machine = Machine()
    for _ in range(120):
        machine.cycle(BACK)
    assert machine.names == ["key.reappeared"] * 3 + ["key.contested"] * 4
    assert machine.counts == [3, 10, 30, 100]
    last = machine.found[-1]
    assert isinstance(last, daemon_events.KeyContested)
    assert (last.level, last.direction, last.since) == ("warning", "put_back", START.after(30).at)
    assert (last.user, last.path, last.fingerprint) == ("root", "/k", "SHA256:f")


def test_a_listed_key_that_is_taken_away_again_and_again() -> None:
    """Incident 25: a warning, where there were information lines only."""
    machine = Machine()
    for _ in range(12):
        machine.cycle(ADDED)
    assert machine.names == ["key.added"] * 3 + ["key.contested"] * 2
    assert {e.direction for e in machine.found if isinstance(e, daemon_events.KeyContested)} == {
        "taken_away"
    }


def test_what_the_console_changes_is_no_contest() -> None:
    """Incident 25: a key that is added and deleted on the Keys page many times."""
    machine = Machine()
    for _ in range(10):
        machine.cycle(ADDED)
        machine.cycle(GONE)
    assert machine.names == ["key.added", "key.removed"] * 10


def test_copies_of_a_line_in_one_cycle_count_once() -> None:
    """Incident 25: a file that holds a revoked key five times is no contest."""
    machine = Machine()
    machine.cycle(*[GONE] * 5)
    assert machine.names == ["key.removed"] * 5


def test_lines_are_told_apart() -> None:
    """Incident 25: other keys, files and users have counts of their own."""
    machine = Machine()
    for _ in range(2):
        machine.cycle(
            BACK,
            BACK.replace(user="x"),
            BACK.replace(path="x"),
            BACK.replace(fingerprint="x"),
        )
    assert machine.names == ["key.reappeared"] * 8


def test_an_hour_without_ends_it() -> None:
    """Incident 25: silently; later it is a new one."""
    machine = Machine()
    for _ in range(5):
        machine.cycle(BACK)
    machine.cycle(BACK, after=3600.0)
    assert machine.names == ["key.reappeared"] * 3 + ["key.contested", "key.reappeared"]


def test_many_lines_take_bounded_memory() -> None:
    """G12: whoever puts back a new line each time makes the agent remember the last 1,000."""
    machine = Machine()
    for _ in range(3):
        machine.cycle(*(BACK.replace(fingerprint=str(at)) for at in range(1001)))
    assert machine.counts == []  # the oldest was always forgotten
