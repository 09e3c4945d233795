"""The present, by both clocks."""

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
    """Now."""
    return Moment(now_text(), boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME))


def now_text() -> str:
    """The present by the wall clock: RFC 3339, UTC, whole seconds."""
    return time_text(datetime.now(timezone.utc))


@functools.cache
def boot_id() -> str:
    """What names this boot of the machine: 32 hexadecimal digits; empty where it is unknown.

    The sandbox of the units hides it in /proc (ProcSubset=pid), so they hand it over.
    """
    try:
        text = _BOOT_ID.read_text("ascii")
    except (OSError, ValueError):
        text = os.environ.get(BOOT_VARIABLE, "")
    return text.strip().replace("-", "").lower()
