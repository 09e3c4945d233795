"""From the configured targets to the files that sshd reads, each with its owner."""

from __future__ import annotations

import pwd
from dataclasses import dataclass

from agent.adapters.disk import Owner
from agent.config import Target
from agent.errors import TargetFailed


@dataclass(frozen=True, slots=True)
class Place:
    """One file of one user; sshd reads the `main` one first, and only there keys are added."""

    user: str
    path: str
    owner: Owner
    main: bool = True
    problem: str | None = None  # why sshd's default path had to be assumed

    @classmethod
    def missing(cls, target: Target) -> Place:
        """The place of a target whose file could not be found out."""
        return cls(target.user, target.path or "", Owner(-1, -1))


def locate(target: Target, known: tuple[str, ...] = (), search: str | None = None) -> list[Place]:
    """The files of `target`, the main one first. Raises TargetFailed.

    `known` are the files that were found earlier; they hold while sshd's answer is not to be had.
    `search` are the folders in which sshd is looked for, when not the usual ones.
    """
    try:
        user = pwd.getpwnam(target.user)
    except KeyError:
        raise TargetFailed(
            "unknown_user",
            f"There is no user {target.user!r} on this machine.",
            "Correct targets in the configuration, or create the user.",
        ) from None
    owner = Owner(user.pw_uid, user.pw_gid)
    if target.path is not None:
        return [Place(target.user, target.path, owner)]
    from agent.adapters import sshd  # loads subprocess, which a target with a path does without

    found = sshd.key_files(user, search or sshd.SEARCH)
    if not found.paths:
        raise TargetFailed(
            "sshd_reads_no_file",
            f"sshd reads no key file for {target.user!r} (AuthorizedKeysFile none).",
            "Set AuthorizedKeysFile in sshd_config, or give the target a path.",
        )
    paths = known if found.problem and known else found.paths
    return [
        Place(target.user, path, owner, main=at == 0, problem=found.problem)
        for at, path in enumerate(paths)
    ]
