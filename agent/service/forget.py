"""Releasing a retired target (R5): its lines lose the tag, and nothing watches it any more."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from agent.adapters.clock import present
from agent.adapters.key_file import KeyFile, Snapshot
from agent.adapters.sshd_config import Sshd
from agent.adapters.state import StateDirectory
from agent.config import Config, Target
from agent.core.authorized_keys import AuthorizedKeys, LineKind, without_tags
from agent.core.ledger import Ledger, Retired
from agent.errors import RequestInvalid, TargetFailed
from agent.service.accounts import Origin, find_targets
from agent.service.targets import Place, locate

_LOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Released:
    """One file that was released, and how many lines lost their tag."""

    user: str
    path: str
    lines: int


def forget(config: Config, name: str, *, dry_run: bool) -> list[Released]:
    """Releases the retired files of the user `name`, or the one at that path. The keys stay.

    Raises RequestInvalid for a target that is still served and for one that is not known,
    TargetFailed, and Busy.
    """
    state = StateDirectory(config.state_dir)
    if dry_run:
        ledger, _ = state.load()
        return [_release(state, one, dry_run=True) for one in _chosen(config, ledger, name)]
    with state.locked(_LOCK_SECONDS):
        ledger, _ = state.load()
        chosen = _chosen(config, ledger, name)
        released = [_release(state, one, dry_run=False) for one in chosen]
        state.save(_without(ledger, chosen))  # last: until then it can be done again
    return released


def _chosen(config: Config, ledger: Ledger, name: str) -> list[Retired]:
    served = _served(config, ledger)
    retired = _retired(config, ledger, served)
    found = [one for one in retired if _matches(name, one.user, one.path)]
    if found:
        return found
    if any(_matches(name, user, path) for user, path in served):
        raise RequestInvalid(
            "still_a_target",
            f"{name} is still a target, so it is not released.",
            "Take it out of targets in the configuration first.",
        )
    known = ", ".join(f"{one.path} ({one.user})" for one in retired) or "none"
    raise RequestInvalid(
        "not_retired",
        f"{name} was never a target, or was released before.",
        f"Files that can be released: {known}",
    )


def _served(config: Config, ledger: Ledger) -> set[tuple[str, str]]:
    sshd = Sshd()
    served = set()
    for one in find_targets(config, ledger, sshd).targets:
        try:
            served |= {(place.user, place.path) for place in locate(one.target, sshd)}
        except TargetFailed:
            served.add((one.target.user, one.target.path or ""))
    return served


def _retired(config: Config, ledger: Ledger, served: set[tuple[str, str]]) -> list[Retired]:
    """Those of the state, and those that the next sync would retire."""
    found = {(one.user, one.path): one for one in ledger.retired}
    for outcome in ledger.targets:
        dropped = config.targets is None and outcome.origin == Origin.AUTO.value
        if outcome.path and not dropped:
            place = (outcome.user, outcome.path)
            found.setdefault(place, Retired(*place, outcome.at))
    return [one for place, one in found.items() if place not in served]


def _matches(name: str, user: str, path: str) -> bool:
    return os.path.normpath(name) == path if "/" in name else name == user


def _release(state: StateDirectory, retired: Retired, *, dry_run: bool) -> Released:
    try:
        [place] = locate(Target(retired.user, retired.path), Sshd())
    except TargetFailed:  # the user is gone, and with the user all logins by this file
        return Released(retired.user, retired.path, 0)
    with KeyFile.opened(place.path, place.owner, for_writing=not dry_run) as file:
        lines = AuthorizedKeys.parse(file.read().data).lines
        tagged = sum(line.kind is LineKind.MANAGED for line in lines)
        if tagged and not dry_run:
            _untag(state, place, file)
    return Released(retired.user, retired.path, tagged)


def _untag(state: StateDirectory, place: Place, file: KeyFile) -> None:
    def journal(replaced: Snapshot) -> None:
        if replaced.unmerged:
            state.journal("forget", place.path, replaced.unmerged, present().at)

    file.update(lambda data: without_tags(AuthorizedKeys.parse(data)).render(), journal)


def _without(ledger: Ledger, released: Iterable[Retired]) -> Ledger:
    gone = {(one.user, one.path) for one in released}
    return replace(
        ledger,
        retired=tuple(one for one in ledger.retired if (one.user, one.path) not in gone),
        targets=tuple(one for one in ledger.targets if (one.user, one.path) not in gone),
    )
