"""Key files of root's outside the homes, with a real sshd and real logins of two users (G9)."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from sandbox.instance import Instance, KeyPair
from sandbox.users import temporary_user
from tests.e2e.support import World, make_world

_ROOT = "needs root: it makes two users, and key files of root's for them"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason=_ROOT)


@pytest.fixture(scope="module")
def users() -> Iterator[tuple[str, str]]:
    with temporary_user() as one, temporary_user() as other:
        yield one, other


@pytest.fixture
def keys() -> Iterator[Path]:
    """As /etc/ssh/keys: on a path that StrictModes accepts, outside of every home."""
    with tempfile.TemporaryDirectory(prefix="keysync-test-", dir="/etc") as made:
        folder = Path(made) / "keys"
        folder.parent.chmod(0o755)
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def console() -> Iterator[Console]:
    with Console() as running:
        yield running


@contextlib.contextmanager
def instances(users: tuple[str, str], paths: tuple[Path, Path]) -> Iterator[list[Instance]]:
    """For each user an sshd that reads this file."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Instance(user, str(path)))
            for user, path in zip(users, paths, strict=True)
        ]


def serving(
    instance: Instance, console: Console, folder: Path, *targets: tuple[str, Path]
) -> World:
    entries = ", ".join(f"{{user: {user}, path: {path}}}" for user, path in targets)
    return make_world(instance, console, folder, targets=f"[{entries}]")


def look(path: Path) -> tuple[int, int, int]:
    """User id, group id and mode."""
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def all_get_in(key: KeyPair, instances: list[Instance]) -> bool:
    return all(instance.can_log_in(key.private_path) for instance in instances)


@pytest.mark.parametrize("target", ["root", "one of them"])
def test_one_file_for_all_users_stays_open_to_all(
    users: tuple[str, str], keys: Path, console: Console, tmp_path: Path, target: str
) -> None:
    """G9, incident 6: whoever the target is, the file stays root's, and everybody gets in by the
    keys of before and of now; a deleted key (R2) is out for everybody.
    """
    path = keys / "all"
    user = users[0] if target == "one of them" else target
    with instances(users, (path, path)) as running:
        before, listed, deleted = (running[0].keygen(name) for name in ("before", "new", "deleted"))
        path.write_text(f"{before.public_line}\n")
        path.chmod(0o644)
        world = serving(running[0], console, tmp_path, (user, path))
        console.add_key(listed.public_line)
        key_id = console.add_key(deleted.public_line)
        world.sync()
        assert look(path) == (0, 0, 0o644)
        assert all(all_get_in(key, running) for key in (before, listed, deleted))
        console.delete_key(key_id)
        world.sync()
        assert look(path) == (0, 0, 0o644)
        assert all(all_get_in(key, running) for key in (before, listed))
        assert not any(one.can_log_in(deleted.private_path) for one in running)


@pytest.mark.parametrize("there", ["files", "folder", "nothing"])
def test_a_file_for_each_user_in_roots_folder(
    users: tuple[str, str], keys: Path, console: Console, tmp_path: Path, there: str
) -> None:
    """G9, incident 6: AuthorizedKeysFile /etc/ssh/keys/%u: nobody is given a file or the
    folder, and everybody gets in, whatever was there before.
    """
    paths = keys / users[0], keys / users[1]
    if there == "nothing":
        keys.rmdir()
    with instances(users, paths) as running:
        listed = running[0].keygen("listed")
        for path in paths if there == "files" else ():
            path.write_text("# root's\n")
            path.chmod(0o644)
        console.add_key(listed.public_line)
        serving(running[0], console, tmp_path, *zip(users, paths, strict=True)).sync()
        assert all_get_in(listed, running)
    assert [look(path) for path in paths] == [(0, 0, 0o644)] * 2
    assert look(keys) == (0, 0, 0o755)


def test_a_file_of_the_users_in_roots_folder_stays_theirs(
    users: tuple[str, str], keys: Path, console: Console, tmp_path: Path
) -> None:
    """G9: and it is closed to others, since it is theirs alone."""
    paths = keys / users[0], keys / users[1]
    with instances(users, paths) as running:
        listed = running[0].keygen("listed")
        for instance in running:
            instance.authorize()
        console.add_key(listed.public_line)
        serving(running[0], console, tmp_path, *zip(users, paths, strict=True)).sync()
        assert all_get_in(listed, running)
    for user, path in zip(users, paths, strict=True):
        account = pwd.getpwnam(user)
        assert look(path) == (account.pw_uid, account.pw_gid, 0o600)
