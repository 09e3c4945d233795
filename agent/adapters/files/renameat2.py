"""renameat2(2): exchanging two names, and taking a name only when it is free.

Python has no call for it. Where the C library, the kernel or the file system does not support it,
the nearest older call is used, and the caller is told.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable

_NOREPLACE = 1
_EXCHANGE = 2
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


def exchange(directory: int, one: str, other: str) -> bool:
    """Exchanges two names in `directory`; False, and nothing done, where that is unsupported.

    Raises OSError.
    """
    try:
        _call(directory, one, other, _EXCHANGE)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def no_replace(directory: int, old: str, new: str) -> None:
    """Renames `old` to `new`. Raises FileExistsError when `new` is taken, OSError."""
    try:
        _call(directory, old, new, _NOREPLACE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        os.unlink(old, dir_fd=directory)


def _call(directory: int, old: str, new: str, flags: int) -> None:
    code = _function()(directory, os.fsencode(old), os.fsencode(new), flags)
    if code != 0:
        raise OSError(code, os.strerror(code), old)


@functools.cache  # between the last check and the exchange every microsecond counts
def _function() -> Callable[[int, bytes, bytes, int], int]:
    """The call for two names in one directory; it returns an errno, or 0."""
    import ctypes  # loaded only when something is written

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return lambda *_: errno.ENOSYS

    def call(directory: int, old: bytes, new: bytes, flags: int) -> int:
        return ctypes.get_errno() if function(directory, old, directory, new, flags) else 0

    return call
