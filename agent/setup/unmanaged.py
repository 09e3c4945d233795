"""A machine or user without a service manager: whatever starts other programs starts the agent."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import ClassVar

from agent.config import DEFAULT_PATH, Config
from agent.setup.layout import find_layout
from agent.setup.manager import Manager, ServiceState
from agent.setup.processes import running_agents


@dataclass(frozen=True, slots=True)
class NoManager(Manager):
    """Nothing is set up besides the files; install tells how to start the agent."""

    name: ClassVar[str] = "no service manager"

    @classmethod
    def find(cls, program: str) -> NoManager:
        """Always there."""
        return cls(program)

    def state(self, _config: Config, /) -> ServiceState:
        """The agent that somebody started, or how to start one."""
        agents = running_agents(self.program)
        if agents:
            return ServiceState(
                f"The agent runs (process {agents[0]}), with the version and configuration of its "
                "start; end it and start it again for newer ones."
            )
        path = find_layout().config
        more = "" if path == DEFAULT_PATH else f" --config {shlex.quote(path)}"
        return ServiceState(
            "Nothing here keeps a service running. Start the agent with whatever starts this "
            f"machine's programs:\n  {self.program}{more} run"
        )
