"""Where install puts things: for the machine as root, for one user as that user."""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass

from agent.adapters.credential import INSTALLED_KEY
from agent.adapters.host import BOOT_HOOKS, SUPERVISOR_PROGRAMS
from agent.adapters.state import OWN_NAMES
from agent.adapters.users import SERVICE_ACCOUNT
from agent.config import DEFAULT_PATH, Config

ACCOUNT = SERVICE_ACCOUNT
PROGRAM = "keysync"  # its name under supervisor
UNITS = "/etc/systemd/system"
SERVICE, BOOT_UNIT = "keysync.service", "keysync-boot.service"
SUPERVISOR_PROGRAM = f"{SUPERVISOR_PROGRAMS}/keysync.conf"
HOOK = f"{BOOT_HOOKS}/40-keysync.sh"
LINK = "/usr/local/bin/keysync"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one installation, and whose it is."""

    user: str
    config: str
    api_key: str
    state_dir: str
    backups: str  # the folder in which uninstall leaves what must not be lost


def find_layout() -> Layout:
    """For the user that this process runs as; one without an account has the home of $HOME."""
    if os.geteuid() == 0:
        return Layout("root", DEFAULT_PATH, INSTALLED_KEY, Config().state_dir, "/var/backups")
    name, home = str(os.geteuid()), os.path.expanduser("~")
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(os.geteuid())
        name, home = user.pw_name, user.pw_dir
    folder, state = f"{home}/.config/keysync", f"{home}/.local/state"
    return Layout(name, f"{folder}/config.yaml", f"{folder}/api_key", f"{state}/keysync", state)


def service_is_set_up() -> bool:
    """Whether a service manager is meant to keep an agent running on this machine."""
    return any(os.path.exists(path) for path in (f"{UNITS}/{SERVICE}", SUPERVISOR_PROGRAM))


def drop_in(unit: str) -> str:
    """What install adds to a unit for this machine's targets."""
    return f"{UNITS}/{unit}.d/targets.conf"


def split_state(folder: str | int) -> tuple[list[str], list[str]]:
    """The names in the state folder (a path or a descriptor): keysync's own files, and the rest.

    Raises OSError.
    """
    own: list[str] = []
    others: list[str] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        is_own = OWN_NAMES.fullmatch(entry.name) and not entry.is_dir(follow_symlinks=False)
        (own if is_own else others).append(entry.name)
    return own, others
