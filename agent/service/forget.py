"""`keysync forget` releases a retired target (R5): its lines lose the tag and stay for good."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from agent.adapters.clock import present
from agent.adapters.files.key_file import KeyFile
from agent.adapters.sshd_config import Sshd
from agent.adapters.state import StateDirectory
from agent.config import Config
from agent.core.authorized_keys import AuthorizedKeys, LineKind, without_tags
from agent.core.ledger import Ledger, Retired
from agent.errors import RequestInvalid, TargetFailed
from agent.service.locate import KeyFileLocation
from agent.service.served_files import ServedFiles, find_served_files, retired_file

_LOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Released:
    """One released file, and how many of its lines lost the tag."""

    user: str
    path: str
    lines: int


def forget(config: Config, name: str, *, dry_run: bool) -> list[Released]:
    """Releases the retired files of the user `name`, or the one at that path. Their keys stay.

    Raises RequestInvalid for a target that is still served or not known, TargetFailed and Busy.
    """
    state = StateDirectory(config.state_dir)
    if dry_run:
        return [_release(one, dry_run=True) for one in _chosen(config, _load(state), name)]
    with state.locked(_LOCK_SECONDS):
        ledger = _load(state)
        chosen = _chosen(config, ledger, name)
        released = [_release(one, dry_run=False) for one in chosen]
        state.save(_without(ledger, chosen))  # last, so that a failure before it can be repeated
    return released


def _load(state: StateDirectory) -> Ledger:
    """Raises TargetFailed for an unreadable state, which does not name the retired targets."""
    ledger, problem = state.load()
    if problem:
        raise TargetFailed(
            "state_unreadable",
            f"The state in {state.path} could not be read, so the retired targets are not known: "
            f"{problem}",
            "The next keysync sync starts a new state, which knows the current targets only. To "
            "release another file, remove the word keysync:managed from its lines by hand.",
        )
    return ledger


def _chosen(config: Config, ledger: Ledger, name: str) -> list[Retired]:
    """The retired targets of that name, including those that the next sync would retire."""
    files = find_served_files(config, ledger, Sshd(), present().at)
    found = [one for one in files.retired if _matches(name, one.user, one.path)]
    if found:
        return found
    if _is_still_a_target(name, files, ledger):
        raise RequestInvalid(
            "still_a_target",
            f"{name} is still a target, so it cannot be released.",
            "Remove it from targets in the configuration first.",
        )
    known = ", ".join(f"{one.path} ({one.user})" for one in files.retired) or "none"
    raise RequestInvalid(
        "not_retired",
        f"{name} was never a target, or was released before.",
        f"Files that can be released: {known}",
    )


def _is_still_a_target(name: str, files: ServedFiles, ledger: Ledger) -> bool:
    """Whether `name` is a served target; of a user who cannot be found, earlier files count."""
    lost = {one.location.user for one in files.of_targets if one.error}
    served = [(one.location.user, one.location.path) for one in files.of_targets]
    served += [(one.user, one.path) for one in ledger.targets if one.user in lost]
    return any(_matches(name, *file) for file in served)


def _matches(name: str, user: str, path: str) -> bool:
    return os.path.normpath(name) == path if "/" in name else name == user


def _release(retired: Retired, *, dry_run: bool) -> Released:
    """Removes the tags, except from a file that cannot be read because its user is gone."""
    found = retired_file(retired.user, retired.path)
    lines = sum(remove_tags(one.location, dry_run=dry_run) for one in found if not one.error)
    return Released(retired.user, retired.path, lines)


def remove_tags(location: KeyFileLocation, *, dry_run: bool) -> int:
    """Removes the tag from all lines. Returns how many have it before. Raises TargetFailed."""
    with KeyFile.opened(location.path, location.owner, for_writing=not dry_run) as file:
        lines = AuthorizedKeys.parse(file.read().data).lines
        tagged = sum(line.kind is LineKind.MANAGED for line in lines)
        if tagged and not dry_run:
            file.update(lambda data: without_tags(AuthorizedKeys.parse(data)).render())
    return tagged


def _without(ledger: Ledger, released: Iterable[Retired]) -> Ledger:
    gone = {(one.user, one.path) for one in released}
    return replace(
        ledger,
        retired=tuple(one for one in ledger.retired if (one.user, one.path) not in gone),
        targets=tuple(one for one in ledger.targets if (one.user, one.path) not in gone),
    )
