"""What a check yields: one thing that a person should know, and what to do about it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from agent.core.times import Moment, seconds_between
from agent.errors import EXIT_OK


class Severity(Enum):
    """How much a finding weighs; the values are those of `status --json`."""

    PROBLEM = "problem"
    WARNING = "warning"
    OK = "ok"


class Finding(NamedTuple):
    """`text` says what was found, `fix` what to do; only a problem has an exit code but 0."""

    severity: Severity
    text: str
    fix: str = ""
    exit_code: int = EXIT_OK

    def as_json(self) -> dict[str, object]:
        """One object of `verdict`."""
        return {"severity": self.severity.value, "text": self.text, "fix": self.fix or None}


def problem(exit_code: int, text: str, fix: str) -> Finding:
    """Something that is wrong; the exit code decides how serious it is (verdict.py)."""
    return Finding(Severity.PROBLEM, text, fix, exit_code)


def warning(text: str, fix: str = "") -> Finding:
    """Something to look at, which changes no exit code."""
    return Finding(Severity.WARNING, text, fix)


def since(moment: Moment, now: Moment) -> str:
    """A time, and how long ago it was, unless a clock was wrong."""
    seconds = seconds_between(moment, now)
    return moment.at if seconds is None else f"{moment.at} ({duration(int(seconds))} ago)"


def duration(seconds: int) -> str:
    """A length of time in one unit, for people."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
