"""The state folder in install and uninstall: given to the service, saved, removed."""

from __future__ import annotations

import os
import pwd
import shutil
import stat

from agent.adapters.files.atomic import Owner
from agent.adapters.files.os_errors import translate_os_errors
from agent.adapters.files.safe_path import open_directory, require_root_controlled_path
from agent.adapters.state_files import LOCK, is_own
from agent.core.text import printable
from agent.errors import TargetFailed
from agent.setup import steps
from agent.setup.files import make_folder
from agent.setup.steps import Step


def give_to(user: pwd.struct_passwd, path: str) -> None:
    """Makes the folder if it is missing, and gives it and keysync's files in it to `user`.

    Raises TargetFailed for a folder that also holds other things, and when anybody but root could
    have chosen where the path leads or what is in the folder (G8).
    """
    with translate_os_errors("give away", path):
        require_root_controlled_path(path)
        make_folder(path, 0o700)
        directory = open_directory(path, Owner(0, 0))
        try:
            _set_owner(directory, path, user)
        finally:
            os.close(directory)


def _set_owner(directory: int, path: str, user: pwd.struct_passwd) -> None:
    _refuse_others(_split(directory)[1], path, user)
    os.fchmod(directory, 0o700)  # from here on only root can add files
    own, others = _split(directory)
    others = others or [name for name in own if not _may_be_given(directory, name, user)]
    _refuse_others(others, path, user)
    for name in own:
        os.chown(name, user.pw_uid, user.pw_gid, dir_fd=directory, follow_symlinks=False)
    os.fchown(directory, user.pw_uid, user.pw_gid)


def _may_be_given(directory: int, name: str, user: pwd.struct_passwd) -> bool:
    """Whether it is a regular file of root's without other hard links.

    It may already belong to the account, if an earlier hand-over was interrupted.
    """
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    is_only_name = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    return is_only_name and found.st_uid in (0, user.pw_uid)


def _refuse_others(names: list[str], path: str, user: pwd.struct_passwd) -> None:
    if names:
        raise TargetFailed(
            "state_dir_shared",
            f"The state folder {path} cannot be given to the account {user.pw_name}: it holds "
            f"files that are not keysync's ({printable(names[0])}).",
            "Set state_dir to a folder that only keysync uses, or move the other files out of it.",
        )


def copy_state(path: str, target: str) -> None:
    """Saves keysync's files in the folder; raises OSError and TargetFailed."""
    make_folder(target, 0o700)
    for name in _split(path)[0]:
        if name != LOCK:
            shutil.copy2(f"{path}/{name}", f"{target}/{name}", follow_symlinks=False)


def state_removal(path: str) -> list[Step]:
    """Removes keysync's files, and the folder if nothing else is in it."""
    if not os.path.isdir(path):
        return []
    with translate_os_errors("read", path):
        own, others = _split(path)

    def do() -> None:
        with translate_os_errors("remove", path):
            for name in _split(path)[0]:
                os.unlink(f"{path}/{name}")

    found = [Step(f"remove keysync's files in {path}", do)] if own else []
    return found if others else found + steps.removal_when_empty(path)


def _split(folder: str | int) -> tuple[list[str], list[str]]:
    """The names in the folder (a path or a descriptor): keysync's own files, and the rest.

    Raises OSError.
    """
    own: list[str] = []
    others: list[str] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        is_ours = is_own(entry.name) and not entry.is_dir(follow_symlinks=False)
        (own if is_ours else others).append(entry.name)
    return own, others
