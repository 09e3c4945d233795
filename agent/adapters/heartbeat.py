"""What the running agent leaves in its state folder for `keysync status`: agent.json.

It is written at the start, after each cycle and at an orderly end, whole or not at all, but not
synced: after a power loss an older one, or none, tells a reader as much.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from agent.adapters.clock import present
from agent.adapters.files.atomic import Owner, remove_leftovers, write_atomically
from agent.adapters.files.own_file import read_private
from agent.adapters.files.safe_path import open_directory
from agent.core.times import Moment, seconds_between
from agent.errors import TargetFailed

HEARTBEAT = "agent.json"
_TEMPORARY = f".{HEARTBEAT}."


class Condition(Enum):
    """How an agent is, judged by its heartbeat."""

    RUNNING = "running"
    STOPPED = "stopped"  # in order; `stop_reason` says why
    DEAD = "dead"  # its process is gone, or the machine was restarted
    OVERDUE = "overdue"  # the process is there, and its next cycle should long have ended


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One state of the agent.

    `process_start` is the process's start time in clock ticks since the boot (proc_pid_stat(5)),
    by which a process id that was used again is recognised. `patience_s` is how many seconds after
    `next_poll` the cycle must have ended. `failing_since` is the first failed or held cycle of a
    row that lasts. `next_poll` is the start of the cycle that runs, while one runs.
    """

    version: str
    pid: int
    process_start: int
    interval_s: float
    patience_s: float
    started: Moment
    last_cycle: Moment | None = None
    next_poll: Moment | None = None
    result: str | None = None  # of the last cycle: changed, in_sync, held or failed
    kind: str | None = None  # of its problem
    failing_since: Moment | None = None
    stopped: Moment | None = None
    stop_reason: str | None = None

    def condition(self, now: Moment | None = None) -> Condition:
        """How the agent is at `now`, by default at present; looks at its process."""
        now = now or present()
        if self.stopped is not None:
            return Condition.STOPPED
        rebooted = bool(self.started.boot and now.boot and self.started.boot != now.boot)
        if rebooted or process_start(self.pid) != self.process_start:
            return Condition.DEAD
        late = seconds_between(self.next_poll, now) if self.next_poll else None
        overdue = late is not None and late > self.patience_s
        return Condition.OVERDUE if overdue else Condition.RUNNING


def write_heartbeat(state_dir: str, heartbeat: Heartbeat) -> None:
    """Replaces the heartbeat. A folder that is missing, full or read-only is no error."""
    data = json.dumps(_as_json(heartbeat), indent=1, sort_keys=True).encode() + b"\n"
    owner = Owner(os.geteuid(), os.getegid())
    with contextlib.suppress(OSError, TargetFailed):
        directory = open_directory(state_dir, owner)
        try:
            remove_leftovers(directory, _TEMPORARY)
            write_atomically(directory, HEARTBEAT, data, sync=False)
        finally:
            os.close(directory)


def read_heartbeat(state_dir: str) -> Heartbeat | None:
    """What the agent wrote last; None when there is nothing, or nothing that can be understood."""
    try:
        owner = os.stat(state_dir)
        directory = open_directory(state_dir, Owner(owner.st_uid, owner.st_gid))
        try:
            data = read_private(directory, HEARTBEAT) or b""
        finally:
            os.close(directory)
        return _from_json(json.loads(data))
    except (OSError, TargetFailed, ValueError, TypeError, RecursionError):
        return None


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None when it is not there."""
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if words[0] in (b"Z", b"X") else int(words[19])  # state, and field 22
    except (OSError, IndexError, ValueError):
        return None


def _as_json(heartbeat: Heartbeat) -> dict[str, object]:
    return {
        name: value._asdict() if isinstance(value, Moment) else value
        for name, value in (
            (field.name, getattr(heartbeat, field.name)) for field in dataclasses.fields(heartbeat)
        )
    }


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "str | None": (str, type(None)),
}


def _from_json(raw: object) -> Heartbeat:
    """Raises ValueError or TypeError unless it is what `_as_json` gives."""
    if not isinstance(raw, dict):
        raise TypeError("not an object")
    values: dict[str, object] = {}
    for field in dataclasses.fields(Heartbeat):
        value = raw.get(field.name)
        if field.type in ("Moment", "Moment | None"):
            optional = field.type != "Moment" and value is None
            values[field.name] = None if optional else Moment.from_json(value)
        elif isinstance(value, _KINDS[str(field.type)]):
            values[field.name] = value
        else:
            raise TypeError(f"{field.name} is wrong")
    return Heartbeat(**values)  # type: ignore[arg-type]  # reason: each value was checked above
