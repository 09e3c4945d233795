"""Starting keysync as its unit does: no root, but with four of root's capabilities."""

from __future__ import annotations

import sys

from tests.support.machine import Machine, clean_environment

SERVICE_UID = 64123  # of no account: the service's own could be in use on this machine
_POWERS = "-all,+chown,+dac_override,+fowner,+lease"


def as_service(command: list[str]) -> list[str]:
    """A command of another user than root, with nothing but these capabilities."""
    ids = (f"--reuid={SERVICE_UID}", f"--regid={SERVICE_UID}", "--clear-groups", "--no-new-privs")
    powers = (f"--inh-caps={_POWERS}", f"--ambient-caps={_POWERS}", f"--bounding-set={_POWERS}")
    return ["setpriv", *ids, *powers, *command]


def service_command(machine: Machine, *arguments: str) -> list[str]:
    """One of keysync's commands, started so."""
    agent = [sys.executable, "-m", "agent", "--config", str(machine.config), *arguments]
    return as_service(agent)


def service_environment() -> dict[str, str]:
    """Its account has no home."""
    return clean_environment() | {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
