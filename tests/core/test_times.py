"""Ages that a wrong clock cannot falsify."""

from __future__ import annotations

import pytest

from agent.core.times import Moment, age_seconds, seconds_between

START = Moment("2026-05-01T10:00:00Z", "b1", 1000.0)


def test_within_one_boot_the_steady_clock_counts() -> None:
    """Incident 26: a wall clock that was set by a year changes no age."""
    assert seconds_between(START, Moment("2027-05-01T10:00:00Z", "b1", 1030.5)) == 30.5
    assert seconds_between(START, Moment("2025-05-01T10:00:00Z", "b1", 1030.5)) == 30.5


@pytest.mark.parametrize("boot", ["b2", ""])
def test_across_boots_the_wall_clock_counts(boot: str) -> None:
    """Incident 26: the steady clock of another boot, or of an unknown one, says nothing."""
    assert seconds_between(START, Moment("2026-05-01T10:01:00Z", boot, 5.0)) == 60.0


def test_two_unknown_boots_are_not_the_same() -> None:
    """Incident 26: where no boot is known, only the wall clock is left."""
    first, second = START._replace(boot=""), Moment("2026-05-01T10:01:00Z", "", 5.0)
    assert seconds_between(first, second) == 60.0


def test_a_negative_age_is_unknown() -> None:
    """Incident 26: never "0 s ago", and never a negative number."""
    assert seconds_between(START, Moment("2025-05-01T10:00:00Z", "b2", 5.0)) is None
    assert seconds_between(START, START._replace(seconds=999.0)) is None
    assert age_seconds("2027-05-01T10:00:00Z", "2026-05-01T10:00:00Z") is None


def test_a_clock_that_was_corrected_a_little() -> None:
    """Incident 26: a step back by seconds, as NTP takes at boot, is no reason to know nothing."""
    assert age_seconds("2026-05-01T10:01:00Z", "2026-05-01T10:00:00Z") == 0


def test_ages_by_the_wall_clock_alone() -> None:
    """Commands: whole seconds; nothing without a beginning."""
    assert age_seconds("2026-05-01T10:00:00Z", "2026-05-01T10:00:30Z") == 30
    assert age_seconds(None, "2026-05-01T10:00:30Z") is None


def test_a_later_moment() -> None:
    """Polling: the next poll, by both clocks."""
    assert START.after(90.0) == Moment("2026-05-01T10:01:30Z", "b1", 1090.0)


def test_the_end_of_the_calendar() -> None:
    """Incident 26: a clock at the end of time does not stop the agent."""
    end = START._replace(at="9999-12-31T23:59:59Z")
    assert end.after(90.0) == end._replace(seconds=1090.0)


@pytest.mark.parametrize("at", ["", "soon", "2026-05-01T10:00:00", "2026-13-01T10:00:00Z"])
def test_a_moment_needs_a_time_with_a_zone(at: str) -> None:
    """State: nothing is counted from a time that is damaged."""
    START.check()
    with pytest.raises(ValueError, match=r"isoformat|zone|month"):
        START._replace(at=at).check()
