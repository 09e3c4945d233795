"""Which key files a cycle serves: those of the targets, and those that were a target's (R5)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from agent.adapters.files.key_file import KeyFile
from agent.adapters.sshd_config import Sshd
from agent.config import Config, Target
from agent.core.ledger import Ledger, Retired, TargetOutcome
from agent.core.plan import Role
from agent.errors import TargetFailed
from agent.service.accounts import Origin, Skipped, find_targets, mentions, unserved
from agent.service.locate import KeyFileLocation, locate


@dataclass(frozen=True, slots=True)
class ServedFile:
    """One file to serve and why; `error` says why it could not be located."""

    location: KeyFileLocation
    origin: Origin
    error: TargetFailed | None = None

    @property
    def role(self) -> Role:
        """What may be done to the file."""
        if self.origin is Origin.RETIRED:
            return Role.REVOKE
        return Role.MAIN if self.location.main else Role.OTHER


@dataclass(frozen=True, slots=True)
class ServedFiles:
    """The files to serve, those of the targets first, and why one could not be found out.

    `retired` are all retired targets, also those of which no file is left; `skipped` are the key
    files of accounts that are no targets, which could not be searched.
    """

    found: list[ServedFile]
    retired: tuple[Retired, ...]
    skipped: list[Skipped]

    @property
    def of_targets(self) -> list[ServedFile]:
        """Those that are not retired."""
        return [one for one in self.found if one.origin is not Origin.RETIRED]


def find_served_files(config: Config, ledger: Ledger, sshd: Sshd, now: str) -> ServedFiles:
    """Every file of every target, and of the retired ones."""
    targets, skipped = find_targets(config, ledger, sshd)
    found = [one for target in targets for one in _files_of(target.target, target.origin, sshd)]
    retired = _retired(config, ledger, found, now)
    found += [one for target in retired for one in retired_file(target.user, target.path)]
    return ServedFiles(found, retired, unserved(skipped, {one.location.path for one in found}))


def _files_of(target: Target, origin: Origin, sshd: Sshd) -> list[ServedFile]:
    try:
        return [ServedFile(location, origin) for location in locate(target, sshd)]
    except TargetFailed as error:
        return [ServedFile(KeyFileLocation.missing(target), origin, error)]


# ---- retired targets (R5) ----


def _retired(
    config: Config, ledger: Ledger, targets: Sequence[ServedFile], now: str
) -> tuple[Retired, ...]:
    """What was a target and is none any more, and was not released.

    The file of a user who could not be located is neither served nor retired.
    """
    served = {(one.location.user, one.location.path) for one in targets}
    lost = {one.location.user for one in targets if one.error}
    retired = {(one.user, one.path): one for one in ledger.retired}
    for outcome in ledger.targets:
        location = (outcome.user, outcome.path)
        if not outcome.path or outcome.user in lost or location in served or location in retired:
            continue
        if not _is_done_with(outcome, config, ledger, targets):
            retired[location] = Retired(*location, now)
    return tuple(one for location, one in retired.items() if location not in served)


def _is_done_with(
    outcome: TargetOutcome, config: Config, ledger: Ledger, targets: Sequence[ServedFile]
) -> bool:
    """Whether `auto` need not retire what it had found.

    Another target's turn reaches the file, or it holds nothing of keysync's any more. That sshd
    names it no more is no reason: an sshd that runs may still read it (incident 7).
    """
    if config.targets is not None or outcome.origin != Origin.AUTO.value:
        return False
    if any(one.location.path == outcome.path for one in targets):
        return True
    try:
        found = retired_file(outcome.user, outcome.path)
        return not any(mentions(one.location, ledger) for one in found)
    except TargetFailed:
        return False


def retired_file(user: str, path: str) -> list[ServedFile]:
    """The file of a retired target; none when its user and the file are gone.

    While the file is there it is not done with, although its user is gone: sshd may read it for
    other users, and the user may come back.
    """
    target = Target(user, path)
    try:
        return [ServedFile(location, Origin.RETIRED) for location in locate(target, Sshd())]
    except TargetFailed:
        location = KeyFileLocation.missing(target)
    if not os.path.lexists(path):
        return []
    return [ServedFile(location, Origin.RETIRED, _unreachable(location))]


def _unreachable(location: KeyFileLocation) -> TargetFailed | None:
    """Why the file of a user who is gone cannot be read; a file of root's can."""
    try:
        with KeyFile.opened(location.path, location.owner, for_writing=False) as file:
            file.read()
    except TargetFailed:
        return TargetFailed(
            "unknown_user",
            f"There is no user {location.user!r} on this machine any more, so deleted keys could "
            f"not be removed from {location.path}.",
            f"If the user will not come back: keysync forget {location.path}",
        )
    return None
