"""How a cycle or a key file ended, what started a cycle, why a key file is served, and the lists
that a report sorts its keys into.

The values are part of the public contract: they stand in JSON output, events and state.json.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal


class Result(str, Enum):
    """How a cycle ended, or what it did to one key file."""

    CHANGED = "changed"
    IN_SYNC = "in_sync"
    HELD = "held"  # a guard prevented the change (G3, G4)
    FAILED = "failed"

    __str__ = str.__str__


IN_SYNC = (Result.CHANGED, Result.IN_SYNC)  # after either, the key files are as planned


class Origin(str, Enum):
    """Why a key file is served."""

    CONFIGURED = "configured"
    AUTO = "auto"  # found by targets: auto
    RETIRED = "retired"  # a former target; deleted keys are still removed from it (R5)

    __str__ = str.__str__


class Trigger(str, Enum):
    """What started a cycle."""

    POLL = "poll"
    SIGNAL = "signal"
    MANUAL = "manual"
    BOOT = "boot"

    __str__ = str.__str__


Change = Literal["added", "adopted", "removed"]
Standing = Literal["kept", "restricted", "foreign"]  # what a key without a change is
EntryList = Literal[Change, Standing]
CHANGES: tuple[Change, ...] = ("added", "adopted", "removed")
STANDING: tuple[Standing, ...] = ("kept", "restricted", "foreign")
