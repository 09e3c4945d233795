"""The user's other key files, if a target has a `path`: they are only read, for R4.

A target with a path needs no sshd, so these are sshd's default files. sshd is asked only if one of
them holds a restricted line: if it does not read that file, the line has no effect. If it cannot be
asked, the line counts.
"""

from __future__ import annotations

import contextlib
import pwd
from collections.abc import Iterable

from agent.adapters.files.atomic import Owner
from agent.adapters.files.file_mode import real_path
from agent.adapters.files.key_file import KeyFile
from agent.adapters.sshd_config import Sshd
from agent.core.authorized_keys import AuthorizedKeys
from agent.core.desired_keys import DesiredKeys
from agent.core.plan import restricted_keys
from agent.errors import TargetFailed
from agent.service.locate import KeyFileLocation


def restricted_beside(
    locations: Iterable[KeyFileLocation], served: Iterable[str], desired: DesiredKeys, sshd: Sshd
) -> frozenset[bytes]:
    """The blobs of the keys that restricted lines in the files beside these of one user hold.

    `served` are the paths of the user's files that are read anyway.
    """
    known = set(map(real_path, served))
    beside = ((path, location) for location in locations for path in location.beside)
    files = {path: location for path, location in beside if real_path(path) not in known}
    found = {
        path: _restricted_in(path, location.owner, desired) for path, location in files.items()
    }
    return frozenset().union(
        *(keys for path, keys in found.items() if keys and _reads(sshd, files[path].user, path))
    )


def _restricted_in(path: str, owner: Owner, desired: DesiredKeys) -> frozenset[bytes]:
    """Empty for a file that cannot be read: it is no target, so the cycle does not fail."""
    with contextlib.suppress(TargetFailed), KeyFile.opened(path, owner, for_writing=False) as file:
        return restricted_keys(AuthorizedKeys.parse(file.read().data), desired)
    return frozenset()


def _reads(sshd: Sshd, user: str, path: str) -> bool:
    with contextlib.suppress(KeyError):
        files = sshd.key_files(pwd.getpwnam(user)).paths
        return real_path(path) in map(real_path, files)
    return False
