"""The service under systemd: account, state folder, units and their drop-ins, as steps."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from agent.adapters import host
from agent.adapters.directory import open_directory, refuse_way_of_others
from agent.adapters.disk import Owner, naming
from agent.adapters.sshd import Sshd
from agent.adapters.users import find_user, is_ordinary, ordinary_users
from agent.config import Config, Target
from agent.core.authorized_keys import printable
from agent.errors import TargetFailed
from agent.service import steps
from agent.service.layout import ACCOUNT, BOOT_UNIT, SERVICE, UNITS, drop_in, split_state
from agent.service.steps import Step
from agent.service.targets import locate

_WRITABLE = ("/root", "/home", "/home_ssh")  # what the sandbox of the shipped units leaves writable


def account(state_dir: str) -> list[Step]:
    """The account of the service, which can log in nowhere, and its state folder."""
    found = []
    user = find_user(ACCOUNT)
    if user is not None and is_ordinary(user):
        raise TargetFailed(
            "account_taken",
            f"The user {ACCOUNT} is a person's (id {user.pw_uid}), and the service would run as "
            "that user.",
            f"Rename that user (usermod --login NEW {ACCOUNT}), then run keysync install again.",
        )
    if user is None:
        home = ("--home-dir", "/nonexistent", "--no-create-home")
        shell = ("--shell", "/usr/sbin/nologin")
        found.append(steps.command("useradd", "--system", "--user-group", *home, *shell, ACCOUNT))
    if not _belongs_to_account(state_dir):
        text = f"make {state_dir} for the account {ACCOUNT} alone"
        found.append(Step(text, lambda: _hand_over(state_dir)))
    return found


def _belongs_to_account(path: str) -> bool:
    user = find_user(ACCOUNT)
    try:
        return user is not None and os.lstat(path).st_uid == user.pw_uid
    except FileNotFoundError:
        return False


def _hand_over(path: str) -> None:
    """The folder with keysync's files in it; one that also holds other things is refused.

    Nobody but root may choose where the path leads, nor what lies there (G8).
    """
    user = find_user(ACCOUNT)
    if user is None:
        raise TargetFailed(
            "unknown_user",
            f"There is no account {ACCOUNT}, so {path} cannot be given to it.",
            "Run keysync install again.",
        )
    with naming("give away", path):
        refuse_way_of_others(path)
        host.make_folder(path, 0o700)
        directory = open_directory(path, Owner(0, 0))
        try:
            _give_away(directory, path, Owner(user.pw_uid, user.pw_gid))
        finally:
            os.close(directory)


def _give_away(directory: int, path: str, owner: Owner) -> None:
    _refuse_others(split_state(directory)[1], path)
    os.fchmod(directory, 0o700)  # from here on nobody puts anything into it
    own, others = split_state(directory)
    _refuse_others(others or [name for name in own if not _is_own(directory, name, owner)], path)
    for name in own:
        os.chown(name, owner.uid, owner.gid, dir_fd=directory, follow_symlinks=False)
    os.fchown(directory, owner.uid, owner.gid)


def _is_own(directory: int, name: str, owner: Owner) -> bool:
    """A file of root's with this name alone: no other file is given away under it.

    It may be the account's already, when an earlier hand-over was interrupted.
    """
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    is_only_name = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    return is_only_name and found.st_uid in (0, owner.uid)


def _refuse_others(names: list[str], path: str) -> None:
    if names:
        raise TargetFailed(
            "state_dir_shared",
            f"The state folder {path} cannot be given to the account {ACCOUNT}: it holds what "
            f"is not keysync's ({printable(names[0])}).",
            "Set state_dir to a folder of keysync's own, or take the rest out of this one.",
        )


def units(program: str, config: Config) -> list[Step]:
    """Both units for this program, with what this machine's targets need. Raises TargetFailed."""
    _refuse_private(program)
    found = []
    more = _drop_in(config)
    for unit in (SERVICE, BOOT_UNIT):
        found += steps.file(f"{UNITS}/{unit}", host.shipped(f"systemd/{unit}", program))
        found += steps.file(drop_in(unit), more) if more else steps.removal(drop_in(unit))
    return found


def _refuse_private(program: str) -> None:
    """The service's account must reach the program and its interpreter to start it."""
    for path in (program, sys.executable):
        closed = host.closed_folder(os.path.realpath(path))
        if closed is not None:
            raise TargetFailed(
                "program_private",
                f"The service could not start {path}: the folder {closed} is closed to others, and "
                f"the service runs as the account {ACCOUNT}.",
                "Install keysync with the system's own python3 into a folder such as /opt/keysync "
                "(docs/install.md), then run keysync install from there.",
            )


def _drop_in(config: Config) -> bytes:
    """What the sandbox must let through beside the homes; empty when nothing."""
    folders = {folder for target in _targets(config) for folder in _folders(target)}
    if config.state_dir != Config().state_dir:
        folders.add(os.path.realpath(config.state_dir))
    outside = sorted(folder for folder in folders - {"/"} if not _below(folder, _WRITABLE))
    if not outside:
        return b""
    head = "# Written by `keysync install`: folders of the configured targets and of the state.\n"
    paths = "".join(f"ReadWritePaths={_quoted('-' + folder)}\n" for folder in outside)
    return f"{head}[Service]\n{paths}".encode()


def _targets(config: Config) -> tuple[Target, ...]:
    """With `auto`, everybody who may become one: the sandbox is drawn once, at installation."""
    if config.targets is not None:
        return config.targets
    return tuple(Target(name) for name in ("root", *ordinary_users()))


def _folders(target: Target) -> set[str]:
    """Where the files of `target` really are; for a folder yet to be made, the one above it."""
    found = set()
    with contextlib.suppress(TargetFailed):  # the first sync says what is wrong with it
        for place in locate(target, Sshd()):
            folder = os.path.dirname(place.path)
            with contextlib.suppress(TargetFailed, OSError):
                try:
                    found.add(_real(folder, place.owner))
                except FileNotFoundError:
                    found.add(_real(os.path.dirname(folder), place.owner))
    return found


def _real(folder: str, owner: Owner) -> str:
    """Where `folder` is, by the way that a sync would take: no user's own link opens the sandbox.

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
