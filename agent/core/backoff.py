"""When to poll next: the interval with jitter, and exponential backoff after failures.

After a failure the wait is random, between the interval and a bound that doubles each time. So
machines that failed together do not all retry together, and none retries sooner than it would poll
after a success.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

_MAX_DOUBLINGS = 32  # 2.0 ** failures would overflow after a month of them


class Outcome(Enum):
    """How the API answered in a cycle, as far as it matters for the next poll."""

    ANSWERED = "answered"  # in sync, held, or a target failed: the API works
    FAILED = "failed"  # no usable answer
    REFUSED = "refused"  # the API key is missing or was rejected


@dataclass(frozen=True, slots=True)
class Pace:
    """The configured polling times, in seconds; `max_backoff` is at least `interval`."""

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
        """Seconds until the next poll; `failures` counts consecutive failures including this one.

        `retry_after` is the server's Retry-After in seconds, honoured up to `max_backoff`, so that
        no answer silences the agent for longer. `uniform(a, b)` gives a random number from a to b.
        """
        soonest = self.interval + uniform(0.0, self.jitter)
        if outcome is Outcome.ANSWERED:
            return soonest
        if outcome is Outcome.REFUSED:
            return max(soonest, uniform(self.max_backoff / 2, self.max_backoff))
        bound = min(self.max_backoff, self.interval * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
        least = max(self.interval, min(retry_after or 0.0, self.max_backoff))
        # Machines that got the same Retry-After also spread out.
        return least + uniform(0.0, max(bound - least, self.jitter))
