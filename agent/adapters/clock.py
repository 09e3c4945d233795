"""The current time, by the wall clock and by the steady clock."""

from __future__ import annotations

import functools
import os
import time
from datetime import datetime, timezone
from pathlib import Path

from agent.core.times import Moment, time_text

BOOT_VARIABLE = "KEYSYNC_BOOT_ID"  # the units set it to %b (systemd.unit(5), specifiers)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def present() -> Moment:
    """The current time, by both clocks."""
    return Moment(now_text(), boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME))


def now_text() -> str:
    """The current time by the wall clock: RFC 3339, UTC, whole seconds."""
    return time_text(datetime.now(timezone.utc))


@functools.cache
def boot_id() -> str:
    """The id of this boot (random(4)): 32 hexadecimal digits, empty if unknown.

    The units hide it in /proc (ProcSubset=pid) and pass it in KEYSYNC_BOOT_ID instead.
    """
    try:
        text = _BOOT_ID.read_text("ascii")
    except (OSError, ValueError):
        text = os.environ.get(BOOT_VARIABLE, "")
    return text.strip().replace("-", "").lower()
