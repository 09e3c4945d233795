"""Steps: the actions of install and uninstall, as values that can be shown before they run.

What is already done is no step, so a repeated run shows only what changes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from agent.adapters.command import run
from agent.adapters.files.os_errors import translate_os_errors
from agent.setup.files import make_folder, write_file


@dataclass(frozen=True, slots=True)
class Step:
    """An action and its description; `do` raises TargetFailed."""

    text: str
    do: Callable[[], object]


def command(*words: str) -> Step:
    """Runs a command that must succeed."""
    return Step(f"run {' '.join(words)}", lambda: run(*words))


def file(path: str, data: bytes, mode: int = 0o644) -> list[Step]:
    """Writes a file, unless it already has these bytes and this mode."""
    if _is(path, data, mode):
        return []
    return [Step(f"write {path}", lambda: write_file(path, data, mode))]


def _is(path: str, data: bytes, mode: int) -> bool:
    try:
        with open(path, "rb") as found:
            right_mode = stat.S_IMODE(os.fstat(found.fileno()).st_mode) == mode
            return right_mode and found.read(len(data) + 1) == data
    except OSError:
        return False


def folder(path: str) -> list[Step]:
    """Makes a missing folder, with mode 0700."""
    if os.path.isdir(path):
        return []
    return [Step(f"make the folder {path}", lambda: make_folder(path, 0o700))]


def link(path: str, target: str) -> list[Step]:
    """Makes a symbolic link, unless something with its name exists."""
    if path == target or os.path.lexists(path):
        return []

    def do() -> None:
        with translate_os_errors("make the link", path):
            make_folder(os.path.dirname(path), 0o755)
            os.symlink(target, path)

    return [Step(f"link {path} to {target}", do)]


def removal(path: str) -> list[Step]:
    """Removes a file or an empty folder, if there is one."""

    def do() -> None:
        with translate_os_errors("remove", path):
            if os.path.isdir(path) and not os.path.islink(path):
                os.rmdir(path)
            else:
                os.unlink(path)

    return [Step(f"remove {path}", do)] if os.path.lexists(path) else []


def removal_when_empty(path: str) -> list[Step]:
    """Removes a folder, unless something is in it."""

    def do() -> None:
        with contextlib.suppress(OSError):  # it holds something that is not keysync's
            os.rmdir(path)

    return [Step(f"remove {path} if nothing else is in it", do)] if os.path.isdir(path) else []
