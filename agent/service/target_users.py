"""Which users are targets in this cycle, and which other key files hold managed lines."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from agent.adapters.files.key_file import KeyFile
from agent.adapters.files.os_errors import failed
from agent.adapters.sshd_config import Sshd
from agent.adapters.users import SERVICE_ACCOUNT
from agent.config import Config, Target
from agent.core.key_search import mentions_tag_or_key
from agent.core.ledger import Ledger, SkippedFile
from agent.core.results import Origin
from agent.errors import TargetFailed
from agent.service.locate import KeyFileLocation, locate


@dataclass(frozen=True, slots=True)
class FoundTarget:
    """A target of this cycle and why it is one."""

    target: Target
    origin: Origin


class Skipped(NamedTuple):
    """A key file of a user who is no target, and why it could not be searched."""

    location: KeyFileLocation
    error: TargetFailed

    @property
    def file(self) -> SkippedFile:
        """What is remembered of it."""
        return SkippedFile(self.location.user, self.location.path, self.error.kind)


class FoundTargets(NamedTuple):
    """The targets of a cycle, and the key files of other users that `auto` could not search."""

    targets: list[FoundTarget]
    skipped: list[Skipped]


class Search(NamedTuple):
    """The key files that hold a managed line or a known key, and those not searched."""

    found: list[KeyFileLocation]
    skipped: list[Skipped]


def find_targets(config: Config, ledger: Ledger, sshd: Sshd) -> FoundTargets:
    """The targets of this cycle, without the retired ones. Raises TargetFailed.

    With `auto`: root, and every user whose key file holds a managed line or a key that the account
    once listed, since the platform copies root's lines to other users. A file that sshd reads for
    every user makes nobody a target: it is served as root's. Without root privileges, only the user
    who runs keysync.
    """
    if config.targets is not None:
        configured = [FoundTarget(target, Origin.CONFIGURED) for target in config.targets]
        return FoundTargets(configured, [])
    users, skipped = _auto_users(ledger, sshd)
    return FoundTargets([FoundTarget(Target(user), Origin.AUTO) for user in users], skipped)


def find_untargeted_files(config: Config, ledger: Ledger, sshd: Sshd) -> Search:
    """The key files of users who are no targets that hold a managed line or a known key.

    No cycle serves them if targets are listed; with `auto` there are none. Only root can search.
    """
    if config.targets is None or os.geteuid() != 0:
        return Search([], [])
    watched = {target.user for target in config.targets} | {one.user for one in ledger.retired}
    return _search(watched, ledger, sshd)


def _auto_users(ledger: Ledger, sshd: Sshd) -> tuple[list[str], list[Skipped]]:
    """The users who are targets with `auto`, and the files that could not be searched.

    A target whose file cannot be searched stays one, so that the failure is reported. The file of
    another user is skipped: it must not make the cycle fail. A file that sshd also reads for root
    makes no user a target, since it is served as root's.
    """
    me = _own_account()
    if me.pw_uid != 0 and me.pw_name != SERVICE_ACCOUNT:
        return [me.pw_name], []
    found, skipped = _search({"root"}, ledger, sshd, _paths_of("root", sshd))
    served = {outcome.user for outcome in ledger.targets if outcome.origin == Origin.AUTO}
    failing = {one.location.user for one in skipped} & served
    holding = {location.user for location in found} | failing
    users = ["root", *(name for name in _users() if name in holding)]
    return users, [one for one in skipped if one.location.user not in users]


def unserved(skipped: Iterable[Skipped], served: Container[str]) -> list[Skipped]:
    """The skipped files that are not served after all, each path once: users can share a file."""
    by_path = {one.location.path: one for one in skipped if one.location.path not in served}
    return list(by_path.values())


def _own_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise TargetFailed(
            "unknown_user",
            f"keysync runs as user id {os.geteuid()}, which has no account on this machine.",
            "List the targets in the configuration, or run keysync as root.",
        ) from None


def _users() -> list[str]:
    return list(dict.fromkeys(user.pw_name for user in pwd.getpwall()))


def _paths_of(user: str, sshd: Sshd) -> frozenset[str]:
    with contextlib.suppress(TargetFailed):
        return frozenset(location.path for location in locate(Target(user), sshd))
    return frozenset()


def _search(
    without: Container[str], ledger: Ledger, sshd: Sshd, without_paths: Container[str] = ()
) -> Search:
    """Searches the key files of all users except these, without the files at these paths."""
    search = Search([], [])
    for name in _users():
        if name not in without:
            with contextlib.suppress(TargetFailed):
                for location in locate(Target(name), sshd):
                    if location.path not in without_paths:
                        _search_file(location, ledger, search)
    return search


def _search_file(location: KeyFileLocation, ledger: Ledger, search: Search) -> None:
    try:
        if mentions(location, ledger):
            search.found.append(location)
    except TargetFailed as error:
        search.skipped.append(Skipped(location, error))


def mentions(location: KeyFileLocation, ledger: Ledger) -> bool:
    """Whether the file holds a managed line or a key that the ledger knows.

    Raises TargetFailed for a file that exists and cannot be read.
    """
    try:
        os.lstat(location.path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise failed(error, "read", location.path) from error
    with KeyFile.opened(location.path, location.owner, for_writing=False) as file:
        return mentions_tag_or_key(file.read().data, ledger.keys)
