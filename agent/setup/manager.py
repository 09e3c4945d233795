"""What keeps the agent running on a machine: the same questions to every service manager.

A new one is one class in a file of its own, named in KINDS of host.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from agent.config import Config
from agent.setup.steps import Step


@dataclass(frozen=True, slots=True)
class ServiceState:
    """How the service is, or how to have one; `fix` is what to do about a failure, else empty."""

    text: str
    fix: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether the service, and not only its last sync, needs somebody's help."""
        return bool(self.fix)


@dataclass(frozen=True, slots=True)
class Manager(ABC):
    """A service manager that was found; `program` is the absolute path of `keysync`.

    What is asked of the class holds whether or not it is the manager at work.
    """

    name: ClassVar[str]
    uses_boot_hook: ClassVar[bool] = True  # false where it syncs at boot by itself
    program: str

    @classmethod
    @abstractmethod
    def find(cls, program: str) -> Manager | None:
        """The manager, if it keeps this machine's programs; asked as root only."""

    @staticmethod
    def is_set_up() -> bool:
        """Whether it is meant to keep an agent running on this machine."""
        return False

    @staticmethod
    def leftovers() -> list[Step]:
        """Takes away the files of an earlier installation, when another manager is at work."""
        return []

    def prepare(self, _config: Config, /) -> list[Step]:
        """What it needs to start the agent. Raises TargetFailed."""
        return []

    def start(self) -> list[Step]:
        """Starts the agent, and again with the present version when it runs."""
        return []

    def stop(self) -> list[Step]:
        """Ends the agent, and keeps it from being started again."""
        return []

    def removal(self) -> list[Step]:
        """Takes away what `prepare` placed and `stop` left."""
        return []

    @abstractmethod
    def state(self, _config: Config, /) -> ServiceState:
        """How the service is after `start`; waits until that is known."""
