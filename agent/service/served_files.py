"""Which key files a cycle serves: those of the targets and of retired targets (R5)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from agent.adapters.files.key_file import KeyFile
from agent.adapters.sshd_config import Sshd
from agent.config import Config, Target
from agent.core.ledger import Ledger, Retired, TargetOutcome
from agent.core.plan import Role
from agent.core.results import Origin
from agent.errors import TargetFailed
from agent.service.locate import KeyFileLocation, locate
from agent.service.target_users import Skipped, find_targets, mentions, unserved


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
    """The files to serve, those of the targets first.

    `retired` are all retired targets, including those whose file is gone; `skipped` are the key
    files of users who are no targets that could not be searched.
    """

    found: list[ServedFile]
    retired: tuple[Retired, ...]
    skipped: list[Skipped]

    @property
    def of_targets(self) -> list[ServedFile]:
        """The files of targets, without the retired ones."""
        return [one for one in self.found if one.origin is not Origin.RETIRED]


def find_served_files(config: Config, ledger: Ledger, sshd: Sshd, now: str) -> ServedFiles:
    """Every file of every target and of every retired target. Raises TargetFailed."""
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
    """The former targets that were not released.

    While a user cannot be found, the user's files are neither served nor retired.
    """
    served = {(one.location.user, one.location.path) for one in targets}
    lost = {one.location.user for one in targets if one.error}
    retired = {(one.user, one.path): one for one in ledger.retired}
    for outcome in ledger.targets:
        location = (outcome.user, outcome.path)
        if not outcome.path or outcome.user in lost or location in served or location in retired:
            continue
        if not _needs_no_retirement(outcome, config, ledger, targets):
            retired[location] = Retired(*location, now)
    return tuple(one for location, one in retired.items() if location not in served)


def _needs_no_retirement(
    outcome: TargetOutcome, config: Config, ledger: Ledger, targets: Sequence[ServedFile]
) -> bool:
    """Whether a file that `auto` had found need not be retired.

    That is so if another target serves the file, or if it holds no key of keysync any more. It is
    not enough that sshd no longer names it: a running sshd may still read it (incident 7).
    """
    if config.targets is not None or outcome.origin != Origin.AUTO:
        return False
    if any(one.location.path == outcome.path for one in targets):
        return True
    try:
        found = retired_file(outcome.user, outcome.path)
        return not any(mentions(one.location, ledger) for one in found)
    except TargetFailed:
        return False


def retired_file(user: str, path: str) -> list[ServedFile]:
    """The file of a retired target; none when both its user and the file are gone.

    A file without its user is still served: sshd may read it for other users, and the user may come
    back.
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
    """Why the file of a user who is gone cannot be read; None if it can, as a file of root can."""
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
