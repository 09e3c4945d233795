"""What kind of machine this is: its service manager, the user, and keysync's program."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass

from agent.errors import TargetFailed
from agent.providers import provider
from agent.setup.manager import Manager
from agent.setup.supervisor import Supervisor
from agent.setup.systemd import Systemd
from agent.setup.unmanaged import NoManager

KINDS: tuple[type[Manager], ...] = (Systemd, Supervisor)
_PLAIN_PATH = re.compile(r"/[\w./+@-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Host:
    """`program` is the absolute path of `keysync`; `boot_hooks` whether the platform runs some."""

    manager: Manager
    is_root: bool
    boot_hooks: bool
    program: str

    def describe(self) -> str:
        """For the first line of what install and uninstall print."""
        words = [self.manager.name, "root" if self.is_root else "ordinary user"]
        if self.boot_hooks:
            words.insert(1, "the platform's base image")
        return ", ".join(words)


def find_host() -> Host:
    """Inspects the machine without changing it. Raises TargetFailed without a `keysync` program."""
    is_root = os.geteuid() == 0
    program = _find_program()
    manager = _find_manager(program) if is_root else NoManager(program)
    return Host(manager, is_root, os.path.isdir(provider.BOOT_HOOKS), program)


def _find_manager(program: str) -> Manager:
    found = (kind.find(program) for kind in KINDS)
    return next((manager for manager in found if manager), NoManager(program))


def service_is_set_up() -> bool:
    """Whether a service manager is meant to keep an agent running on this machine."""
    return any(kind.is_set_up() for kind in KINDS)


def _find_program() -> str:
    """The absolute path of this installation's `keysync`, for units and scripts."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "keysync")
    program = beside if os.path.exists(beside) else shutil.which("keysync")
    if program is None:
        raise TargetFailed(
            "program_missing",
            f"There is no program `keysync` beside {sys.executable} for a service to start.",
            "Install keysync with pip into a virtual environment, and run it from there.",
        )
    if not _PLAIN_PATH.fullmatch(program) or program.startswith(("/tmp/", "/var/tmp/")):  # noqa: S108  # reason: nothing is written there
        raise TargetFailed(
            "program_misplaced",
            f"A service cannot start {program}: the path is temporary or has unusual characters.",
            "Install keysync into a folder such as /opt/keysync.",
        )
    return program
