"""The users of this machine, and the account that the keysync service runs as."""

from __future__ import annotations

import os
import pwd

SERVICE_ACCOUNT = "keysync"  # User= of the units
_ORDINARY_IDS = range(1000, 60000)  # UID_MIN and UID_MAX of login.defs(5)


def find_user(name: str) -> pwd.struct_passwd | None:
    """The user of that name, or None. The lookup can take milliseconds (nsswitch.conf(5))."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def is_ordinary(user: pwd.struct_passwd) -> bool:
    """Whether the user id is in the range for people, not for system accounts."""
    return user.pw_uid in _ORDINARY_IDS


def ordinary_users() -> list[str]:
    """The names of the ordinary users whose home directory exists, sorted."""
    return sorted(
        user.pw_name for user in pwd.getpwall() if is_ordinary(user) and os.path.isdir(user.pw_dir)
    )
