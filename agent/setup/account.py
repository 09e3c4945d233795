"""The account that the service runs as under systemd; it can log in nowhere."""

from __future__ import annotations

import os

from agent.adapters.users import SERVICE_ACCOUNT, find_user, is_ordinary
from agent.errors import TargetFailed
from agent.setup import steps
from agent.setup.state_folder import give_to
from agent.setup.steps import Step

_NO_HOME = "/nonexistent"


def account(state_dir: str) -> list[Step]:
    """The account, and its state folder. Raises TargetFailed where a person has its name."""
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
    if not _has(state_dir):
        text = f"make {state_dir} for the account {SERVICE_ACCOUNT} alone"
        found.append(Step(text, lambda: _give(state_dir)))
    return found


def _has(path: str) -> bool:
    user = find_user(SERVICE_ACCOUNT)
    try:
        return user is not None and os.lstat(path).st_uid == user.pw_uid
    except FileNotFoundError:
        return False


def _give(path: str) -> None:
    user = find_user(SERVICE_ACCOUNT)
    if user is None:
        raise TargetFailed(
            "unknown_user",
            f"There is no account {SERVICE_ACCOUNT}, so {path} cannot be given to it.",
            "Run keysync install again.",
        )
    give_to(user, path)


def account_removal() -> list[Step]:
    """The account, if it is the one that install makes."""
    user = find_user(SERVICE_ACCOUNT)
    if user is None or user.pw_dir != _NO_HOME:
        return []
    return [steps.command("userdel", SERVICE_ACCOUNT)]
