"""When to poll next: the interval with jitter, and how failures stretch it.

Exponential backoff with full jitter: a random wait up to a bound that doubles, so that many
machines that failed together do not come back together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

_LEAST_SECONDS = 1.5  # the API takes about one request a second from one address
_MOST_DOUBLINGS = 32  # 2.0 ** failures would overflow after a month of them


class Outcome(Enum):
    """What a cycle means for the time of the next one."""

    ANSWERED = "answered"  # in sync, held, or a target failed: the API is well
    FAILED = "failed"  # no usable answer
    REFUSED = "refused"  # the API key is missing or was rejected


@dataclass(frozen=True, slots=True)
class Pace:
    """The configured times, in seconds."""

    interval: float
    jitter: float
    max_backoff: float

    def delay(
        self,
        outcome: Outcome,
        failures: int,
        retry_after: float | None,
        uniform: Callable[[float, float], float],
    ) -> float:
        """Seconds until the next poll; `failures` counts the failures in a row, this one included.

        `retry_after` is what the server asked for; it is the least, and never cut off.
        `uniform(a, b)` gives a random number between a and b.
        """
        if outcome is Outcome.ANSWERED:
            return self.interval + uniform(0.0, self.jitter)
        if outcome is Outcome.REFUSED:
            return max(self.interval, uniform(self.max_backoff / 2, self.max_backoff))
        bound = min(self.max_backoff, self.interval * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))
        least = max(_LEAST_SECONDS, retry_after or 0.0)
        # Machines that were told the same Retry-After spread out too.
        return least + uniform(0.0, max(bound - least, _LEAST_SECONDS))
