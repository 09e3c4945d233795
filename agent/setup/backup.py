"""Saves what uninstall is about to remove or replace."""

from __future__ import annotations

import itertools
import os
import shutil

from agent.adapters.files.os_errors import translate_os_errors
from agent.setup.files import make_folder, write_file
from agent.setup.installed_state import copy_state


class Backup:
    """A folder that only its owner can read, created with the first thing in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._kept = 0

    @classmethod
    def named(cls, path: str) -> Backup:
        """At `path`, or with a number appended if an earlier, failed run left that one."""
        numbered = (f"{path}-{number}" for number in itertools.count(2))
        candidates = itertools.chain([path], numbered)
        return cls(next(name for name in candidates if not os.path.lexists(name)))

    def keep(self, path: str, data: bytes) -> None:
        """Saves the bytes of a key file that is about to be replaced."""
        self._kept += 1
        name = f"replaced-{self._kept}-{path.strip('/').replace('/', '-')}"
        make_folder(self.path, 0o700)
        write_file(f"{self.path}/{name}", data, 0o600)

    def copy(self, path: str) -> None:
        """Saves a file, or the state folder with keysync's files in it."""
        make_folder(self.path, 0o700)
        target = f"{self.path}/{os.path.basename(path)}"
        with translate_os_errors("save", path):
            if os.path.isdir(path):
                copy_state(path, target)
            else:
                shutil.copy2(path, target)
