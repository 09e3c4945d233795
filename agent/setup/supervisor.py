"""The agent under supervisor (supervisord.org), as in the platform's container images."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import ClassVar

from agent.adapters.command import find_program, output_of
from agent.adapters.heartbeat import read_heartbeat
from agent.config import Config
from agent.providers import provider
from agent.setup import steps
from agent.setup.files import shipped
from agent.setup.manager import Manager, ServiceState
from agent.setup.steps import Step

_PROGRAM = "keysync"  # its name there
_PROGRAMS = "/etc/supervisor/conf.d"
_FILE = f"{_PROGRAMS}/keysync.conf"
_STARTING_SECONDS = 10.0
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Supervisor(Manager):
    """`runs` is false for a supervisor that has not been started yet."""

    name: ClassVar[str] = "supervisor"
    runs: bool

    @classmethod
    def find(cls, program: str) -> Supervisor | None:
        """A running one; in the platform's image also before it starts, at the end of the boot."""
        if not os.path.isdir(_PROGRAMS) or not find_program("supervisorctl"):
            return None
        runs = output_of("supervisorctl", "pid").isdecimal()
        return cls(program, runs) if runs or os.path.isdir(provider.BOOT_HOOKS) else None

    @staticmethod
    def is_set_up() -> bool:
        """Whether supervisor has a program `keysync`."""
        return os.path.exists(_FILE)

    @staticmethod
    def leftovers() -> list[Step]:
        """Removes the program's file."""
        return steps.removal(_FILE)

    def prepare(self, _config: Config, /) -> list[Step]:
        """Writes the program's file."""
        return steps.file(_FILE, shipped("container/keysync.conf", self.program))

    def start(self) -> list[Step]:
        """`update` starts a new program, but restarts one only if its file changed."""
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
        """Removes the program's file: then `update` stops the program."""
        found = steps.removal(_FILE)
        if found and self.runs:
            found += [
                steps.command("supervisorctl", "reread"),
                steps.command("supervisorctl", "update"),
            ]
        return found

    def state(self, config: Config, /) -> ServiceState:
        """What supervisor reports about the program, and the agent about its last cycle."""
        if not self.runs:
            return ServiceState("supervisor is not running yet; it will start the agent.")
        text = _status_when_started()
        heartbeat = read_heartbeat(config.state_dir)
        if heartbeat and heartbeat.result == "failed":
            text += f"; its last cycle failed ({heartbeat.kind})"
        elif "RUNNING" in text:
            return ServiceState(text)
        return ServiceState(
            text,
            f"See why: keysync status, and the agent's log. Then: supervisorctl restart {_PROGRAM}",
        )


def _status_when_started() -> str:
    """The program's status once it is no longer STARTING (startsecs), for at most 10 s."""
    deadline = time.monotonic() + _STARTING_SECONDS
    while True:
        text = output_of("supervisorctl", "status", _PROGRAM)
        if "STARTING" not in text or time.monotonic() >= deadline:
            return text
        time.sleep(_PAUSE_SECONDS)
