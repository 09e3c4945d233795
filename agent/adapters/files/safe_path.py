"""Opening a directory or a file so that no unprivileged user chooses where the path leads (G8).

The path is walked component by component with descriptors. A symlink is followed only when root,
or the user that keysync runs as, owns it: the platform makes /root/.ssh such a link. A directory
that belongs to neither the target user nor a path under root's sole control is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shlex
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.adapters.files.atomic import Owner, set_owner_and_mode
from agent.adapters.files.file_mode import OTHERS_WRITE, directory_attributes
from agent.adapters.files.own_file import Rules, open_checked
from agent.errors import TargetFailed

_PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40  # as the kernel's own limit (path_resolution(7))
_ANY_REGULAR_FILE = Rules(uids=None, one_name=False)
_EXISTS_ALREADY = (errno.ENOTEMPTY, errno.EEXIST)


def _nobody(_uid: int) -> bool:
    return False


@dataclass(slots=True)
class _Walk:
    """How far a path was followed: an open descriptor, and whether root alone chose the path."""

    fd: int
    by_root_alone: bool = True
    trusted: Callable[[int], bool] = _nobody  # further user ids that may choose the path
    links: int = 0
    untrusted_owner: int | None = None  # of a directory on the path

    def trusts(self, uid: int) -> bool:
        """Whether this user may choose the path: root, keysync's user, or one that is `trusted`."""
        return uid in (0, os.geteuid()) or self.trusted(uid)

    def check_directory(self) -> None:
        """Notes who can replace an entry of this directory."""
        here = os.fstat(self.fd)
        sticky = here.st_mode & stat.S_ISVTX
        if not self.trusts(here.st_uid):
            self.by_root_alone = False
            self.untrusted_owner = here.st_uid
        elif here.st_mode & OTHERS_WRITE and not sticky:
            self.by_root_alone = False

    def step_into(self, child: int) -> None:
        self.check_directory()
        os.close(self.fd)
        self.fd = child


def open_directory(path: str, owner: Owner) -> int:
    """A descriptor of the directory `path`, for the key file of `owner`; the caller closes it.

    Raises TargetFailed for a link that others control and for a directory that is not the
    owner's, FileNotFoundError when a component is missing, other OSErrors.
    """
    with _followed(path, path) as walk:
        directory = os.open(".", _DIRECTORY_FLAGS, dir_fd=walk.fd)
    try:
        _check_owner(os.fstat(directory), walk.by_root_alone, path, owner)
    except TargetFailed:
        os.close(directory)
        raise
    return directory


