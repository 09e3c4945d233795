"""Times that a wrong clock cannot falsify: a wall time to show, a steady clock to count by."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

_CORRECTION_SECONDS = 120.0


class Moment(NamedTuple):
    """A point in time, by two clocks.

    `at` is the wall clock's time, RFC 3339 in UTC, to show and to compare across reboots. `seconds`
    is CLOCK_BOOTTIME (clock_gettime(2)), which cannot be set and runs on during suspend; it can be
    compared within one boot only. `boot` is the id of that boot, empty if unknown.
    """

    at: str
    boot: str
    seconds: float

    def check(self) -> None:
        """Raises ValueError unless `at` is a time with a zone."""
        _parsed(self.at)

    def after(self, seconds: float) -> Moment:
        """The moment that is so many seconds later by both clocks.

        Beyond the year 9999, which only a wrong clock gets near, `at` stays as it is.
        """
        try:
            at = time_text(_parsed(self.at) + timedelta(seconds=seconds))
        except OverflowError:
            at = self.at
        return Moment(at, self.boot, self.seconds + seconds)


def seconds_between(earlier: Moment, later: Moment) -> float | None:
    """Seconds from one moment to the other, by the steady clock within one boot.

    Across boots by the wall clock. None if that is negative: one of the wall times is wrong, so
    nothing is known. Raises ValueError for a malformed wall time.
    """
    if earlier.boot and earlier.boot == later.boot:
        seconds = later.seconds - earlier.seconds
        return seconds if seconds >= 0 else None
    return _wall_seconds(earlier.at, later.at)


def age_seconds(since: str | None, now: str) -> int | None:
    """Whole seconds between two wall times (RFC 3339 with a zone).

    None if `since` is None, or lies in the future because a clock was wrong. Raises ValueError for
    a malformed time.
    """
    if since is None:
        return None
    seconds = _wall_seconds(since, now)
    return None if seconds is None else int(seconds)


def _wall_seconds(earlier: str, later: str) -> float | None:
    """A small step back counts as 0: it is an ordinary correction of the clock, as by NTP."""
    seconds = (_parsed(later) - _parsed(earlier)).total_seconds()
    return max(seconds, 0.0) if seconds >= -_CORRECTION_SECONDS else None


def time_text(moment: datetime) -> str:
    """A time in UTC as state and reports have it: RFC 3339, whole seconds."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _parsed(text: str) -> datetime:
    """Raises ValueError unless the text is a time with a zone."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone")
    return moment
