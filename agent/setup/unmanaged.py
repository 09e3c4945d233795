"""A machine or user without a service manager: something else must start the agent."""

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
    """Only the files are installed; install prints how to start the agent."""

    name: ClassVar[str] = "no service manager"

    @classmethod
    def find(cls, program: str) -> NoManager:
        """Always found."""
        return cls(program)

    def state(self, _config: Config, /) -> ServiceState:
        """The agent that somebody started, or how to start one."""
        agents = running_agents(self.program)
        if agents:
            return ServiceState(
                f"The agent is running (process {agents[0]}), with the version and configuration "
                "that it was started with. To use newer ones, restart it."
            )
        path = find_layout().config
        more = "" if path == DEFAULT_PATH else f" --config {shlex.quote(path)}"
        return ServiceState(
            "There is no service manager here. Start the agent with whatever starts this machine's "
            f"programs:\n  {self.program}{more} run"
        )