def require_root_controlled_path(path: str) -> None:
    """Raises TargetFailed unless root alone decides where `path` leads, as far as it exists."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.close(open_directory(path, Owner(0, 0)))
            return
        path = os.path.dirname(path)


def open_file(path: str, trusted: Callable[[int], bool] = _nobody) -> int:
    """A descriptor for reading the regular file `path`, which root, keysync's own user or a user id
    that is `trusted` put there.

    Raises TargetFailed for a link or a directory of anybody else's on the path, OSError for what is
    missing or no regular file.
    """
    current = os.path.join(os.getcwd(), path)
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(current)
        with _followed(folder, path, trusted) as walk:
            status = os.stat(name, dir_fd=walk.fd, follow_symlinks=False)
            walk.check_directory()
            _refuse_untrusted_owner(walk, path)
            if stat.S_ISLNK(status.st_mode):
                _check_link(walk, status, name, path)
                current = os.path.join(folder, os.readlink(name, dir_fd=walk.fd))
            elif (fd := open_checked(walk.fd, name, _ANY_REGULAR_FILE)) is not None:
                return fd  # otherwise it has just been removed, which the next look reports
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _refuse_untrusted_owner(walk: _Walk, path: str) -> None:
    if walk.untrusted_owner is not None:
        raise TargetFailed(
            "wrong_owner",
            f"A folder on the way to {path} belongs to user id {walk.untrusted_owner}, who can put "
            "any file in its place.",
            "Move the file to a folder of root's or of the user that keysync runs as.",
        )


@contextlib.contextmanager
def _followed(current: str, path: str, trusted: Callable[[int], bool] = _nobody) -> Iterator[_Walk]:
    """Follows the path `current` and yields its end; messages name `path`."""
    walk = _Walk(os.open("/", _PATH_FLAGS | os.O_DIRECTORY), trusted=trusted)
    try:
        pending = current.split("/")[::-1]
        while pending:
            name = pending.pop()
            if name not in ("", "."):
                _step(walk, name, pending, path)
        yield walk
    finally:
        os.close(walk.fd)


def _step(walk: _Walk, name: str, pending: list[str], path: str) -> None:
    child = os.open(name, _PATH_FLAGS, dir_fd=walk.fd)
    status = os.fstat(child)
    if not stat.S_ISLNK(status.st_mode):
        walk.step_into(child)
        return
    try:
        _check_link(walk, status, name, path)
        target = os.readlink("", dir_fd=child)
    finally:
        os.close(child)
    pending.extend(target.split("/")[::-1])
    if target.startswith("/"):
        walk.step_into(os.open("/", _PATH_FLAGS | os.O_DIRECTORY))


def _check_link(walk: _Walk, link: os.stat_result, name: str, path: str) -> None:
    walk.links += 1
    if walk.links > _MAX_LINKS:
        raise TargetFailed(
            "symlink", f"Too many symbolic links on the way to {path}.", "Correct the links."
        )
    if not walk.trusts(link.st_uid):
        raise TargetFailed(
            "symlink",
            f"{name!r} on the way to {path} is a symbolic link that user id {link.st_uid} made, "
            "so it is not followed.",
            "Remove it, or if you trust where it leads: "
            f"chown -h {os.geteuid()} {_quoted(walk, name)}",
        )
    # Unlike a directory, a link can be moved by whoever may write where it lies: a link of root's
    # from elsewhere may have come here, also where the sticky bit protects what root made here.
    if os.fstat(walk.fd).st_mode & OTHERS_WRITE:
        walk.by_root_alone = False


def _quoted(walk: _Walk, name: str) -> str:
    """The path of an entry of the directory that the walk has reached, for a shell."""
    return shlex.quote(os.path.join(os.readlink(f"/proc/self/fd/{walk.fd}"), name))


def _check_owner(status: os.stat_result, by_root_alone: bool, path: str, owner: Owner) -> None:
    if owner.is_oneself or status.st_uid == owner.uid != 0:
        return
    if status.st_uid == 0 and by_root_alone:
        return
    raise TargetFailed(
        "wrong_owner",
        f"The directory {path} belongs to user id {status.st_uid} and others can put directories "
        f"in its place; keysync writes for user id {owner.uid} only where that is safe.",
        f"chown {owner.uid}:{owner.gid} {path}, and take write permission on its parents from "
        "group and others (chmod go-w).",
    )


def make_directory(path: str, owner: Owner) -> int:
    """Makes the last component of `path`, with the owner and mode of G9, and opens it.

    It is made under an unguessable name and renamed when its owner is right, so that a crash
    leaves no directory that sshd would refuse. Raises TargetFailed, OSError.
    """
    parent_path, _, name = path.rstrip("/").rpartition("/")
    try:
        parent = open_directory(parent_path or "/", owner)
    except FileNotFoundError:
        raise TargetFailed(
            "missing",
            f"The directory {parent_path} does not exist, so {path} cannot be made in it.",
            "Create the user's home directory, or correct the target's path.",
        ) from None
    try:
        prefix = f".{name}.keysync-"
        _remove_empty(parent, prefix)
        temp = prefix + secrets.token_hex(8)
        os.mkdir(temp, 0o700, dir_fd=parent)
        try:
            _hand_over(parent, temp, *directory_attributes(os.fstat(parent), path, owner))
            os.rename(temp, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException as error:
            _remove_empty(parent, temp)
            if not (isinstance(error, OSError) and error.errno in _EXISTS_ALREADY):
                raise
        os.fsync(parent)
    finally:
        os.close(parent)
    return open_directory(path, owner)


def _hand_over(parent: int, name: str, owner: Owner, mode: int) -> None:
    """Sets owner and mode by descriptor. Raises OSError if somebody put something in its place."""
    made = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
    try:
        if os.fstat(made).st_uid != os.geteuid() or os.listdir(made):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        set_owner_and_mode(made, owner, mode)
    finally:
        os.close(made)


def _remove_empty(parent: int, prefix: str) -> None:
    for name in os.listdir(parent):
        if name.startswith(prefix):
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=parent)
