"""The agent as a service of systemd: account, units, and drop-ins for this machine's targets."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from typing import ClassVar

from agent.adapters.command import output_of
from agent.adapters.files.atomic import Owner
from agent.adapters.files.safe_path import open_directory
from agent.adapters.sshd_config import Sshd
from agent.adapters.users import SERVICE_ACCOUNT, ordinary_users
from agent.config import Config, Target
from agent.errors import TargetFailed
from agent.service.locate import locate
from agent.setup import steps
from agent.setup.files import folder_closed_to_others, shipped
from agent.setup.manager import Manager, ServiceState
from agent.setup.service_account import service_account
from agent.setup.steps import Step

_BOOTED = "/run/systemd/system"  # sd_booted(3)
_UNITS = "/etc/systemd/system"
_SERVICE, _BOOT_UNIT = "keysync.service", "keysync-boot.service"
_WRITABLE = ("/root", "/home", "/home_ssh")  # what the shipped units leave writable


@dataclass(frozen=True, slots=True)
class Systemd(Manager):
    """The service, and a unit that syncs once at boot before sshd starts."""

    name: ClassVar[str] = "systemd"
    uses_boot_hook: ClassVar[bool] = False

    @classmethod
    def find(cls, program: str) -> Systemd | None:
        """On a machine that was booted with systemd."""
        return cls(program) if os.path.isdir(_BOOTED) else None

    @staticmethod
    def is_set_up() -> bool:
        """Whether the service's unit exists."""
        return os.path.exists(f"{_UNITS}/{_SERVICE}")

    @staticmethod
    def leftovers() -> list[Step]:
        """Removes units and drop-ins; the account is removed with the state."""
        found = []
        drop_ins = [_drop_in(unit) for unit in (_SERVICE, _BOOT_UNIT)]
        for path in (*drop_ins, f"{_UNITS}/{_SERVICE}", f"{_UNITS}/{_BOOT_UNIT}"):
            found += steps.removal(path)
        for folder in map(os.path.dirname, drop_ins):
            found += steps.removal_when_empty(folder)
        return found

    def prepare(self, config: Config, /) -> list[Step]:
        """Account, state folder, units and drop-ins. Raises TargetFailed."""
        found = service_account(config.state_dir)
        _refuse_private(self.program)
        content = _drop_in_content(config)
        for unit in (_SERVICE, _BOOT_UNIT):
            found += steps.file(f"{_UNITS}/{unit}", shipped(f"systemd/{unit}", self.program))
            path = _drop_in(unit)
            found += steps.file(path, content) if content else steps.removal(path)
        return found

    def start(self) -> list[Step]:
        """`restart` waits for the first sync (sd_notify)."""
        return [
            steps.command("systemctl", "daemon-reload"),
            steps.command("systemctl", "enable", _SERVICE, _BOOT_UNIT),
            steps.command("systemctl", "restart", _SERVICE),
        ]

    def stop(self) -> list[Step]:
        """Stops and disables the units that exist."""
        units = [unit for unit in (_SERVICE, _BOOT_UNIT) if os.path.exists(f"{_UNITS}/{unit}")]
        return [steps.command("systemctl", "disable", "--now", *units)] if units else []

    def removal(self) -> list[Step]:
        """Removes the files, and reloads systemd."""
        return [*self.leftovers(), steps.command("systemctl", "daemon-reload")]

    def state(self, _config: Config, /) -> ServiceState:
        """`systemctl restart` has waited for the first cycle, so its result is known."""
        show = ("systemctl", "show", _SERVICE, "--property")
        state = output_of(*show, "ActiveState", "--value")
        status = output_of(*show, "StatusText", "--value")
        text = f"{_SERVICE} is {state}: {status}"
        if state == "active" and not status.startswith("failed"):
            return ServiceState(text)
        fix = f"See why: journalctl -u {_SERVICE} -n 20. Then: systemctl restart {_SERVICE}"
        return ServiceState(text, fix)


def _drop_in(unit: str) -> str:
    """The path of what install adds to a unit for this machine's targets."""
    return f"{_UNITS}/{unit}.d/targets.conf"


def _refuse_private(program: str) -> None:
    """Raises TargetFailed unless the service's account can start program and interpreter."""
    for path in (program, sys.executable):
        closed = folder_closed_to_others(os.path.realpath(path))
        if closed is not None:
            raise TargetFailed(
                "program_private",
                f"The service could not start {path}: it runs as the account {SERVICE_ACCOUNT}, "
                f"and the folder {closed} is closed to others.",
                "Install keysync with the system's own python3 into a folder such as /opt/keysync "
                "(docs/install.md), then run keysync install from there.",
            )


# ---- which folders the sandbox of the units must leave writable ----


def _drop_in_content(config: Config) -> bytes:
    """Makes the folders outside the homes writable; b"" if there are none."""
    sshd = Sshd()
    folders = {folder for target in _targets(config) for folder in _folders(target, sshd)}
    if config.state_dir != Config().state_dir:
        folders.add(os.path.realpath(config.state_dir))
    outside = sorted(folder for folder in folders - {"/"} if not _below(folder, _WRITABLE))
    if not outside:
        return b""
    head = "# Written by `keysync install`: folders of the configured targets and of the state.\n"
    paths = "".join(f"ReadWritePaths={_quoted('-' + folder)}\n" for folder in outside)
    return f"{head}[Service]\n{paths}".encode()


def _targets(config: Config) -> tuple[Target, ...]:
    """With `auto`, everybody who may become one: the sandbox is set up only at installation."""
    if config.targets is not None:
        return config.targets
    return tuple(Target(name) for name in ("root", *ordinary_users()))


def _folders(target: Target, sshd: Sshd) -> set[str]:
    """The real folders of the target's files; for a missing folder, its parent."""
    found = set()
    with contextlib.suppress(TargetFailed):  # the first sync reports the problem
        for location in locate(target, sshd):
            folder = os.path.dirname(location.path)
            with contextlib.suppress(TargetFailed, OSError):
                try:
                    found.add(_real(folder, location.owner))
                except FileNotFoundError:
                    found.add(_real(os.path.dirname(folder), location.owner))
    return found


def _real(folder: str, owner: Owner) -> str:
    """The real path of `folder`, opened as a sync does: no user's link can widen the sandbox.

    Raises TargetFailed and OSError like `open_directory`.
    """
    directory = open_directory(folder, owner)
    try:
        return os.readlink(f"/proc/self/fd/{directory}")
    finally:
        os.close(directory)


def _below(path: str, tops: tuple[str, ...]) -> bool:
    return any(path == top or path.startswith(top + "/") for top in tops)


def _quoted(path: str) -> str:
    """A path in a unit file (systemd.syntax(7), systemd.unit(5), SPECIFIERS)."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
