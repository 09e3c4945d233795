"""Finds the key files that sshd reads for a target, each with its owner."""

from __future__ import annotations

import pwd
from dataclasses import dataclass

from agent.adapters.files.atomic import Owner
from agent.adapters.sshd_config import Sshd, default_files
from agent.config import Config, Target
from agent.core.public_key import Accepts, is_known_type
from agent.errors import TargetFailed


@dataclass(frozen=True, slots=True)
class KeyFileLocation:
    """One key file of one user. sshd reads the `main` one first; keys are added only there."""

    user: str
    path: str
    owner: Owner
    main: bool = True
    problem: str | None = None  # why it is not certain that sshd reads this file
    disagreement: str | None = None  # a note that sshd reads other files for other connections
    common: bool = False  # whether sshd reads it for every user
    beside: tuple[str, ...] = ()  # files that sshd may read as well, if the target has a path

    @classmethod
    def missing(cls, target: Target) -> KeyFileLocation:
        """For a target whose file could not be located."""
        return cls(target.user, target.path or "", Owner(-1, -1))


def locate(target: Target, sshd: Sshd) -> list[KeyFileLocation]:
    """The files of `target`, the main one first. Raises TargetFailed.

    They are looked up in every cycle, because users and sshd_config may change.
    """
    try:
        user = pwd.getpwnam(target.user)
    except KeyError:
        raise TargetFailed(
            "unknown_user",
            f"There is no user {target.user!r} on this machine.",
            "Correct targets in the configuration, or create the user.",
        ) from None
    owner = Owner(user.pw_uid, user.pw_gid, user.pw_dir or "/")
    if target.path is not None:
        return [KeyFileLocation(target.user, target.path, owner, beside=default_files(user))]
    found = sshd.key_files(user)
    if not found.paths:
        raise TargetFailed(
            "sshd_reads_no_file",
            f"sshd reads no key file for {target.user!r} (AuthorizedKeysFile none).",
            "Set AuthorizedKeysFile in sshd_config, or give the target a path.",
        )
    about = found.problem, found.disagreement
    return [
        KeyFileLocation(target.user, path, owner, at == 0, *about, common=path in found.common)
        for at, path in enumerate(found.paths)
    ]


def accepted_types(config: Config, sshd: Sshd) -> Accepts:
    """A function that tells whether sshd accepts a key type; None when sshd cannot be asked.

    If all targets have a path, sshd is asked only about types that keysync does not know.
    """
    targets = config.targets
    if targets is None or not all(target.path for target in targets):
        return sshd.accepts
    return lambda name: None if is_known_type(name) else sshd.accepts(name)
