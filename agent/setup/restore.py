"""Restores key files to their original bytes: who can log in then, and the steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.adapters.files.atomic import Owner
from agent.adapters.files.key_file import KeyFile
from agent.adapters.originals import Original
from agent.adapters.sshd_config import Sshd
from agent.adapters.users import find_user
from agent.config import Config, Target
from agent.core.authorized_keys import AuthorizedKeys, Line, LineKind, shown_comment
from agent.core.ledger import Ledger
from agent.core.public_key import Accepts, PublicKey
from agent.errors import TargetFailed
from agent.service.locate import accepted_types, locate
from agent.setup.steps import Step

Keep = Callable[[str, bytes], None]  # saves the bytes of a file that is about to be replaced


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key line that is removed or added; `note` says whose it is, for people."""

    fingerprint: str
    comment: str
    note: str

    @classmethod
    def of(cls, line: Line, key: PublicKey, note: str) -> KeyChange:
        """What may be shown of the line."""
        return cls(key.fingerprint, shown_comment(line), note)


@dataclass(frozen=True, slots=True)
class Restoration:
    """What one file loses and regains; `other_lines` counts the lost lines without a key."""

    original: Original
    removed: tuple[KeyChange, ...]
    returned: tuple[KeyChange, ...]
    other_lines: int


@dataclass(frozen=True, slots=True)
class Consequences:
    """The effect of restoring every file; `locked_out` are the users who lose the last way in."""

    files: tuple[Restoration, ...]
    locked_out: tuple[str, ...]


def consequences_of(originals: list[Original], ledger: Ledger, config: Config) -> Consequences:
    """Compares each original with the file as it is now. Raises TargetFailed."""
    sshd = Sshd()
    accepts = accepted_types(config, sshd)
    before = {original.path: _read(original.user, original.path) for original in originals}
    after = {o.path: AuthorizedKeys.parse(o.data or b"") for o in originals}
    files = tuple(_compare(o, before[o.path], after[o.path], ledger) for o in originals)
    locked_out = []
    for user in dict.fromkeys(original.user for original in originals):
        paths = _paths(user, originals, config, sshd)
        others = {path: _read(user, path) for path in paths if path not in before}
        has_way_in = _has_way_in(paths, {**before, **others}, accepts)
        if has_way_in and not _has_way_in(paths, {**after, **others}, accepts):
            locked_out.append(user)
    return Consequences(files, tuple(locked_out))


def _has_way_in(
    paths: Iterable[str], documents: Mapping[str, AuthorizedKeys], accepts: Accepts
) -> bool:
    lines = (line for path in paths for line in documents[path].lines)
    return any(line.opens_session_for(accepts) for line in lines)


def _paths(user: str, originals: list[Original], config: Config, sshd: Sshd) -> set[str]:
    """Every file with which `user` may log in: restored ones, sshd's own, configured ones."""
    paths = {original.path for original in originals if original.user == user}
    own = [target for target in config.targets or () if target.user == user]
    for target in (Target(user), *own):
        with contextlib.suppress(TargetFailed):
            paths |= {location.path for location in locate(target, sshd)}
    return paths


def _read(user: str, path: str) -> AuthorizedKeys:
    with KeyFile.opened(path, _owner(user), for_writing=False) as file:
        return AuthorizedKeys.parse(file.read().data)


def _owner(name: str) -> Owner:
    user = find_user(name)
    if user is None:
        raise TargetFailed(
            "unknown_user",
            f"There is no user {name!r} on this machine any more, whose key file was changed.",
            "Print the file's original with `keysync original PATH`, and uninstall without "
            "--restore-original.",
        )
    return Owner(user.pw_uid, user.pw_gid, user.pw_dir or "/")


def _compare(
    original: Original, before: AuthorizedKeys, after: AuthorizedKeys, ledger: Ledger
) -> Restoration:
    stays = {_identity(line) for line in after.lines}
    was = {_identity(line) for line in before.lines}
    lost = [line for line in before.lines if _identity(line) not in stays]
    removed = [KeyChange.of(line, line.key, _why_there(line)) for line in lost if line.key]
    returned = [
        KeyChange.of(line, line.key, _why_back(line.key, ledger))
        for line in after.lines
        if line.key and _identity(line) not in was
    ]
    texts = {*_texts(after)}
    others = sum(text not in texts for text in _texts(before))
    return Restoration(original, tuple(removed), tuple(returned), others)


def _identity(line: Line) -> bytes:
    """Lines with the same key and no options are equal, whatever their tag and comment."""
    if line.key is None or line.kind is LineKind.RESTRICTED:
        return line.raw.strip()
    return line.key.blob


def _texts(document: AuthorizedKeys) -> Iterator[bytes]:
    """The lines that hold no key and are not blank."""
    for line in document.lines:
        if line.key is None:
            yield from (text for raw in line.raw.split(b"\n") if (text := raw.strip()))


def _why_there(line: Line) -> str:
    if line.kind is LineKind.MANAGED:
        return "keysync's line"
    return "not keysync's line, added since"


def _why_back(key: PublicKey, ledger: Ledger) -> str:
    known = ledger.keys.get(key.fingerprint)
    if known is None:
        return "not on the console's list"
    return "on the console's list" if known.revoked_at is None else "DELETED on the console"


def restore(original: Original, keep: Keep) -> Step:
    """Restores the original bytes of a file, or removes it if there was none."""
    path, data, do = original.path, original.data, _Restorer(original, keep).restore
    if data is None:
        return Step(f"remove {path}, which did not exist before ({original.saved_at})", do)
    return Step(f"restore {path} to its {len(data)} bytes of {original.saved_at}", do)


class _Restorer:
    """Restores one file, and keeps each other content of it once before it is replaced."""

    def __init__(self, original: Original, keep: Keep) -> None:
        self._original = original
        self._keep = keep
        self._kept = {b"", original.data}

    def restore(self) -> None:
        """Raises TargetFailed."""
        owner = _owner(self._original.user)
        with KeyFile.opened(self._original.path, owner, for_writing=True) as file:
            if self._original.data is None:
                file.remove(lambda replaced: self._keep_once(replaced.data))
            else:
                file.update(self._transform)

    def _transform(self, found: bytes) -> bytes:
        self._keep_once(found)  # also called with what somebody writes at the last moment
        return self._original.data or b""

    def _keep_once(self, found: bytes) -> None:
        if found not in self._kept:
            self._keep(self._original.path, found)
            self._kept.add(found)
