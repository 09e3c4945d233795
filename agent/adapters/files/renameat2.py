"""renameat2(2): exchanging two names, and taking a name only when it is free.

Python has no call for it. Where the C library, the kernel or the file system has none either, the
nearest older call does, and the caller is told.
"""

from __future__ import annotations

import errno
import os

_NOREPLACE = 1
_EXCHANGE = 2
_NOT_TO_BE_HAD = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


def exchange(directory: int, one: str, other: str) -> bool:
    """Swaps two names in `directory`; False, and nothing done, where that is not to be had."""
    try:
        _call(directory, one, other, _EXCHANGE)
    except OSError as error:
        if error.errno in _NOT_TO_BE_HAD:
            return False
        raise
    return True


def no_replace(directory: int, old: str, new: str) -> None:
    """Renames `old` to `new`; raises FileExistsError when `new` is taken."""
    try:
        _call(directory, old, new, _NOREPLACE)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_HAD:
            raise
        os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        os.unlink(old, dir_fd=directory)


def _call(directory: int, old: str, new: str, flags: int) -> None:
    import ctypes  # loaded only when something is written

    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if function(directory, os.fsencode(old), directory, os.fsencode(new), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), old)
