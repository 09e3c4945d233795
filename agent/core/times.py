"""Times that survive a wrong clock: a wall time to show, and a steady clock to count by."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple, TypeGuard

_CORRECTION_SECONDS = 120.0
_ENDLESS = 1e12  # seconds: longer than the calendar


class Moment(NamedTuple):
    """One point in time.

    `at` is RFC 3339 in UTC, for people and for comparison across reboots. `seconds` is
    CLOCK_BOOTTIME (clock_gettime(2)), which nobody sets and which goes on during a suspend; it
    counts within one boot only. `boot` names that boot; it is empty where it is unknown.
    """

    at: str
    boot: str
    seconds: float

    @classmethod
    def from_json(cls, raw: object) -> Moment:
        """The reverse of `_asdict`. Raises ValueError for anything else."""
        if not isinstance(raw, dict):
            raise ValueError("a moment must be an object")
        at, boot, seconds = raw.get("at"), raw.get("boot"), raw.get("seconds")
        if not isinstance(at, str) or not isinstance(boot, str):
            raise ValueError("a moment needs the texts at and boot")
        if isinstance(seconds, bool) or not is_sane(seconds):
            raise ValueError("a moment needs the number seconds")
        _parsed(at)
        return cls(at, boot, float(seconds))

    def after(self, seconds: float) -> Moment:
        """The moment that comes so many seconds later by both clocks.

        It stays what it is where the calendar ends, which only a clock gone wrong comes near.
        """
        try:
            at = time_text(_parsed(self.at) + timedelta(seconds=seconds))
        except OverflowError:
            at = self.at
        return Moment(at, self.boot, self.seconds + seconds)


def is_sane(seconds: object) -> TypeGuard[float]:
    """Whether it is a number to count with; NaN and infinity are none."""
    return isinstance(seconds, (int, float)) and -_ENDLESS < seconds < _ENDLESS


def seconds_between(earlier: Moment, later: Moment) -> float | None:
    """Seconds from one moment to the other.

    Within one boot by the steady clock, otherwise by the wall clock. None when that is negative:
    one of the two wall times was taken from a wrong clock, so nothing is known.
    """
    if earlier.boot and earlier.boot == later.boot:
        seconds = later.seconds - earlier.seconds
        return seconds if seconds >= 0 else None
    return _wall_seconds(earlier.at, later.at)


def _wall_seconds(earlier: str, later: str) -> float | None:
    """Seconds by the wall clock; a small step back is an ordinary correction of the clock."""
    seconds = (_parsed(later) - _parsed(earlier)).total_seconds()
    return max(seconds, 0.0) if seconds >= -_CORRECTION_SECONDS else None


def time_text(moment: datetime) -> str:
    """A time in UTC as the state and the reports write it: RFC 3339, whole seconds."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _parsed(text: str) -> datetime:
    """Raises ValueError unless the text is a time with its zone."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone")
    return moment
