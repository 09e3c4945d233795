"""Where install puts its files: for root machine-wide, for another user in the home."""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass

from agent.adapters.credential import INSTALLED_KEY
from agent.config import DEFAULT_PATH, Config
from agent.providers import provider

HOOK = f"{provider.BOOT_HOOKS}/40-keysync.sh"
LINK = "/usr/local/bin/keysync"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one installation, and whose it is."""

    user: str
    config: str
    api_key: str
    state_dir: str
    backups: str  # the folder in which uninstall saves what must not be lost


def find_layout() -> Layout:
    """For the user that this process runs as; without an account, the home is $HOME."""
    if os.geteuid() == 0:
        return Layout("root", DEFAULT_PATH, INSTALLED_KEY, Config().state_dir, "/var/backups")
    name, home = str(os.geteuid()), os.path.expanduser("~")
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(os.geteuid())
        name, home = user.pw_name, user.pw_dir
    folder, state = f"{home}/.config/keysync", f"{home}/.local/state"
    return Layout(name, f"{folder}/config.yaml", f"{folder}/api_key", f"{state}/keysync", state)
