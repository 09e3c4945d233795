"""Which accounts are targets in this cycle, and which files are watched although they are none."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from agent.adapters.key_file import KeyFile
from agent.adapters.sshd_config import Sshd
from agent.adapters.users import SERVICE_ACCOUNT
from agent.config import Config, Target
from agent.core.authorized_keys import holds_managed_or_known
from agent.core.ledger import Ledger, Retired
from agent.errors import TargetFailed
from agent.service.targets import Place, locate


class Origin(Enum):
    """Why a file is served."""

    CONFIGURED = "configured"
    AUTO = "auto"  # found by targets: auto
    RETIRED = "retired"  # a target once; revocations still reach it (R5)


@dataclass(frozen=True, slots=True)
class FoundTarget:
    """A target of this cycle, and why it is one."""

    target: Target
    origin: Origin


def find_targets(config: Config, ledger: Ledger, sshd: Sshd) -> list[FoundTarget]:
    """The targets of this cycle, without the retired ones.

    With `auto`: root, and every account whose key file holds a managed line or a key that the
    account once listed; the platform copies root's lines to other users. For an ordinary user it
    is that user alone.
    """
    if config.targets is not None:
        return [FoundTarget(target, Origin.CONFIGURED) for target in config.targets]
    return [FoundTarget(Target(user), Origin.AUTO) for user in _auto_users(ledger, sshd)]


def forgotten_accounts(config: Config, ledger: Ledger, sshd: Sshd) -> list[Place]:
    """Key files of accounts that are no target and hold a line of keysync's or a key that it knows.

    With a list of targets nobody looks at them; with `auto` there are none. Only root can look.
    """
    if config.targets is None or os.geteuid() != 0:
        return []
    watched = {target.user for target in config.targets} | {one.user for one in ledger.retired}
    found = []
    for name in dict.fromkeys(user.pw_name for user in pwd.getpwall()):
        if name in watched:
            continue
        with contextlib.suppress(TargetFailed):
            places = locate(Target(name), sshd)
            found += [place for place in places if _mentions(place, ledger, unreadable=False)]
    return found


def _auto_users(ledger: Ledger, sshd: Sshd) -> Iterator[str]:
    me = _own_account()
    if me.pw_uid != 0 and me.pw_name != SERVICE_ACCOUNT:
        yield me.pw_name
        return
    yield "root"
    served = {outcome.user for outcome in ledger.targets if outcome.origin == Origin.AUTO.value}
    for name in dict.fromkeys(user.pw_name for user in pwd.getpwall()):
        if name != "root" and _holds_ours(name, ledger, sshd, unreadable=name in served):
            yield name


def _own_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise TargetFailed(
            "unknown_user",
            f"keysync runs as user id {os.geteuid()}, which has no account on this machine.",
            "Name the targets in the configuration, or run keysync as root.",
        ) from None


def _holds_ours(user: str, ledger: Ledger, sshd: Sshd, *, unreadable: bool) -> bool:
    """Whether one of the user's files holds a line of keysync's or a key that it knows.

    `unreadable` is the answer for a file that cannot be read: one that was a target stays one, so
    that the failure is reported.
    """
    try:
        places = locate(Target(user), sshd)
    except TargetFailed:
        return False
    return any(_mentions(place, ledger, unreadable=unreadable) for place in places)


def _mentions(place: Place, ledger: Ledger, *, unreadable: bool) -> bool:
    if not os.path.lexists(place.path):
        return False
    try:
        opened = KeyFile.opened(place.path, place.owner, for_writing=False)
        with opened as file:
            return holds_managed_or_known(file.read().data, ledger.keys)
    except TargetFailed:
        return unreadable


def retired_places(retired: Retired) -> list[Place]:
    """The file of a retired target; none when its user and the file are gone."""
    with contextlib.suppress(TargetFailed):
        return locate(Target(retired.user, retired.path), Sshd())
    return (
        [Place.missing(Target(retired.user, retired.path))] if os.path.lexists(retired.path) else []
    )
