"""Writes the files and folders of the installation: atomically, with exactly their mode."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.adapters.files.atomic import Owner, write_atomically
from agent.adapters.files.os_errors import translate_os_errors

_PACKAGE = Path(__file__).resolve().parent.parent
_PLACEHOLDER = b"/opt/keysync/bin/keysync"


def shipped(name: str, program: str) -> bytes:
    """A unit or script that comes with keysync (`systemd/...`, `container/...`).

    The path of keysync in it becomes `program`. Raises OSError.
    """
    path = _PACKAGE / "share" / name
    if not path.exists():  # an editable installation
        path = _PACKAGE.parent / name
    return path.read_bytes().replace(_PLACEHOLDER, os.fsencode(program))


def write_file(path: str, data: bytes, mode: int) -> None:
    """Replaces a file atomically, with exactly this mode; makes a missing folder (0755).

    Raises TargetFailed.
    """
    folder, name = os.path.split(path)
    with translate_os_errors("write", path):
        make_folder(folder, 0o755)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            owner = Owner(os.geteuid(), os.getegid())
            write_atomically(directory, name, data, owner=owner, mode=mode)
        finally:
            os.close(directory)


def make_folder(path: str, mode: int) -> None:
    """Makes a folder and its missing parents, with this mode whatever the umask.

    An existing folder keeps its mode. Raises TargetFailed.
    """
    if os.path.isdir(path):
        return
    make_folder(os.path.dirname(path), mode)
    with translate_os_errors("make the folder", path):
        os.mkdir(path, 0o700)
        os.chmod(path, mode)


def folder_closed_to_others(path: str) -> str | None:
    """The first folder above `path` that other users may not enter, or None.

    `path` is absolute and free of symbolic links. Raises OSError.
    """
    folders = reversed(Path(path).parents)
    return next((str(one) for one in folders if not one.stat().st_mode & stat.S_IXOTH), None)
