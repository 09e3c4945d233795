"""The agent under supervisor (supervisord.org), as in the platform's container images."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import ClassVar

from agent.adapters.command import find_program, output_of, succeeds
from agent.adapters.heartbeat import read_heartbeat
from agent.config import Config
from agent.setup import steps
from agent.setup.files import shipped
from agent.setup.layout import BOOT_HOOKS
from agent.setup.manager import Manager, ServiceState
from agent.setup.steps import Step

_PROGRAM = "keysync"  # its name there
_PROGRAMS = "/etc/supervisor/conf.d"
_FILE = f"{_PROGRAMS}/keysync.conf"
_STARTING_SECONDS = 10.0
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Supervisor(Manager):
    """`runs` is false for a supervisor that is yet to be started."""

    name: ClassVar[str] = "supervisor"
    runs: bool

    @classmethod
    def find(cls, program: str) -> Supervisor | None:
        """One that runs; in the base image also before, since it starts at the end of the boot."""
        if not os.path.isdir(_PROGRAMS) or not find_program("supervisorctl"):
            return None
        runs = succeeds("supervisorctl", "pid")
        return cls(program, runs) if runs or os.path.isdir(BOOT_HOOKS) else None

    @staticmethod
    def is_set_up() -> bool:
        """Whether supervisor has a program keysync."""
        return os.path.exists(_FILE)

    @staticmethod
    def leftovers() -> list[Step]:
        """The program's file."""
        return steps.removal(_FILE)

    def prepare(self, _config: Config, /) -> list[Step]:
        """The program's file."""
        return steps.file(_FILE, shipped("container/keysync.conf", self.program))

    def start(self) -> list[Step]:
        """`update` starts what is new, and restarts only what changed."""
        if not self.runs:
            return []
        start = [
            steps.command("supervisorctl", "reread"),
            steps.command("supervisorctl", "update", _PROGRAM),
        ]
        if os.path.exists(_FILE):  # an upgrade
            start.append(steps.command("supervisorctl", "restart", _PROGRAM))
        return start

    def stop(self) -> list[Step]:
        """Removes the program's file: without it, `update` ends the program."""
        found = steps.removal(_FILE)
        if found and self.runs:
            found += [
                steps.command("supervisorctl", "reread"),
                steps.command("supervisorctl", "update"),
            ]
        return found

    def state(self, config: Config, /) -> ServiceState:
        """What supervisor says of the program, and the agent of its last cycle."""
        if not self.runs:
            return ServiceState("supervisor does not run yet; it starts the agent when it starts.")
        text = _status_when_started()
        heartbeat = read_heartbeat(config.state_dir)
        failed = heartbeat is not None and heartbeat.result == "failed"
        if "RUNNING" in text and not failed:
            return ServiceState(text)
        if failed and heartbeat:
            text += f"; its last cycle failed ({heartbeat.kind})"
        return ServiceState(
            text,
            f"See why: keysync status, and the agent's log. Then: supervisorctl restart {_PROGRAM}",
        )


def _status_when_started() -> str:
    """Supervisor's word on the agent, once it has made up its mind (startsecs)."""
    deadline = time.monotonic() + _STARTING_SECONDS
    while True:
        text = output_of("supervisorctl", "status", _PROGRAM)
        if "STARTING" not in text or time.monotonic() >= deadline:
            return text
        time.sleep(_PAUSE_SECONDS)
