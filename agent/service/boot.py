"""The first sync after a boot, when the network may not be up yet (`keysync sync --wait`)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from agent.errors import TemporaryFailure
from agent.service.report import SyncReport

_FIRST_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 15.0


def sync_until(
    run: Callable[[], SyncReport], seconds: float, sleep: Callable[[float], None] = time.sleep
) -> SyncReport:
    """Repeats `run` while the API cannot be reached, for at most `seconds`.

    Pauses grow exponentially with full jitter, so that machines booted together spread out. A
    Retry-After is obeyed; one beyond the deadline ends the waiting at once.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        report = run()
        left = deadline - time.monotonic()
        retry_after = (report.problem and report.problem.retry_after) or 0.0
        if report.exit_code != TemporaryFailure.exit_code or left <= 0 or retry_after > left:
            return report
        jittered = random.uniform(0.0, pause)  # noqa: S311  # reason: no secret
        sleep(max(retry_after, min(jittered, left)))
        pause = min(2 * pause, _MAX_PAUSE_SECONDS)
