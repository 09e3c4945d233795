"""The interface to a service manager, which keeps the agent running.

A new one is one class in a file of its own, listed in KINDS in host.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from agent.config import Config
from agent.setup.steps import Step


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The service's state, or how to start it; `fix` says what to do about a failure, else ""."""

    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Manager(ABC):
    """A service manager that was found; `program` is the absolute path of `keysync`.

    The class and static methods also work where another manager is in use.
    """

    name: ClassVar[str]
    uses_boot_hook: ClassVar[bool] = True  # false if it syncs at boot by itself
    program: str

    @classmethod
    @abstractmethod
    def find(cls, program: str) -> Manager | None:
        """The manager, if this machine uses it; called as root only."""

    @staticmethod
    def is_set_up() -> bool:
        """Whether keysync is set up as a service of this manager."""
        return False

    @staticmethod
    def leftovers() -> list[Step]:
        """Removes the files of an earlier installation, where another manager is in use now."""
        return []

    def prepare(self, _config: Config, /) -> list[Step]:
        """Writes what the manager needs to start the agent. Raises TargetFailed."""
        return []

    def start(self) -> list[Step]:
        """Starts the agent, or restarts it to run the present version."""
        return []

    def stop(self) -> list[Step]:
        """Stops the agent, and prevents it from being started again."""
        return []

    def removal(self) -> list[Step]:
        """Removes the files that `prepare` wrote and `stop` left."""
        return []

    @abstractmethod
    def state(self, _config: Config, /) -> ServiceState:
        """The state of the service after `start`; waits until it is known."""
