"""OSErrors as sentences: what failed, on what, why, and what to do next (G7)."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from agent.errors import TargetFailed

_REASONS: dict[int, tuple[str, str, str]] = {
    errno.ENOSPC: ("disk_full", "the disk is full", "Free some space (df -h); nothing was lost."),
    errno.EDQUOT: (
        "quota_exceeded",
        "the disk quota is used up",
        "Free some space (quota); nothing was lost.",
    ),
    errno.EROFS: (
        "read_only",
        "the file system is read-only",
        "Remount it writable, or under systemd add the directory to ReadWritePaths=.",
    ),
    errno.EIO: (
        "io_error",
        "the disk reported an I/O error",
        "Look at dmesg; writes are atomic, so the file itself is intact.",
    ),
    errno.EFBIG: (
        "too_large",
        "it is larger than it may be",
        "Look at what fills it, and at the limit of file sizes (ulimit -f).",
    ),
    errno.EACCES: (
        "permission_denied",
        "permission was denied",
        "Run keysync as root, or as the user who owns the file.",
    ),
    errno.EPERM: (
        "not_permitted",
        "the operation is not permitted",
        "Look for the immutable attribute (lsattr; chattr -i) and for missing capabilities.",
    ),
    errno.EINTR: (
        "interrupted",
        "a signal interrupted it",
        "Writes are atomic, so the file is intact; the next sync tries again.",
    ),
    errno.ENOENT: ("missing", "it does not exist", "Create it, or correct the path."),
    errno.ENOTDIR: ("not_a_directory", "a part of the path is no directory", "Correct the path."),
    errno.ELOOP: ("symlink", "it is a symbolic link", "Put a real file in its place."),
}

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_ROOM_KINDS = frozenset(_REASONS[number][0] for number in NO_ROOM)


def failed(error: OSError, action: str, path: str) -> TargetFailed:
    """The OSError as a sentence: `action` ("write") on `path` failed, why, and what to do."""
    kind, why, hint = _REASONS.get(
        error.errno or 0,
        ("os_error", error.strerror or str(error), "Look at the path."),
    )
    return TargetFailed(kind, f"Could not {action} {path}: {why}.", hint)


@contextlib.contextmanager
def translate_os_errors(action: str, path: str) -> Iterator[None]:
    """Raises TargetFailed, with this action and path, for any OSError in the block."""
    try:
        yield
    except OSError as error:
        raise failed(error, action, path) from error
