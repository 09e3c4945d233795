"""The account that the service runs as under systemd, and its state folder.

Why systemd does neither by itself: DynamicUser= implies ProtectHome=read-only, and its account does
not exist while root syncs by hand. sysusers.d and StateDirectory= accept what is there already: a
person's account of the same name, and files that others put into the folder (G8). StateDirectory=
also covers the default state_dir only.
"""

from __future__ import annotations

import os
import pwd

from agent.adapters.users import SERVICE_ACCOUNT, find_user, is_ordinary
from agent.errors import TargetFailed
from agent.setup import steps
from agent.setup.installed_state import give_to
from agent.setup.steps import Step

_NO_HOME = "/nonexistent"


def service_account(state_dir: str) -> list[Step]:
    """Creates the account and gives it the state folder.

    Raises TargetFailed when a person's account has its name.
    """
    found = []
    user = find_user(SERVICE_ACCOUNT)
    if user is not None and is_ordinary(user):
        raise TargetFailed(
            "account_taken",
            f"The user {SERVICE_ACCOUNT} is a person's (id {user.pw_uid}), and the service would "
            "run as that user.",
            f"Rename that user (usermod --login NEW {SERVICE_ACCOUNT}), then run keysync install "
            "again.",
        )
    if user is None:
        home = ("--home-dir", _NO_HOME, "--no-create-home")
        words = ("useradd", "--system", "--user-group", *home, "--shell", "/usr/sbin/nologin")
        found.append(steps.command(*words, SERVICE_ACCOUNT))
    if user is None or not _belongs_to(state_dir, user.pw_uid):
        text = f"give {state_dir} to the account {SERVICE_ACCOUNT} alone"
        found.append(Step(text, lambda: give_to(pwd.getpwnam(SERVICE_ACCOUNT), state_dir)))
    return found


def _belongs_to(path: str, uid: int) -> bool:
    try:
        return os.lstat(path).st_uid == uid
    except FileNotFoundError:
        return False


def account_removal() -> list[Step]:
    """Removes the account, if it is one that install created."""
    user = find_user(SERVICE_ACCOUNT)
    if user is None or user.pw_dir != _NO_HOME:
        return []
    return [steps.command("userdel", SERVICE_ACCOUNT)]
