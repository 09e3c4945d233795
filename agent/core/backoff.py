"""When to poll next: the interval with jitter, and how failures stretch it.

Exponential backoff with jitter: a random wait between the interval and a bound that doubles, so
that many machines that failed together do not come back together, and none comes back sooner than
it would have after a success.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

_MAX_DOUBLINGS = 32  # 2.0 ** failures would overflow after a month of them


class Outcome(Enum):
    """What a cycle means for the time of the next one."""

    ANSWERED = "answered"  # in sync, held, or a target failed: the API is well
    FAILED = "failed"  # no usable answer
    REFUSED = "refused"  # the API key is missing or was rejected


@dataclass(frozen=True, slots=True)
class Pace:
    """The configured times, in seconds; `max_backoff` is at least `interval`."""

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

        `retry_after` is what the server asked for. It is honoured up to `max_backoff`: no answer
        silences the agent for longer. `uniform(a, b)` gives a random number between a and b.
        """
        soonest = self.interval + uniform(0.0, self.jitter)
        if outcome is Outcome.ANSWERED:
            return soonest
        if outcome is Outcome.REFUSED:
            return max(soonest, uniform(self.max_backoff / 2, self.max_backoff))
        bound = min(self.max_backoff, self.interval * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
        least = max(self.interval, min(retry_after or 0.0, self.max_backoff))
        # Machines that were told the same Retry-After spread out too.
        return least + uniform(0.0, max(bound - least, self.jitter))
