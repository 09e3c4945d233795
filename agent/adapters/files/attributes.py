"""The SELinux label and the access list of a file that is replaced go to the new one (G9)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

_SELINUX = "security.selinux"
_ACL = "system.posix_acl_access"
_ACL_HEADER = struct.Struct("<I")  # version 2, and then the entries: acl_ea_entry in
_ACL_ENTRY = struct.Struct("<HHI")  # linux/posix_acl_xattr.h: tag, permissions, user or group id
_ACL_USER_OBJ, _ACL_GROUP_OBJ, _ACL_OTHER = 0x01, 0x04, 0x20
_ACL_WRITE = 2
_NO_ATTRIBUTE = (errno.ENODATA, errno.EOPNOTSUPP)


def copy_attributes(source: int, target: int, mode: int) -> None:
    """Copies both from one open file to another, which has this mode. Raises OSError.

    Other extended attributes are not copied.
    """
    _copy(_SELINUX, source, target, lambda label: label)
    _copy(_ACL, source, target, lambda acl: _safe_acl(acl, mode))


def _copy(name: str, source: int, target: int, adapt: Callable[[bytes], bytes]) -> None:
    try:
        value = adapt(os.getxattr(source, name))
        if value != _attribute(target, name):
            os.setxattr(target, name, value)
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTE:
            raise


def _attribute(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError:
        return None


def _safe_acl(acl: bytes, mode: int) -> bytes:
    """The access list (acl(5)) for a file of this mode: named users and groups keep everything but
    the permission to write, for which sshd would refuse the file (StrictModes in sshd_config(5)).
    """
    limits = {
        _ACL_USER_OBJ: mode >> 6 & 7,
        _ACL_GROUP_OBJ: mode >> 3 & 7 & ~_ACL_WRITE,
        _ACL_OTHER: mode & 7 & ~_ACL_WRITE,
    }
    entries = [
        (tag, limits[tag] if tag == _ACL_USER_OBJ else granted & limits.get(tag, ~_ACL_WRITE), who)
        for tag, granted, who in _ACL_ENTRY.iter_unpack(acl[_ACL_HEADER.size :])
    ]
    return acl[: _ACL_HEADER.size] + b"".join(_ACL_ENTRY.pack(*entry) for entry in entries)
