"""Room on the disk kept for revocations: a file that is removed when the disk is full (G11).

Functions take a descriptor of the state folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from agent.adapters.files.atomic import write_atomically
from agent.adapters.files.os_errors import NO_ROOM
from agent.adapters.state_files import RESERVE

RESERVE_BYTES = 128 << 10


class Reserve:
    """The reserve of one process, which makes none in a cycle that released it."""

    def __init__(self) -> None:
        self._released = False  # since `keep` was last called

    def keep(self, directory: int) -> None:
        """Makes the reserve if it is missing, at the end of a cycle. Raises OSError.

        Twice its size must be free, because on a disk that is still full it would take the last
        room. A quota does not show, so the cycle that released the reserve makes no new one.
        """
        released, self._released = self._released, False
        if released or exists(directory) or free_bytes(directory) < 2 * RESERVE_BYTES:
            return
        write_atomically(directory, RESERVE, bytes(RESERVE_BYTES), sync=False)

    def release(self, directory: int) -> bool:
        """Removes the reserve; returns whether there was one. Raises OSError."""
        try:
            os.unlink(RESERVE, dir_fd=directory)
        except FileNotFoundError:
            return False
        self._released = True
        return True

    def write(self, directory: int, write: Callable[[], None]) -> None:
        """Calls `write`, and once more with the room of the reserve if the disk is full.

        Raises the OSError of `write`.
        """
        try:
            write()
        except OSError as error:
            if error.errno not in NO_ROOM or not self.release(directory):
                raise
            write()


def exists(directory: int) -> bool:
    """Whether there is a reserve."""
    return RESERVE in os.listdir(directory)


def free_bytes(directory: int) -> int:
    """The room for the folder's owner: root may use more than others. A quota does not show."""
    disk = os.fstatvfs(directory)
    blocks = disk.f_bavail if os.fstat(directory).st_uid else disk.f_bfree
    return blocks * disk.f_frsize
