"""Who owns a key file and which mode it has (G9).

sshd opens the file with the user's rights. With StrictModes (sshd_config(5); safe_path in misc.c)
it accepts a file of the user's or of root's, in directories of the user's or of root's, as long as
group and others may not write to any of them. Therefore:

1. In a directory of the user's the file is the user's, 0600. A file of root's that everybody may
   read becomes the user's too: whoever owns the directory can replace it anyway, and lines that the
   user chose must not stand in a file of root's.
2. In a directory of root's, which `open_directory` accepts only where root alone decides what lies
   there, a file of root's keeps owner, group and mode: sshd may read it for several users. A new
   file is root's, 0644. A file of the user's stays the user's, 0600.
3. Root's own files in root's home are 0600, as in 1.
4. The permission of group and others to write, and set-ID bits, are never kept.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from agent.adapters.files.atomic import Owner

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_KEPT_BITS = 0o755  # rule 4
_ROOT = Owner(0, 0)


class ModeChange(NamedTuple):
    """Permission bits and owner (user id) of an existing file or directory, before and after."""

    path: str
    before: int
    after: int
    owner_before: int
    owner_after: int

    @classmethod
    def between(cls, path: str, before: os.stat_result, after: os.stat_result) -> ModeChange:
        """From its two stat(2) results."""
        modes = stat.S_IMODE(before.st_mode), stat.S_IMODE(after.st_mode)
        return cls(path, *modes, before.st_uid, after.st_uid)

    @property
    def is_change(self) -> bool:
        """Whether anything differs."""
        return (self.before, self.owner_before) != (self.after, self.owner_after)


def is_at_home(path: str, owner: Owner) -> bool:
    """Whether `path` is below the owner's home, by its name or by where its links lead.

    An unknown home ("") counts as yes; the home "/", which many system accounts have, as no.
    """
    if not owner.home:
        return True
    homes = {os.path.normpath(owner.home), real_path(owner.home)} - {"/"}
    return any(
        location.startswith(f"{home}/")
        for home in homes
        for location in (os.path.normpath(path), real_path(path))
    )


def real_path(path: str) -> str:
    """os.path.realpath(); the normalized path when a user replaces a link at this moment."""
    try:
        return os.path.realpath(path)
    except OSError:  # readlink(2) of what was a link in the lstat(2) before
        return os.path.normpath(path)


def is_acceptable(
    folder: os.stat_result, file: os.stat_result, owner: Owner, *, at_home: bool
) -> bool:
    """Whether sshd reads a key file of this owner and mode (StrictModes), and rules 1-3 hold."""
    if _stays_with_root(folder, file, owner, at_home):
        return not file.st_mode & OTHERS_WRITE
    closed = file.st_mode & (OTHERS_WRITE | stat.S_IRUSR) == stat.S_IRUSR
    return file.st_uid == owner.uid and closed


def new_attributes(
    folder: os.stat_result, file: os.stat_result | None, owner: Owner, *, at_home: bool
) -> tuple[Owner, int]:
    """Owner and mode of what replaces the key file in `folder`, or of the first one (None)."""
    if not _stays_with_root(folder, file, owner, at_home):
        return owner, 0o600
    if file is None:
        return _ROOT, 0o644
    return Owner(0, file.st_gid), stat.S_IMODE(file.st_mode) & _KEPT_BITS


def _stays_with_root(
    folder: os.stat_result, file: os.stat_result | None, owner: Owner, at_home: bool
) -> bool:
    """Rule 2: whether the key file in `folder`, new when None, is root's and not the user's."""
    if owner.is_oneself or folder.st_uid != 0 or (owner.uid == 0 and at_home):
        return False
    return file is None or file.st_uid == 0


def directory_attributes(parent: os.stat_result, path: str, owner: Owner) -> tuple[Owner, int]:
    """Owner and mode of a new directory for key files: in root's, outside the home, it is root's.

    /etc/ssh/keys must not belong to the first user for whom a file is made in it.
    """
    if owner.is_oneself or parent.st_uid != 0 or is_at_home(path, owner):
        return owner, 0o700
    return _ROOT, 0o755


def mended_mode(folder: os.stat_result, path: str, owner: Owner, *, at_home: bool) -> int | None:
    """The mode for a directory of the owner's whose mode makes sshd refuse every key in it.

    None when it is good, or not keysync's to change. A user's ~/.ssh becomes the user's alone.
    """
    mode = stat.S_IMODE(folder.st_mode)
    good = mode & ~OTHERS_WRITE | stat.S_IRWXU
    if folder.st_uid != owner.uid or mode == good or mode & stat.S_ISVTX:
        return None
    is_private = os.path.basename(path) == ".ssh" and (at_home or owner.uid != 0)
    return 0o700 if is_private else good
