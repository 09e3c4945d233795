"""What the running agent leaves in its state folder for `keysync status`: agent.json.

It is written at the start, after each cycle and at an orderly end, atomically but not synced: after
a power loss an older one, or none, is found.
"""

from __future__ import annotations

import contextlib
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from agent.adapters.clock import present
from agent.adapters.files.atomic import remove_leftovers, write_atomically
from agent.adapters.files.own_file import read_private
from agent.adapters.state_files import HEARTBEAT, HEARTBEAT_LEFTOVER
from agent.adapters.state_folder import StateFolder
from agent.adapters.typed_json import from_json, json_bytes, json_object
from agent.core.times import Moment, seconds_between
from agent.errors import TargetFailed


class Condition(Enum):
    """The state of an agent, judged by its heartbeat."""

    RUNNING = "running"
    STOPPED = "stopped"  # by a signal; `stop_reason` names it
    DEAD = "dead"  # its process is gone, or the machine was restarted
    OVERDUE = "overdue"  # the process runs, but its next cycle should have ended by now


class Heartbeat(NamedTuple):
    """What the agent wrote about itself.

    `process_start` is the start time of the process in clock ticks since boot (proc_pid_stat(5)),
    which tells it from a later process with the same id. The cycle that starts at `next_poll` must
    have ended `patience_s` seconds later; while a cycle runs, `next_poll` is its start.
    `failing_since` is the first failed or held cycle of a streak that goes on.
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
        """The agent's condition at `now`, by default the present; looks at its process."""
        now = now or present()
        if self.stopped is not None:
            return Condition.STOPPED
        rebooted = bool(self.started.boot and now.boot and self.started.boot != now.boot)
        if rebooted or process_start(self.pid) != self.process_start:
            return Condition.DEAD
        late = seconds_between(self.next_poll, now) if self.next_poll else None
        overdue = late is not None and late > self.patience_s
        return Condition.OVERDUE if overdue else Condition.RUNNING


def agent_is_alive(heartbeat: Heartbeat) -> bool:
    """Whether the process that wrote it is there, even if its poll is late."""
    return heartbeat.condition() in (Condition.RUNNING, Condition.OVERDUE)


def write_heartbeat(state_dir: str, heartbeat: Heartbeat) -> None:
    """Replaces the heartbeat; does nothing if the folder is missing, full or read-only."""
    with contextlib.suppress(OSError, TargetFailed), StateFolder(state_dir).opened() as directory:
        remove_leftovers(directory, HEARTBEAT_LEFTOVER)
        write_atomically(directory, HEARTBEAT, json_bytes(heartbeat), sync=False)


def read_heartbeat(state_dir: str) -> Heartbeat | None:
    """The last heartbeat; None when it is missing or cannot be read."""
    try:
        with StateFolder(state_dir).opened() as directory:
            raw = json_object(read_private(directory, HEARTBEAT) or b"")
        absent = dict.fromkeys(Heartbeat._fields)  # an agent of another version may write fewer
        return from_json(Heartbeat, absent | raw)
    except (OSError, TargetFailed, ValueError):
        return None


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process."""
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if words[0] in (b"Z", b"X") else int(words[19])  # state, and field 22
    except (OSError, IndexError, ValueError):
        return None
